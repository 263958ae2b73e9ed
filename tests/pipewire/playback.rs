//! What a sink hears of a ring.

use vsnd_pw_module::pipewire::private::{Options, SINK};
use vsnd_pw_module::{Direction, Frames, Octets, PcmRing, Role, SampleFormat, SoundServer, StreamFormat};
use vsnd_tests::pipewire::{Endpoint, SILENCE, Sound};

use crate::guest::{
    Busy, Desk, Feeder, PATIENCE, eventually, expected, heard, keeping_pace, noise, passed, put, ring, spec,
    stereo, write,
};

const CARRIED: [SampleFormat; 20] = [
    SampleFormat::S16Le,
    SampleFormat::S16Be,
    SampleFormat::S24In32Le,
    SampleFormat::S24In32Be,
    SampleFormat::S32Le,
    SampleFormat::S32Be,
    SampleFormat::F32Le,
    SampleFormat::F32Be,
    SampleFormat::F64Le,
    SampleFormat::S8,
    SampleFormat::U8,
    SampleFormat::MuLaw,
    SampleFormat::ALaw,
    // carried as others
    SampleFormat::U16Le,
    SampleFormat::U16Be,
    SampleFormat::U24In32Le,
    SampleFormat::U24In32Be,
    SampleFormat::U32Le,
    SampleFormat::U32Be,
    SampleFormat::F64Be,
];

/// Fails unless the sound is what the sink heard, whole and once.
fn assert_heard(heard: &[f32], sound: &[f32], what: &str) {
    if heard == sound {
        return;
    }
    let wrong = heard.iter().zip(sound).position(|(heard, sound)| heard != sound);
    let how = match wrong {
        _ if sound.ends_with(heard) => "only the end was heard".to_owned(),
        None => "only the beginning was heard, or more than was played".to_owned(),
        Some(at) => {
            let around = at..(at + 6).min(heard.len()).min(sound.len());
            format!("from sample {at}: {:?} instead of {:?}", &heard[around.clone()], &sound[around])
        }
    };
    panic!("{what}: {how}; {} samples heard, {} played", heard.len(), sound.len());
}

/// Whether `count` sounds were heard to their end.
fn complete(recording: &Sound, count: usize) -> Option<()> {
    (recording.ended >= count).then_some(())
}

fn kept_pace(recording: &Sound, rings: &[&PcmRing]) -> Result<(), Busy> {
    if !recording.gaps.is_empty() {
        return Err(Busy(format!("the recorder missed {:?}", recording.gaps)));
    }
    match rings.iter().map(|ring| ring.missed_cycles()).sum::<u64>() {
        0 => Ok(()),
        missed => Err(Busy(format!("the bridge missed {missed} cycles"))),
    }
}

/// A quarter of a second in each format, the node dropped as soon as the last frame is consumed.
#[test]
fn every_frame_of_every_format_is_heard_to_the_last() {
    const FRAMES: u64 = 12_000;
    let desk = Desk::new();
    for sample in CARRIED {
        assert!(desk.server.carries(sample));
        keeping_pace(|| {
            let format = stereo(sample);
            let recorder = Endpoint::record_sink(&desk.private.remote(), SINK, 2, 48_000).unwrap();
            let ring = ring(Direction::Playback, format, FRAMES);
            let spec = spec("alpha", Direction::Playback, format);
            let node = desk.open(&spec, &ring);
            write(&ring, 0, FRAMES);
            ring.start();
            node.start();
            passed(&ring, FRAMES);
            ring.close();
            drop(node);
            recorder.wait(PATIENCE, "the whole sound", |recording| complete(recording, 1)).unwrap();
            let recording = recorder.finish();
            kept_pace(&recording, &[&ring])?;
            let heard = recording.sounds();
            assert_heard(&heard.concat(), &expected(format, 0, FRAMES), &format!("{sample:?}"));
            Ok(())
        });
    }
}

/// Starts and stops: each run begins at ring offset 0 with its first frame, and the guest's ring goes round many times.
#[test]
fn each_run_is_heard_from_its_first_frame() {
    keeping_pace(|| {
        let desk = Desk::new();
        let format = stereo(SampleFormat::S16Le);
        let recorder = Endpoint::record_sink(&desk.private.remote(), SINK, 2, 48_000).unwrap();
        let ring = ring(Direction::Playback, format, 6_000);
        let node = desk.open(&spec("alpha", Direction::Playback, format), &ring);
        for run in 0..3 {
            let base = ring.cursor().position.0;
            assert_eq!(base % 6_000, 0);
            put(&ring, 0, run * 5_000, 5_000);
            ring.start();
            node.start();
            passed(&ring, base + 5_000);
            ring.stop();
            node.stop();
        }
        recorder.wait(PATIENCE, "three sounds", |recording| complete(recording, 3)).unwrap();
        let recording = recorder.finish();
        kept_pace(&recording, &[&ring])?;
        for (run, heard) in (0..).zip(recording.sounds()) {
            assert_heard(heard, &expected(format, run * 5_000, (run + 1) * 5_000), &format!("run {run}"));
        }
        Ok(())
    });
}

#[test]
fn a_ring_that_goes_round_is_heard_without_a_seam() {
    const FRAMES: u64 = 72_000;
    keeping_pace(|| {
        let desk = Desk::new();
        let format = stereo(SampleFormat::S24In32Le);
        let recorder = Endpoint::record_sink(&desk.private.remote(), SINK, 2, 48_000).unwrap();
        let ring = ring(Direction::Playback, format, 30_000);
        let node = desk.open(&spec("alpha", Direction::Playback, format), &ring);
        let feeder = Feeder::new(&ring);
        ring.start();
        node.start();
        passed(&ring, FRAMES);
        drop(node);
        drop(feeder);
        recorder.wait(PATIENCE, "the whole sound", |recording| complete(recording, 1)).unwrap();
        let recording = recorder.finish();
        kept_pace(&recording, &[&ring])?;
        if ring.underruns() > 0 {
            return Err(Busy("the guest was too slow".to_owned()));
        }
        let end = ring.cursor().position.0;
        assert_heard(&recording.sounds().concat(), &expected(format, 0, end), "the sound");
        Ok(())
    });
}

/// Opens and starts at once, when no link is there yet, and leaves at once.
#[test]
fn of_fifty_short_sounds_none_is_cut() {
    let desk = Desk::with(Options { quantum: 512, min_quantum: 512, ..Options::default() });
    let format = stereo(SampleFormat::S16Le);
    let spec = spec("alpha", Direction::Playback, format);
    keeping_pace(|| {
        let recorder = Endpoint::record_sink(&desk.private.remote(), SINK, 2, 48_000).unwrap();
        let mut missed = 0;
        for round in 0..50 {
            let ring = ring(Direction::Playback, format, 2048);
            let node = desk.open(&spec, &ring);
            put(&ring, 0, round * 1000, 1000);
            ring.start();
            node.start();
            passed(&ring, 1000);
            ring.close();
            drop(node);
            missed += ring.missed_cycles();
        }
        recorder.wait(PATIENCE, "fifty sounds", |recording| complete(recording, 50)).unwrap();
        let recording = recorder.finish();
        kept_pace(&recording, &[])?;
        if missed > 0 {
            return Err(Busy(format!("the bridge missed {missed} cycles")));
        }
        for (round, heard) in (0..).zip(recording.sounds()) {
            let sound = expected(format, round * 1000, round * 1000 + 1000);
            assert_heard(heard, &sound, &format!("sound {round}"));
        }
        Ok(())
    });
}

/// Six channels lie in ALSA's order in the ring, and come out where the sink has them.
#[test]
fn six_channels_sound_where_they_belong() {
    const FRAMES: u64 = 4_000;
    // As most surround sinks have them; ALSA's order is FL FR RL RR FC LFE.
    const SINK_ORDER: [u64; 6] = [0, 1, 4, 5, 2, 3];
    let positions = "FL FR FC LFE RL RR".to_owned();
    let desk = Desk::with(Options { min_quantum: 1024, positions, ..Options::default() });
    let format = StreamFormat::new(SampleFormat::S16Le, 6, 48_000).unwrap();
    let spec = spec("alpha", Direction::Playback, format);
    keeping_pace(|| {
        let recorder = Endpoint::record_sink(&desk.private.remote(), SINK, 6, 48_000).unwrap();
        let ring = ring(Direction::Playback, format, FRAMES);
        let node = desk.open(&spec, &ring);
        write(&ring, 0, FRAMES);
        ring.start();
        node.start();
        recorder.wait(PATIENCE, "the whole sound", |recording| complete(recording, 1)).unwrap();
        let recording = recorder.finish();
        kept_pace(&recording, &[&ring])?;
        let at_the_sink = |frame| SINK_ORDER.map(|channel| noise(frame * 6 + channel));
        let sound: Vec<f32> =
            (0..FRAMES).flat_map(at_the_sink).map(|value| heard(SampleFormat::S16Le, value)).collect();
        assert_heard(&recording.sounds().concat(), &sound, "the sound");
        Ok(())
    });
}

/// A guest's playback as a microphone for the desktop.
#[test]
fn a_device_is_recorded_from_and_its_clock_runs_alone() {
    keeping_pace(|| {
        let desk = Desk::new();
        let format = stereo(SampleFormat::S16Le);
        let ring = ring(Direction::Playback, format, 8_000);
        let mut spec = spec("alpha", Direction::Playback, format);
        spec.role = Role::Device;
        let node = desk.open(&spec, &ring);
        ring.start();
        node.start();
        desk.in_graph("a source of the guest's", |objects| {
            let node = objects.iter().find(|object| object.get("node.name") == Some(&spec.name))?;
            assert_eq!(node.get("media.class"), Some("Audio/Source"));
            Some(())
        });
        passed(&ring, 5_000);
        let recorder = Endpoint::record_source(&desk.private.remote(), &spec.name, 2, 48_000).unwrap();
        ring.stop();
        let start = ring.cursor().position.0;
        put(&ring, 0, start, 4_000);
        ring.start();
        passed(&ring, start + 4_000);
        recorder.wait(PATIENCE, "the whole sound", |recording| complete(recording, 1)).unwrap();
        let recording = recorder.finish();
        kept_pace(&recording, &[&ring])?;
        assert_heard(&recording.sounds().concat(), &expected(format, start, start + 4_000), "the sound");
        node.stop();
        Ok(())
    });
}

/// A stopped node rests, and the next start wakes it with its first frame.
#[test]
fn a_resting_node_costs_no_cycles_and_wakes_whole() {
    use vsnd_pw_module::NodeState;
    keeping_pace(|| {
        let desk = Desk::new();
        let format = stereo(SampleFormat::S16Le);
        let recorder = Endpoint::record_sink(&desk.private.remote(), SINK, 2, 48_000).unwrap();
        let ring = ring(Direction::Playback, format, 4_000);
        let spec = spec("alpha", Direction::Playback, format);
        let node = desk.open(&spec, &ring);
        desk.running(&spec.name);
        for run in 0..2 {
            let base = ring.cursor().position.0;
            put(&ring, 0, run * 4_000, 4_000);
            ring.start();
            node.start();
            passed(&ring, base + 4_000);
            ring.stop();
            node.stop();
            desk.node(&spec.name, |state| matches!(state, NodeState::Idle { .. }).then_some(()));
            let last = ring.last_cycle();
            recorder
                .wait(PATIENCE, "another cycle", {
                    let mut before = None;
                    move |recording| {
                        let len = recording.samples.len();
                        (len > *before.get_or_insert(len) + 8_192).then_some(())
                    }
                })
                .unwrap();
            assert_eq!(ring.last_cycle(), last, "a call at rest");
        }
        recorder.wait(PATIENCE, "two sounds", |recording| complete(recording, 2)).unwrap();
        let recording = recorder.finish();
        kept_pace(&recording, &[&ring])?;
        for (run, heard) in (0..).zip(recording.sounds()) {
            assert_heard(heard, &expected(format, run * 4_000, (run + 1) * 4_000), &format!("run {run}"));
        }
        Ok(())
    });
}

/// The ring of a guest whose frames aren't there in time plays silence and goes on.
#[test]
fn the_ring_runs_on_through_an_underrun() {
    let desk = Desk::new();
    let format = stereo(SampleFormat::S16Le);
    let ring = ring(Direction::Playback, format, 4_000);
    let node = desk.open(&spec("alpha", Direction::Playback, format), &ring);
    ring.start();
    node.start();
    passed(&ring, 10_000);
    let timing = eventually("a timing", || ring.timing());
    assert!(timing.given >= Frames(10_000));
    assert!(ring.starved() >= Frames(10_000));
    assert_eq!(ring.underruns(), 1);
}

/// A node that goes while it plays at a rate of its own: what its resampler still held is heard.
#[test]
fn what_the_resampler_holds_is_heard_when_the_node_goes() {
    const LEVEL: i16 = 16_384;
    keeping_pace(|| {
        let desk = Desk::new();
        let format = StreamFormat::new(SampleFormat::S16Le, 2, 44_100).unwrap();
        let recorder = Endpoint::record_sink(&desk.private.remote(), SINK, 2, 48_000).unwrap();
        let ring = ring(Direction::Playback, format, 88_200);
        ring.write(Octets(0), &LEVEL.to_le_bytes().repeat(2 * 88_200)).unwrap();
        ring.wrote(Frames(0), Frames(88_200), Frames(0));
        let node = desk.open(&spec("alpha", Direction::Playback, format), &ring);
        ring.start();
        node.start();
        passed(&ring, 20_000);
        drop(node);
        // The resampler's filter rings through zero at both ends.
        recorder
            .wait(PATIENCE, "silence after the sound", |recording| {
                let end = recording.samples.last_chunk::<8_192>()?;
                let silent = end.iter().all(|sample| sample.abs() < SILENCE);
                (recording.ended > 0 && silent).then_some(())
            })
            .unwrap();
        let recording = recorder.finish();
        kept_pace(&recording, &[&ring])?;
        let loud = recording.samples.iter().filter(|sample| **sample > 0.25).count() / 2;
        let played = ring.cursor().position.0 as f64 * 48_000.0 / 44_100.0;
        assert!((loud as f64 - played).abs() < 8.0, "{loud} frames heard of {played}");
        Ok(())
    });
}
