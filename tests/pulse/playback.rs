//! What a sink hears of a ring.

use rustix::process::{Pid, Signal, kill_process};
use vsnd_pw_module::{Direction, NodeState, Role, SampleFormat, SoundServer, StreamFormat};
use vsnd_tests::pipewire::Sound;
use vsnd_tests::pulse::{PrivatePulse, SINK};
use vsnd_tests::rings::{Busy, Feeder, heard, noise};

use crate::desk::{
    CARRIED, Desk, Private, eventually, expected, judge, keeping_pace, kept_pace, passed, put, ring,
    simple_ring, sleep, spec, stereo, write,
};

/// A quarter of a second, the node dropped as soon as the last frame is consumed.
fn play_once(desk: &Desk, format: StreamFormat) -> Result<(), Busy> {
    const FRAMES: u64 = 12_000;
    let ear = desk.ear();
    let ring = ring(Direction::Playback, format, FRAMES);
    let node = desk.open(&spec("alpha", Direction::Playback, format), &ring);
    write(&ring, 0, FRAMES);
    ring.start();
    node.start();
    passed(&ring, FRAMES);
    ring.close();
    drop(node);
    ear.heard(1);
    let sound = ear.finish();
    kept_pace(&sound, &[&ring])?;
    judge(desk, &sound.sounds().concat(), &expected(format, 0, FRAMES), &format!("{:?}", format.sample()))?;
    Ok(())
}

#[test]
fn every_frame_of_every_format_is_heard_to_the_last() {
    let desk = Desk::pulse();
    for sample in CARRIED {
        assert!(desk.server.carries(sample));
        keeping_pace(|| play_once(&desk, stereo(sample)));
    }
}

#[test]
fn every_frame_is_heard_to_the_last_where_pipewire_stands_in() {
    let desk = Desk::pipewire();
    for sample in [SampleFormat::S16Le, SampleFormat::S24In32Le, SampleFormat::F32Le] {
        keeping_pace(|| play_once(&desk, stereo(sample)));
    }
}

/// Starts and stops: each run begins at ring offset 0 with its first frame.
#[test]
fn each_run_is_heard_from_its_first_frame() {
    for desk in Desk::both() {
        keeping_pace(|| {
            let ear = desk.ear();
            let (format, ring) = simple_ring(Direction::Playback, 12_000);
            let node = desk.open(&spec("alpha", Direction::Playback, format), &ring);
            for run in 0..3 {
                let base = ring.cursor().position.0;
                assert_eq!(base % 12_000, 0);
                put(&ring, 0, run * 10_000, 10_000);
                ring.start();
                node.start();
                passed(&ring, base + 10_000);
                ring.stop();
                node.stop();
            }
            ear.heard(3);
            let sound = ear.finish();
            kept_pace(&sound, &[&ring])?;
            for (run, heard) in (0..).zip(sound.sounds()) {
                let sound = expected(format, run * 10_000, (run + 1) * 10_000);
                judge(&desk, heard, &sound, &format!("run {run}"))?;
            }
            Ok(())
        });
    }
}

#[test]
fn a_ring_that_goes_round_is_heard_without_a_seam() {
    let desk = Desk::pulse();
    keeping_pace(|| {
        let ear = desk.ear();
        let format = stereo(SampleFormat::S24In32Le);
        let ring = ring(Direction::Playback, format, 24_000);
        let node = desk.open(&spec("alpha", Direction::Playback, format), &ring);
        let feeder = Feeder::new(&ring);
        ring.start();
        node.start();
        passed(&ring, 60_000);
        drop(node);
        drop(feeder);
        ear.heard(1);
        let sound = ear.finish();
        kept_pace(&sound, &[&ring])?;
        if ring.underruns() > 0 {
            return Err(Busy("the guest was too slow".to_owned()));
        }
        let end = ring.cursor().position.0;
        judge(&desk, &sound.sounds().concat(), &expected(format, 0, end), "the sound")?;
        Ok(())
    });
}

/// Six channels lie in ALSA's order in the ring, and come out where the sink has them.
#[test]
fn six_channels_sound_where_they_belong() {
    // As most surround sinks have them; ALSA's order is FL FR RL RR FC LFE.
    const SINK_ORDER: [u64; 6] = [0, 1, 4, 5, 2, 3];
    let map = "front-left,front-right,front-center,lfe,rear-left,rear-right";
    let desk = Desk::on(Private::Pulse(PrivatePulse::with_channels(map).unwrap()));
    let format = StreamFormat::new(SampleFormat::S16Le, 6, 48_000).unwrap();
    let ear = desk.record(SINK, 6);
    let ring = ring(Direction::Playback, format, 24_000);
    let node = desk.open(&spec("alpha", Direction::Playback, format), &ring);
    write(&ring, 0, 24_000);
    ring.start();
    node.start();
    ear.wait("the first frames", |sound| {
        let frames = sound.samples.chunks_exact(6).filter(|frame| frame.iter().any(|s| *s != 0.0));
        let first: Vec<&[f32]> = frames.take(100).collect();
        if first.len() < 100 {
            return None;
        }
        for (frame, heard_frame) in (0..).zip(first) {
            let played = SINK_ORDER.map(|channel| heard(SampleFormat::S16Le, noise(frame * 6 + channel)));
            assert_eq!(heard_frame, played, "frame {frame}");
        }
        Some(())
    });
}

/// A stopped node rests, and the next start wakes it with its first frame.
#[test]
fn a_resting_node_costs_no_cycles_and_wakes_whole() {
    for desk in Desk::both() {
        keeping_pace(|| {
            let ear = desk.ear();
            let (format, ring) = simple_ring(Direction::Playback, 8_000);
            let spec = spec("alpha", Direction::Playback, format);
            let node = desk.open(&spec, &ring);
            desk.running(&spec.name);
            for run in 0..2 {
                let base = ring.cursor().position.0;
                put(&ring, 0, run * 8_000, 8_000);
                ring.start();
                node.start();
                passed(&ring, base + 8_000);
                ring.stop();
                node.stop();
                desk.node(&spec.name, |state| matches!(state, NodeState::Idle { .. }).then_some(()));
                let last = ring.last_cycle();
                sleep(300);
                assert_eq!(ring.last_cycle(), last, "a call at rest");
                assert!(desk.tool("pactl", &["list", "sink-inputs"]).contains("Corked: yes"));
            }
            ear.heard(2);
            let sound = ear.finish();
            kept_pace(&sound, &[&ring])?;
            for (run, heard) in (0..).zip(sound.sounds()) {
                let sound = expected(format, run * 8_000, (run + 1) * 8_000);
                judge(&desk, heard, &sound, &format!("run {run}"))?;
            }
            Ok(())
        });
    }
}

/// The ring of a guest whose frames aren't there in time plays silence and goes on: the server never waits for us.
#[test]
fn the_ring_runs_on_through_an_underrun() {
    let desk = Desk::pulse();
    let (format, ring) = simple_ring(Direction::Playback, 4_000);
    let node = desk.open(&spec("alpha", Direction::Playback, format), &ring);
    ring.start();
    node.start();
    passed(&ring, 20_000);
    let timing = eventually("a timing", || ring.timing());
    assert!(timing.given.0 > 10_000 && timing.heard > 0, "{timing:?}");
    assert!(ring.starved().0 >= 20_000);
    assert_eq!(ring.underruns(), 1);
}

/// A server that gets no processor for a while runs out of frames. It waits for more: whatever it is given until the news of it has
/// come here is heard after the gap.
#[test]
fn a_server_that_stood_still_loses_no_frame() {
    const FRAMES: u64 = 60_000;
    let desk = Desk::pulse();
    let Private::Pulse(pulse) = &desk.private else { unreachable!() };
    let process = Pid::from_raw(pulse.process().unwrap() as i32).unwrap();
    let ear = desk.ear();
    let (format, ring) = simple_ring(Direction::Playback, FRAMES);
    let node = desk.open(&spec("alpha", Direction::Playback, format), &ring);
    write(&ring, 0, FRAMES);
    ring.start();
    node.start();
    for stop in 1..=4 {
        passed(&ring, stop * 10_000);
        kill_process(process, Signal::STOP).unwrap();
        sleep(150);
        kill_process(process, Signal::CONT).unwrap();
    }
    passed(&ring, FRAMES);
    ring.close();
    drop(node);
    // Silence for longer than in any gap.
    let ends = |sound: &Sound| sound.ended > 0 && sound.samples.iter().rev().take(48_000).all(|s| *s == 0.0);
    ear.wait("the whole sound", |sound| ends(sound).then_some(()));
    assert!(ring.missed_cycles() > 0, "it did not run dry");
    judge(&desk, &ear.finish().sounds().concat(), &expected(format, 0, FRAMES), "the sound").unwrap();
}

/// PulseAudio has no sinks or sources of clients: the user is told, and the guest runs on its clock.
#[test]
fn a_device_is_refused_with_the_way_out() {
    let desk = Desk::pulse();
    let (format, ring) = simple_ring(Direction::Playback, 4_000);
    let mut spec = spec("alpha", Direction::Playback, format);
    spec.role = Role::Device;
    let _node = desk.open(&spec, &ring);
    let why = desk.node(&spec.name, |state| match state {
        NodeState::Failed(why) => Some(why.clone()),
        _ => None,
    });
    assert!(why.contains("role = \"stream\""), "{why}");
}
