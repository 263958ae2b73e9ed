//! What the process keeps of the memory of streams that are gone.
#![allow(unsafe_code)] // the allocator has no safe setting

/// A block that is at least so long comes from the system by itself, and goes back to it: glibc's own figure at the start.
#[cfg(target_env = "gnu")]
const LARGE: libc::c_int = 128 << 10;

/// Has the allocator keep to that. Left to itself it raises the figure to the largest block that was ever freed.
///
/// libpipewire asks for a block of 8 MiB for each stream, and touches little of it. From the heap it would come cleared by hand,
/// so that all of it is resident, and most of it would stay so when the stream is gone.
pub(super) fn return_large_blocks() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes plain numbers and touches nothing but the allocator's own settings, under its lock.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
    }
}
