//! Servers that die, return, and are replaced.

use std::time::{Duration, Instant};

use vsnd_bridge::sim::frontend::{HwParams, PcmHandle};
use vsnd_pw_module::pipewire::private::{SECOND_SINK, SINK};
use vsnd_pw_module::pipewire::survey;
use vsnd_pw_module::{Direction, Nanos, ServerEvent, monotonic_now};
use vsnd_tests::pulse::{self, Recorder};
use vsnd_tests::rings::{PATIENCE, eventually};

use super::alone;
use super::desk::{Desk, NODE, in_time};
use super::player::{A_WHILE, Player};

#[test]
fn a_killed_pipewire_is_replaced_by_the_clock_and_comes_back_with_its_nodes() {
    alone(|| {
        let mut desk = Desk::on_pipewire();
        let player = Player::start(&desk.guest);
        desk.running();
        player.plays_for(A_WHILE);
        for _ in 0..3 {
            let (killed, answer) = (monotonic_now(), player.longest_answer());
            desk.pipewire.crash();
            desk.lost();
            player.was_never_silent(killed);
            let returned = desk.pipewire_returns();
            desk.running();
            in_time(returned, "the node runs");
            drop(desk.hears(SINK));
            player.was_never_silent(killed);
            player.answered_at_once(answer);
        }
        let lost = player.lost();
        assert!(lost < Nanos::from_millis(300), "the guest lost {lost}");
        player.finish();
    });
}

#[test]
fn a_killed_pulseaudio_is_replaced_by_the_clock_and_comes_back_with_its_streams() {
    alone(|| {
        let mut desk = Desk::on_pulse();
        let player = Player::start(&desk.guest);
        desk.running();
        player.plays_for(A_WHILE);
        for _ in 0..3 {
            let (killed, answer) = (monotonic_now(), player.longest_answer());
            desk.pulse.crash();
            desk.lost();
            player.was_never_silent(killed);
            let returned = desk.pulse_returns();
            desk.running();
            in_time(returned, "the stream runs");
            let ear = Recorder::start(desk.pulse.command("parec"), pulse::SINK, 2).unwrap();
            ear.wait(PATIENCE, "sound", |heard| heard.sounding().then_some(())).unwrap();
            player.was_never_silent(killed);
            player.answered_at_once(answer);
        }
        player.finish();
    });
}

#[test]
fn guests_follow_from_pipewire_to_pulseaudio_and_back() {
    alone(|| {
        let mut desk = Desk::on_pipewire();
        let player = Player::start(&desk.guest);
        desk.running();
        player.plays_for(A_WHILE);
        let began = monotonic_now();
        desk.pipewire.crash();
        desk.lost();
        let returned = desk.pulse_returns();
        desk.running();
        in_time(returned, "the node runs on PulseAudio");
        player.was_never_silent(began);
        let streams = desk.pulse.tool("pactl", &["list", "sink-inputs"]).unwrap();
        assert_eq!(streams.matches(&format!("node.name = \"{NODE}\"")).count(), 1, "{streams}");

        let returned = desk.pipewire_returns();
        desk.running();
        in_time(returned, "the node runs on PipeWire again");
        player.was_never_silent(began);
        eventually("gone from PulseAudio", || {
            desk.pulse.tool("pactl", &["list", "sink-inputs"]).unwrap().is_empty().then_some(())
        });
        let _ear = desk.hears(SINK);
        let of_nodes = |event: &ServerEvent| matches!(event, ServerEvent::Node(_) | ServerEvent::Volume(_));
        let others = desk.rest().into_iter().filter(|event| !of_nodes(event));
        assert_eq!(others.collect::<Vec<_>>(), [], "one event for each change");
        player.finish();
    });
}

#[test]
fn pipewire_that_stands_in_for_pulseaudio_is_not_taken_for_it() {
    let connections = |desk: &Desk| {
        let events = desk.rest().into_iter();
        events.filter(|event| matches!(event, ServerEvent::Connected(_))).collect::<Vec<_>>()
    };
    alone(|| {
        let mut desk = Desk::with_pulse_of_pipewire();
        desk.pipewire_returns();
        let player = Player::start(&desk.guest);
        desk.running();
        for _ in 0..2 {
            desk.pipewire.crash();
            desk.lost();
            desk.pipewire_returns();
            desk.running();
        }
        assert_eq!(connections(&desk), []);
        player.finish();
    });
    alone(|| {
        let mut desk = Desk::with_nothing_but_pulse_of_pipewire();
        desk.pipewire.resume().unwrap();
        let player = Player::start(&desk.guest);
        eventually("looked at", || {
            desk.tool("pactl", &["list", "clients"]).contains("vsnd-bridge").then_some(())
        });
        player.plays_for(A_WHILE);
        assert_eq!(connections(&desk), []);
        player.finish();
    });
}

#[test]
fn a_stream_opened_without_a_server_plays_at_once_and_is_heard_when_one_comes() {
    alone(|| {
        let mut desk = Desk::new();
        let player = Player::start(&desk.guest);
        player.plays_for(A_WHILE);
        let answer = player.longest_answer();
        assert!(answer < Nanos::from_millis(50), "nobody is waited for: {answer}");
        let began = monotonic_now();
        let returned = desk.pipewire_returns();
        desk.running();
        in_time(returned, "the node runs");
        let _ear = desk.hears(SINK);
        player.was_never_silent(began);
        player.finish();
    });
}

/// Of a node that had its cycles before: one that may still be linked is waited for.
#[test]
fn a_stream_that_is_started_or_opened_again_while_its_server_is_gone_waits_for_nobody() {
    // It starts when its ring is full.
    let sound = vec![0x11; 4 * 9_600];
    let open = |desk: &Desk| {
        let pcm = desk.guest.card.open(0, Direction::Playback).unwrap();
        pcm.hw_params(HwParams::cd(480, 9_600)).unwrap();
        pcm
    };
    let starts_at_once = |pcm: &PcmHandle| {
        let began = Instant::now();
        pcm.write(&sound).unwrap();
        let took = began.elapsed();
        assert!(took < Duration::from_millis(50), "it waited for {took:?}");
    };
    let survives = |mut desk: Desk, crash: fn(&mut Desk)| {
        let pcm = open(&desk);
        pcm.write(&sound).unwrap();
        desk.running();
        crash(&mut desk);
        desk.lost();
        // By the clock, for longer than a node may take to its next cycle.
        pcm.write(&sound).unwrap();
        pcm.stop();
        pcm.prepare().unwrap();
        starts_at_once(&pcm);
        drop(pcm);
        starts_at_once(&open(&desk));
    };
    alone(|| {
        survives(Desk::on_pipewire(), |desk| desk.pipewire.crash());
        survives(Desk::on_pulse(), |desk| desk.pulse.crash());
    });
}

/// The numbers of the server's sinks.
fn sinks(desk: &Desk) -> Vec<(u32, String)> {
    let objects = survey(Some(&desk.pipewire.remote()), PATIENCE).unwrap();
    let sinks = objects.iter().filter(|object| object.get("media.class") == Some("Audio/Sink"));
    sinks.map(|sink| (sink.id, sink.get("node.name").unwrap_or_default().to_owned())).collect()
}

#[test]
fn the_default_sink_goes_and_another_takes_over_until_there_is_none() {
    alone(|| {
        let desk = Desk::on_pipewire();
        let player = Player::start(&desk.guest);
        desk.running();
        player.plays_for(A_WHILE);
        let began = monotonic_now();
        let destroy = |name: &str| {
            let (id, _) = sinks(&desk).into_iter().find(|(_, sink)| sink == name).unwrap();
            desk.tool("pw-cli", &["destroy", &id.to_string()]);
        };
        destroy(SINK);
        drop(desk.hears(SECOND_SINK));
        player.was_never_silent(began);

        destroy(SECOND_SINK);
        desk.plays(false);
        player.was_never_silent(began);
        let arguments = format!(
            "{{ factory.name=support.null-audio-sink node.name={SINK} media.class=Audio/Sink object.linger=true \
             audio.position=[FL FR] }}"
        );
        desk.tool("pw-cli", &["create-node", "adapter", &arguments]);
        let returned = Instant::now();
        desk.plays(true);
        let _ear = desk.hears(SINK);
        in_time(returned, "the guest is heard");
        player.was_never_silent(began);
        player.finish();
    });
}

#[test]
fn volume_and_routing_are_the_same_after_the_return() {
    alone(|| {
        let mut desk = Desk::on_pipewire();
        let player = Player::start(&desk.guest);
        let id = desk.running().to_string();
        desk.tool("wpctl", &["set-volume", &id, "0.4"]);
        let (second, _) = sinks(&desk).into_iter().find(|(_, sink)| sink == SECOND_SINK).unwrap();
        desk.tool("pw-metadata", &[&id, "target.node", &second.to_string()]);
        // The session manager writes what it remembers a second later.
        let state = desk.pipewire.root().join("state/wireplumber/restore-stream");
        eventually("remembered", || {
            let text = std::fs::read_to_string(&state).unwrap_or_default();
            (text.contains(&format!(":target={SECOND_SINK}")) && text.contains("0.064")).then_some(())
        });
        desk.pipewire.crash();
        desk.lost();
        let returned = desk.pipewire_returns();
        let id = desk.running().to_string();
        eventually("as loud as before", || {
            (desk.tool("wpctl", &["get-volume", &id]).trim() == "Volume: 0.40").then_some(())
        });
        in_time(returned, "the volume is back");
        let _ear = desk.hears(SECOND_SINK);
        player.finish();
    });
}

#[test]
fn a_killed_pulseaudio_has_the_volume_again_after_its_return() {
    alone(|| {
        let mut desk = Desk::on_pulse();
        let player = Player::start(&desk.guest);
        let id = desk.running().to_string();
        desk.pulse.tool("pactl", &["set-sink-input-volume", &id, "40%", "60%"]).unwrap();
        desk.pulse.tool("pactl", &["set-sink-input-mute", &id, "1"]).unwrap();
        let is_set = |desk: &Desk| {
            let inputs = desk.pulse.tool("pactl", &["list", "sink-inputs"]).unwrap();
            ["  40% ", "  60% ", "Mute: yes"].iter().all(|text| inputs.contains(text)).then_some(())
        };
        desk.told_muted();
        desk.pulse.crash();
        desk.lost();
        let returned = desk.pulse_returns();
        desk.running();
        eventually("as loud as before", || is_set(&desk));
        in_time(returned, "the volume is back");
        player.finish();
    });
}
