//! The well-known name on a real bus.

use std::fs;
use std::path::Path;

use tokio::process::Command;
use tokio::sync::mpsc;
use vsnd_dbus::client::{Client, Event};
use vsnd_dbus::{BridgeState, Object, Service, StartError};
use zbus::fdo::DBusProxy;

use crate::bus::Bus;
use crate::fake::{Fake, PLAYBACK, WORK};
use crate::peer::next;

#[tokio::test]
async fn a_second_bridge_refuses_to_start_and_names_the_process_of_the_first() {
    let bus = Bus::start();
    let first = Fake::on(bus.connect().await).await;
    let (requests, _inbox) = mpsc::channel(1);
    let connection = bus.connect().await;
    let refused = Service::start(connection, BridgeState::new("null"), requests).await.unwrap_err();
    let StartError::NameTaken(owner) = &refused else { panic!("{refused:?}") };
    assert_eq!(owner.process, Some(std::process::id()));
    let text = refused.to_string();
    assert!(text.contains(&format!("process {} (bridge", std::process::id())), "{text}");
    // The first one has noticed nothing.
    assert_eq!(Client::on(bus.connect().await).snapshot().await.unwrap().domains[0].id, WORK);
    drop(first);
}

#[tokio::test]
async fn whoever_listens_on_the_bus_is_told_of_the_bridge_and_by_nobody_else() {
    let bus = Bus::start();
    let mut events = Client::on(bus.connect().await).events().await.unwrap();
    let connection = bus.connect().await;
    let fake = Fake::on(connection.clone()).await;
    assert!(matches!(next(&mut events).await, Event::Appeared));
    let (requests, _inbox) = mpsc::channel(1);
    let stranger = Service::start(bus.connect().await, BridgeState::new("null"), requests).await;
    assert!(stranger.is_err());
    fake.update_work(|work| work.muted = true);
    let event = next(&mut events).await;
    assert!(matches!(event, Event::Changed { object: Object::Domain(WORK), .. }), "{event:?}");
    drop(fake);
    connection.close().await.unwrap();
    assert!(matches!(next(&mut events).await, Event::Vanished));
}

#[tokio::test]
async fn the_bus_knows_how_to_start_a_bridge() {
    let bus = Bus::start();
    let contrib = Path::new(env!("CARGO_MANIFEST_DIR")).join("../contrib");
    let text = fs::read_to_string(contrib.join("dbus/org.vsnd.Bridge1.service")).unwrap();
    bus.activates(&text).await;
    let proxy = DBusProxy::new(&bus.connect().await).await.unwrap();
    let names = proxy.list_activatable_names().await.unwrap();
    assert!(names.iter().any(|name| name.as_str() == "org.vsnd.Bridge1"), "{names:?}");
    let unit = text.lines().find_map(|line| line.strip_prefix("SystemdService=")).unwrap();
    assert!(contrib.join("systemd").join(unit).exists(), "{unit}");
}

/// What busctl prints of a call.
async fn busctl(bus: &Bus, arguments: &[&str]) -> String {
    let mut command = Command::new("busctl");
    let output =
        bus.environment(command.arg("--user").args(arguments)).output().await.expect("busctl, of systemd");
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[tokio::test]
async fn busctl_reads_and_sets_the_same() {
    let bus = Bus::start();
    let fake = Fake::on(bus.connect().await).await;
    let get = async |object: Object, property: &str| {
        busctl(&bus, &["get-property", "org.vsnd.Bridge1", &object.path(), object.interface(), property])
            .await
    };
    let set = async |object: Object, property: &str, kind: &str, value: &str| {
        let name = "org.vsnd.Bridge1";
        busctl(&bus, &["set-property", name, &object.path(), object.interface(), property, kind, value]).await
    };
    let (work, stream) = (Object::Domain(WORK), Object::Stream(WORK, PLAYBACK));
    assert_eq!(get(work, "Name").await, "s \"work\"\n");
    assert_eq!(get(stream, "Volume").await, "ad 2 1 1\n");
    assert_eq!(get(stream, "Position").await, "t 48000\n");
    assert_eq!(set(work, "Volume", "d", "0.5").await, "");
    assert_eq!(get(work, "Volume").await, "d 0.5\n");
    assert_eq!(set(stream, "Target", "s", "hdmi").await, "");
    assert_eq!(get(stream, "Target").await, "s \"hdmi\"\n");
    let refused = set(work, "Volume", "d", "1.6").await;
    assert!(refused.contains("1.6 is no volume; it is a number from 0.0 to 1.5"), "{refused}");
    fake.update_work(|work| work.muted = true);
    assert_eq!(get(work, "Muted").await, "b true\n");
    let tree = busctl(&bus, &["tree", "--list", "org.vsnd.Bridge1"]).await;
    assert!(tree.contains("/org/vsnd/Bridge1/domain/5/stream/0_0_1\n"), "{tree}");
}
