//! A hypervisor in one process: domains with memory, grants, event channels and XenStore, and the toolstack's part.
//!
//! It is exact where a backend can tell the difference: permissions, conflicts of transactions, what fires a watch,
//! masks of event channels, grants that are still mapped when they are given up. It counts what a backend holds, so
//! that tests find what it forgets.

mod card;
mod domain;
mod events;
mod faults;
mod grants;
mod process;
mod store;
mod toolstack;
mod tree;
mod watches;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use card::{BadCard, Card, Pcm, Settings, Stream};
pub use domain::Guest;
pub use events::GuestPort;
pub use faults::Faults;
pub use grants::{GrantedPages, PAGE};
pub use process::Process;
pub use store::Connection;
pub use toolstack::{Attached, ToolstackError};
pub use tree::Limits;

use crate::xen::{DomId, Xen};

/// Xen keeps the numbers above to itself (DOMID_FIRST_RESERVED).
const LAST_DOMAIN: u16 = 0x7fef;

/// Locks; a panic elsewhere is that test's failure, and no reason for another here.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What all domains share.
struct Machine {
    store: Arc<store::Daemon>,
    tables: Arc<grants::Tables>,
    channels: Arc<events::Channels>,
    faults: Arc<Faults>,
    last_domain: AtomicU16,
    alive: Mutex<BTreeSet<DomId>>,
    /// The toolstack's own connection.
    toolstack: Connection,
}

/// What backends hold of one domain. All zero once they have let go of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Holdings {
    /// Pages mapped.
    pub pages: usize,
    /// Event channels bound.
    pub ports: usize,
}

/// The hypervisor, XenStore and toolstack. Clones are the same one.
#[derive(Clone)]
pub struct Hypervisor {
    machine: Arc<Machine>,
}

impl Default for Hypervisor {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Hypervisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hypervisor").field("alive", &lock(&self.machine.alive)).finish_non_exhaustive()
    }
}

impl Hypervisor {
    /// A machine on which only Dom0 runs.
    pub fn new() -> Self {
        Self::with_limits(Limits::default())
    }

    /// The same, with other quotas for unprivileged domains.
    pub fn with_limits(limits: Limits) -> Self {
        let store = Arc::new(store::Daemon::new(limits));
        let toolstack = Connection::new(&store, tree::DOM0, true, None);
        let hypervisor = Self {
            machine: Arc::new(Machine {
                store,
                tables: Arc::default(),
                channels: Arc::default(),
                faults: Arc::default(),
                last_domain: AtomicU16::new(0),
                alive: Mutex::new(BTreeSet::from([tree::DOM0])),
                toolstack,
            }),
        };
        hypervisor.introduce(tree::DOM0, "Domain-0", "00000000-0000-0000-0000-000000000000");
        hypervisor
    }

    /// Xen as a backend in Dom0 sees it. Faults on order meet what is called through it.
    pub fn dom0(&self) -> Xen {
        self.backend(tree::DOM0)
    }

    /// Xen as a backend in a driver domain sees it: a domain made by [`create_domain`](Self::create_domain).
    pub fn backend(&self, domain: DomId) -> Xen {
        self.process(domain).xen()
    }

    /// A backend's process in `domain`, which can be killed.
    pub fn process(&self, domain: DomId) -> Process {
        Process::new(&self.machine, domain)
    }

    /// What backends' next calls are to meet.
    pub fn faults(&self) -> &Faults {
        &self.machine.faults
    }

    /// What backends hold of `domain`, alive or not.
    pub fn holdings(&self, domain: DomId) -> Holdings {
        let Machine { tables, channels, .. } = &*self.machine;
        Holdings { pages: tables.mapped(domain), ports: channels.bound(domain) }
    }

    /// Grants that `domain` gave up while a backend still had them mapped: more than none is a backend's fault.
    pub fn deferred_grants(&self, domain: DomId) -> u64 {
        self.machine.tables.deferred(domain)
    }

    /// Watches that connections of `domain` have set.
    pub fn watches(&self, domain: DomId) -> usize {
        self.machine.store.watches(domain)
    }

    /// Nodes that `domain` owns.
    pub fn owned_nodes(&self, domain: DomId) -> usize {
        self.machine.store.owned(domain)
    }

    /// Transactions that met another change.
    pub fn conflicts(&self) -> u64 {
        self.machine.store.conflicts()
    }

    /// The toolstack's connection: Dom0's rights, no faults.
    pub fn store(&self) -> &Connection {
        &self.machine.toolstack
    }

    /// Every node, one a line as `path = "value"`.
    pub fn dump(&self) -> String {
        self.machine.store.dump()
    }

    /// The next number that no living domain has: after the last one they begin anew.
    fn next_domain(&self) -> DomId {
        let alive = lock(&self.machine.alive);
        loop {
            let last = self.machine.last_domain.load(Ordering::Relaxed) % LAST_DOMAIN;
            self.machine.last_domain.store(last + 1, Ordering::Relaxed);
            if !alive.contains(&DomId(last + 1)) {
                return DomId(last + 1);
            }
        }
    }
}
