//! The pages that a hostile guest offers: a directory, and the buffer that it names.

use vsnd_bridge::sim::{GrantedPages, Guest};
use vsnd_bridge::sndif::{FormatCode, Open, Operation, PAGE, directory};
use vsnd_bridge::xen::GrantRef;
use vsnd_pw_module::{Access, Octets};

use crate::xen::DOM0;

/// Pages of the widest buffer that these guests may open.
pub const BUFFER_PAGES: usize = 16;

/// A guest's pages, kept over all inputs.
pub struct Memory {
    guest: Guest,
    directory: GrantedPages,
    buffer: GrantedPages,
    /// Pages that are offered for one input only, and given up in its midst.
    loose: Vec<GrantedPages>,
}

impl Memory {
    /// Pages of `guest`, laid out by nobody yet.
    pub fn new(guest: &Guest) -> Self {
        let guest = guest.clone();
        let (directory, buffer) = (share(&guest, 1), share(&guest, BUFFER_PAGES));
        Self { guest, directory, buffer, loose: Vec::new() }
    }

    /// As an honest guest lays it out.
    pub fn reset(&mut self) {
        self.loose.clear();
        let layout = directory::build(self.directory.references(), self.buffer.references()).unwrap();
        self.directory.pages().write(0, &layout[0]).unwrap();
    }

    /// A reference: of the directory mostly, of a page of the buffer, or of nothing.
    pub fn reference(&self, which: u8) -> GrantRef {
        match which {
            0..=127 => self.directory.references()[0],
            128..=191 => self.buffer.references()[usize::from(which) % BUFFER_PAGES],
            _ => GrantRef(u32::from(which - 192) * 3),
        }
    }

    /// The OPEN of an honest guest: these octets of 16 bits, stereo, 48 kHz.
    pub fn open(&self, buffer: Octets, period: Octets) -> Operation {
        let directory = self.directory.references()[0];
        Operation::Open(Open { rate: 48_000, format: FormatCode(2), channels: 2, buffer, directory, period })
    }

    /// Any octets over any page, as a guest may write at any moment.
    pub fn scribble(&self, place: u16, value: u32) {
        let place = usize::from(place) % ((BUFFER_PAGES + 1) * 1024);
        let (pages, offset) = match place.checked_sub(1024) {
            None => (self.directory.pages(), place * 4),
            Some(place) => (self.buffer.pages(), place * 4),
        };
        pages.write(offset, &value.to_le_bytes()).unwrap();
    }

    /// Names one page of the buffer in every entry of the directory: as much as anyone asks for.
    pub fn repeat(&self) {
        let page = self.buffer.references()[0].0.to_le_bytes();
        self.directory.pages().write(4, &page.repeat(PAGE / 4 - 1)).unwrap();
    }

    /// Fills the buffer.
    pub fn fill(&self, octet: u8) {
        self.buffer.pages().write(0, &[octet; BUFFER_PAGES * PAGE]).unwrap();
    }

    /// What the buffer's first page holds.
    pub fn first_page(&self) -> Vec<u8> {
        let mut page = vec![0; PAGE];
        self.buffer.pages().read(0, &mut page).unwrap();
        page
    }

    /// Points an entry of the directory elsewhere.
    pub fn redirect(&self, entry: u8, which: u8) {
        self.name(entry, self.reference(which));
    }

    /// Points an entry of the directory to a page that will be given up.
    pub fn loosen(&mut self, entry: u8) {
        let page = share(&self.guest, 1);
        self.name(entry, page.references()[0]);
        self.loose.push(page);
    }

    /// Gives up what was loosened, also while it is mapped.
    pub fn revoke(&mut self) {
        self.loose.clear();
    }

    fn name(&self, entry: u8, reference: GrantRef) {
        self.directory.pages().write(usize::from(entry % 20) * 4, &reference.0.to_le_bytes()).unwrap();
    }
}

fn share(guest: &Guest, pages: usize) -> GrantedPages {
    guest.share(pages, DOM0, Access::ReadWrite).unwrap()
}
