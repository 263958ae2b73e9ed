//! xenstored dies, falls silent, or is left.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use vsnd_bridge::xen::{Nodes, Store, StoreError};
use vsnd_tests::xenstored::Xenstored;

use super::until;

#[test]
fn a_killed_xenstored_is_told_to_callers_and_receivers_at_once() {
    let mut xenstored = Xenstored::start().unwrap();
    let store = xenstored.store().unwrap();
    let (to, paths) = mpsc::channel();
    let _watch = store.watch("/watched", Box::new(move |path| to.send(path.to_owned()).unwrap())).unwrap();
    paths.recv().unwrap();
    xenstored.pause().unwrap();
    thread::scope(|scope| {
        let under_way = scope.spawn(|| store.read("/anything"));
        thread::sleep(Duration::from_millis(100));
        let before = Instant::now();
        xenstored.kill().unwrap();
        assert!(matches!(under_way.join().unwrap(), Err(StoreError::Disconnected(_))));
        assert!(before.elapsed() < Duration::from_secs(1));
    });
    let before = Instant::now();
    assert!(matches!(store.write("/anything", b""), Err(StoreError::Disconnected(_))));
    assert!(matches!(store.transaction(&mut |_| Ok(())), Err(StoreError::Disconnected(_))));
    assert!(matches!(store.watch("/more", Box::new(|_| {})), Err(StoreError::Disconnected(_))));
    assert!(before.elapsed() < Duration::from_secs(1));
    assert_eq!(paths.recv_timeout(Duration::from_secs(1)).unwrap(), "/watched");
}

#[test]
fn a_silent_xenstored_holds_a_call_for_five_seconds_and_is_forgiven() {
    let xenstored = Xenstored::start().unwrap();
    let store = xenstored.store().unwrap();
    store.write("/a", b"1").unwrap();
    xenstored.pause().unwrap();
    let before = Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| assert!(matches!(store.read("/a"), Err(StoreError::Disconnected(_)))));
        scope.spawn(|| {
            assert!(matches!(store.transaction(&mut |_| Ok(())), Err(StoreError::Disconnected(_))));
        });
        scope.spawn(|| {
            assert!(matches!(store.watch("/w", Box::new(|_| {})), Err(StoreError::Disconnected(_))));
        });
        // As many connections as its socket lets wait, and the first that it doesn't.
        scope.spawn(|| assert!((0..5).any(|_| xenstored.store().is_err())));
    });
    let took = before.elapsed();
    assert!((Duration::from_secs(5)..Duration::from_secs(7)).contains(&took), "{took:?}");
    xenstored.resume().unwrap();
    // The late answers go nowhere, and what they opened is closed.
    assert_eq!(store.read("/a").unwrap(), b"1");
    until("no transaction and no watch stays", || {
        xenstored.made_and_ended("transaction").unwrap() == (1, 1)
            && xenstored.made_and_ended("watch").unwrap() == (1, 1)
    });
}

#[test]
fn a_dropped_connection_is_closed_and_its_threads_end() {
    let xenstored = Xenstored::start().unwrap();
    let closed = |connections: usize| {
        until("all connections close", || {
            let (made, ended) = xenstored.made_and_ended("connection").unwrap();
            // The first of all is xenstored's own, of Dom0's ring.
            made > connections && ended + 1 == made
        });
    };
    for _ in 0..20 {
        let store = xenstored.store().unwrap();
        store.read("/").unwrap();
        let watch = store.watch("/w", Box::new(|_| {})).unwrap();
        drop(store);
        drop(watch);
    }
    // The socket closes when the last of the threads that share it has ended.
    closed(20);
}
