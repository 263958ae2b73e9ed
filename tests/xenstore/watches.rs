//! Watches: none is lost, none holds anything up, none stays behind.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use vsnd_bridge::xen::{Nodes, Store, StoreError};
use vsnd_tests::xenstored::Xenstored;

use super::{number, until};

#[test]
fn a_watch_fires_at_once_and_for_every_change_below() {
    let xenstored = Xenstored::start().unwrap();
    let store = xenstored.store().unwrap();
    let (to, paths) = mpsc::channel();
    let _watch = store.watch("/watched", Box::new(move |path| to.send(path.to_owned()).unwrap())).unwrap();
    let next = || paths.recv_timeout(Duration::from_secs(5)).unwrap();
    assert_eq!(next(), "/watched");
    store.write("/watched/a/b", b"").unwrap();
    assert_eq!(next(), "/watched/a/b");
    store.transaction(&mut |nodes| nodes.write("/watched/c", b"")).unwrap();
    assert_eq!(next(), "/watched/c");
    store.write("/elsewhere", b"").unwrap();
    store.remove("/watched").unwrap();
    assert_eq!(next(), "/watched");
    let _deaths = store.watch("@releaseDomain", Box::new(|_| {})).unwrap();
}

#[test]
fn a_receiver_that_blocks_holds_up_no_call() {
    let xenstored = Xenstored::start().unwrap();
    let store = xenstored.store().unwrap();
    let (started_to, started) = mpsc::channel();
    let (go_on, wait) = mpsc::channel::<()>();
    let _watch = store
        .watch(
            "/watched",
            Box::new(move |_| {
                started_to.send(()).unwrap();
                let _ = wait.recv();
            }),
        )
        .unwrap();
    started.recv().unwrap();
    let before = Instant::now();
    for index in 0..1000 {
        store.write(&format!("/watched/{}", index % 7), b"").unwrap();
    }
    store.transaction(&mut |nodes| nodes.read("/watched/1").map(drop)).unwrap();
    assert!(before.elapsed() < Duration::from_secs(4), "{:?}", before.elapsed());
    drop(go_on);
}

#[test]
fn ten_thousand_events_into_a_slow_receiver_leave_it_with_the_last_of_each() {
    const PATHS: u32 = 10;
    let xenstored = Xenstored::start().unwrap();
    let store = xenstored.store().unwrap();
    let (to, changed) = mpsc::channel::<String>();
    let calls = AtomicUsize::new(0);
    let _watch = store
        .watch(
            "/flood",
            Box::new(move |path| {
                thread::sleep(Duration::from_millis(1));
                let _ = to.send(path.to_owned());
            }),
        )
        .unwrap();
    thread::scope(|scope| {
        let writing = scope.spawn(|| {
            let other = xenstored.store().unwrap();
            for value in 0..10_000u32 {
                other.write(&format!("/flood/{}", value % PATHS), value.to_string().as_bytes()).unwrap();
            }
        });
        // Calls on the flooded connection go on meanwhile, each at its usual pace.
        scope.spawn(|| {
            let mut longest = Duration::ZERO;
            for round in 0..500 {
                let before = Instant::now();
                store.write("/calm", round.to_string().as_bytes()).unwrap();
                assert_eq!(number(&store.read("/calm").unwrap()), round);
                longest = longest.max(before.elapsed());
            }
            assert!(longest < Duration::from_secs(2), "{longest:?}");
        });
        // The receiver reads what it is told of, as the bridge does.
        let mut seen = HashMap::new();
        let expected: HashMap<String, u32> =
            (0..PATHS).map(|path| (format!("/flood/{path}"), 10_000 - PATHS + path)).collect();
        let deadline = Instant::now() + Duration::from_secs(60);
        while seen != expected {
            assert!(Instant::now() < deadline, "{seen:?}");
            let Ok(path) = changed.recv_timeout(Duration::from_secs(5)) else {
                panic!("the last changes were never told: {seen:?}");
            };
            calls.fetch_add(1, Ordering::Relaxed);
            if path != "/flood" {
                seen.insert(path.clone(), number(&store.read(&path).unwrap()));
            }
        }
        writing.join().unwrap();
    });
    assert!(calls.into_inner() <= 10_001);
}

#[test]
fn a_dropped_watch_is_gone_here_and_there() {
    let xenstored = Xenstored::start().unwrap();
    let store = xenstored.store().unwrap();
    let (to, paths) = mpsc::channel();
    let watches: Vec<_> = (0..20)
        .map(|_| {
            let to = to.clone();
            store.watch("/watched", Box::new(move |path| to.send(path.to_owned()).unwrap())).unwrap()
        })
        .collect();
    until("all fire at once", || xenstored.made_and_ended("watch").unwrap() == (20, 0));
    drop(watches);
    until("none is left", || xenstored.made_and_ended("watch").unwrap() == (20, 20));
    while paths.try_recv().is_ok() {}
    store.write("/watched", b"").unwrap();
    // An answer comes after the events before it, so this one would have been told.
    store.read("/watched").unwrap();
    assert_eq!(paths.recv_timeout(Duration::from_millis(200)).ok(), None);
}

#[test]
fn a_refused_watch_leaves_nothing() {
    let xenstored = Xenstored::start().unwrap();
    let store = xenstored.store().unwrap();
    assert!(matches!(store.watch("no good path!", Box::new(|_| {})), Err(StoreError::Other(_))));
    assert!(store.watch("", Box::new(|_| {})).is_err());
    let (made, ended) = xenstored.made_and_ended("watch").unwrap();
    assert_eq!(made, ended);
}
