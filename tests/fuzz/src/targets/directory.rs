//! The page directory: pages of references that may lead anywhere, also back.

use arbitrary::{Arbitrary, Unstructured};
use vsnd_bridge::sndif::directory::{self, directory_pages};
use vsnd_bridge::sndif::{DirectoryError, PAGE};
use vsnd_bridge::xen::GrantRef;

/// Pages of the widest buffer that a stream may have.
const MOST_PAGES: u16 = 4096;

/// What one directory page says.
#[derive(Debug, Arbitrary)]
struct Layout {
    next: u8,
    fill: u32,
    /// References that differ from the filling.
    odd: [(u16, u32); 2],
}

pub fn run(input: &mut Unstructured<'_>) -> arbitrary::Result<()> {
    let first: u8 = input.arbitrary()?;
    let pages = usize::from(input.arbitrary::<u16>()? % (MOST_PAGES + 1));
    let layouts: [Layout; 6] = input.arbitrary()?;
    let mut reads = Vec::new();
    let found = directory::walk(GrantRef(first.into()), pages, |page| {
        reads.push(page);
        let layout = layouts.get(page.0 as usize).ok_or("not granted")?;
        Ok::<_, &str>(laid_out(layout))
    });
    assert!(reads.len() <= directory_pages(pages), "{} reads for {pages} pages", reads.len());
    let read = reads.len();
    reads.sort_unstable_by_key(|page| page.0);
    reads.dedup();
    assert_eq!(reads.len(), read, "a page was read twice");
    assert!(reads.iter().all(|page| page.0 != 0), "reference 0 is none");
    match found {
        Ok(found) => {
            assert_eq!(found.len(), pages);
            assert!(found.iter().all(|page| page.0 != 0), "reference 0 is none");
        }
        Err(DirectoryError::Ends { found, needed }) => assert!(found < needed && needed == pages),
        Err(DirectoryError::Read { .. } | DirectoryError::Cycle(_)) => (),
    }
    Ok(())
}

fn laid_out(layout: &Layout) -> [u8; PAGE] {
    let mut page = [0; PAGE];
    let (slots, _) = page.as_chunks_mut::<4>();
    slots.fill(layout.fill.to_le_bytes());
    slots[0] = u32::from(layout.next).to_le_bytes();
    for (slot, reference) in layout.odd {
        slots[1 + usize::from(slot) % 1023] = reference.to_le_bytes();
    }
    page
}
