//! A test signal that tells where every frame of it went, and the judge of recordings of it.
//!
//! A tone alone can't show a loss: a gap of whole periods goes unseen, and a repeated piece looks like the piece itself. So each
//! sample of this signal carries pseudo-random low bits: any eight frames in a row occur once in it, and no sample is zero.
//! Whatever a recording holds is therefore a known place of a known play, silence, or damage.

use std::collections::HashMap;
use std::io::{Read, Seek, Write};

/// One frame of 16-bit stereo.
pub type Frame = [i16; 2];

const SILENCE: Frame = [0, 0];
/// Frames that identify a place in a signal.
const WINDOW: usize = 8;
/// From one place of a play that is looked for in a recording to the next.
const ANCHOR: usize = 32;
const NOISE_BITS: u32 = 10;

/// Which channels of a signal sound. Two plays into one sink can be told apart, each exactly, when one has the left channel
/// and the other the right one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channels {
    /// Both.
    Both,
    /// The first only.
    Left,
    /// The second only.
    Right,
}

impl Channels {
    /// `frame` without the channels that do not sound.
    #[must_use]
    pub fn of(self, frame: Frame) -> Frame {
        match self {
            Self::Both => frame,
            Self::Left => [frame[0], 0],
            Self::Right => [0, frame[1]],
        }
    }
}

/// A signal: a tone with noise in its low bits, the same for the same seed, different for any other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TestSignal {
    seed: u32,
    channels: Channels,
}

impl TestSignal {
    /// The stereo signal of a seed.
    #[must_use]
    pub const fn new(seed: u32) -> Self {
        Self { seed, channels: Channels::Both }
    }

    /// The same signal with only these channels sounding.
    #[must_use]
    pub const fn on(self, channels: Channels) -> Self {
        Self { seed: self.seed, channels }
    }

    /// The channels that sound.
    #[must_use]
    pub const fn channels(&self) -> Channels {
        self.channels
    }

    /// Its frame at `index`.
    #[must_use]
    pub fn frame(&self, index: u64) -> Frame {
        let noise = mix((u64::from(self.seed) << 40) ^ index);
        // two tones of a few hundred hertz at 48 kHz, by seed
        let left = triangle(index, 90 + u64::from(self.seed % 40));
        let right = triangle(index, 131 + u64::from(self.seed % 40));
        self.channels.of([with_noise(left, noise), with_noise(right, noise >> 32)])
    }

    /// Its first `count` frames.
    #[must_use]
    pub fn frames(&self, count: u64) -> Vec<Frame> {
        (0..count).map(|index| self.frame(index)).collect()
    }
}

/// SplitMix64's output function: every bit of the result depends on every bit of `x`.
fn mix(x: u64) -> u64 {
    let mut z = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A triangle wave between -8192 and 8191; two of them added do not clip.
fn triangle(index: u64, period: u64) -> i16 {
    let phase = (index % period) * 32768 / period;
    let folded = if phase < 16384 { phase } else { 32767 - phase };
    i16::try_from(folded).unwrap_or(0) - 8192
}

/// The sample with its low bits replaced; the lowest one is always set, so that it is never zero.
fn with_noise(sample: i16, noise: u64) -> i16 {
    let mask = (1i16 << NOISE_BITS) - 1;
    let noise = i16::try_from(noise & 0x7fff).unwrap_or(0) & mask;
    (sample & !mask) | noise | 1
}

/// What became of one play.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlayReport {
    /// Frames that should have been heard.
    pub expected: u64,
    /// Different frames of it that were heard.
    pub heard: u64,
    /// Where in the recording it begins.
    pub begins_at: Option<u64>,
    /// The first frame of the play that was not heard in its place.
    pub first_wrong: Option<u64>,
    /// Places between its first and its last heard frame where it was interrupted, by whatever it was.
    pub gaps: u64,
    /// Frames lost at those places.
    pub lost: u64,
    /// Frames missing before the first heard one.
    pub head_cut: u64,
    /// Frames missing after the last heard one.
    pub tail_cut: u64,
    /// Frames of silence inside it.
    pub silence: u64,
    /// Frames that are neither silence nor of any play.
    pub corrupt: u64,
    /// Frames heard again.
    pub repeated: u64,
}

impl PlayReport {
    /// Every frame, in order, and nothing else from the first to the last.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        self.heard == self.expected && self.is_unbroken()
    }

    /// An excerpt of any length without fault inside: what a recording of a longer signal should be.
    #[must_use]
    pub fn is_unbroken(&self) -> bool {
        self.heard > 0 && self.gaps == 0 && self.corrupt == 0 && self.repeated == 0
    }
}

impl std::fmt::Display for PlayReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {} frames heard", self.heard, self.expected)?;
        if self.is_exact() {
            return write!(f, ", exact");
        }
        if let Some(first) = self.first_wrong {
            write!(f, ", wrong from frame {first} on")?;
        }
        for (count, what) in [
            (self.gaps, "gaps"),
            (self.lost, "frames lost in them"),
            (self.silence, "frames of silence in them"),
            (self.repeated, "frames repeated"),
            (self.corrupt, "frames corrupt"),
            (self.head_cut, "frames missing at the start"),
            (self.tail_cut, "frames missing at the end"),
        ] {
            if count > 0 {
                write!(f, ", {count} {what}")?;
            }
        }
        Ok(())
    }
}

/// A piece of a play found in the recording.
#[derive(Clone, Copy)]
struct Piece {
    play: usize,
    from: usize,
    length: usize,
    at: usize,
}

/// Finds each of `plays` in `recording` and says what became of it, in their order.
#[must_use]
pub fn compare(recording: &[Frame], plays: &[Vec<Frame>]) -> Vec<PlayReport> {
    let mut reports: Vec<PlayReport> = plays
        .iter()
        .map(|play| PlayReport { expected: play.len() as u64, ..PlayReport::default() })
        .collect();
    let pieces = find_pieces(recording, plays);
    // Damage belongs to the play that it interrupts: the last one that was heard before it, else the first.
    for at in find_corrupt(recording, &pieces) {
        let play = match pieces.partition_point(|piece| piece.at < at) {
            0 => pieces.first().map_or(0, |piece| piece.play),
            after => pieces[after - 1].play,
        };
        if let Some(report) = reports.get_mut(play) {
            report.corrupt += 1;
        }
    }
    for (play, report) in reports.iter_mut().enumerate() {
        let own: Vec<Piece> = pieces.iter().copied().filter(|piece| piece.play == play).collect();
        judge(recording, &own, report);
    }
    reports
}

/// The pieces of plays that the recording holds, in its order. Every [`ANCHOR`]th window of a play is looked for and what is
/// found extended both ways, so a piece that holds none of them goes unnoticed: it counts as damage.
fn find_pieces(recording: &[Frame], plays: &[Vec<Frame>]) -> Vec<Piece> {
    let mut anchors: HashMap<&[Frame], (usize, usize)> = HashMap::new();
    for (play, frames) in plays.iter().enumerate() {
        for (index, window) in frames.windows(WINDOW).enumerate().step_by(ANCHOR) {
            anchors.insert(window, (play, index));
        }
    }
    let same = |(a, b): &(&Frame, &Frame)| a == b;
    let mut pieces: Vec<Piece> = Vec::new();
    let (mut at, mut searched_to) = (0, 0);
    while let Some(window) = recording.get(at..at + WINDOW) {
        let known = if window[0] == SILENCE { None } else { anchors.get(window) };
        let Some(&(play, index)) = known else {
            at += 1;
            continue;
        };
        let before = recording[searched_to..at].iter().rev().zip(plays[play][..index].iter().rev());
        let before = before.take_while(same).count();
        let after = recording[at..].iter().zip(&plays[play][index..]).take_while(same).count();
        pieces.push(Piece { play, from: index - before, length: before + after, at: at - before });
        at += after;
        searched_to = at;
    }
    pieces
}

/// The places of frames that are neither silent nor in a piece.
fn find_corrupt(recording: &[Frame], pieces: &[Piece]) -> Vec<usize> {
    let begins = std::iter::once(0).chain(pieces.iter().map(|piece| piece.at + piece.length));
    let ends = pieces.iter().map(|piece| piece.at).chain([recording.len()]);
    begins.zip(ends).flat_map(|(begin, end)| begin..end).filter(|&at| recording[at] != SILENCE).collect()
}

fn judge(recording: &[Frame], pieces: &[Piece], report: &mut PlayReport) {
    let Some(first) = pieces.first() else {
        report.tail_cut = report.expected;
        report.first_wrong = (report.expected > 0).then_some(0);
        return;
    };
    report.begins_at = Some(first.at as u64);
    report.head_cut = first.from as u64;
    // the next frame of the play that was not heard yet
    let mut next = first.from;
    let mut recorded_to = first.at;
    for piece in pieces {
        if piece.at != recorded_to || piece.from != next {
            report.gaps += 1;
            report.first_wrong = report.first_wrong.or(Some(next.min(piece.from) as u64));
            report.silence +=
                recording[recorded_to..piece.at].iter().filter(|frame| **frame == SILENCE).count() as u64;
        }
        let end = piece.from + piece.length;
        report.lost += piece.from.saturating_sub(next) as u64;
        report.repeated += next.min(end).saturating_sub(piece.from) as u64;
        report.heard += end.saturating_sub(piece.from.max(next)) as u64;
        next = next.max(end);
        recorded_to = piece.at + piece.length;
    }
    report.tail_cut = report.expected - next as u64;
    if report.head_cut > 0 {
        report.first_wrong = Some(0);
    } else if report.tail_cut > 0 {
        report.first_wrong = report.first_wrong.or(Some(next as u64));
    }
}

/// The frames of raw little-endian 16-bit stereo; an incomplete one at the end is left off.
#[must_use]
pub fn frames_of(raw: &[u8]) -> Vec<Frame> {
    raw.chunks_exact(4)
        .map(|octets| {
            [i16::from_le_bytes([octets[0], octets[1]]), i16::from_le_bytes([octets[2], octets[3]])]
        })
        .collect()
}

/// Writes frames as a WAV file.
///
/// # Errors
/// What the writer reports.
pub fn write_wav(out: impl Write + Seek, rate: u32, frames: &[Frame]) -> Result<(), hound::Error> {
    let spec = hound::WavSpec {
        channels: 2,
        sample_rate: rate,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let mut writer = hound::WavWriter::new(out, spec)?;
    for sample in frames.as_flattened() {
        writer.write_sample(*sample)?;
    }
    writer.finalize()
}

/// Reads a 16-bit stereo WAV file: its rate and frames.
///
/// # Errors
/// What the reader reports, and [`hound::Error::Unsupported`] for any other kind of WAV file.
pub fn read_wav(input: impl Read) -> Result<(u32, Vec<Frame>), hound::Error> {
    let reader = hound::WavReader::new(input)?;
    let spec = reader.spec();
    if (spec.channels, spec.bits_per_sample) != (2, 16) || spec.sample_format != hound::SampleFormat::Int {
        return Err(hound::Error::Unsupported);
    }
    let samples = reader.into_samples::<i16>().collect::<Result<Vec<i16>, _>>()?;
    Ok((spec.sample_rate, samples.chunks_exact(2).map(|pair| [pair[0], pair[1]]).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::io::Cursor;

    const SECOND: u64 = 48000;

    fn plays() -> Vec<Vec<Frame>> {
        (0..3).map(|seed| TestSignal::new(seed).frames(SECOND)).collect()
    }

    fn silence(frames: usize) -> Vec<Frame> {
        vec![SILENCE; frames]
    }

    #[test]
    fn every_window_of_many_plays_is_unique_and_no_sample_is_zero() {
        for channels in [Channels::Both, Channels::Left, Channels::Right] {
            let mut seen = HashSet::new();
            for seed in 0..6 {
                let frames = TestSignal::new(seed).on(channels).frames(2 * SECOND);
                for window in frames.windows(WINDOW) {
                    assert!(
                        seen.insert(<[Frame; WINDOW]>::try_from(window).unwrap()),
                        "seed {seed}, {channels:?}"
                    );
                }
                let sounding = |frame: &Frame| match channels {
                    Channels::Both => frame[0] != 0 && frame[1] != 0,
                    Channels::Left => frame[0] != 0 && frame[1] == 0,
                    Channels::Right => frame[0] == 0 && frame[1] != 0,
                };
                assert!(frames.iter().all(sounding));
            }
        }
    }

    #[test]
    fn two_signals_added_do_not_clip() {
        let loudest =
            |seed| TestSignal::new(seed).frames(SECOND).as_flattened().iter().map(|s| s.unsigned_abs()).max();
        assert!(loudest(1).unwrap() < 16384 && loudest(2).unwrap() < 16384);
    }

    #[test]
    fn plays_in_silence_are_exact() {
        let plays = plays();
        let recording =
            [silence(100), plays[0].clone(), plays[1].clone(), silence(7), plays[2].clone(), silence(9)]
                .concat();
        let reports = compare(&recording, &plays);
        assert!(reports.iter().all(PlayReport::is_exact), "{reports:?}");
        assert_eq!(reports[1].begins_at, Some(100 + SECOND));
        assert_eq!(reports[0].to_string(), "48000 of 48000 frames heard, exact");
    }

    #[test]
    fn a_play_that_is_missing_is_reported() {
        let plays = plays();
        let reports = compare(&[plays[0].clone(), plays[2].clone()].concat(), &plays);
        assert!(reports[0].is_exact() && !reports[1].is_exact() && reports[2].is_exact());
        assert_eq!((reports[1].heard, reports[1].tail_cut, reports[1].first_wrong), (0, SECOND, Some(0)));
    }

    #[test]
    fn a_lost_piece_an_inserted_silence_and_a_repeat_are_told_apart() {
        let play = plays().remove(0);
        let lost = [&play[..1000], &play[1100..]].concat();
        let report = &compare(&lost, std::slice::from_ref(&play))[0];
        assert_eq!((report.gaps, report.lost, report.silence, report.first_wrong), (1, 100, 0, Some(1000)));
        assert_eq!(report.heard, SECOND - 100);

        let paused = [&play[..1000], &silence(50)[..], &play[1000..]].concat();
        let report = &compare(&paused, std::slice::from_ref(&play))[0];
        assert_eq!((report.gaps, report.lost, report.silence, report.first_wrong), (1, 0, 50, Some(1000)));
        assert_eq!(report.heard, SECOND);
        assert!(!report.is_exact() && !report.is_unbroken());

        let again = [&play[..1000], &play[900..]].concat();
        let report = &compare(&again, std::slice::from_ref(&play))[0];
        assert_eq!((report.gaps, report.lost, report.repeated, report.first_wrong), (1, 0, 100, Some(900)));
        assert_eq!(report.heard, SECOND);
    }

    #[test]
    fn cuts_at_both_ends_are_reported() {
        let play = plays().remove(0);
        let report = &compare(&play[10..47000], std::slice::from_ref(&play))[0];
        assert_eq!((report.head_cut, report.tail_cut, report.first_wrong), (10, 1000, Some(0)));
        assert!(report.is_unbroken() && !report.is_exact());
    }

    #[test]
    fn one_wrong_bit_is_found() {
        let play = plays().remove(0);
        let mut recording = play.clone();
        recording[5000][1] ^= 1 << 5;
        let report = &compare(&recording, std::slice::from_ref(&play))[0];
        assert_eq!((report.first_wrong, report.corrupt, report.gaps, report.lost), (Some(5000), 1, 1, 1));
    }

    #[test]
    fn signals_on_one_channel_each_survive_being_mixed() {
        let left = TestSignal::new(1).on(Channels::Left).frames(SECOND);
        let right = TestSignal::new(2).on(Channels::Right).frames(SECOND);
        let mut mixed = silence(60000);
        for (at, frame) in left.iter().enumerate() {
            mixed[at + 300][0] += frame[0];
        }
        for (at, frame) in right.iter().enumerate() {
            mixed[at + 9000][1] += frame[1];
        }
        for (channels, play) in [(Channels::Left, left), (Channels::Right, right)] {
            let heard: Vec<Frame> = mixed.iter().map(|frame| channels.of(*frame)).collect();
            assert!(compare(&heard, &[play])[0].is_exact());
        }
    }

    #[test]
    fn wav_files_and_raw_octets_carry_frames_unchanged() {
        let frames = TestSignal::new(9).frames(1000);
        let mut file = Cursor::new(Vec::new());
        write_wav(&mut file, 48000, &frames).unwrap();
        file.set_position(0);
        assert_eq!(read_wav(file).unwrap(), (48000, frames.clone()));
        let raw: Vec<u8> = frames.as_flattened().iter().flat_map(|sample| sample.to_le_bytes()).collect();
        assert_eq!(frames_of(&raw), frames);
    }
}
