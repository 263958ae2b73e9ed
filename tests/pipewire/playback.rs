//! What a sink hears of a ring.

use vsnd_pw_module::pipewire::private::{Options, SINK};
use vsnd_pw_module::{Direction, SampleFormat};
use vsnd_tests::pipewire::{Endpoint, Sound};

use crate::guest::{Desk, PATIENCE, expected, format, passed, ring, spec, write};

/// Fails unless the recording holds `sound` once, whole, and silence around it.
pub fn assert_heard(recording: &Sound, sound: &[f32]) {
    let Some(start) = recording.samples.iter().position(|sample| *sample != 0.0) else {
        panic!("nothing was heard in {} samples", recording.samples.len());
    };
    let end = recording.samples.iter().rposition(|sample| *sample != 0.0).map_or(0, |last| last + 1);
    let heard = &recording.samples[start..end];
    let wrong = heard.iter().zip(sound).position(|(heard, sound)| heard != sound);
    let gaps: Vec<_> = recording.gaps.iter().filter(|gap| (start..end).contains(&gap.at)).collect();
    assert!(gaps.is_empty(), "the recorder itself missed cycles: the machine was too busy to tell: {gaps:?}");
    if let Some(wrong) = wrong {
        let around = wrong.saturating_sub(2)..(wrong + 6).min(heard.len().min(sound.len()));
        panic!(
            "sample {wrong} of {} differs: heard {:?}, played {:?}",
            sound.len(),
            &heard[around.clone()],
            &sound[around]
        );
    }
    assert_eq!(heard.len(), sound.len(), "samples heard and played");
}

/// Plays a second of noise in the format from one full ring, drops the node as soon as the last frame is consumed.
fn plays_exactly(sample: SampleFormat) {
    let desk = Desk::new(Options::default());
    let format = format(sample);
    let recorder = Endpoint::record_sink(&desk.private.remote(), SINK, 2, 48_000).unwrap();
    let ring = ring(Direction::Playback, format, 48_000);
    let spec = spec("alpha", Direction::Playback, format);
    let node = desk.open(&spec, &ring);
    write(&ring, 0, 48_000);
    ring.start();
    node.start();
    passed(&ring, 48_000);
    ring.close();
    drop(node);
    let sound = expected(format, 0, 48_000);
    let last = sound[sound.len() - 2..].to_vec();
    recorder
        .wait(PATIENCE, "the end of the sound", |heard| {
            heard.samples.rchunks_exact(2).take(20_000).any(|frame| frame == last).then_some(())
        })
        .unwrap();
    assert_heard(&recorder.finish(), &sound);
}

#[test]
fn every_frame_of_16_bits_is_heard() {
    plays_exactly(SampleFormat::S16Le);
}
