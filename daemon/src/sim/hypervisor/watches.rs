//! Watches: who is told of which change, and the thread of each connection that tells it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use super::lock;
use super::tree::{Change, allows, is_within};
use crate::xen::{DomId, Rights, WatchSink};

/// One watch of one connection.
pub(super) struct Watcher {
    live: AtomicBool,
    sink: Mutex<WatchSink>,
}

impl Watcher {
    pub fn new(sink: WatchSink) -> Arc<Self> {
        Arc::new(Self { live: AtomicBool::new(true), sink: Mutex::new(sink) })
    }

    pub fn end(&self) {
        self.live.store(false, Ordering::Release);
    }
}

#[derive(Default)]
struct Queue {
    events: VecDeque<(Arc<Watcher>, String)>,
    closed: bool,
}

/// Events on their way to one connection's sinks, in order. Unbounded: a slow sink loses nothing and blocks nobody.
#[derive(Default)]
pub(super) struct Deliveries {
    queue: Mutex<Queue>,
    changed: Condvar,
}

impl Deliveries {
    /// Starts the thread that calls the sinks; it ends with [`close`](Self::close).
    pub fn start(self: &Arc<Self>) -> std::io::Result<()> {
        let deliveries = Arc::clone(self);
        std::thread::Builder::new().name("sim-watches".to_owned()).spawn(move || deliveries.run()).map(drop)
    }

    fn push(&self, watcher: Arc<Watcher>, path: String) {
        lock(&self.queue).events.push_back((watcher, path));
        self.changed.notify_one();
    }

    pub fn close(&self) {
        lock(&self.queue).closed = true;
        self.changed.notify_one();
    }

    fn next(&self) -> Option<(Arc<Watcher>, String)> {
        let mut queue = lock(&self.queue);
        loop {
            if queue.closed {
                return None;
            }
            if let Some(event) = queue.events.pop_front() {
                return Some(event);
            }
            queue = self.changed.wait(queue).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
    }

    fn run(&self) {
        while let Some((watcher, path)) = self.next() {
            if watcher.live.load(Ordering::Acquire) {
                lock(&watcher.sink)(&path);
            }
        }
    }
}

struct Registration {
    domain: DomId,
    /// Domains that xenstored tells of other domains' births and deaths.
    told_of_domains: bool,
    path: String,
    watcher: Arc<Watcher>,
    deliveries: Arc<Deliveries>,
}

/// All watches of all connections.
#[derive(Default)]
pub(super) struct Watches {
    registered: Vec<Registration>,
}

impl Watches {
    /// Adds a watch, which fires at once.
    pub fn add(
        &mut self,
        domain: DomId,
        told_of_domains: bool,
        path: &str,
        watcher: Arc<Watcher>,
        deliveries: Arc<Deliveries>,
    ) {
        deliveries.push(Arc::clone(&watcher), path.to_owned());
        let path = path.to_owned();
        self.registered.push(Registration { domain, told_of_domains, path, watcher, deliveries });
    }

    pub fn remove(&mut self, watcher: &Arc<Watcher>) {
        self.registered.retain(|registration| !Arc::ptr_eq(&registration.watcher, watcher));
    }

    /// Ends the watches of the connection that hears by `deliveries`.
    pub fn remove_all_to(&mut self, deliveries: &Arc<Deliveries>) {
        self.registered.retain(|registration| !Arc::ptr_eq(&registration.deliveries, deliveries));
    }

    /// Watches of `domain`.
    pub fn count(&self, domain: DomId) -> usize {
        self.registered.iter().filter(|registration| registration.domain == domain).count()
    }

    /// Tells whoever watches the node or something above it and may read it. Of a removed parent's children only their
    /// own watches hear: those above hear of the parent.
    pub fn fire(&self, change: &Change) {
        for watch in &self.registered {
            let concerned =
                if change.exact { watch.path == change.path } else { is_within(&change.path, &watch.path) };
            if concerned && allows(&change.permissions, watch.domain, Rights::Read) {
                watch.deliveries.push(Arc::clone(&watch.watcher), change.path.clone());
            }
        }
    }

    /// `@introduceDomain` or `@releaseDomain`.
    pub fn fire_special(&self, name: &str) {
        for watch in self.registered.iter().filter(|watch| watch.told_of_domains && watch.path == name) {
            watch.deliveries.push(Arc::clone(&watch.watcher), name.to_owned());
        }
    }
}
