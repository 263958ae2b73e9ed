//! Which thread asked for memory, and how often.
#![allow(unsafe_code)] // an allocator is unsafe by its trait

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::thread::{Pid, gettid};

/// The system's allocator, with a count for each thread.
pub struct Counting;

const SLOTS: usize = 1 << 16;
static COUNTS: [AtomicU64; SLOTS] = [const { AtomicU64::new(0) }; SLOTS];

thread_local! {
    /// This thread's slot; the call for it is made once.
    static SLOT: Cell<usize> = const { Cell::new(usize::MAX) };
}

fn slot(thread: Pid) -> usize {
    usize::try_from(thread.as_raw_nonzero().get()).unwrap_or(0) % SLOTS
}

fn count() {
    // Fails while the thread ends, where nobody counts.
    let slot = SLOT.try_with(|own| {
        if own.get() == usize::MAX {
            own.set(slot(gettid()));
        }
        own.get()
    });
    if let Ok(slot) = slot {
        COUNTS[slot].fetch_add(1, Ordering::Relaxed);
    }
}

/// How often a thread asked for memory.
pub fn of_thread(thread: Pid) -> u64 {
    COUNTS[slot(thread)].load(Ordering::Relaxed)
}

// SAFETY: hands everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as promised by the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as promised by the caller.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as promised by the caller.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as promised by the caller.
        unsafe { System.realloc(memory, layout, size) }
    }
}
