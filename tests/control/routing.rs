//! Where a stream goes, said on the bus.

use futures::StreamExt;
use vsnd_dbus::Object;
use vsnd_dbus::client::{Event, StreamProxy};
use vsnd_pw_module::Direction;
use vsnd_tests::pulse::{SECOND_SINK, SINK};
use vsnd_tests::rings::eventually;
use zbus::fdo;

use super::desk::{Application, CAPTURE, Desk, Ear, PLAYBACK, Private};

#[test]
fn a_stream_is_routed_on_the_bus_now_and_when_it_is_opened_again() {
    for desk in Desk::both("") {
        let player = desk.player();
        let (first, second) = (desk.ear(SINK), desk.ear(SECOND_SINK));
        first.hears([1.0, 1.0]);
        let stream = desk.stream_proxy(PLAYBACK);
        let route = |target: &str| {
            desk.on_bus(stream.set_target(target)).unwrap();
            assert_eq!(desk.stream(PLAYBACK).target, target);
        };
        route(SECOND_SINK);
        second.hears([1.0, 1.0]);
        first.hears([0.0, 0.0]);
        // What is heard from then on is played by the next.
        let end = |player: Application, ear: &Ear| {
            drop(player);
            ear.hears([0.0, 0.0]);
        };
        end(player, &second);
        let player = desk.player();
        second.hears([1.0, 1.0]);
        assert_eq!(desk.stream(PLAYBACK).target, SECOND_SINK);
        end(player, &second);
        // While it is closed: the server itself may remember the other sink.
        route(SINK);
        let _player = desk.player();
        first.hears([1.0, 1.0]);
        route(SECOND_SINK);
        second.hears([1.0, 1.0]);
        first.hears([0.0, 0.0]);
        for bad in ["a\nb", "\u{1b}[2J", &"x".repeat(256)] {
            let refused = desk.on_bus(stream.set_target(bad)).unwrap_err();
            assert!(format!("{refused:?}").contains("InvalidArgs"), "{refused:?}");
        }
        assert_eq!(desk.stream(PLAYBACK).target, SECOND_SINK, "nothing is changed");
        route("");
        first.hears([1.0, 1.0]);
        second.hears([0.0, 0.0]);
    }
}

#[test]
fn a_stream_is_routed_to_what_there_is_and_nowhere_else() {
    for desk in Desk::both("") {
        let stream = desk.stream_proxy(PLAYBACK);
        let refused = |proxy: &StreamProxy<'_>, target: &str| {
            let refused = desk.on_bus(proxy.set_target(target)).unwrap_err();
            let zbus::Error::FDO(refused) = refused else { panic!("{refused:?}") };
            let fdo::Error::InvalidArgs(text) = *refused else { panic!("{refused:?}") };
            text
        };
        desk.on_bus(stream.set_target(SECOND_SINK)).unwrap();
        let text = refused(&stream, "test-sinc");
        assert!(text.starts_with("there is no sink test-sinc; there is "), "{text}");
        assert!(text.contains(SECOND_SINK) && text.ends_with("; did you mean test-sink?"), "{text}");
        assert_eq!(desk.stream(PLAYBACK).target, SECOND_SINK, "nothing is changed");
        let capture = desk.stream_proxy(CAPTURE);
        let text = refused(&capture, SECOND_SINK);
        assert!(text.starts_with("there is no source second-sink; there is "), "{text}");
        let sources = desk.bridge().sources;
        assert!(!sources.is_empty());
        for source in sources {
            desk.on_bus(capture.set_target(&source)).unwrap();
        }
    }
}

#[test]
fn a_sink_that_comes_later_can_be_routed_to_until_it_goes() {
    for desk in Desk::both("") {
        let _player = desk.player();
        let stream = desk.stream_proxy(PLAYBACK);
        let has = |sink: &str| desk.bridge().sinks.iter().any(|name| name == sink);
        assert!(has(SINK) && has(SECOND_SINK) && !has("late"));
        assert!(desk.on_bus(stream.set_target("late")).is_err());
        let mut events = desk.on_bus(desk.client().events()).unwrap();
        let module = desk.tool("pactl", &["load-module", "module-null-sink", "sink_name=late"]);
        desk.on_bus(async {
            while let Some(event) = events.next().await {
                match event {
                    Event::Changed { object: Object::Bridge, properties }
                        if properties.contains_key("Sinks") =>
                    {
                        return;
                    }
                    _ => (),
                }
            }
            panic!("the bus ended");
        });
        assert!(has("late"));
        desk.on_bus(stream.set_target("late")).unwrap();
        desk.ear("late").hears([1.0, 1.0]);
        desk.tool("pactl", &["unload-module", module.trim()]);
        eventually("no sink of that name", || (!has("late")).then_some(()));
        assert!(desk.on_bus(stream.set_target("late")).is_err());
        assert_eq!(desk.stream(PLAYBACK).target, "late", "for when it is back");
    }
}

/// PulseAudio has no such devices.
#[test]
fn a_device_of_the_bridges_own_is_nothing_to_route_to() {
    let desk = Desk::start(Private::pipewire(), "[default]\ncapture = \"allow\"\nrole = \"device\"\n");
    let pcm = desk.open(Direction::Capture);
    pcm.start().unwrap();
    let node = desk.stream(CAPTURE).node_name;
    eventually("a sink of the guest's", || {
        desk.tool("pactl", &["list", "short", "sinks"]).contains(&node).then_some(())
    });
    // What came later has been seen, too.
    desk.tool("pactl", &["load-module", "module-null-sink", "sink_name=late"]);
    let sinks = || desk.bridge().sinks;
    eventually("a later sink", || sinks().contains(&"late".to_owned()).then_some(()));
    assert!(!sinks().contains(&node), "{:?}", sinks());
}

#[test]
fn any_name_is_taken_while_no_server_is_there() {
    let mut desk = Desk::start(Private::pulse(), "");
    let stream = desk.stream_proxy(PLAYBACK);
    let Private::Pulse(pulse) = &mut desk.private else { unreachable!() };
    pulse.crash();
    eventually("no server", || (desk.bridge().server == "null").then_some(()));
    assert_eq!(desk.bridge().sinks, [""; 0]);
    desk.on_bus(stream.set_target(SECOND_SINK)).unwrap();
    let Private::Pulse(pulse) = &mut desk.private else { unreachable!() };
    pulse.resume().unwrap();
    let _player = desk.player();
    desk.ear(SECOND_SINK).hears([1.0, 1.0]);
}
