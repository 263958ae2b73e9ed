//! The session bus comes and goes, has its name taken, and is not flooded.

use std::os::unix::net::UnixListener;
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use futures::StreamExt;
use vsnd_bridge::control::Control;
use vsnd_bridge::session_bus::{self, Error};
use vsnd_dbus::client::{Client, Event};
use vsnd_dbus::{Object, StartError};
use vsnd_pw_module::Direction;
use vsnd_tests::bus::PrivateBus;
use vsnd_tests::rings::PATIENCE;

use super::desk::{Desk, Private, connect};

#[test]
fn one_bridge_serves_a_session_and_the_second_is_told_who() {
    let bus = PrivateBus::start().unwrap();
    let serve = || {
        let address = bus.address().to_owned();
        session_bus::serve(Control::default(), move || connect(address.clone()))
    };
    serve().unwrap();
    let Err(Error::Start(StartError::NameTaken(owner))) = serve() else { panic!("two serve") };
    assert_eq!(owner.process, Some(std::process::id()));
}

/// An address that can be changed, and a bridge that serves where it leads to. Guests wait for `most` at most meanwhile.
fn serve_at(address: &str, most: Duration) -> Arc<Mutex<String>> {
    let address = Arc::new(Mutex::new(address.to_owned()));
    let known = Arc::clone(&address);
    let (told, outcome) = mpsc::channel();
    std::thread::spawn(move || {
        let connect = move || connect(known.lock().unwrap().clone());
        let _ = told.send(session_bus::serve(Control::default(), connect));
    });
    outcome.recv_timeout(most).expect("guests wait for no bus").unwrap();
    address
}

/// Waits until there is a bridge on the bus.
fn finds_bridge(bus: &PrivateBus) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = Client::on(connect(bus.address().to_owned()).await.unwrap());
        let deadline = Instant::now() + PATIENCE;
        while client.snapshot().await.is_err() {
            assert!(Instant::now() < deadline, "the bridge did not find the bus");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
}

#[test]
fn a_bus_that_comes_late_or_is_started_again_is_found() {
    let address = serve_at("unix:path=/nonexistent/bus", Duration::from_secs(1));
    for _ in 0..2 {
        let bus = PrivateBus::start().unwrap();
        *address.lock().unwrap() = bus.address().to_owned();
        finds_bridge(&bus);
    }
}

#[test]
fn a_bus_that_takes_connections_and_does_not_answer_holds_no_guest_up() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bus");
    // The kernel takes them; nobody reads from them.
    let _silent = UnixListener::bind(&path).unwrap();
    let address = serve_at(&format!("unix:path={}", path.display()), Duration::from_secs(2));
    let bus = PrivateBus::start().unwrap();
    *address.lock().unwrap() = bus.address().to_owned();
    finds_bridge(&bus);
}

/// A guest can start and stop a stream far more often than anybody on the bus can listen.
#[test]
fn a_guest_does_not_flood_the_bus() {
    const RUNS: usize = 500;
    let desk = Desk::start(Private::pulse(), "[default]\ncapture = \"allow\"\n");
    let pcm = desk.open(Direction::Capture);
    let mut events = desk.on_bus(desk.client().events()).unwrap();
    let began = Instant::now();
    for _ in 0..RUNS {
        pcm.start().unwrap();
        pcm.stop();
        pcm.prepare().unwrap();
    }
    let took = began.elapsed();
    // The last thing that happens.
    desk.on_bus(desk.domain_proxy().set_muted(true)).unwrap();
    let (mut signals, mut states) = (0, 0);
    desk.on_bus(async {
        while let Some(event) = events.next().await {
            if let Event::Changed { object, properties } = event {
                signals += 1;
                states += usize::from(properties.contains_key("State"));
                if matches!(object, Object::Domain(_)) && properties.contains_key("Muted") {
                    return;
                }
            }
        }
        panic!("the bus ended");
    });
    let most = 4 * (took.as_millis() / 20 + 2) as usize;
    println!("{RUNS} runs in {took:?} made {signals} signals, {states} of them of the state");
    assert!(signals <= most, "{signals} signals in {took:?}");
}
