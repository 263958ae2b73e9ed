//! The page directory that OPEN points to: pages of grant references, each with a reference to the next such page.

use super::PAGE;
use crate::xen::GrantRef;

/// References in one page of a directory: what remains of it after the reference to the next.
const PER_PAGE: usize = PAGE / 4 - 1;

/// "Usage of grant reference 0 as invalid grant reference"; as the next page it means that there is none.
const NONE: u32 = 0;

/// A directory that doesn't name the pages of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DirectoryError<E> {
    /// A directory page couldn't be read.
    #[error("page {} of the page directory can't be read: {error}", page.0)]
    Read {
        /// Its reference.
        page: GrantRef,
        /// Why not.
        error: E,
    },
    /// Reference 0 stands where a page is needed.
    #[error("the page directory ends after {found} of {needed} pages")]
    Ends {
        /// Data pages that it names.
        found: usize,
        /// Data pages that the buffer has.
        needed: usize,
    },
    /// A directory page comes after itself.
    #[error("page {} of the page directory comes after itself", .0.0)]
    Cycle(GrantRef),
}

/// Directory pages that name so many data pages.
pub const fn directory_pages(pages: usize) -> usize {
    pages.div_ceil(PER_PAGE)
}

/// Follows a directory from its `first` page and collects the references of `pages` data pages, a number that the caller
/// has bounded. `read` copies a directory page once; it is called once for each of the [`directory_pages`] that are
/// needed and never for more, whatever the last of them says of a next one.
///
/// # Errors
/// [`DirectoryError`]; a directory that would have to name one page by the reference 0 ends there.
pub fn walk<E>(
    first: GrantRef,
    pages: usize,
    mut read: impl FnMut(GrantRef) -> Result<[u8; PAGE], E>,
) -> Result<Vec<GrantRef>, DirectoryError<E>> {
    let mut found = Vec::new();
    let mut visited = Vec::new();
    let mut page = first;
    while found.len() < pages {
        if page.0 == NONE {
            return Err(DirectoryError::Ends { found: found.len(), needed: pages });
        }
        if visited.contains(&page) {
            return Err(DirectoryError::Cycle(page));
        }
        visited.push(page);
        let copy = read(page).map_err(|error| DirectoryError::Read { page, error })?;
        let (references, _) = copy.as_chunks::<4>();
        let mut references = references.iter().map(|octets| GrantRef(u32::from_le_bytes(*octets)));
        page = references.next().unwrap_or(GrantRef(NONE));
        for reference in references.take(pages - found.len()) {
            if reference.0 == NONE {
                return Err(DirectoryError::Ends { found: found.len(), needed: pages });
            }
            found.push(reference);
        }
    }
    Ok(found)
}

/// The contents of a directory of `pages`, laid into directory pages of the references `directory` in that order; for the
/// simulator. `None` unless there are just as many of those as are needed.
pub fn build(directory: &[GrantRef], pages: &[GrantRef]) -> Option<Vec<[u8; PAGE]>> {
    if directory.len() != directory_pages(pages.len()) {
        return None;
    }
    let next = directory.iter().skip(1).copied().chain([GrantRef(NONE)]);
    let contents = pages.chunks(PER_PAGE).zip(next).map(|(references, next)| {
        let mut copy = [0; PAGE];
        let (slots, _) = copy.as_chunks_mut::<4>();
        for (slot, reference) in slots.iter_mut().zip([next].iter().chain(references)) {
            *slot = reference.0.to_le_bytes();
        }
        copy
    });
    Some(contents.collect())
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn references(from: u32, count: usize) -> Vec<GrantRef> {
        (from..).take(count).map(GrantRef).collect()
    }

    /// A directory in memory, by reference.
    fn laid_out(pages: &[GrantRef]) -> HashMap<u32, [u8; PAGE]> {
        let directory = references(1_000_000, directory_pages(pages.len()));
        let contents = build(&directory, pages).unwrap();
        directory.iter().map(|reference| reference.0).zip(contents).collect()
    }

    fn read_from(
        memory: &HashMap<u32, [u8; PAGE]>,
        count: usize,
    ) -> Result<Vec<GrantRef>, DirectoryError<()>> {
        walk(GrantRef(1_000_000), count, |page| memory.get(&page.0).copied().ok_or(()))
    }

    #[test]
    fn pages_are_found_in_order_over_any_number_of_directory_pages() {
        for count in [1, 2, PER_PAGE, PER_PAGE + 1, 2 * PER_PAGE, 5000] {
            let pages = references(1, count);
            let memory = laid_out(&pages);
            assert_eq!(memory.len(), count.div_ceil(1023));
            assert_eq!(read_from(&memory, count), Ok(pages));
        }
    }

    #[test]
    fn no_pages_need_no_directory() {
        assert_eq!(walk::<()>(GrantRef(0), 0, |_| Err(())), Ok(vec![]));
    }

    #[test]
    fn a_directory_that_ends_early_is_refused() {
        let ends = |found, needed| Err(DirectoryError::Ends { found, needed });
        // Of data pages, ...
        let memory = laid_out(&references(1, 10));
        assert_eq!(read_from(&memory, 11), ends(10, 11));
        // ... of directory pages, ...
        let memory = laid_out(&references(1, PER_PAGE));
        assert_eq!(read_from(&memory, PER_PAGE + 1), ends(PER_PAGE, PER_PAGE + 1));
        // ... and before it began.
        assert_eq!(walk::<()>(GrantRef(0), 1, |_| Err(())), ends(0, 1));
    }

    #[test]
    fn a_directory_that_leads_back_into_itself_is_refused() {
        let mut memory = laid_out(&references(1, 2 * PER_PAGE));
        memory.get_mut(&1_000_000).unwrap()[..4].copy_from_slice(&1_000_000u32.to_le_bytes());
        assert_eq!(read_from(&memory, 2 * PER_PAGE), Err(DirectoryError::Cycle(GrantRef(1_000_000))));
    }

    #[test]
    fn a_next_page_after_the_last_is_not_followed() {
        let pages = references(1, PER_PAGE);
        let mut memory = laid_out(&pages);
        memory.get_mut(&1_000_000).unwrap()[..4].copy_from_slice(&77u32.to_le_bytes());
        assert_eq!(read_from(&memory, PER_PAGE), Ok(pages));
    }

    #[test]
    fn a_page_that_can_t_be_read_is_named() {
        let mut memory = laid_out(&references(1, 2 * PER_PAGE));
        memory.remove(&1_000_001);
        let read = |page: GrantRef| memory.get(&page.0).copied().ok_or("not granted");
        let error = walk(GrantRef(1_000_000), 2 * PER_PAGE, read).unwrap_err();
        assert_eq!(error.to_string(), "page 1000001 of the page directory can't be read: not granted");
    }

    #[test]
    fn a_directory_is_built_of_just_the_pages_it_needs() {
        assert_eq!(build(&references(1, 2), &references(10, PER_PAGE)), None);
        assert_eq!(build(&references(1, 1), &references(10, PER_PAGE + 1)), None);
    }

    proptest! {
        #[test]
        fn whatever_a_guest_lays_out_is_bounded(first in 0u32..4, words in proptest::collection::vec(0u32..4, 3), count in 0usize..4000) {
            let mut reads = 0;
            let found = walk::<()>(GrantRef(first), count, |page| {
                reads += 1;
                let mut copy = [0; PAGE];
                for (slot, word) in copy.as_chunks_mut::<4>().0.iter_mut().zip(words.iter().cycle()) {
                    *slot = (word ^ page.0).to_le_bytes();
                }
                Ok(copy)
            });
            prop_assert!(reads <= directory_pages(count));
            if let Ok(found) = found {
                prop_assert_eq!(found.len(), count);
                prop_assert!(found.iter().all(|reference| reference.0 != 0));
            }
        }
    }
}
