//! A backend's process, as far as Xen knows it: what it has open, and what becomes of that when it is killed.

use std::io;
use std::sync::{Arc, Mutex, Weak};

use super::events::EventDevice;
use super::grants::GrantDevice;
use super::store::Connection;
use super::{Machine, lock};
use crate::xen::{DomId, EventError, Events, Xen};

/// A process of a backend.
pub struct Process {
    domain: DomId,
    store: Arc<Connection>,
    grants: Arc<GrantDevice>,
    events: Arc<Handles>,
    machine: Arc<Machine>,
}

/// A process's handles on event channels.
#[derive(Default)]
struct Handles {
    open: Mutex<Vec<Weak<EventDevice>>>,
}

impl Process {
    pub(super) fn new(machine: &Arc<Machine>, domain: DomId) -> Self {
        let Machine { store, tables, faults, .. } = &**machine;
        Self {
            domain,
            store: Arc::new(Connection::new(store, domain, true, Some(Arc::clone(faults)))),
            grants: Arc::new(GrantDevice::new(tables, domain, faults)),
            events: Arc::default(),
            machine: Arc::clone(machine),
        }
    }

    /// Xen as the process sees it.
    pub fn xen(&self) -> Xen {
        let (machine, events, domain) = (Arc::clone(&self.machine), Arc::clone(&self.events), self.domain);
        Xen {
            own: domain,
            store: Arc::<Connection>::clone(&self.store),
            grants: Arc::<GrantDevice>::clone(&self.grants),
            open_events: Arc::new(move || -> Result<Arc<dyn Events>, EventError> {
                let handle = Arc::new(EventDevice::open(&machine.channels, domain, &machine.faults));
                let mut open = lock(&events.open);
                open.retain(|handle| handle.strong_count() > 0);
                open.push(Arc::downgrade(&handle));
                Ok(handle)
            }),
        }
    }

    /// SIGKILL: guests' memory, event channels and XenStore are taken from it between two instructions of its threads. These
    /// live on as ghosts, because they are this process's, and none of what they do reaches a guest.
    ///
    /// # Errors
    /// What the system says; the process is half dead then.
    pub fn kill(&self) -> io::Result<()> {
        self.grants.kill()?;
        for handle in lock(&self.events.open).drain(..).filter_map(|handle| handle.upgrade()) {
            handle.kill();
        }
        self.store.kill();
        Ok(())
    }
}
