//! Fired watches on their way to their receivers.
//!
//! The reader of the connection puts them here and goes on; one thread of their own takes them to the sinks. So no sink,
//! however slow, holds up an answer. A path that changes again before its receiver came round is told once: what waits
//! is bounded by the paths, and past [`PATHS_MAX`] of them by the watch.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::xen::WatchSink;

/// Paths that wait for one receiver. Beyond it the watched path itself stands for all of them: a guest can invent names
/// below a node of its own faster than anyone reads.
const PATHS_MAX: usize = 1024;

/// One watch.
struct Entry {
    path: Arc<str>,
    sink: Arc<Mutex<WatchSink>>,
    /// Paths to tell, in the order in which they changed.
    waiting: VecDeque<Arc<str>>,
    /// The same, for the question whether a path is among them.
    known: HashSet<Arc<str>>,
}

impl Entry {
    /// Notes a change. Returns whether the receiver had nothing to do before.
    fn note(&mut self, path: &str) -> bool {
        let idle = self.waiting.is_empty();
        if self.known.contains(path) {
            return false;
        }
        let path = if self.waiting.len() < PATHS_MAX {
            Arc::from(path)
        } else {
            self.waiting.clear();
            self.known.clear();
            self.path.clone()
        };
        self.known.insert(path.clone());
        self.waiting.push_back(path);
        idle
    }
}

#[derive(Default)]
struct Table {
    entries: BTreeMap<u64, Entry>,
    /// Tokens of watches with paths waiting, each once.
    ready: VecDeque<u64>,
    last_token: u64,
    closed: bool,
}

/// All watches of a connection.
#[derive(Default)]
pub(super) struct Watches {
    table: Mutex<Table>,
    changed: Condvar,
}

impl Watches {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a watch and returns the token that its events carry.
    pub(super) fn add(&self, path: &str, sink: WatchSink) -> u64 {
        let mut table = self.table();
        table.last_token += 1;
        let token = table.last_token;
        let sink = Arc::new(Mutex::new(sink));
        let entry = Entry { path: path.into(), sink, waiting: VecDeque::new(), known: HashSet::new() };
        table.entries.insert(token, entry);
        token
    }

    /// Forgets a watch and what waits for it.
    pub(super) fn remove(&self, token: u64) {
        let removed = self.table().entries.remove(&token);
        // A sink's own drop may do anything, so it runs without the lock.
        drop(removed);
    }

    /// A watch fired. Events of a watch that was dropped meanwhile go nowhere.
    pub(super) fn fire(&self, token: u64, path: &str) {
        let mut table = self.table();
        let Some(entry) = table.entries.get_mut(&token) else { return };
        if entry.note(path) {
            table.ready.push_back(token);
            self.changed.notify_one();
        }
    }

    /// Fires every watch with its own path: its receiver looks and sees what became of XenStore.
    pub(super) fn fire_all(&self) {
        let watches: Vec<_> =
            self.table().entries.iter().map(|(token, entry)| (*token, entry.path.clone())).collect();
        for (token, path) in watches {
            self.fire(token, &path);
        }
    }

    /// Ends [`run`](Self::run).
    pub(super) fn close(&self) {
        self.table().closed = true;
        self.changed.notify_all();
    }

    /// Calls sinks until [`close`](Self::close): one path of one watch, then the next watch, so that a flood below one
    /// costs the others no more than its sink's own time.
    pub(super) fn run(&self) {
        let mut table = self.table();
        while !table.closed {
            let Some(token) = table.ready.pop_front() else {
                table = self.changed.wait(table).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let Some(entry) = table.entries.get_mut(&token) else { continue };
            let Some(path) = entry.waiting.pop_front() else { continue };
            // Out of both before the sink is called: a change during the call is told again after it.
            entry.known.remove(&path);
            let more = !entry.waiting.is_empty();
            let sink = entry.sink.clone();
            if more {
                table.ready.push_back(token);
            }
            drop(table);
            (sink.lock().unwrap_or_else(PoisonError::into_inner))(&path);
            drop(sink);
            table = self.table();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::thread;

    /// Runs what waits and returns what sinks heard.
    fn told(watches: &Watches, heard: &mpsc::Receiver<String>) -> Vec<String> {
        thread::scope(|scope| {
            scope.spawn(|| watches.run());
            while !watches.table().ready.is_empty() {
                thread::yield_now();
            }
            watches.close();
        });
        heard.try_iter().collect()
    }

    fn sink(name: &'static str, to: &mpsc::Sender<String>) -> WatchSink {
        let to = to.clone();
        Box::new(move |path| to.send(format!("{name}:{path}")).unwrap())
    }

    #[test]
    fn a_path_that_waits_already_is_told_once_and_order_is_kept() {
        let (to, heard) = mpsc::channel();
        let watches = Watches::default();
        let token = watches.add("/a", sink("a", &to));
        for path in ["/a/x", "/a/y", "/a/x", "/a/x"] {
            watches.fire(token, path);
        }
        assert_eq!(told(&watches, &heard), ["a:/a/x", "a:/a/y"]);
    }

    #[test]
    fn a_flood_below_one_watch_lets_the_others_in() {
        let (to, heard) = mpsc::channel();
        let watches = Watches::default();
        let flooded = watches.add("/a", sink("a", &to));
        let quiet = watches.add("/b", sink("b", &to));
        for index in 0..100 {
            watches.fire(flooded, &format!("/a/{index}"));
        }
        watches.fire(quiet, "/b");
        let order = told(&watches, &heard);
        assert_eq!(order.len(), 101);
        assert!(order.iter().position(|path| path == "b:/b").unwrap() < 3);
    }

    #[test]
    fn more_paths_than_anyone_reads_become_the_watched_one() {
        let (to, heard) = mpsc::channel();
        let watches = Watches::default();
        let token = watches.add("/a", sink("a", &to));
        for index in 0..=PATHS_MAX {
            watches.fire(token, &format!("/a/{index}"));
        }
        watches.fire(token, "/a/last");
        assert_eq!(told(&watches, &heard), ["a:/a", "a:/a/last"]);
    }

    #[test]
    fn a_removed_watch_hears_nothing_more() {
        let (to, heard) = mpsc::channel();
        let watches = Watches::default();
        let token = watches.add("/a", sink("a", &to));
        watches.fire(token, "/a");
        watches.remove(token);
        watches.fire(token, "/a");
        assert_eq!(told(&watches, &heard), [""; 0]);
    }

    #[test]
    fn a_change_during_the_call_is_told_after_it() {
        let watches = Arc::new(Watches::default());
        let (to, heard) = mpsc::channel();
        let (started_to, started) = mpsc::channel();
        let (go_on_to, go_on) = mpsc::channel::<()>();
        let token = watches.add(
            "/a",
            Box::new(move |path| {
                started_to.send(()).unwrap();
                go_on.recv().unwrap();
                to.send(path.to_owned()).unwrap();
            }),
        );
        watches.fire(token, "/a/x");
        thread::scope(|scope| {
            scope.spawn(|| watches.run());
            started.recv().unwrap();
            watches.fire(token, "/a/x");
            go_on_to.send(()).unwrap();
            started.recv().unwrap();
            watches.close();
            go_on_to.send(()).unwrap();
        });
        assert_eq!(heard.try_iter().count(), 2);
    }
}
