//! A guest: what a domain has of its own.

use std::io;
use std::sync::Arc;

use vsnd_pw_module::Access;

use super::events::{GuestPort, Interrupts};
use super::grants::GrantedPages;
use super::store::Connection;
use super::{Hypervisor, Machine, lock, tree};
use crate::xen::DomId;

/// 256 MiB, in pages.
const MEMORY: u32 = 65_536;

struct Domain {
    machine: Arc<Machine>,
    id: DomId,
    name: String,
    uuid: String,
    interrupts: Interrupts,
    store: Arc<Connection>,
}

/// A running domain. Clones are the same one; it runs until [`Hypervisor::destroy`] or [`Hypervisor::crash`].
#[derive(Clone)]
pub struct Guest {
    domain: Arc<Domain>,
}

impl Guest {
    /// Its number.
    pub fn id(&self) -> DomId {
        self.domain.id
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.domain.name
    }

    /// Its UUID, which a domain of the same name keeps over its restarts.
    pub fn uuid(&self) -> &str {
        &self.domain.uuid
    }

    /// Its own connection to XenStore, with its own rights.
    pub fn store(&self) -> &Arc<Connection> {
        &self.domain.store
    }

    /// Takes `count` zeroed pages of its memory and offers them to `to`.
    ///
    /// # Errors
    /// No such domain any more, or no memory.
    pub fn share(&self, count: usize, to: DomId, access: Access) -> io::Result<GrantedPages> {
        self.domain.machine.tables.share(self.domain.id, count, to, access)
    }

    /// Offers a new event channel to `to`.
    pub fn offer_port(&self, to: DomId) -> GuestPort {
        self.domain.machine.channels.allocate(self.domain.id, to, &self.domain.interrupts)
    }

    /// Whether the domain runs.
    pub fn is_alive(&self) -> bool {
        lock(&self.domain.machine.alive).contains(&self.domain.id)
    }

    /// `xl pause`: no more interrupts.
    pub fn pause(&self) {
        self.domain.interrupts.pause(true);
    }

    /// `xl unpause`.
    pub fn unpause(&self) {
        self.domain.interrupts.pause(false);
    }

    /// Event channels and grants in use: a frontend that leaks shows here.
    pub fn in_use(&self) -> (usize, usize) {
        let Machine { channels, tables, .. } = &*self.domain.machine;
        (channels.allocated(self.domain.id), tables.entries(self.domain.id))
    }
}

impl Hypervisor {
    /// A new domain with 256 MiB, its nodes in XenStore as the toolstack makes them.
    ///
    /// # Errors
    /// No memory for it.
    pub fn create_domain(&self, name: &str, uuid: &str) -> io::Result<Guest> {
        let id = self.next_domain();
        self.machine.tables.create(id, MEMORY)?;
        lock(&self.machine.alive).insert(id);
        self.introduce(id, name, uuid);
        Ok(Guest {
            domain: Arc::new(Domain {
                machine: Arc::clone(&self.machine),
                id,
                name: name.to_owned(),
                uuid: uuid.to_owned(),
                interrupts: Interrupts::default(),
                store: Arc::new(Connection::new(&self.machine.store, id, id == tree::DOM0, None)),
            }),
        })
    }

    /// The domain ends at once, as in a crash: memory and ports are gone, its nodes stay until the toolstack comes.
    pub fn crash(&self, guest: &Guest) {
        let Machine { tables, channels, store, alive, .. } = &*self.machine;
        if lock(alive).remove(&guest.id()) {
            channels.destroy(guest.id());
            tables.destroy(guest.id());
            guest.domain.interrupts.wake();
            store.announce("@releaseDomain");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::sim::hypervisor::LAST_DOMAIN;

    #[test]
    fn numbers_begin_anew_after_the_last_and_leave_out_the_living() {
        let xen = Hypervisor::new();
        let create = |name| xen.create_domain(name, &format!("uuid-of-{name}")).unwrap();
        let first = create("first");
        xen.machine.last_domain.store(LAST_DOMAIN - 1, Ordering::Relaxed);
        let [last, next] = ["last", "next"].map(create);
        assert_eq!([&first, &last, &next].map(Guest::id), [DomId(1), DomId(LAST_DOMAIN), DomId(2)]);
    }
}
