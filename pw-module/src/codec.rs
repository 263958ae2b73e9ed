//! Samples as numbers, and back.

use crate::{SampleFormat, StreamFormat};

/// How a factor changes over the frames of a cycle.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slope {
    /// The factor before the first frame.
    pub(crate) from: f32,
    /// The factor at the end of the slope, and after it.
    pub(crate) to: f32,
    /// Frames that the slope lasts at most; a shorter cycle has a steeper one.
    pub(crate) longest: u32,
}

/// How one sample lies in `N` octets.
trait Codec<const N: usize> {
    /// The number that stands for full scale.
    const FULL: f64;
    fn decode(octets: [u8; N]) -> f64;
    /// The nearest sample there is.
    fn encode(value: f64) -> [u8; N];
}

macro_rules! codecs {
    ($($name:ident [$octets:literal] of $full:expr, |$raw:ident| $decode:expr, |$value:ident| $encode:expr;)*) => {
        $(
            struct $name;
            impl Codec<$octets> for $name {
                const FULL: f64 = $full;
                fn decode($raw: [u8; $octets]) -> f64 {
                    $decode
                }
                fn encode($value: f64) -> [u8; $octets] {
                    $encode
                }
            }
        )*

        /// All formats.
        #[cfg(test)]
        pub(crate) const ALL: [SampleFormat; 20] = [$(SampleFormat::$name),*];

        /// Multiplies one channel of `samples`, whole frames. Returns the greatest sample that came of it, of a full scale of 1.
        ///
        /// For a callback.
        pub(crate) fn amplify(format: StreamFormat, samples: &mut [u8], channel: usize, slope: Slope) -> f32 {
            let frame = format.frame_octets() as usize;
            match format.sample() {
                $(SampleFormat::$name => amplify_as::<$octets, $name>(samples, frame, channel, slope),)*
            }
        }

        /// The greatest sample of one channel of `samples`, whole frames, of a full scale of 1.
        ///
        /// For a callback.
        pub(crate) fn peak(format: StreamFormat, samples: &[u8], channel: usize) -> f32 {
            let frame = format.frame_octets() as usize;
            match format.sample() {
                $(SampleFormat::$name => peak_as::<$octets, $name>(samples, frame, channel),)*
            }
        }
    };
}

// A float that is cast to an integer stops at the integer's ends.
codecs! {
    S8[1] of 128.0, |raw| f64::from(i8::from_le_bytes(raw)), |value| (value.round() as i8).to_le_bytes();
    U8[1] of 128.0, |raw| f64::from(raw[0]) - 128.0, |value| [(value + 128.0).round() as u8];
    S16Le[2] of 32_768.0, |raw| f64::from(i16::from_le_bytes(raw)), |value| (value.round() as i16).to_le_bytes();
    S16Be[2] of 32_768.0, |raw| f64::from(i16::from_be_bytes(raw)), |value| (value.round() as i16).to_be_bytes();
    U16Le[2] of 32_768.0, |raw| f64::from(u16::from_le_bytes(raw)) - 32_768.0,
        |value| ((value + 32_768.0).round() as u16).to_le_bytes();
    U16Be[2] of 32_768.0, |raw| f64::from(u16::from_be_bytes(raw)) - 32_768.0,
        |value| ((value + 32_768.0).round() as u16).to_be_bytes();
    S24In32Le[4] of FULL_24, |raw| signed_24(u32::from_le_bytes(raw)), |value| in_24(value).to_le_bytes();
    S24In32Be[4] of FULL_24, |raw| signed_24(u32::from_be_bytes(raw)), |value| in_24(value).to_be_bytes();
    U24In32Le[4] of FULL_24, |raw| signed_24(u32::from_le_bytes(raw) ^ SIGN_24),
        |value| unsigned_24(value).to_le_bytes();
    U24In32Be[4] of FULL_24, |raw| signed_24(u32::from_be_bytes(raw) ^ SIGN_24),
        |value| unsigned_24(value).to_be_bytes();
    S32Le[4] of FULL_32, |raw| f64::from(i32::from_le_bytes(raw)), |value| (value.round() as i32).to_le_bytes();
    S32Be[4] of FULL_32, |raw| f64::from(i32::from_be_bytes(raw)), |value| (value.round() as i32).to_be_bytes();
    U32Le[4] of FULL_32, |raw| f64::from(u32::from_le_bytes(raw)) - FULL_32,
        |value| ((value + FULL_32).round() as u32).to_le_bytes();
    U32Be[4] of FULL_32, |raw| f64::from(u32::from_be_bytes(raw)) - FULL_32,
        |value| ((value + FULL_32).round() as u32).to_be_bytes();
    F32Le[4] of 1.0, |raw| sane(f64::from(f32::from_le_bytes(raw))), |value| (value as f32).to_le_bytes();
    F32Be[4] of 1.0, |raw| sane(f64::from(f32::from_be_bytes(raw))), |value| (value as f32).to_be_bytes();
    F64Le[8] of 1.0, |raw| sane(f64::from_le_bytes(raw)), |value| value.to_le_bytes();
    F64Be[8] of 1.0, |raw| sane(f64::from_be_bytes(raw)), |value| value.to_be_bytes();
    MuLaw[1] of 32_768.0, |raw| mu_law_to_linear(raw[0]), |value| [linear_to_mu_law(value)];
    ALaw[1] of 32_768.0, |raw| a_law_to_linear(raw[0]), |value| [linear_to_a_law(value)];
}

const FULL_24: f64 = 8_388_608.0;
const FULL_32: f64 = 2_147_483_648.0;
/// The highest bit of 24.
const SIGN_24: u32 = 0x80_0000;

/// The low 24 bits with their sign; those beyond are padding, which may hold anything.
fn signed_24(bits: u32) -> f64 {
    f64::from((bits << 8).cast_signed() >> 8)
}

fn in_24(value: f64) -> i32 {
    value.round().clamp(-FULL_24, FULL_24 - 1.0) as i32
}

fn unsigned_24(value: f64) -> u32 {
    (in_24(value).cast_unsigned() ^ SIGN_24) & 0xff_ffff
}

/// A float that is louder than full scale, or no number at all, is no sound.
fn sane(value: f64) -> f64 {
    if value.is_nan() { 0.0 } else { value.clamp(-1.0, 1.0) }
}

// ITU-T G.711, on a scale of 16 bits: a sign, a segment of three bits and a step of four in it.

fn mu_law_to_linear(code: u8) -> f64 {
    let code = !code;
    let (segment, step) = (code >> 4 & 7, i32::from(code & 0xf));
    let magnitude = f64::from((((step << 3) + MU_BIAS) << segment) - MU_BIAS);
    if code & 0x80 == 0 { magnitude } else { -magnitude }
}

fn linear_to_mu_law(value: f64) -> u8 {
    let value = value.round() as i32;
    let magnitude = value.unsigned_abs().min(32_635) + MU_BIAS as u32;
    // The bias makes bit 7 the lowest that a magnitude can begin with.
    let segment = magnitude.ilog2() - 7;
    let step = magnitude >> (segment + 3) & 0xf;
    let sign = if value < 0 { 0x80 } else { 0 };
    !(sign | (segment << 4 | step) as u8)
}

const MU_BIAS: i32 = 0x84;

fn a_law_to_linear(code: u8) -> f64 {
    let code = code ^ 0x55;
    let (segment, step) = (code >> 4 & 7, i32::from(code & 0xf));
    // The middle of the step.
    let magnitude = match segment {
        0 => (step << 4) + 8,
        _ => ((step << 4) + 0x108) << (segment - 1),
    };
    let magnitude = f64::from(magnitude);
    if code & 0x80 == 0 { -magnitude } else { magnitude }
}

fn linear_to_a_law(value: f64) -> u8 {
    let value = value.round() as i32;
    let magnitude = value.unsigned_abs().min(32_767);
    let segment = (magnitude | 0xff).ilog2() - 7;
    let step = magnitude >> (segment.max(1) + 3) & 0xf;
    let sign = if value < 0 { 0 } else { 0x80 };
    (sign | (segment << 4 | step) as u8) ^ 0x55
}

fn amplify_as<const N: usize, C: Codec<N>>(
    samples: &mut [u8],
    frame: usize,
    channel: usize,
    slope: Slope,
) -> f32 {
    let frames = samples.len() / frame.max(1);
    let length = frames.min(slope.longest as usize);
    let (from, to) = (f64::from(slope.from), f64::from(slope.to));
    let mut peak = 0f64;
    for (index, samples) in samples.chunks_exact_mut(frame.max(1)).enumerate() {
        let Some(octets) = samples.get_mut(channel * N..).and_then(<[u8]>::first_chunk_mut::<N>) else {
            continue;
        };
        let factor = match index + 1 {
            done if done < length => from + (to - from) * done as f64 / length as f64,
            _ => to,
        };
        // Not by multiplication: a negative float would become a negative zero.
        let value = if factor == 0.0 { 0.0 } else { C::decode(*octets) * factor };
        *octets = C::encode(value);
        peak = peak.max(value.abs());
    }
    (peak / C::FULL).min(1.0) as f32
}

fn peak_as<const N: usize, C: Codec<N>>(samples: &[u8], frame: usize, channel: usize) -> f32 {
    let samples = samples.chunks_exact(frame.max(1));
    let samples = samples.filter_map(|frame| frame.get(channel * N..)?.first_chunk::<N>());
    let peak = samples.map(|octets| C::decode(*octets).abs()).fold(0.0, f64::max);
    (peak / C::FULL) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip<const N: usize, C: Codec<N>>(octets: [u8; N]) {
        assert_eq!(C::encode(C::decode(octets)), octets, "{}", C::decode(octets));
    }

    #[test]
    fn every_sample_becomes_a_number_and_itself_again() {
        for code in 0..=u8::MAX {
            round_trip::<1, S8>([code]);
            round_trip::<1, U8>([code]);
            round_trip::<1, ALaw>([code]);
            if code != 0x7f {
                round_trip::<1, MuLaw>([code]);
            }
            round_trip::<2, S16Le>([code, !code]);
            round_trip::<2, U16Be>([code, code]);
            round_trip::<4, S32Be>([code, 1, 2, 3]);
            round_trip::<4, U32Le>([code, 1, 2, !code]);
            round_trip::<4, U24In32Le>([code, 3, !code, 0]);
            let high = code & 0x80;
            round_trip::<4, S24In32Be>([if high == 0 { 0 } else { 0xff }, code, 5, 6]);
        }
        assert_eq!(MuLaw::encode(MuLaw::decode([0x7f])), [0xff], "the other zero");
        for value in [0.0f32, -0.0, 0.1, -1.0, 1e-40] {
            round_trip::<4, F32Le>(value.to_le_bytes());
            round_trip::<8, F64Be>(f64::from(value).to_be_bytes());
        }
    }

    #[test]
    fn numbers_are_those_of_the_formats() {
        assert_eq!(S24In32Le::decode([0xff, 0xff, 0x7f, 0xaa]), 8_388_607.0, "padding counts for nothing");
        assert_eq!(U24In32Be::decode([0xaa, 0, 0, 0]), -8_388_608.0);
        assert_eq!(U16Le::decode([0, 0x80]), 0.0);
        assert_eq!((MuLaw::decode([0x80]), MuLaw::decode([0x00])), (32_124.0, -32_124.0));
        assert_eq!((ALaw::decode([0xaa]), ALaw::decode([0x2a])), (32_256.0, -32_256.0));
    }

    #[test]
    fn integers_stop_at_their_ends() {
        assert_eq!(S8::encode(1e9), [0x7f]);
        assert_eq!(U8::encode(-1e9), [0]);
        assert_eq!(S24In32Le::encode(1e9), [0xff, 0xff, 0x7f, 0]);
        assert_eq!(U24In32Le::encode(-1e9), [0, 0, 0, 0]);
        assert_eq!(S32Le::encode(-1e12), i32::MIN.to_le_bytes());
        assert_eq!(MuLaw::encode(1e9), [0x80]);
        assert_eq!(ALaw::encode(-1e9), [0x2a]);
    }
}
