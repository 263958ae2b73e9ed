//! What the ring plays and captures, cycle by cycle.

use super::*;
use crate::SampleFormat;

const NOW: Nanos = Nanos(1);

fn ring(direction: Direction, buffer: u64) -> PcmRing {
    let format = StreamFormat::new(SampleFormat::U8, 1, 48_000).unwrap();
    PcmRing::new(direction, format, Frames(buffer), Pages::anonymous(4096).unwrap())
}

fn write(ring: &PcmRing, offset: u64, data: &[u8], known: u64) {
    ring.write(Octets(offset), data).unwrap();
    ring.wrote(Frames(offset), Frames(data.len() as u64), Frames(known));
}

/// Starts, and lets the first cycle pass, which moves one frame of two. Returns that frame.
fn start(ring: &PcmRing) -> u8 {
    ring.start();
    let first = play(ring, 2);
    assert_eq!(first[0], 0x80);
    first[1]
}

fn play(ring: &PcmRing, frames: usize) -> Vec<u8> {
    let mut out = vec![0; frames];
    ring.play(NOW, &mut out);
    out
}

#[test]
fn the_first_cycle_ends_just_past_the_start() {
    let ring = ring(Direction::Playback, 200);
    write(&ring, 0, &[1; 100], 0);
    ring.start();
    let mut out = vec![0; 64];
    assert_eq!(ring.play(NOW, &mut out), Some(-48));
    assert_eq!(out, [vec![0x80; 48], vec![1; 16]].concat());
    assert_eq!(ring.play(NOW, &mut out), Some(16));
    assert_eq!(ring.cursor().position, Frames(80));
}

#[test]
fn silence_is_played_where_nothing_was_written_and_the_position_runs_on() {
    let ring = ring(Direction::Playback, 8);
    write(&ring, 0, &[1, 2, 3], 0);
    assert_eq!(play(&ring, 2), [0x80, 0x80], "at rest before START");
    assert_eq!(start(&ring), 1);
    assert_eq!(play(&ring, 4), [2, 3, 0x80, 0x80]);
    assert_eq!(ring.cursor().position, Frames(5));
    assert_eq!((ring.starved(), ring.underruns()), (Frames(2), 1));
    assert_eq!(play(&ring, 2), [0x80, 0x80]);
    assert_eq!((ring.starved(), ring.underruns()), (Frames(4), 1), "one underrun, however long");
}

#[test]
fn late_frames_are_never_played_later() {
    let ring = ring(Direction::Playback, 8);
    start(&ring);
    assert_eq!(play(&ring, 3), [0x80; 3]);
    write(&ring, 0, &[1, 2, 3, 4, 5, 6], 0);
    assert_eq!(play(&ring, 4), [5, 6, 0x80, 0x80]);
}

#[test]
fn a_rewind_rewrites_what_is_not_played_yet() {
    let ring = ring(Direction::Playback, 8);
    write(&ring, 0, &[1, 2, 3, 4, 5, 6, 7, 8], 0);
    assert_eq!(start(&ring), 1);
    assert_eq!(play(&ring, 1), [2]);
    write(&ring, 4, &[50, 60], 2);
    assert_eq!(ring.written(), Frames(8), "what was written after it stays");
    write(&ring, 0, &[9, 10], 2);
    assert_eq!(play(&ring, 8), [3, 4, 50, 60, 7, 8, 9, 10]);
}

#[test]
fn a_whole_ring_can_be_rewritten_before_start() {
    let ring = ring(Direction::Playback, 4);
    write(&ring, 0, &[1, 2, 3, 4], 0);
    write(&ring, 0, &[5, 6, 7, 8], 0);
    assert_eq!(ring.written(), Frames(4));
    assert_eq!(start(&ring), 5);
    assert_eq!(play(&ring, 4), [6, 7, 8, 0x80]);
}

#[test]
fn each_start_plays_from_ring_offset_0_at_a_position_that_never_goes_back() {
    let ring = ring(Direction::Playback, 6);
    write(&ring, 0, &[1, 2, 3], 0);
    start(&ring);
    play(&ring, 7);
    ring.stop();
    assert_eq!(ring.cursor(), Cursor { running: false, fresh: false, position: Frames(12) });
    write(&ring, 0, &[4, 5], 12);
    assert_eq!(start(&ring), 4);
    assert_eq!(play(&ring, 2), [5, 0x80]);
}

#[test]
fn a_resume_goes_on_with_the_next_frame() {
    let ring = ring(Direction::Playback, 6);
    write(&ring, 0, &[1, 2, 3, 4], 0);
    start(&ring);
    assert_eq!(play(&ring, 1), [2]);
    let stopped = ring.stop();
    assert_eq!(play(&ring, 2), [0x80, 0x80]);
    ring.resume(stopped);
    assert_eq!(play(&ring, 2), [0x80, 3]);
    assert_eq!(play(&ring, 2), [4, 0x80]);
}

#[test]
fn captured_frames_wrap_and_the_newest_of_too_many_stay() {
    let ring = ring(Direction::Capture, 4);
    ring.start();
    assert_eq!(ring.capture(NOW, &[0, 0, 0, 1, 2, 3]), Some(-3), "half of the first cycle counts");
    assert_eq!(ring.capture(NOW, &[4, 5]), Some(3));
    let mut seen = [0; 4];
    ring.read(Octets(0), &mut seen).unwrap();
    assert_eq!(seen, [5, 2, 3, 4]);
    ring.capture(NOW, &[10, 11, 12, 13, 14, 15]);
    ring.read(Octets(0), &mut seen).unwrap();
    assert_eq!(seen, [13, 14, 15, 12], "frame p lies at p mod 4");
}

#[test]
fn a_closed_ring_gives_silence_and_its_memory_back() {
    struct Owner(std::sync::Arc<std::sync::atomic::AtomicBool>);
    impl Drop for Owner {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    let gone = std::sync::Arc::default();
    let file = tempfile::tempfile().unwrap();
    file.set_len(4096).unwrap();
    let owner = Box::new(Owner(std::sync::Arc::clone(&gone)));
    let fd = std::os::fd::AsFd::as_fd(&file);
    let pages = Pages::of_device(fd, 0, 4096, crate::Access::ReadWrite, Some(owner)).unwrap();
    let format = StreamFormat::new(SampleFormat::U8, 1, 48_000).unwrap();
    let ring = PcmRing::new(Direction::Playback, format, Frames(8), pages);
    write(&ring, 0, &[1, 2, 3], 0);
    ring.start();
    ring.close();
    ring.close();
    assert!(gone.load(Ordering::SeqCst), "given back while the ring is still held");
    assert_eq!(play(&ring, 2), [0x80, 0x80]);
    assert_eq!(ring.read(Octets(0), &mut [0]), Err(RingClosed));
}

/// A ring of 2000 frames of two 16-bit channels.
fn stereo(direction: Direction) -> PcmRing {
    let format = StreamFormat::new(SampleFormat::S16Le, 2, 48_000).unwrap();
    PcmRing::new(direction, format, Frames(2_000), Pages::anonymous(8_192).unwrap())
}

fn samples(octets: &[u8]) -> Vec<i16> {
    octets.chunks_exact(2).map(|octets| i16::from_le_bytes([octets[0], octets[1]])).collect()
}

#[test]
fn a_run_has_its_gain_from_the_first_frame_and_a_change_has_a_slope() {
    let ring = stereo(Direction::Playback);
    ring.write(Octets(0), &16_000i16.to_le_bytes().repeat(4_000)).unwrap();
    ring.wrote(Frames(0), Frames(2_000), Frames(0));
    ring.set_gain(&[0.125, 0.5]);
    ring.start();
    assert_eq!(
        samples(&play(&ring, 32 * 4))[32..],
        [2_000, 8_000].repeat(16),
        "the first cycle moves 16 frames"
    );
    ring.set_gain(&[0.0, 0.0]);
    let muted = samples(&play(&ring, 960 * 4));
    assert!(muted[0] < 2_000 && muted[0] > 1_900, "{}", muted[0]);
    assert!(muted[960..].iter().all(|sample| *sample == 0));
    assert_eq!(ring.levels(NOW), [2_000.0 / 32_768.0, 8_000.0 / 32_768.0]);
}

#[test]
fn a_change_after_samples_as_they_are_has_a_slope_too() {
    let loud = |frames: usize| 16_000i16.to_le_bytes().repeat(2 * frames);
    let playback = stereo(Direction::Playback);
    playback.write(Octets(0), &loud(2_000)).unwrap();
    playback.wrote(Frames(0), Frames(2_000), Frames(0));
    playback.start();
    assert_eq!(play(&playback, 32 * 4)[16 * 4..], loud(16));
    playback.set_gain(&[0.0, 0.0]);
    let played = samples(&play(&playback, 960 * 4));

    let capture = stereo(Direction::Capture);
    capture.start();
    capture.capture(NOW, &loud(32)).unwrap();
    capture.set_gain(&[0.0, 0.0]);
    capture.capture(NOW, &loud(960)).unwrap();
    let mut recorded = vec![0; 976 * 4];
    capture.read(Octets(0), &mut recorded).unwrap();
    assert_eq!(recorded[..16 * 4], loud(16));

    for changed in [&played, &samples(&recorded[16 * 4..])] {
        assert!(changed[0] < 16_000 && changed[0] > 15_000, "{}", changed[0]);
        assert!(changed[960..].iter().all(|sample| *sample == 0));
    }
}

#[test]
fn a_recording_has_its_gain_and_a_level() {
    let ring = stereo(Direction::Capture);
    ring.set_gain(&[0.5, 1.0]);
    ring.start();
    let input = [8_000i16, i16::MIN].map(i16::to_le_bytes).concat().repeat(32);
    ring.capture(NOW, &input).unwrap();
    let input = [6_000i16, 4_000].map(i16::to_le_bytes).concat().repeat(1_900);
    ring.capture(NOW, &input).unwrap();
    let mut recorded = vec![0; 1_916 * 4];
    ring.read(Octets(0), &mut recorded).unwrap();
    assert_eq!(samples(&recorded)[..32], [4_000, i16::MIN].repeat(16));
    assert!(samples(&recorded)[32..] == [3_000, 4_000].repeat(1_900));
    assert_eq!(ring.levels(NOW), [4_000.0 / 32_768.0, 1.0]);
}
