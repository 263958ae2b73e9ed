//! Memory that another party writes at the same time: grants of a guest, or pages of the simulator.
//!
//! Nothing outside ever holds a reference into it. Accessors copy, octet by octet as the memory stood at that moment,
//! so that what was checked is what is used.
#![allow(unsafe_code)] // the one place that maps and touches shared memory

use std::any::Any;
use std::io;
use std::ops::Deref;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};

/// The size of a page that guests grant, in octets; sndif knows no other.
const PAGE: usize = 4096;

/// What a mapping may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reads only; a write is refused as out of range.
    ReadOnly,
    /// Reads and writes.
    ReadWrite,
}

impl Access {
    fn protection(self) -> ProtFlags {
        match self {
            Self::ReadOnly => ProtFlags::READ,
            Self::ReadWrite => ProtFlags::READ | ProtFlags::WRITE,
        }
    }
}

/// An access beyond the mapping, unaligned where alignment is needed, or a write to a read-only one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("access outside the shared pages")]
pub struct OutOfRange;

/// Contiguous shared memory; unmapped when dropped, before its owner is.
pub struct Pages {
    area: Arc<Area>,
    access: Access,
    /// What must outlive the mapping: for a grant, the handle whose drop gives it back.
    _owner: Option<Box<dyn Any + Send + Sync>>,
}

/// A range of addresses that was mapped here; unmapped when dropped.
struct Area {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: the memory is only reached through volatile or atomic accesses, which any thread may make.
unsafe impl Send for Area {}
// SAFETY: as above; the only references into the memory are to atomics.
unsafe impl Sync for Area {}

impl Pages {
    /// Fresh zeroed memory of `len` octets.
    ///
    /// # Errors
    /// What mmap says.
    pub fn anonymous(len: usize) -> io::Result<Self> {
        let protection = Access::ReadWrite.protection();
        // SAFETY: a new mapping at an address that the kernel chooses touches no memory in use.
        let base = unsafe { mmap_anonymous(std::ptr::null_mut(), len, protection, MapFlags::SHARED) }?;
        Self::adopt(base, len, Access::ReadWrite, None)
    }

    /// `len` octets of a device or file from `offset`, kept together with `owner`, which is dropped after the unmapping.
    ///
    /// # Errors
    /// What mmap says.
    pub fn of_device(
        fd: BorrowedFd<'_>,
        offset: u64,
        len: usize,
        access: Access,
        owner: Option<Box<dyn Any + Send + Sync>>,
    ) -> io::Result<Self> {
        let null = std::ptr::null_mut();
        // SAFETY: a new mapping at an address that the kernel chooses touches no memory in use.
        let base = unsafe { mmap(null, len, access.protection(), MapFlags::SHARED, fd, offset) }?;
        Self::adopt(base, len, access, owner)
    }

    /// Scattered pages of a file, page `i` from octet `offsets[i]`, as one contiguous range: what the grant device does
    /// with a list of grants.
    ///
    /// # Errors
    /// What mmap says; nothing stays mapped then.
    pub fn scattered(fd: BorrowedFd<'_>, offsets: &[u64], access: Access) -> io::Result<Self> {
        let len = offsets.len() * PAGE;
        let null = std::ptr::null_mut();
        // SAFETY: reserves addresses that the kernel chooses; touches no memory in use.
        let base = unsafe { mmap_anonymous(null, len, ProtFlags::empty(), MapFlags::PRIVATE) }?;
        let pages = Self::adopt(base, len, access, None)?;
        for (index, &offset) in offsets.iter().enumerate() {
            let at = base.wrapping_byte_add(index * PAGE);
            let flags = MapFlags::SHARED | MapFlags::FIXED;
            // SAFETY: replaces one page of the range reserved above, which nothing else uses yet.
            unsafe { mmap(at, PAGE, access.protection(), flags, fd, offset) }?;
        }
        Ok(pages)
    }

    fn adopt(
        base: *mut std::ffi::c_void,
        len: usize,
        access: Access,
        owner: Option<Box<dyn Any + Send + Sync>>,
    ) -> io::Result<Self> {
        let base = NonNull::new(base.cast::<u8>()).ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Self { area: Arc::new(Area { base, len }), access, _owner: owner })
    }

    /// A second handle on the same mapping, which stays until the last handle is dropped. An owner goes with the handle that
    /// it was given to.
    #[must_use]
    pub fn share(&self) -> Self {
        Self { area: Arc::clone(&self.area), access: self.access, _owner: None }
    }

    /// Takes the memory away from all who hold the mapping, as the end of their process would: from now on they read and
    /// write private memory that begins as zeros.
    ///
    /// # Errors
    /// What mmap says; the mapping is as it was then.
    pub fn cut(&self) -> io::Result<()> {
        let Area { base, len } = *self.area;
        let protection = Access::ReadWrite.protection();
        let flags = MapFlags::PRIVATE | MapFlags::FIXED;
        // SAFETY: replaces exactly the range that the area owns; whoever reaches it does so by volatile or atomic accesses,
        // which find the old memory or the new.
        unsafe { mmap_anonymous(base.as_ptr().cast(), len, protection, flags) }?;
        Ok(())
    }

    /// Keeps `owner`, too, together with the mapping; it is dropped after the unmapping.
    #[must_use]
    pub fn with_owner(mut self, owner: Box<dyn Any + Send + Sync>) -> Self {
        self._owner = Some(match self._owner.take() {
            Some(first) => Box::new((first, owner)),
            None => owner,
        });
        self
    }

    /// Octets mapped.
    pub fn len(&self) -> usize {
        self.area.len
    }

    /// Whether nothing is mapped.
    pub fn is_empty(&self) -> bool {
        self.area.len == 0
    }

    /// The address of `len` octets from `offset` if all of them lie inside.
    fn range(&self, offset: usize, len: usize) -> Result<*mut u8, OutOfRange> {
        let end = offset.checked_add(len).ok_or(OutOfRange)?;
        if end > self.area.len {
            return Err(OutOfRange);
        }
        Ok(self.area.base.as_ptr().wrapping_add(offset))
    }

    fn writable(&self, offset: usize, len: usize) -> Result<*mut u8, OutOfRange> {
        if self.access == Access::ReadOnly { Err(OutOfRange) } else { self.range(offset, len) }
    }

    /// Copies `out.len()` octets from `offset`. Safe in a sound callback.
    ///
    /// # Errors
    /// [`OutOfRange`]; nothing is copied then.
    pub fn read(&self, offset: usize, out: &mut [u8]) -> Result<(), OutOfRange> {
        let from = self.range(offset, out.len())?;
        let head = from.align_offset(8).min(out.len());
        let (head_out, rest) = out.split_at_mut(head);
        for (index, octet) in head_out.iter_mut().enumerate() {
            // SAFETY: `from + index` lies inside the mapping (checked by `range`); octets need no alignment.
            *octet = unsafe { from.wrapping_add(index).read_volatile() };
        }
        let mut at = from.wrapping_add(head);
        let mut words = rest.chunks_exact_mut(8);
        for word in &mut words {
            // SAFETY: eight octets from `at` lie inside the mapping, and `at` is aligned to eight.
            let value = unsafe { at.cast::<u64>().read_volatile() };
            word.copy_from_slice(&value.to_ne_bytes());
            at = at.wrapping_add(8);
        }
        for octet in words.into_remainder() {
            // SAFETY: the last octets of the range checked above.
            *octet = unsafe { at.read_volatile() };
            at = at.wrapping_add(1);
        }
        Ok(())
    }

    /// Copies `from` to `offset`. Safe in a sound callback.
    ///
    /// # Errors
    /// [`OutOfRange`], also for a read-only mapping; nothing is copied then.
    pub fn write(&self, offset: usize, from: &[u8]) -> Result<(), OutOfRange> {
        let to = self.writable(offset, from.len())?;
        let head = to.align_offset(8).min(from.len());
        let (head_from, rest) = from.split_at(head);
        for (index, octet) in head_from.iter().enumerate() {
            // SAFETY: `to + index` lies inside the mapping (checked by `range`); octets need no alignment.
            unsafe { to.wrapping_add(index).write_volatile(*octet) };
        }
        let mut at = to.wrapping_add(head);
        let (words, tail) = rest.as_chunks::<8>();
        for word in words {
            // SAFETY: eight octets from `at` lie inside the mapping, and `at` is aligned to eight.
            unsafe { at.cast::<u64>().write_volatile(u64::from_ne_bytes(*word)) };
            at = at.wrapping_add(8);
        }
        for octet in tail {
            // SAFETY: the last octets of the range checked above.
            unsafe { at.write_volatile(*octet) };
            at = at.wrapping_add(1);
        }
        Ok(())
    }

    fn word(&self, offset: usize, access: Access) -> Result<&AtomicU32, OutOfRange> {
        let at = if access == Access::ReadWrite { self.writable(offset, 4)? } else { self.range(offset, 4)? };
        if at.align_offset(4) != 0 {
            return Err(OutOfRange);
        }
        // SAFETY: four octets inside the mapping, aligned, alive as long as `self`; only ever reached as an atomic or
        // by volatile copies, and the other party's stores are at worst torn values that callers check.
        Ok(unsafe { AtomicU32::from_ptr(at.cast::<u32>()) })
    }

    /// The 32-bit counter at `offset`, in native order; everything the other party stored before it is seen after.
    ///
    /// # Errors
    /// [`OutOfRange`], also when `offset` isn't a multiple of four.
    pub fn load(&self, offset: usize) -> Result<u32, OutOfRange> {
        Ok(self.word(offset, Access::ReadOnly)?.load(Ordering::Acquire))
    }

    /// Sets the 32-bit counter at `offset`, in native order; the other party sees it after everything stored before.
    ///
    /// # Errors
    /// [`OutOfRange`], also when `offset` isn't a multiple of four or the mapping is read-only.
    pub fn store(&self, offset: usize, value: u32) -> Result<(), OutOfRange> {
        // Sequentially consistent: ring protocols store a counter and then look at the other party's.
        self.word(offset, Access::ReadWrite)?.store(value, Ordering::SeqCst);
        std::sync::atomic::fence(Ordering::SeqCst);
        Ok(())
    }
}

/// `N` counters of 64 bits: in pages that others see, or that outlive the process, or (the default) in memory of their own.
pub struct Counters<const N: usize>(Words<N>);

enum Words<const N: usize> {
    Own([AtomicU64; N]),
    Mapped { first: NonNull<AtomicU64>, _area: Arc<Area> },
}

// SAFETY: `first` is an address in the area, which is `Send` and `Sync` and is kept with it; only atomics lie there.
unsafe impl<const N: usize> Send for Counters<N> {}
// SAFETY: as above.
unsafe impl<const N: usize> Sync for Counters<N> {}

impl<const N: usize> Counters<N> {
    /// The counters at `offset` of `pages`, as they stand there. Their mapping is kept, whatever becomes of `pages`.
    ///
    /// # Errors
    /// [`OutOfRange`], also when `offset` isn't a multiple of eight or the mapping is read-only.
    pub fn of(pages: &Pages, offset: usize) -> Result<Self, OutOfRange> {
        let first = pages.writable(offset, N * size_of::<AtomicU64>())?.cast::<AtomicU64>();
        let first = NonNull::new(first).filter(|first| first.is_aligned()).ok_or(OutOfRange)?;
        Ok(Self(Words::Mapped { first, _area: Arc::clone(&pages.area) }))
    }
}

impl<const N: usize> Default for Counters<N> {
    fn default() -> Self {
        Self(Words::Own(std::array::from_fn(|_| AtomicU64::new(0))))
    }
}

impl<const N: usize> Deref for Counters<N> {
    type Target = [AtomicU64; N];

    fn deref(&self) -> &[AtomicU64; N] {
        match &self.0 {
            Words::Own(words) => words,
            // SAFETY: `of` has checked that N aligned counters lie in the area, which lives as long as `self`; every octet
            // pattern is a valid counter.
            Words::Mapped { first, .. } => unsafe { first.cast().as_ref() },
        }
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by a constructor and nothing keeps an address of it beyond `self`.
        let unmapped = unsafe { munmap(self.base.as_ptr().cast(), self.len) };
        debug_assert!(unmapped.is_ok(), "munmap of a whole own mapping can't fail");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::fd::AsFd;

    proptest! {
        #[test]
        fn what_is_written_is_read_at_every_alignment(offset in 0usize..64, data in proptest::collection::vec(any::<u8>(), 0..100)) {
            let pages = Pages::anonymous(PAGE).unwrap();
            pages.write(offset, &data).unwrap();
            let mut back = vec![0; data.len()];
            pages.read(offset, &mut back).unwrap();
            prop_assert_eq!(&back, &data);
            let mut whole = vec![0; PAGE];
            pages.read(0, &mut whole).unwrap();
            prop_assert!(whole[..offset].iter().chain(&whole[offset + data.len()..]).all(|octet| *octet == 0));
        }
    }

    #[test]
    fn nothing_outside_is_reached() {
        let pages = Pages::anonymous(PAGE).unwrap();
        assert_eq!(pages.read(PAGE - 1, &mut [0; 2]), Err(OutOfRange));
        assert_eq!(pages.write(usize::MAX, &[0; 2]), Err(OutOfRange));
        assert_eq!(pages.load(PAGE - 2), Err(OutOfRange));
        assert_eq!(pages.load(2), Err(OutOfRange));
    }

    #[test]
    fn counters_in_pages_are_seen_by_every_mapping_and_keep_theirs() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(PAGE as u64).unwrap();
        let map = |access| Pages::scattered(file.as_fd(), &[0], access).unwrap();
        let ours = Counters::<2>::of(&map(Access::ReadWrite), 16).unwrap();
        let theirs = Counters::<2>::of(&map(Access::ReadWrite), 16).unwrap();
        ours[1].store(u64::MAX, Ordering::Relaxed);
        assert_eq!(theirs[1].load(Ordering::Relaxed), u64::MAX);
        assert_eq!(theirs[0].load(Ordering::Relaxed), 0);
        for offset in [4, PAGE - 8, usize::MAX] {
            assert!(Counters::<2>::of(&map(Access::ReadWrite), offset).is_err(), "{offset}");
        }
        assert!(Counters::<2>::of(&map(Access::ReadOnly), 0).is_err());
    }

    #[test]
    fn memory_that_was_cut_off_is_nobody_elses() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(PAGE as u64).unwrap();
        let map = || Pages::scattered(file.as_fd(), &[0], Access::ReadWrite).unwrap();
        let (world, process) = (map(), map());
        let held = process.share();
        held.store(0, 7).unwrap();
        process.cut().unwrap();
        assert_eq!(held.load(0), Ok(0));
        held.store(0, 9).unwrap();
        assert_eq!(world.load(0), Ok(7));
    }

    #[test]
    fn scattered_pages_lie_side_by_side_and_a_read_only_one_refuses_writes() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(3 * PAGE as u64).unwrap();
        let both = Pages::scattered(file.as_fd(), &[2 * PAGE as u64, 0], Access::ReadWrite).unwrap();
        both.write(PAGE - 2, b"abcd").unwrap();
        let first = Pages::scattered(file.as_fd(), &[0], Access::ReadOnly).unwrap();
        let mut seen = [0; 2];
        first.read(0, &mut seen).unwrap();
        assert_eq!(&seen, b"cd");
        assert_eq!(first.write(0, b"x"), Err(OutOfRange));
    }
}
