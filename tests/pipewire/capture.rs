//! What a ring records of a source.

use vsnd_pw_module::pipewire::private::SOURCE;
use vsnd_pw_module::{Direction, Role, SampleFormat};
use vsnd_tests::pipewire::{Endpoint, PLAYER};

use crate::guest::{
    Busy, Desk, PATIENCE, contents, eventually, expected, keeping_pace, passed, ring, spec, stereo,
};

/// The samples in the ring, of 16 bits.
fn samples(octets: &[u8]) -> Vec<f32> {
    let (samples, _) = octets.as_chunks::<2>();
    samples.iter().map(|sample| f32::from(i16::from_le_bytes(*sample)) / 32_768.0).collect()
}

/// Fails unless `sound` lies in the recording once and whole, with silence around.
fn assert_recorded(recorded: &[f32], sound: &[f32]) {
    let start = recorded.iter().position(|sample| *sample != 0.0).expect("something recorded");
    let end = recorded.iter().rposition(|sample| *sample != 0.0).map_or(0, |last| last + 1);
    let wrong = recorded[start..end].iter().zip(sound).position(|(recorded, sound)| recorded != sound);
    assert_eq!(wrong, None, "the first sample that differs, of {}", sound.len());
    assert_eq!(end - start, sound.len(), "samples recorded and played");
}

#[test]
fn every_frame_of_a_source_is_recorded() {
    const FRAMES: u64 = 24_000;
    keeping_pace(|| {
        let desk = Desk::new();
        let remote = desk.private.remote();
        let format = stereo(SampleFormat::S16Le);
        let player = Endpoint::play_unlinked(&remote, 2, 48_000).unwrap();
        for channel in ["FL", "FR"] {
            let (from, to) = (format!("{PLAYER}:output_{channel}"), format!("{SOURCE}:input_{channel}"));
            eventually("a link to the source", || {
                let linked = desk.private.command("pw-link").args([&from, &to]).output().unwrap();
                linked.status.success().then_some(())
            });
        }
        let ring = ring(Direction::Capture, format, 96_000);
        let spec = spec("alpha", Direction::Capture, format);
        let node = desk.open(&spec, &ring);
        ring.start();
        node.start();
        passed(&ring, 1);
        player.runs().unwrap();
        let sound = expected(format, 0, FRAMES);
        player.play(sound.clone());
        player
            .wait(PATIENCE, "the end of the sound", |said| (said.played == sound.len()).then_some(()))
            .unwrap();
        let said = ring.cursor().position.0;
        passed(&ring, said + 4_096);
        let recorded = samples(&contents(&ring));
        ring.close();
        drop(node);
        let said = player.finish();
        if !said.gaps.is_empty() || ring.missed_cycles() > 0 {
            return Err(Busy(format!(
                "{:?}, and the bridge missed {} cycles",
                said.gaps,
                ring.missed_cycles()
            )));
        }
        assert_recorded(&recorded, &sound);
        let timing = ring.timing().expect("a timing");
        assert!(timing.heard >= 0 && timing.given.0 >= FRAMES, "{timing:?}");
        Ok(())
    });
}

/// A guest's capture as a sink of the desktop: what is played to it is recorded.
#[test]
fn a_device_is_played_to_and_its_clock_runs_alone() {
    keeping_pace(|| {
        let desk = Desk::new();
        let format = stereo(SampleFormat::S16Le);
        let ring = ring(Direction::Capture, format, 96_000);
        let mut spec = spec("alpha", Direction::Capture, format);
        spec.role = Role::Device;
        let node = desk.open(&spec, &ring);
        ring.start();
        node.start();
        desk.in_graph("a sink of the guest's", |objects| {
            let node = objects.iter().find(|object| object.get("node.name") == Some(&spec.name))?;
            assert_eq!(node.get("media.class"), Some("Audio/Sink"));
            Some(())
        });
        passed(&ring, 3_000);
        let player = Endpoint::play_into(&desk.private.remote(), &spec.name, 2, 48_000).unwrap();
        let sound = expected(format, 0, 10_000);
        player.play(sound.clone());
        player
            .wait(PATIENCE, "the end of the sound", |said| (said.played == sound.len()).then_some(()))
            .unwrap();
        let position = ring.cursor().position.0;
        eventually("silence again", || (ring.cursor().position.0 > position + 4_096).then_some(()));
        let recorded = samples(&contents(&ring));
        let said = player.finish();
        if !said.gaps.is_empty() || ring.missed_cycles() > 0 {
            return Err(Busy(format!(
                "{:?}, and the bridge missed {} cycles",
                said.gaps,
                ring.missed_cycles()
            )));
        }
        assert_recorded(&recorded, &sound);
        Ok(())
    });
}
