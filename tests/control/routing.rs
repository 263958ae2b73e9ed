//! Where a stream goes, said on the bus.

use vsnd_tests::pulse::{SECOND_SINK, SINK};

use super::desk::{Desk, PLAYBACK};

#[test]
fn a_stream_is_routed_on_the_bus_now_and_when_it_is_opened_again() {
    for desk in Desk::both("") {
        let player = desk.player();
        let (first, second) = (desk.ear(SINK), desk.ear(SECOND_SINK));
        first.hears([1.0, 1.0]);
        let stream = desk.stream_proxy(PLAYBACK);
        desk.on_bus(stream.set_target(SECOND_SINK)).unwrap();
        assert_eq!(desk.stream(PLAYBACK).target, SECOND_SINK);
        second.hears([1.0, 1.0]);
        first.hears([0.0, 0.0]);
        drop(player);
        let _player = desk.player();
        second.hears([1.0, 1.0]);
        first.hears([0.0, 0.0]);
        for bad in ["a\nb", "\u{1b}[2J", &"x".repeat(256)] {
            let refused = desk.on_bus(stream.set_target(bad)).unwrap_err();
            assert!(format!("{refused:?}").contains("InvalidArgs"), "{refused:?}");
        }
        desk.on_bus(stream.set_target("")).unwrap();
        assert_eq!(desk.stream(PLAYBACK).target, "");
        first.hears([1.0, 1.0]);
        second.hears([0.0, 0.0]);
    }
}
