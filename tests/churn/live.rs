//! How much memory the process has asked for and not given back: the program itself to the octet, C libraries by the page.
#![allow(unsafe_code)] // an allocator is that by its nature

use std::alloc::{GlobalAlloc, Layout, System};
use std::ffi::c_int;
use std::sync::atomic::{AtomicUsize, Ordering};

static LIVE: AtomicUsize = AtomicUsize::new(0);

/// Octets allocated and not freed.
pub fn live() -> usize {
    LIVE.load(Ordering::Relaxed)
}

unsafe extern "C" {
    /// Gives back to the system what the C library keeps of memory that was freed, in the arenas of all threads.
    safe fn malloc_trim(pad: usize) -> c_int;
}

/// Octets of the process that are in memory, those that were freed left out.
pub fn resident() -> u64 {
    malloc_trim(0);
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    let resident: u64 = pages.split(' ').nth(1).unwrap().parse().unwrap();
    resident * 4096
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
