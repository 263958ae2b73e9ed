//! Guests' memory and grant tables, and the [`Grants`] through which a backend maps it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex};

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use vsnd_pw_module::{Access, Pages};

use super::faults::Faults;
use super::lock;
use crate::xen::{DomId, GrantError, GrantRef, Grants};

/// The size of a page, in octets.
pub const PAGE: usize = 4096;

/// Linux keeps the first entries of its table for itself, and 0 means "none" in sndif.
const FIRST_REFERENCE: u32 = 8;

/// One page offered to one domain.
struct Entry {
    page: u32,
    to: DomId,
    access: Access,
    /// Mappings outstanding.
    mapped: u32,
    /// The guest has given it up while it was mapped; page and entry are free when the last mapping ends.
    ended: bool,
}

/// One domain's memory and grant table.
struct Domain {
    memory: Arc<OwnedFd>,
    /// Pages that the domain has.
    size: u32,
    /// The first page never used, and used ones that are free again.
    fresh: u32,
    free: Vec<u32>,
    /// The same of table entries.
    fresh_reference: u32,
    free_references: Vec<u32>,
    entries: BTreeMap<u32, Entry>,
    /// Grants given up while a backend still had them mapped.
    deferred: u64,
}

impl Domain {
    /// A page and a free entry of the table.
    fn take(&mut self) -> io::Result<(u32, u32)> {
        let page = match self.free.pop() {
            Some(page) => page,
            None if self.fresh < self.size => {
                self.fresh += 1;
                self.fresh - 1
            }
            None => return Err(io::ErrorKind::OutOfMemory.into()),
        };
        let reference = self.free_references.pop().unwrap_or_else(|| {
            self.fresh_reference += 1;
            self.fresh_reference - 1
        });
        Ok((page, reference))
    }

    fn give_back(&mut self, reference: u32) {
        if let Some(entry) = self.entries.remove(&reference) {
            self.free.push(entry.page);
            self.free_references.push(reference);
        }
    }

    fn has_room(&self, pages: usize) -> bool {
        self.free.len() + (self.size - self.fresh) as usize >= pages
    }
}

/// The memory and grants of all domains.
#[derive(Default)]
pub(super) struct Tables {
    domains: Mutex<BTreeMap<DomId, Domain>>,
    /// Pages of each domain that backends have mapped, kept beyond the domain's death.
    mapped: Mutex<BTreeMap<DomId, usize>>,
}

impl Tables {
    /// Gives a new domain `size` pages of memory, which cost nothing until they are used.
    pub fn create(&self, domain: DomId, size: u32) -> io::Result<()> {
        let memory = memfd_create("sim-guest", MemfdFlags::CLOEXEC)?;
        ftruncate(&memory, u64::from(size) * PAGE as u64)?;
        let memory = Arc::new(memory);
        let fresh = Domain {
            memory,
            size,
            fresh: 0,
            free: Vec::new(),
            fresh_reference: FIRST_REFERENCE,
            free_references: Vec::new(),
            entries: BTreeMap::new(),
            deferred: 0,
        };
        lock(&self.domains).insert(domain, fresh);
        Ok(())
    }

    /// Takes a dead domain's memory away; what is mapped stays, as the pages of a dying domain do.
    pub fn destroy(&self, domain: DomId) {
        lock(&self.domains).remove(&domain);
    }

    /// Pages of `domain` that backends have mapped.
    pub fn mapped(&self, domain: DomId) -> usize {
        lock(&self.mapped).get(&domain).copied().unwrap_or(0)
    }

    /// Grants that `domain` gave up while a backend still had them mapped.
    pub fn deferred(&self, domain: DomId) -> u64 {
        lock(&self.domains).get(&domain).map_or(0, |domain| domain.deferred)
    }

    /// Entries in use in a domain's table.
    pub fn entries(&self, domain: DomId) -> usize {
        lock(&self.domains).get(&domain).map_or(0, |domain| domain.entries.len())
    }

    fn memory(&self, domain: DomId) -> Option<Arc<OwnedFd>> {
        Some(Arc::clone(&lock(&self.domains).get(&domain)?.memory))
    }

    pub fn share(
        self: &Arc<Self>,
        domain: DomId,
        count: usize,
        to: DomId,
        access: Access,
    ) -> io::Result<GrantedPages> {
        let mut domains = lock(&self.domains);
        let owner = domains.get_mut(&domain).ok_or(io::ErrorKind::NotFound)?;
        let mut references = Vec::with_capacity(count);
        let mut offsets = Vec::with_capacity(count);
        if !owner.has_room(count) {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        for _ in 0..count {
            let (page, reference) = owner.take()?;
            owner.entries.insert(reference, Entry { page, to, access, mapped: 0, ended: false });
            references.push(GrantRef(reference));
            offsets.push(u64::from(page) * PAGE as u64);
        }
        let memory = Arc::clone(&owner.memory);
        drop(domains);
        let pages = Pages::scattered(memory.as_fd(), &offsets, Access::ReadWrite)?;
        // Pages come zeroed, also used ones.
        for page in 0..count {
            pages.write(page * PAGE, &[0; PAGE]).map_err(io::Error::other)?;
        }
        let revoked = Mutex::default();
        Ok(GrantedPages { tables: Arc::clone(self), domain, references, revoked, offsets, pages })
    }

    /// Gives up a grant. `false`: a backend still has it mapped, and the page stays out of use until it doesn't.
    pub fn end(&self, domain: DomId, reference: GrantRef) -> bool {
        let mut domains = lock(&self.domains);
        let Some(owner) = domains.get_mut(&domain) else { return true };
        let Some(entry) = owner.entries.get_mut(&reference.0) else { return true };
        if entry.mapped > 0 {
            entry.ended = true;
            owner.deferred += 1;
            return false;
        }
        owner.give_back(reference.0);
        true
    }

    fn enter(
        &self,
        by: DomId,
        domain: DomId,
        references: &[GrantRef],
        access: Access,
    ) -> Result<(Arc<OwnedFd>, Vec<u64>), GrantError> {
        let mut domains = lock(&self.domains);
        let bad = |reference: &GrantRef| GrantError::BadReference(reference.0);
        let Some(owner) = domains.get_mut(&domain) else {
            return Err(references
                .first()
                .map_or_else(|| GrantError::Device("no such domain".to_owned()), bad));
        };
        let mut offsets = Vec::with_capacity(references.len());
        for reference in references {
            let permitted = |entry: &&Entry| {
                entry.to == by && !entry.ended && (access == Access::ReadOnly || entry.access == access)
            };
            let entry = owner.entries.get(&reference.0).filter(permitted).ok_or_else(|| bad(reference))?;
            offsets.push(u64::from(entry.page) * PAGE as u64);
        }
        for reference in references {
            if let Some(entry) = owner.entries.get_mut(&reference.0) {
                entry.mapped += 1;
            }
        }
        *lock(&self.mapped).entry(domain).or_default() += references.len();
        Ok((Arc::clone(&owner.memory), offsets))
    }

    fn leave(&self, domain: DomId, references: &[GrantRef]) {
        let mut domains = lock(&self.domains);
        if let Some(mapped) = lock(&self.mapped).get_mut(&domain) {
            *mapped -= references.len();
        }
        let Some(owner) = domains.get_mut(&domain) else { return };
        for reference in references {
            let Some(entry) = owner.entries.get_mut(&reference.0) else { continue };
            entry.mapped -= 1;
            if entry.ended && entry.mapped == 0 {
                owner.give_back(reference.0);
            }
        }
    }
}

/// Pages of a guest that it offers to another domain, as the guest sees them. Dropping them gives the grants up.
pub struct GrantedPages {
    tables: Arc<Tables>,
    domain: DomId,
    references: Vec<GrantRef>,
    /// Indices whose grant is given up already, and whose reference may be another's by now.
    revoked: Mutex<BTreeSet<usize>>,
    offsets: Vec<u64>,
    pages: Pages,
}

impl GrantedPages {
    /// The memory, as the guest reads and writes it.
    pub fn pages(&self) -> &Pages {
        &self.pages
    }

    /// A second view of the same memory, for a ring that keeps its own.
    ///
    /// # Errors
    /// The domain is gone, or what mmap says.
    pub fn view(&self) -> io::Result<Pages> {
        let memory = self.tables.memory(self.domain).ok_or(io::ErrorKind::NotFound)?;
        Pages::scattered(memory.as_fd(), &self.offsets, Access::ReadWrite)
    }

    /// The references, one a page, in order.
    pub fn references(&self) -> &[GrantRef] {
        &self.references
    }

    /// The grant of page `index` is given up before the rest: what a hostile guest does under a backend's hands.
    /// `false`: a backend has it mapped, or there is no such page.
    pub fn revoke(&self, index: usize) -> bool {
        let Some(reference) = self.references.get(index) else { return false };
        lock(&self.revoked).insert(index) && self.tables.end(self.domain, *reference)
    }
}

impl Drop for GrantedPages {
    fn drop(&mut self) {
        let revoked = lock(&self.revoked);
        let held = self.references.iter().enumerate().filter(|(index, _)| !revoked.contains(index));
        for (_, reference) in held {
            self.tables.end(self.domain, *reference);
        }
    }
}

/// The grant device as a process of domain `by` has it open.
pub(super) struct GrantDevice {
    tables: Arc<Tables>,
    by: DomId,
    faults: Arc<Faults>,
    mappings: Arc<Mutex<Mappings>>,
}

/// What a process has mapped.
#[derive(Default)]
struct Mappings {
    killed: bool,
    last: u64,
    held: BTreeMap<u64, Held>,
}

struct Held {
    pages: Pages,
    domain: DomId,
    references: Vec<GrantRef>,
}

/// Gives a mapping back when dropped, unless the process's death did.
struct Mapping {
    tables: Arc<Tables>,
    mappings: Arc<Mutex<Mappings>>,
    number: u64,
}

impl Drop for Mapping {
    fn drop(&mut self) {
        let held = lock(&self.mappings).held.remove(&self.number);
        if let Some(Held { pages, domain, references }) = held {
            drop(pages);
            self.tables.leave(domain, &references);
        }
    }
}

impl GrantDevice {
    pub fn new(tables: &Arc<Tables>, by: DomId, faults: &Arc<Faults>) -> Self {
        let (tables, faults) = (Arc::clone(tables), Arc::clone(faults));
        Self { tables, by, faults, mappings: Arc::default() }
    }

    /// The process dies: whoever still runs on its behalf finds other memory in place of the guests'.
    pub fn kill(&self) -> io::Result<()> {
        let mut mappings = lock(&self.mappings);
        mappings.killed = true;
        for Held { pages, domain, references } in std::mem::take(&mut mappings.held).into_values() {
            pages.cut()?;
            self.tables.leave(domain, &references);
        }
        Ok(())
    }
}

impl Grants for GrantDevice {
    fn map(&self, domain: DomId, references: &[GrantRef], access: Access) -> Result<Pages, GrantError> {
        self.faults.on_map()?;
        if references.is_empty() {
            return Err(GrantError::Device("no pages asked for".to_owned()));
        }
        let mut mappings = lock(&self.mappings);
        if mappings.killed {
            return Err(GrantError::Device("the process is dead".to_owned()));
        }
        let (memory, offsets) = self.tables.enter(self.by, domain, references, access)?;
        let pages = Pages::scattered(memory.as_fd(), &offsets, access).map_err(|error| {
            self.tables.leave(domain, references);
            GrantError::Device(error.to_string())
        })?;
        mappings.last += 1;
        let number = mappings.last;
        mappings.held.insert(number, Held { pages: pages.share(), domain, references: references.to_vec() });
        let (tables, mappings) = (Arc::clone(&self.tables), Arc::clone(&self.mappings));
        Ok(pages.with_owner(Box::new(Mapping { tables, mappings, number })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GUEST: DomId = DomId(1);
    const DOM0: DomId = DomId(0);

    fn device() -> GrantDevice {
        let tables = Arc::<Tables>::default();
        tables.create(GUEST, 4).unwrap();
        GrantDevice::new(&tables, DOM0, &Arc::default())
    }

    #[test]
    fn scattered_grants_become_one_range_and_are_counted() {
        let device = device();
        let shared = device.tables.share(GUEST, 3, DOM0, Access::ReadWrite).unwrap();
        let [a, b, c] = shared.references()[..] else { panic!() };
        let mapped = device.map(GUEST, &[c, a], Access::ReadWrite).unwrap();
        mapped.write(PAGE - 1, b"xy").unwrap();
        let mut seen = [0; 1];
        shared.pages().read(3 * PAGE - 1, &mut seen).unwrap();
        assert_eq!(&seen, b"x");
        shared.pages().read(0, &mut seen).unwrap();
        assert_eq!(&seen, b"y");
        assert_eq!(device.tables.mapped(GUEST), 2);
        let bad = GrantError::BadReference(7);
        assert_eq!(device.map(GUEST, &[b, GrantRef(7)], Access::ReadOnly).err(), Some(bad));
        assert_eq!(device.tables.mapped(GUEST), 2, "all or nothing");
        drop(mapped);
        assert_eq!(device.tables.mapped(GUEST), 0);
    }

    #[test]
    fn a_grant_serves_one_domain_with_one_access() {
        let device = device();
        let stranger = GrantDevice::new(&device.tables, DomId(5), &Arc::default());
        let shared = device.tables.share(GUEST, 1, DOM0, Access::ReadOnly).unwrap();
        let reference = shared.references()[0];
        let bad = Some(GrantError::BadReference(reference.0));
        assert_eq!(stranger.map(GUEST, &[reference], Access::ReadOnly).err(), bad);
        assert_eq!(device.map(GUEST, &[reference], Access::ReadWrite).err(), bad);
        let mapped = device.map(GUEST, &[reference], Access::ReadOnly).unwrap();
        assert!(mapped.write(0, b"x").is_err());
        assert_eq!(device.map(DomId(9), &[reference], Access::ReadOnly).err(), bad);
    }

    #[test]
    fn what_is_given_up_while_mapped_is_kept_until_it_is_not() {
        let device = device();
        let shared = device.tables.share(GUEST, 4, DOM0, Access::ReadWrite).unwrap();
        let references = shared.references().to_vec();
        let mapped = device.map(GUEST, &references[..1], Access::ReadWrite).unwrap();
        assert!(!shared.revoke(0) && shared.revoke(1));
        drop(shared);
        assert_eq!((device.tables.entries(GUEST), device.tables.deferred(GUEST)), (1, 1));
        assert!(device.map(GUEST, &references[..1], Access::ReadWrite).is_err(), "no new mapping of it");
        assert!(device.tables.share(GUEST, 4, DOM0, Access::ReadWrite).is_err(), "its page isn't used again");
        drop(mapped);
        assert_eq!(device.tables.entries(GUEST), 0);
        assert!(device.tables.share(GUEST, 4, DOM0, Access::ReadWrite).is_ok());
    }

    #[test]
    fn mappings_outlive_a_domain_and_are_still_counted() {
        let device = device();
        let shared = device.tables.share(GUEST, 1, DOM0, Access::ReadWrite).unwrap();
        let mapped = device.map(GUEST, shared.references(), Access::ReadWrite).unwrap();
        device.tables.destroy(GUEST);
        drop(shared);
        mapped.write(0, b"x").unwrap();
        assert_eq!(device.tables.mapped(GUEST), 1);
        drop(mapped);
        assert_eq!(device.tables.mapped(GUEST), 0);
        assert!(device.map(GUEST, &[GrantRef(8)], Access::ReadOnly).is_err());
    }

    #[test]
    fn a_killed_process_reaches_no_guest_any_more() {
        let device = device();
        let shared = device.tables.share(GUEST, 1, DOM0, Access::ReadWrite).unwrap();
        let mapped = device.map(GUEST, shared.references(), Access::ReadWrite).unwrap();
        shared.pages().write(0, b"guest").unwrap();
        device.kill().unwrap();
        assert_eq!(device.tables.mapped(GUEST), 0);
        mapped.write(0, b"ghost").unwrap();
        let mut seen = [0; 5];
        shared.pages().read(0, &mut seen).unwrap();
        assert_eq!(&seen, b"guest");
        assert!(device.map(GUEST, shared.references(), Access::ReadWrite).is_err());
        drop(mapped);
        assert_eq!(device.tables.mapped(GUEST), 0, "given back once");
        let next = GrantDevice::new(&device.tables, DOM0, &Arc::default());
        next.map(GUEST, shared.references(), Access::ReadWrite).unwrap();
    }

    #[test]
    fn maps_fail_on_order() {
        let device = device();
        let shared = device.tables.share(GUEST, 1, DOM0, Access::ReadWrite).unwrap();
        device.faults.fail_maps(GrantError::Device("no memory".into()), 1);
        assert!(device.map(GUEST, shared.references(), Access::ReadWrite).is_err());
        assert!(device.map(GUEST, shared.references(), Access::ReadWrite).is_ok());
    }
}
