//! The XenStore client against a real xenstored, with xenstore-rs and Xen's own tools as independent peers.
#![allow(clippy::unwrap_used, clippy::expect_used)] // what helps a test panics as the test does

mod failures;
mod peer;
mod watches;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use vsnd_bridge::xen::real::{Places, Probe, Route, own_domain};
use vsnd_bridge::xen::{DomId, Nodes, Permission, Rights, Store, StoreError};
use vsnd_tests::xenstored::Xenstored;

/// Waits until `done`, at most ten seconds.
fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(Instant::now() < deadline, "{what} within ten seconds");
        thread::sleep(Duration::from_millis(5));
    }
}

fn number(octets: &[u8]) -> u32 {
    std::str::from_utf8(octets).unwrap().parse().unwrap()
}

#[test]
fn values_come_back_as_written() {
    let xenstored = Xenstored::start().unwrap();
    let store = xenstored.store().unwrap();
    let every_octet: Vec<u8> = (0..=255).collect();
    assert_eq!(store.write("/no path", b""), Err(StoreError::Other("EINVAL".into())));
    for (path, value) in
        [("/values/octets", every_octet.as_slice()), ("/values/empty", b""), ("/values/nul", b"\0")]
    {
        store.write(path, value).unwrap();
        assert_eq!(store.read(path).unwrap(), value, "{path}");
    }
    store.write("/values/octets", b"less").unwrap();
    assert_eq!(store.read("/values/octets").unwrap(), b"less");
    assert_eq!(store.read("/values").unwrap(), b"", "parents are made on the way");
    assert_eq!(store.read("/nothing"), Err(StoreError::NotFound));
    assert_eq!(store.directory("/nothing"), Err(StoreError::NotFound));
    assert_eq!(store.permissions("/nothing"), Err(StoreError::NotFound));
}

#[test]
fn what_does_not_fit_is_refused_and_the_connection_lives_on() {
    let xenstored = Xenstored::start().unwrap();
    let store = xenstored.store().unwrap();
    // 4096 octets of path, its NUL and value; xenstored itself takes 2048 of value.
    let refused = store.write("/large", &[b'x'; 4096 - 7 + 1]);
    assert_eq!(refused, Err(StoreError::TooLarge { octets: 4097, limit: 4096 }));
    assert_eq!(store.read(&"/x".repeat(2100)), Err(StoreError::TooLarge { octets: 4201, limit: 4096 }));
    assert!(matches!(store.write("/nul\0inside", b""), Err(StoreError::Other(_))));
    store.write("/large", &[b'x'; 2000]).unwrap();
    assert_eq!(store.read("/large").unwrap().len(), 2000);
}

#[test]
fn removing_takes_all_below_and_does_not_mind_nothing() {
    let xenstored = Xenstored::start().unwrap();
    let store = xenstored.store().unwrap();
    store.write("/gone/a/b", b"c").unwrap();
    store.remove("/gone").unwrap();
    assert_eq!(store.read("/gone/a/b"), Err(StoreError::NotFound));
    store.remove("/gone").unwrap();
    store.remove("/gone/a/b").unwrap();
}

#[test]
fn a_directory_of_a_thousand_entries_is_whole_while_others_come_and_go() {
    let xenstored = Xenstored::start().unwrap();
    let store = xenstored.store().unwrap();
    let mut names: Vec<String> =
        (0..1000).map(|index| format!("an-entry-with-a-name-of-some-length-{index}")).collect();
    for name in &names {
        store.write(&format!("/large/{name}"), b"").unwrap();
    }
    names.sort();
    let sorted = |mut list: Vec<String>| {
        list.sort();
        list
    };
    assert_eq!(sorted(store.directory("/large").unwrap()), names);
    let as_the_tool_sees: Vec<String> =
        xenstored.tool("xenstore-list", &["/large"]).unwrap().lines().map(str::to_owned).collect();
    assert_eq!(sorted(as_the_tool_sees), names);

    let changing = AtomicBool::new(true);
    thread::scope(|scope| {
        scope.spawn(|| {
            let other = xenstored.store().unwrap();
            while changing.load(Ordering::Relaxed) {
                other.write("/large/a-guest", b"").unwrap();
                thread::sleep(Duration::from_micros(200));
                other.remove("/large/a-guest").unwrap();
                thread::sleep(Duration::from_millis(2));
            }
        });
        let lists: Vec<_> = (0..30).map(|_| store.directory("/large")).collect();
        changing.store(false, Ordering::Relaxed);
        for list in lists {
            let mut list = list.unwrap();
            list.retain(|name| name != "a-guest");
            assert_eq!(sorted(list), names);
        }
    });
    store
        .transaction(&mut |nodes| {
            assert_eq!(sorted(nodes.directory("/large")?), names, "in a transaction too");
            Ok(())
        })
        .unwrap();
}

#[test]
fn a_transaction_that_meets_another_change_is_made_again() {
    let xenstored = Xenstored::start().unwrap();
    let (store, other) = (xenstored.store().unwrap(), xenstored.store().unwrap());
    store.write("/counter", b"1").unwrap();
    let mut tries = 0;
    store
        .transaction(&mut |nodes| {
            tries += 1;
            let value = number(&nodes.read("/counter")?);
            if tries == 1 {
                other.write("/counter", b"10").unwrap();
            }
            nodes.write("/counter", (value + 1).to_string().as_bytes())
        })
        .unwrap();
    assert_eq!(tries, 2);
    assert_eq!(store.read("/counter").unwrap(), b"11");
}

#[test]
fn transactions_of_many_threads_lose_no_update() {
    let xenstored = Xenstored::start().unwrap();
    let store = xenstored.store().unwrap();
    store.write("/counter", b"0").unwrap();
    let tries = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..50 {
                    store
                        .transaction(&mut |nodes| {
                            tries.fetch_add(1, Ordering::Relaxed);
                            let value = number(&nodes.read("/counter")?);
                            nodes.write("/counter", (value + 1).to_string().as_bytes())
                        })
                        .unwrap();
                }
            });
        }
    });
    assert_eq!(store.read("/counter").unwrap(), b"200");
    assert!(tries.into_inner() > 200, "they did meet");
}

#[test]
fn a_transaction_that_never_gets_through_ends_with_again() {
    let xenstored = Xenstored::start().unwrap();
    let (store, other) = (xenstored.store().unwrap(), xenstored.store().unwrap());
    let mut tries = 0;
    let outcome = store.transaction(&mut |nodes| {
        tries += 1;
        let _ = nodes.read("/contended");
        other.write("/contended", tries.to_string().as_bytes()).unwrap();
        nodes.write("/contended", b"mine")
    });
    assert_eq!(outcome, Err(StoreError::Again));
    assert!(tries >= 50);
    assert_ne!(store.read("/contended").unwrap(), b"mine");
}

#[test]
fn a_transaction_whose_body_fails_never_happened() {
    let xenstored = Xenstored::start().unwrap();
    let store = xenstored.store().unwrap();
    let outcome = store.transaction(&mut |nodes| {
        nodes.write("/half", b"done")?;
        assert_eq!(nodes.read("/half")?, b"done", "it sees itself");
        assert_eq!(store.read("/half"), Err(StoreError::NotFound), "nobody else does");
        nodes.read("/missing").map(drop)
    });
    assert_eq!(outcome, Err(StoreError::NotFound));
    assert_eq!(store.read("/half"), Err(StoreError::NotFound));
    // Open ones would be in the way of the quota and of others.
    until("no transaction stays open", || {
        let (made, ended) = xenstored.made_and_ended("transaction").unwrap();
        made == 1 && ended == 1
    });
}

#[test]
fn permissions_are_set_and_read() {
    let xenstored = Xenstored::start().unwrap();
    let store = xenstored.store().unwrap();
    store.write("/shared", b"v").unwrap();
    let permission = |domain, rights| Permission { domain: DomId(domain), rights };
    let list = [
        permission(0, Rights::None),
        permission(5, Rights::Read),
        permission(6, Rights::Write),
        permission(700, Rights::ReadWrite),
    ];
    store.set_permissions("/shared", &list).unwrap();
    assert_eq!(store.permissions("/shared").unwrap(), list);
    let seen = xenstored.tool("xenstore-ls", &["-fp"]).unwrap();
    assert!(seen.contains("(n0,r5,w6,b700)"), "{seen}");
    xenstored.tool("xenstore-chmod", &["/shared", "r0", "b3"]).unwrap();
    assert_eq!(
        store.permissions("/shared").unwrap(),
        [permission(0, Rights::Read), permission(3, Rights::ReadWrite)]
    );
}

#[test]
fn many_threads_share_a_connection() {
    let xenstored = Xenstored::start().unwrap();
    let store = xenstored.store().unwrap();
    thread::scope(|scope| {
        for thread in 0..8 {
            let store = &store;
            scope.spawn(move || {
                for round in 0..300 {
                    let path = format!("/threads/{thread}");
                    store.write(&path, round.to_string().as_bytes()).unwrap();
                    assert_eq!(number(&store.read(&path).unwrap()), round);
                    assert_eq!(store.read("/none"), Err(StoreError::NotFound));
                }
            });
        }
    });
}

#[test]
fn the_own_domain_and_the_probe_come_from_the_store() {
    let xenstored = Xenstored::start().unwrap();
    let store = xenstored.store().unwrap();
    assert!(own_domain(&store).is_err());
    store.write("/local/domain/0/domid", b"0").unwrap();
    assert_eq!(own_domain(&store).unwrap(), DomId(0));
    let null = std::path::PathBuf::from("/dev/null");
    let places =
        Places { store: vec![Route::Socket(xenstored.socket())], grants: null.clone(), events: null };
    let probe = Probe::new(&places);
    assert_eq!(probe.domain, Ok(DomId(0)));
    assert!(probe.is_complete());
}
