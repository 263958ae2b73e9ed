//! Volumes in a ring's own copy, one factor for each channel: on the way to any server, and before anybody else's.
//!
//! A factor of 1 leaves samples as they are, one of 0 makes them silence, and a change is a slope and no step. Integers are
//! rounded to the nearest value of their own format and stop at its ends.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::codec::{self, Slope};
use crate::units::Nanos;
use crate::{SampleFormat, StreamFormat};

/// The longest slope from one factor to another, in parts of a second: too short to be heard as a delay, too long to be
/// heard as a click.
const SLOPE: u32 = 100;

/// The factors of a ring's channels.
pub(crate) struct Gains {
    channels: Box<[Gain]>,
}

/// A channel's factor, as the bits of an f32.
struct Gain {
    /// What it is to be.
    wanted: AtomicU32,
    /// What the newest frame had; NaN before the first one.
    reached: AtomicU32,
}

impl Gain {
    fn set(cell: &AtomicU32, factor: f32) {
        cell.store(factor.to_bits(), Ordering::Relaxed);
    }

    fn get(cell: &AtomicU32) -> f32 {
        f32::from_bits(cell.load(Ordering::Relaxed))
    }

    /// The factors between which the next slope lies.
    fn ends(&self) -> (f32, f32) {
        let (reached, wanted) = (Self::get(&self.reached), Self::get(&self.wanted));
        (if reached.is_nan() { wanted } else { reached }, wanted)
    }
}

impl Gains {
    /// Factors of 1.
    pub(crate) fn new(channels: u8) -> Self {
        let gain =
            |_| Gain { wanted: AtomicU32::new(1f32.to_bits()), reached: AtomicU32::new(f32::NAN.to_bits()) };
        Self { channels: (0..channels).map(gain).collect() }
    }

    /// Sets the channels' factors; those that are not told stay.
    pub(crate) fn set(&self, factors: &[f32]) {
        for (gain, factor) in self.channels.iter().zip(factors) {
            Gain::set(&gain.wanted, *factor);
        }
    }

    /// What is played next begins with the factors that are wanted: nothing was heard before it.
    pub(crate) fn settle(&self) {
        for gain in &self.channels {
            Gain::set(&gain.reached, f32::NAN);
        }
    }

    /// Whether samples stay as they are.
    pub(crate) fn is_unity(&self) -> bool {
        self.channels.iter().all(|gain| gain.ends() == (1.0, 1.0))
    }

    /// Applies the factors to `samples`, whole frames, and notes what came of it.
    ///
    /// For a callback.
    pub(crate) fn apply(&self, format: StreamFormat, samples: &mut [u8], meter: &Meter) {
        let longest = (format.rate() / SLOPE).max(1);
        for (channel, gain) in self.channels.iter().enumerate() {
            let (from, to) = gain.ends();
            meter.note(channel, codec::amplify(format, samples, channel, Slope { from, to, longest }));
            Gain::set(&gain.reached, to);
        }
    }

    /// As [`apply`](Self::apply), for samples that a guest made: where the factors change nothing, neither is anything done,
    /// but to numbers beyond full scale. A guest could be louder with these than its volumes allow.
    ///
    /// For a callback.
    pub(crate) fn apply_to_guest(&self, format: StreamFormat, samples: &mut [u8], meter: &Meter) {
        use SampleFormat::{F32Be, F32Le, F64Be, F64Le};
        if self.is_unity() && !matches!(format.sample(), F32Le | F32Be | F64Le | F64Be) {
            self.look(format, samples, meter);
        } else {
            self.apply(format, samples, meter);
        }
    }

    /// What [`apply`](Self::apply) does at [unity](Self::is_unity), where samples stay as they are: the next change begins there.
    ///
    /// For a callback.
    pub(crate) fn look(&self, format: StreamFormat, samples: &[u8], meter: &Meter) {
        for (channel, gain) in self.channels.iter().enumerate() {
            meter.note(channel, codec::peak(format, samples, channel));
            Gain::set(&gain.reached, 1.0);
        }
    }
}

/// The greatest samples of late, for level meters.
pub(crate) struct Meter {
    /// When the present window began, in milliseconds of CLOCK_MONOTONIC, cut to 32 bits.
    began: AtomicU32,
    channels: Box<[Peak]>,
}

/// A channel's greatest samples, as the bits of an f32: those of positive numbers are in the numbers' order.
#[derive(Default)]
struct Peak {
    present: AtomicU32,
    before: AtomicU32,
}

/// The length of a meter's window in milliseconds: a level shows for one to two of them.
const WINDOW: u32 = 100;

impl Meter {
    pub(crate) fn new(channels: u8) -> Self {
        Self { began: AtomicU32::new(0), channels: (0..channels).map(|_| Peak::default()).collect() }
    }

    fn age(&self, now: Nanos) -> u32 {
        millis(now).wrapping_sub(self.began.load(Ordering::Relaxed))
    }

    /// A cycle at `now` begins.
    ///
    /// For a callback.
    pub(crate) fn turn(&self, now: Nanos) {
        let age = self.age(now);
        if age < WINDOW {
            return;
        }
        for peak in &self.channels {
            let last = peak.present.swap(0, Ordering::Relaxed);
            peak.before.store(if age < 2 * WINDOW { last } else { 0 }, Ordering::Relaxed);
        }
        self.began.store(millis(now), Ordering::Relaxed);
    }

    /// A channel's greatest sample in this cycle.
    fn note(&self, channel: usize, greatest: f32) {
        if let Some(peak) = self.channels.get(channel) {
            peak.present.fetch_max(greatest.to_bits(), Ordering::Relaxed);
        }
    }

    /// Each channel's greatest sample of the last 100 to 200 ms before `now`.
    pub(crate) fn levels(&self, now: Nanos) -> Vec<f32> {
        let fresh = self.age(now) < 2 * WINDOW;
        let level =
            |peak: &Peak| if fresh { Gain::get(&peak.present).max(Gain::get(&peak.before)) } else { 0.0 };
        self.channels.iter().map(level).collect()
    }
}

/// Enough to tell neighbouring windows apart.
fn millis(at: Nanos) -> u32 {
    (at.0 / 1_000_000) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stereo(sample: SampleFormat) -> StreamFormat {
        StreamFormat::new(sample, 2, 48_000).unwrap()
    }

    fn samples(octets: &[u8]) -> Vec<i16> {
        octets.chunks_exact(2).map(|octets| i16::from_le_bytes([octets[0], octets[1]])).collect()
    }

    #[test]
    fn each_channel_has_its_own_factor_from_the_first_frame() {
        let gains = Gains::new(2);
        gains.set(&[0.125, 3.375]);
        let mut octets = [16_000i16, 16_000, -8, 9_000].map(i16::to_le_bytes).concat();
        let meter = Meter::new(2);
        gains.apply(stereo(SampleFormat::S16Le), &mut octets, &meter);
        assert_eq!(samples(&octets), [2_000, i16::MAX, -1, 30_375]);
        assert_eq!(meter.levels(Nanos(0)), [2_000.0 / 32_768.0, 1.0]);
    }

    #[test]
    fn a_change_is_a_slope_of_ten_milliseconds_or_a_shorter_cycle() {
        let gains = Gains::new(2);
        let mut octets = [10_000i16, 10_000].map(i16::to_le_bytes).concat().repeat(600);
        gains.apply(stereo(SampleFormat::S16Le), &mut octets, &Meter::new(2));
        gains.set(&[0.0, 1.0]);
        gains.apply(stereo(SampleFormat::S16Le), &mut octets, &Meter::new(2));
        let heard = samples(&octets);
        let left: Vec<i16> = heard.iter().copied().step_by(2).collect();
        assert!(left.windows(2).all(|pair| pair[0] >= pair[1] && pair[0] - pair[1] <= 21));
        assert_eq!((left[0], left[239], left[478], left[479], left[599]), (9_979, 5_000, 21, 0, 0));
        assert!(heard.iter().skip(1).step_by(2).all(|right| *right == 10_000));

        let mut octets = [10_000i16, 10_000].map(i16::to_le_bytes).concat().repeat(100);
        gains.set(&[1.0, 1.0]);
        gains.apply(stereo(SampleFormat::S16Le), &mut octets, &Meter::new(2));
        assert_eq!(samples(&octets)[198], 10_000);
        assert!(gains.is_unity());
    }

    #[test]
    fn unity_leaves_every_octet_as_it_is() {
        let gains = Gains::new(2);
        let noise: Vec<u8> = (0..=255u8).rev().collect();
        let mut octets = noise.clone();
        for sample in [SampleFormat::S16Be, SampleFormat::U8, SampleFormat::MuLaw, SampleFormat::U24In32Le] {
            gains.apply_to_guest(stereo(sample), &mut octets, &Meter::new(2));
            assert_eq!(octets, noise, "{sample:?}");
        }
    }

    #[test]
    fn silence_is_exact_in_every_format() {
        let gains = Gains::new(2);
        gains.set(&[0.0, 0.0]);
        gains.settle();
        for sample in codec::ALL {
            let format = stereo(sample);
            let mut octets: Vec<u8> = (0..=255u8).collect();
            gains.apply(format, &mut octets, &Meter::new(2));
            let mut silence = octets.clone();
            format.fill_silence(&mut silence);
            assert_eq!(octets, silence, "{sample:?}");
        }
    }

    #[test]
    fn a_guest_is_not_louder_than_full_scale_whatever_number_it_writes() {
        let gains = Gains::new(1);
        let format = StreamFormat::new(SampleFormat::F32Le, 1, 48_000).unwrap();
        let mut octets = [1e9f32, f32::NEG_INFINITY, f32::NAN, 0.3, -0.0].map(f32::to_le_bytes).concat();
        let meter = Meter::new(1);
        gains.apply_to_guest(format, &mut octets, &meter);
        assert_eq!(octets, [1f32, -1.0, 0.0, 0.3, -0.0].map(f32::to_le_bytes).concat());
        assert_eq!(meter.levels(Nanos(0)), [1.0]);
        gains.set(&[0.001]);
        gains.settle();
        let mut loud = 1e9f32.to_le_bytes();
        gains.apply_to_guest(format, &mut loud, &Meter::new(2));
        assert_eq!(f32::from_le_bytes(loud), 0.001);
    }

    #[test]
    fn a_level_shows_for_a_while_and_fades() {
        let meter = Meter::new(2);
        let ms = |millis: i64| Nanos::from_millis(10_000 + millis);
        let cycle = |at, left| {
            meter.turn(ms(at));
            meter.note(0, left);
            meter.levels(ms(at))
        };
        assert_eq!(meter.levels(ms(0)), [0.0, 0.0]);
        assert_eq!(cycle(0, 0.25), [0.25, 0.0]);
        assert_eq!(cycle(20, 0.5), [0.5, 0.0]);
        assert_eq!(cycle(40, 0.125), [0.5, 0.0]);
        assert_eq!(cycle(110, 0.125), [0.5, 0.0]);
        assert_eq!(cycle(215, 0.0), [0.125, 0.0]);
        assert_eq!(meter.levels(ms(500)), [0.0, 0.0], "nothing was played since");
        assert_eq!(cycle(600, 0.0), [0.0, 0.0]);
    }
}
