//! Three volumes: the user's slider in a mixer, the domain's on the bus, and the guest's own.

use futures::StreamExt;
use vsnd_bridge::sim::frontend::PcmHandle;
use vsnd_bridge::sndif::Operation;
use vsnd_dbus::client::Event;
use vsnd_dbus::{DomainId, Object};
use vsnd_pw_module::Octets;
use vsnd_tests::pulse::SINK;
use vsnd_tests::rings::eventually;
use zbus::Variant;

use super::desk::{Desk, PLAYBACK, Private};

/// Where the arrays of volumes lie in the guest's buffer.
const ARRAY: Octets = Octets(0);

/// GET_VOLUME, in 0.001 dB.
fn get(pcm: &PcmHandle) -> [i32; 2] {
    let array = pcm.exchange(Operation::GetVolume, ARRAY, &[0; 8]).unwrap();
    [0, 4].map(|at| i32::from_le_bytes(array[at..at + 4].try_into().unwrap()))
}

/// The number by which pactl knows the stream.
fn input(desk: &Desk) -> String {
    let inputs = desk.tool("pactl", &["list", "short", "sink-inputs"]);
    inputs.split_whitespace().next().unwrap().to_owned()
}

#[test]
fn every_volume_is_set_by_one_party_and_seen_and_heard_by_the_others() {
    for desk in Desk::both("") {
        let (player, ear) = (desk.player(), desk.ear(SINK));
        let pcm = &player.pcm;
        ear.hears([1.0, 1.0]);
        assert_eq!(get(pcm), [0, 0]);
        let (id, domain) = (input(&desk), desk.domain_proxy());
        let slider = || desk.tool("pactl", &["list", "sink-inputs"]);
        let seen = |volume: [f64; 2], muted| {
            eventually("the slider on the bus", || {
                let stream = desk.stream(PLAYBACK);
                let near = stream.volume.len() == 2
                    && stream.volume.iter().zip(volume).all(|(seen, set)| (seen - set).abs() < 1e-4);
                (near && stream.muted == muted).then_some(())
            });
        };
        seen([1.0, 1.0], false);

        // On the bus.
        desk.on_bus(domain.set_volume(0.5)).unwrap();
        assert_eq!(desk.domain().volume, 0.5);
        ear.hears([0.125, 0.125]);
        assert_eq!(get(pcm), [-18_062, -18_062]);
        assert!(slider().contains("front-left: 65536 / 100%"), "the slider is the user's");

        // In a mixer.
        desk.tool("pactl", &["set-sink-input-volume", &id, "50%"]);
        ear.hears([0.015_625, 0.015_625]);
        seen([0.5, 0.5], false);
        assert_eq!(get(pcm), [-36_124, -36_124]);
        desk.tool("pactl", &["set-sink-input-mute", &id, "1"]);
        seen([0.5, 0.5], true);
        ear.hears([0.0, 0.0]);
        assert_eq!(get(pcm), [-36_124, -36_124], "mute and volume are two values");
        desk.tool("pactl", &["set-sink-input-mute", &id, "0"]);
        seen([0.5, 0.5], false);
        desk.tool("pactl", &["set-sink-input-volume", &id, "100%", "50%"]);
        seen([1.0, 0.5], false);
        ear.hears([0.125, 0.015_625]);
        desk.tool("pactl", &["set-sink-input-volume", &id, "50%"]);
        seen([0.5, 0.5], false);
        if let Private::PipeWire(_) = desk.private {
            let node = desk.stream(PLAYBACK).node_id.to_string();
            assert!(desk.tool("wpctl", &["get-volume", &node]).contains("0.50"));
            desk.tool("wpctl", &["set-volume", &node, "1.0"]);
            seen([1.0, 1.0], false);
            desk.tool("wpctl", &["set-mute", &node, "1"]);
            seen([1.0, 1.0], true);
            desk.tool("wpctl", &["set-mute", &node, "0"]);
            desk.tool("wpctl", &["set-volume", &node, "0.5"]);
            seen([0.5, 0.5], false);
        }

        // In the guest.
        desk.on_bus(domain.set_volume(1.0)).unwrap();
        pcm.exchange(Operation::SetVolume, ARRAY, &[-20_000i32, 0].map(i32::to_le_bytes).concat()).unwrap();
        ear.hears([0.0125, 0.125]);
        assert_eq!(get(pcm), [-38_062, -18_062]);
        pcm.exchange(Operation::Mute, ARRAY, &[1, 0]).unwrap();
        ear.hears([0.0, 0.125]);
        pcm.exchange(Operation::Unmute, ARRAY, &[1, 1]).unwrap();
        assert!(slider().contains("front-left: 32768 /  50%"), "the slider is the user's");
        assert_eq!(desk.domain().volume, 1.0, "the domain's is the user's");

        desk.on_bus(domain.set_muted(true)).unwrap();
        assert!(desk.domain().muted);
        ear.hears([0.0, 0.0]);
        assert!(slider().contains("Mute: no"), "a mixer's mute is the user's");
        assert_eq!(get(pcm), [-38_062, -18_062]);
        desk.on_bus(domain.set_muted(false)).unwrap();
        ear.hears([0.0125, 0.125]);
    }
}

#[test]
fn others_on_the_bus_set_and_read_it_and_are_told() {
    let desk = Desk::start(Private::pulse(), "");
    let path = Object::Domain(desk.id()).path();
    let name = ["--user", "set-property", "org.vsnd.Bridge1", &path, "org.vsnd.Bridge1.Domain"];
    let mut events = desk.on_bus(desk.client().events()).unwrap();
    let told =
        |events: &mut (dyn futures::Stream<Item = Event> + Unpin), property: &str, value: Variant<'_>| {
            desk.on_bus(async {
                while let Some(event) = events.next().await {
                    match event {
                        Event::Changed { object: Object::Domain(id), properties }
                            if id == desk.id() && properties.contains_key(property) =>
                        {
                            assert_eq!(*properties[property], value);
                            return;
                        }
                        _ => (),
                    }
                }
                panic!("the bus ended");
            });
        };
    desk.tool("busctl", &[&name[..], &["Volume", "d", "0.25"]].concat());
    told(&mut events, "Volume", 0.25.into());
    desk.tool("busctl", &[&name[..], &["Muted", "b", "true"]].concat());
    told(&mut events, "Muted", true.into());
    let get = ["--user", "get-property", "org.vsnd.Bridge1", &path, "org.vsnd.Bridge1.Domain", "Volume"];
    assert_eq!(desk.tool("busctl", &get), "d 0.25\n");
    for (volume, error) in [(1.6, "InvalidArgs"), (f64::NAN, "InvalidArgs"), (-0.1, "InvalidArgs")] {
        let refused = desk.on_bus(desk.domain_proxy().set_volume(volume)).unwrap_err();
        assert!(format!("{refused:?}").contains(error), "{refused:?}");
    }
    assert_eq!(desk.domain().volume, 0.25);
    let gone = desk.on_bus(desk.client().domain(DomainId(4_000_000_000))).unwrap();
    assert!(desk.on_bus(gone.set_muted(true)).is_err());
}

#[test]
fn nothing_is_reset_by_a_new_server_or_a_reopened_stream() {
    let mut desk = Desk::start(Private::pipewire(), "");
    desk.on_bus(desk.domain_proxy().set_volume(0.5)).unwrap();
    let player = desk.player();
    desk.ear(SINK).hears([0.125, 0.125]);
    let node = || desk.stream(PLAYBACK).node_id.to_string();
    desk.tool("wpctl", &["set-volume", &node(), "0.5"]);
    desk.ear(SINK).hears([0.015_625, 0.015_625]);
    // WirePlumber writes what it has seen a second later.
    let Private::PipeWire(pipewire) = &desk.private else { unreachable!() };
    let remembered = pipewire.root().join("state/wireplumber/restore-stream");
    eventually("remembered", || {
        let state = std::fs::read_to_string(&remembered).unwrap_or_default();
        state.contains("0.125").then_some(())
    });
    drop(player);
    let player = desk.player();
    desk.ear(SINK).hears([0.015_625, 0.015_625]);
    let Private::PipeWire(pipewire) = &mut desk.private else { unreachable!() };
    pipewire.crash();
    pipewire.resume().unwrap();
    desk.ear(SINK).hears([0.015_625, 0.015_625]);
    assert_eq!(desk.domain().volume, 0.5);
    drop(player);
}
