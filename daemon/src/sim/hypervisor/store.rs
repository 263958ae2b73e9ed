//! XenStore as one domain's connection sees it: the [`Store`] of the bridge, of guests and of the toolstack.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::time::{Duration, Instant};

use super::faults::Faults;
use super::lock;
use super::tree::{Change, DOM0, Limits, Tree, check_path};
use super::watches::{Deliveries, Watcher, Watches};
use crate::xen::{DomId, Nodes, Permission, Store, StoreError, Watch, WatchSink};

/// How often a transaction is tried before its connection gives up.
const TRIES: usize = 1000;

struct State {
    /// Shared with transactions under way, which work on copies.
    tree: Arc<Tree>,
    watches: Watches,
    /// Transactions turned away because another change came between.
    conflicts: u64,
}

/// The one xenstored.
pub(super) struct Daemon {
    state: Mutex<State>,
    changed: Condvar,
}

/// A change, as it is made or made again at the end of a transaction.
#[derive(Clone)]
enum Edit {
    Write(String, Vec<u8>),
    Remove(String),
    Permissions(String, Vec<Permission>),
}

impl Edit {
    fn path(&self) -> &str {
        match self {
            Self::Write(path, _) | Self::Remove(path) | Self::Permissions(path, _) => path,
        }
    }

    fn apply(&self, tree: &mut Tree, by: DomId) -> Result<Vec<Change>, StoreError> {
        match self {
            Self::Write(path, value) => tree.write(by, path, value),
            Self::Remove(path) => tree.remove(by, path),
            Self::Permissions(path, permissions) => tree.set_permissions(by, path, permissions),
        }
    }
}

impl Daemon {
    pub fn new(limits: Limits) -> Self {
        let tree = Arc::new(Tree::new(limits));
        Self {
            state: Mutex::new(State { tree, watches: Watches::default(), conflicts: 0 }),
            changed: Condvar::new(),
        }
    }

    fn tree(&self) -> Arc<Tree> {
        Arc::clone(&lock(&self.state).tree)
    }

    /// Makes all `edits` or none, if `agrees` with the tree as it is.
    fn commit(
        &self,
        by: DomId,
        edits: &[Edit],
        agrees: impl FnOnce(&Tree) -> bool,
    ) -> Result<(), StoreError> {
        let mut state = lock(&self.state);
        if !agrees(&state.tree) {
            state.conflicts += 1;
            return Err(StoreError::Again);
        }
        let mut tree = Arc::clone(&state.tree);
        let mut changes = Vec::new();
        for edit in edits {
            changes.extend(edit.apply(Arc::make_mut(&mut tree), by)?);
        }
        state.tree = tree;
        for change in &changes {
            state.watches.fire(change);
        }
        drop(state);
        self.changed.notify_all();
        Ok(())
    }

    pub fn announce(&self, special: &str) {
        lock(&self.state).watches.fire_special(special);
    }

    pub fn watches(&self, domain: DomId) -> usize {
        lock(&self.state).watches.count(domain)
    }

    pub fn owned(&self, domain: DomId) -> usize {
        self.tree().owned(domain)
    }

    pub fn conflicts(&self) -> u64 {
        lock(&self.state).conflicts
    }

    pub fn dump(&self) -> String {
        self.tree().dump()
    }

    /// Waits until the node at `path` satisfies `wanted`, which sees `None` where there is none.
    pub fn wait(&self, path: &str, timeout: Duration, wanted: impl Fn(Option<&[u8]>) -> bool) -> bool {
        let deadline = Instant::now() + timeout;
        let mut state = lock(&self.state);
        loop {
            if wanted(state.tree.read(DOM0, path).ok().as_deref()) {
                return true;
            }
            let Some(left) = deadline.checked_duration_since(Instant::now()) else { return false };
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(std::sync::PoisonError::into_inner).0;
        }
    }
}

/// One domain's connection. Its watches' sinks are called from a thread of its own.
pub struct Connection {
    daemon: Arc<Daemon>,
    domain: DomId,
    told_of_domains: bool,
    faults: Option<Arc<Faults>>,
    killed: AtomicBool,
    /// Started with the first watch.
    deliveries: OnceLock<Arc<Deliveries>>,
}

impl Connection {
    pub(super) fn new(
        daemon: &Arc<Daemon>,
        domain: DomId,
        told_of_domains: bool,
        faults: Option<Arc<Faults>>,
    ) -> Self {
        let daemon = Arc::clone(daemon);
        let (killed, deliveries) = (AtomicBool::new(false), OnceLock::new());
        Self { daemon, domain, told_of_domains, faults, killed, deliveries }
    }

    /// The process that holds the connection dies.
    pub(super) fn kill(&self) {
        self.killed.store(true, Ordering::Release);
        if let Some(deliveries) = self.deliveries.get() {
            lock(&self.daemon.state).watches.remove_all_to(deliveries);
            deliveries.close();
        }
    }

    /// The domain that the connection speaks for.
    pub fn domain(&self) -> DomId {
        self.domain
    }

    fn met(&self, path: &str) -> Result<(), StoreError> {
        if self.killed.load(Ordering::Acquire) {
            return Err(StoreError::Disconnected("the process is dead".to_owned()));
        }
        self.faults.as_ref().map_or(Ok(()), |faults| faults.on_store(path))
    }

    fn edit(&self, edit: Edit) -> Result<(), StoreError> {
        self.met(edit.path())?;
        self.daemon.commit(self.domain, &[edit], |_| true)
    }

    /// The thread that calls the sinks.
    fn deliveries(&self) -> Result<&Arc<Deliveries>, StoreError> {
        if let Some(running) = self.deliveries.get() {
            return Ok(running);
        }
        let fresh = Arc::<Deliveries>::default();
        fresh.start().map_err(|error| StoreError::Disconnected(error.to_string()))?;
        if let Err(late) = self.deliveries.set(fresh) {
            late.close();
        }
        self.deliveries.get().ok_or_else(|| StoreError::Disconnected("closed".to_owned()))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(deliveries) = self.deliveries.get() {
            deliveries.close();
        }
    }
}

impl Nodes for Connection {
    fn read(&self, path: &str) -> Result<Vec<u8>, StoreError> {
        self.met(path)?;
        self.daemon.tree().read(self.domain, path)
    }

    fn write(&self, path: &str, value: &[u8]) -> Result<(), StoreError> {
        self.edit(Edit::Write(path.to_owned(), value.to_vec()))
    }

    fn directory(&self, path: &str) -> Result<Vec<String>, StoreError> {
        self.met(path)?;
        self.daemon.tree().directory(self.domain, path)
    }

    fn remove(&self, path: &str) -> Result<(), StoreError> {
        self.edit(Edit::Remove(path.to_owned()))
    }

    fn permissions(&self, path: &str) -> Result<Vec<Permission>, StoreError> {
        self.met(path)?;
        self.daemon.tree().permissions(self.domain, path)
    }

    fn set_permissions(&self, path: &str, permissions: &[Permission]) -> Result<(), StoreError> {
        self.edit(Edit::Permissions(path.to_owned(), permissions.to_vec()))
    }
}

struct RunningWatch {
    daemon: Arc<Daemon>,
    watcher: Arc<Watcher>,
}

impl Watch for RunningWatch {}

impl Drop for RunningWatch {
    fn drop(&mut self) {
        self.watcher.end();
        lock(&self.daemon.state).watches.remove(&self.watcher);
    }
}

impl Store for Connection {
    fn watch(&self, path: &str, sink: WatchSink) -> Result<Box<dyn Watch>, StoreError> {
        self.met(path)?;
        if !path.starts_with('@') {
            check_path(path)?;
        }
        let deliveries = Arc::clone(self.deliveries()?);
        let watcher = Watcher::new(sink);
        let mut state = lock(&self.daemon.state);
        if self.domain != DOM0 && state.watches.count(self.domain) >= state.tree.limits().watches {
            return Err(StoreError::Other("E2BIG".to_owned()));
        }
        state.watches.add(self.domain, self.told_of_domains, path, Arc::clone(&watcher), deliveries);
        drop(state);
        Ok(Box::new(RunningWatch { daemon: Arc::clone(&self.daemon), watcher }))
    }

    fn transaction(
        &self,
        body: &mut dyn FnMut(&dyn Nodes) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        for _ in 0..TRIES {
            let transaction = Transaction::begin(self);
            let ended = match body(&transaction) {
                Ok(()) => transaction.end(),
                Err(error) => Err(error),
            };
            if ended != Err(StoreError::Again) {
                return ended;
            }
        }
        Err(StoreError::Again)
    }
}

/// A transaction under way: sees its own changes on the tree as it was at the beginning.
struct Transaction<'a> {
    connection: &'a Connection,
    before: Arc<Tree>,
    now: RefCell<Tree>,
    edits: RefCell<Vec<Edit>>,
    /// Every node looked at or changed, with its generation before; a change of any of them since is a conflict.
    touched: RefCell<BTreeMap<String, Option<u64>>>,
}

impl<'a> Transaction<'a> {
    fn begin(connection: &'a Connection) -> Self {
        let before = connection.daemon.tree();
        let now = RefCell::new(Tree::clone(&before));
        Self { connection, before, now, edits: RefCell::default(), touched: RefCell::default() }
    }

    fn touch(&self, path: &str) -> Result<(), StoreError> {
        self.connection.met(path)?;
        check_path(path)?;
        let generation = self.before.generation(path);
        let mut touched = self.touched.borrow_mut();
        touched.insert(path.to_owned(), generation);
        if generation.is_none() {
            // Whether it exists shows in its parent, which also changes with it.
            let above = self.before.nearest(path);
            let generation = self.before.generation(&above);
            touched.insert(above, generation);
        }
        Ok(())
    }

    fn edit(&self, edit: Edit) -> Result<(), StoreError> {
        self.touch(edit.path())?;
        edit.apply(&mut self.now.borrow_mut(), self.connection.domain)?;
        self.edits.borrow_mut().push(edit);
        Ok(())
    }

    fn end(self) -> Result<(), StoreError> {
        let touched = self.touched.into_inner();
        let agrees =
            |tree: &Tree| touched.iter().all(|(path, generation)| tree.generation(path) == *generation);
        self.connection.daemon.commit(self.connection.domain, &self.edits.into_inner(), agrees)
    }
}

impl Nodes for Transaction<'_> {
    fn read(&self, path: &str) -> Result<Vec<u8>, StoreError> {
        self.touch(path)?;
        self.now.borrow().read(self.connection.domain, path)
    }

    fn write(&self, path: &str, value: &[u8]) -> Result<(), StoreError> {
        self.edit(Edit::Write(path.to_owned(), value.to_vec()))
    }

    fn directory(&self, path: &str) -> Result<Vec<String>, StoreError> {
        self.touch(path)?;
        self.now.borrow().directory(self.connection.domain, path)
    }

    fn remove(&self, path: &str) -> Result<(), StoreError> {
        self.edit(Edit::Remove(path.to_owned()))
    }

    fn permissions(&self, path: &str) -> Result<Vec<Permission>, StoreError> {
        self.touch(path)?;
        self.now.borrow().permissions(self.connection.domain, path)
    }

    fn set_permissions(&self, path: &str, permissions: &[Permission]) -> Result<(), StoreError> {
        self.edit(Edit::Permissions(path.to_owned(), permissions.to_vec()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const SOON: Duration = Duration::from_secs(5);

    fn daemon() -> (Arc<Daemon>, Connection) {
        let daemon = Arc::new(Daemon::new(Limits::default()));
        let dom0 = Connection::new(&daemon, DOM0, true, None);
        (daemon, dom0)
    }

    fn heard(connection: &Connection, path: &str) -> (Box<dyn Watch>, mpsc::Receiver<String>) {
        let (sender, receiver) = mpsc::channel();
        let sink = Box::new(move |path: &str| drop(sender.send(path.to_owned())));
        (connection.watch(path, sink).unwrap(), receiver)
    }

    #[test]
    fn a_watch_fires_at_once_and_for_everything_below_or_taken_away_above() {
        let (daemon, dom0) = daemon();
        dom0.write("/a/b/c", b"1").unwrap();
        let (watch, paths) = heard(&dom0, "/a/b");
        let (_deep, deep_paths) = heard(&dom0, "/a/b/c/d");
        assert_eq!(paths.recv_timeout(SOON).unwrap(), "/a/b");
        assert_eq!(deep_paths.recv_timeout(SOON).unwrap(), "/a/b/c/d");
        dom0.write("/a/bc", b"1").unwrap();
        dom0.write("/a/b/c/d", b"1").unwrap();
        assert_eq!(paths.recv_timeout(SOON).unwrap(), "/a/b/c/d");
        assert_eq!(deep_paths.recv_timeout(SOON).unwrap(), "/a/b/c/d");
        dom0.remove("/a").unwrap();
        assert_eq!(paths.recv_timeout(SOON).unwrap(), "/a/b");
        assert_eq!(deep_paths.recv_timeout(SOON).unwrap(), "/a/b/c/d");
        assert_eq!(daemon.watches(DOM0), 2);
        drop(watch);
        assert_eq!(daemon.watches(DOM0), 1);
        dom0.write("/a/b", b"").unwrap();
        assert!(paths.recv_timeout(Duration::from_millis(20)).is_err());
    }

    #[test]
    fn watches_tell_only_what_may_be_read_and_specials_only_whom_they_concern() {
        let (daemon, dom0) = daemon();
        let guest = Connection::new(&daemon, DomId(1), false, None);
        let (_all, all) = heard(&guest, "/");
        let (_release, release) = heard(&guest, "@releaseDomain");
        let (_dom0_release, dom0_release) = heard(&dom0, "@releaseDomain");
        assert_eq!(all.recv_timeout(SOON).unwrap(), "/");
        assert_eq!(release.recv_timeout(SOON).unwrap(), "@releaseDomain");
        dom0.write("/secret", b"1").unwrap();
        daemon.announce("@releaseDomain");
        assert_eq!(dom0_release.recv_timeout(SOON).unwrap(), "@releaseDomain");
        assert_eq!(dom0_release.recv_timeout(SOON).unwrap(), "@releaseDomain");
        let rest = Duration::from_millis(20);
        assert!(all.recv_timeout(rest).is_err() && release.recv_timeout(rest).is_err());
    }

    #[test]
    fn a_sink_that_is_slow_or_waits_for_the_store_blocks_nobody_and_loses_nothing() {
        let (daemon, dom0) = daemon();
        let (sender, receiver) = mpsc::channel();
        let (go, gate) = mpsc::channel::<()>();
        let sink = Box::new(move |path: &str| {
            let _ = gate.recv_timeout(SOON);
            let _ = sender.send(path.to_owned());
        });
        let _watch = dom0.watch("/a", sink).unwrap();
        for n in 0..100 {
            dom0.write(&format!("/a/{n}"), b"").unwrap();
        }
        drop(go);
        let paths: Vec<_> = (0..101).map(|_| receiver.recv_timeout(SOON).unwrap()).collect();
        assert_eq!(paths[100], "/a/99");
        drop(daemon);
    }

    #[test]
    fn a_transaction_is_tried_again_when_another_change_comes_between() {
        let (daemon, dom0) = daemon();
        let other = Connection::new(&daemon, DOM0, true, None);
        dom0.write("/count", b"1").unwrap();
        let mut tries = 0;
        let ended = dom0.transaction(&mut |nodes| {
            tries += 1;
            let value = nodes.read("/count")?;
            if tries == 1 {
                other.write("/count", b"5").unwrap();
                assert_eq!(nodes.read("/count").unwrap(), b"1", "sees the tree as it was");
            }
            nodes.write("/double", &[value, b"0".to_vec()].concat())
        });
        assert_eq!((ended, tries, daemon.conflicts()), (Ok(()), 2, 1));
        assert_eq!(dom0.read("/double").unwrap(), b"50");
    }

    #[test]
    fn an_error_in_a_transaction_undoes_it_and_nothing_shows_before_its_end() {
        let (daemon, dom0) = daemon();
        let other = Connection::new(&daemon, DOM0, true, None);
        let ended = dom0.transaction(&mut |nodes| {
            nodes.write("/a/b", b"1")?;
            assert_eq!(nodes.read("/a/b").unwrap(), b"1");
            assert_eq!(other.read("/a/b"), Err(StoreError::NotFound));
            nodes.read("/nothing").map(drop)
        });
        assert_eq!(ended, Err(StoreError::NotFound));
        assert_eq!(dom0.read("/a/b"), Err(StoreError::NotFound));
        let strangers = dom0.transaction(&mut |nodes| {
            other.write("/elsewhere/x", b"").unwrap();
            nodes.write("/elsewhere/y", b"")
        });
        assert_eq!(strangers, Ok(()), "a neighbour's birth is met once and then seen");
    }

    #[test]
    fn faults_on_order_hit_only_who_ordered_them() {
        let (daemon, dom0) = daemon();
        let faults = Arc::<Faults>::default();
        let bridge = Connection::new(&daemon, DOM0, true, Some(Arc::clone(&faults)));
        faults.fail_store("/state", StoreError::Disconnected("gone".into()), 2);
        assert!(bridge.write("/a/state", b"").is_err());
        assert!(dom0.write("/a/state", b"").is_ok());
        assert!(bridge.transaction(&mut |nodes| nodes.write("/a/state", b"")).is_err());
        assert!(bridge.write("/a/state", b"").is_ok());
        assert!(daemon.wait("/a/state", SOON, |value| value.is_some()));
        assert!(!daemon.wait("/a/none", Duration::from_millis(5), |value| value.is_some()));
    }
}
