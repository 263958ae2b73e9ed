//! How much memory the process has asked for and not given back, to the octet: the program itself, and C libraries with it.
#![allow(unsafe_code)] // an allocator is that by its nature

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

static LIVE: AtomicUsize = AtomicUsize::new(0);

/// Octets that the program allocated and did not free.
pub fn live() -> usize {
    LIVE.load(Ordering::Relaxed)
}

/// Octets in use in all arenas of the C library's allocator, from which the program has its own, too. What is resident says
/// less: where one piece in a page is in use the whole page stays.
pub fn in_use() -> usize {
    // SAFETY: takes nothing and returns a plain structure; the arenas are locked meanwhile.
    let info = unsafe { libc::mallinfo2() };
    info.uordblks + info.hblkhd
}

/// The system's allocator, counted.
pub struct Counted;

// SAFETY: every call goes to the system's allocator as it came; the count touches nothing of it.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise is the one that is asked for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, address: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(address, layout) }
    }
}
