//! PCM sample formats as sound servers name them, and the shape of a stream.

use crate::units::{Frames, Octets};

/// How one sample lies in memory. `S24In32` and `U24In32` are 24 bits in the low end of a 4-octet container.
#[allow(missing_docs)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SampleFormat {
    S8,
    U8,
    S16Le,
    S16Be,
    U16Le,
    U16Be,
    S24In32Le,
    S24In32Be,
    U24In32Le,
    U24In32Be,
    S32Le,
    S32Be,
    U32Le,
    U32Be,
    F32Le,
    F32Be,
    F64Le,
    F64Be,
    MuLaw,
    ALaw,
}

impl SampleFormat {
    /// Octets that one sample takes.
    pub const fn octets(self) -> u32 {
        match self {
            Self::S8 | Self::U8 | Self::MuLaw | Self::ALaw => 1,
            Self::S16Le | Self::S16Be | Self::U16Le | Self::U16Be => 2,
            Self::F64Le | Self::F64Be => 8,
            _ => 4,
        }
    }

    /// The octets of one silent sample; only the first [`octets`](Self::octets) of them count.
    pub const fn silence(self) -> [u8; 8] {
        match self {
            Self::U8 => [0x80, 0, 0, 0, 0, 0, 0, 0],
            Self::U16Le => [0, 0x80, 0, 0, 0, 0, 0, 0],
            Self::U16Be => [0x80, 0, 0, 0, 0, 0, 0, 0],
            // 0x0080_0000: the middle of 24 unsigned bits in the low end of the container
            Self::U24In32Le => [0, 0, 0x80, 0, 0, 0, 0, 0],
            Self::U24In32Be => [0, 0x80, 0, 0, 0, 0, 0, 0],
            Self::U32Le => [0, 0, 0, 0x80, 0, 0, 0, 0],
            Self::U32Be => [0x80, 0, 0, 0, 0, 0, 0, 0],
            Self::MuLaw => [0xff, 0, 0, 0, 0, 0, 0, 0],
            Self::ALaw => [0xd5, 0, 0, 0, 0, 0, 0, 0],
            _ => [0; 8],
        }
    }
}

/// The shape of a stream: sample format, channels and rate in frames a second. Channels and rate are never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StreamFormat {
    sample: SampleFormat,
    channels: u8,
    rate: u32,
}

impl StreamFormat {
    /// A stream's shape; `None` when channels or rate are zero.
    pub const fn new(sample: SampleFormat, channels: u8, rate: u32) -> Option<Self> {
        if channels == 0 || rate == 0 { None } else { Some(Self { sample, channels, rate }) }
    }

    /// How one sample lies in memory.
    pub const fn sample(self) -> SampleFormat {
        self.sample
    }

    /// Channels, interleaved in a frame.
    pub const fn channels(self) -> u8 {
        self.channels
    }

    /// Frames a second.
    pub const fn rate(self) -> u32 {
        self.rate
    }

    /// Octets that one frame takes.
    pub const fn frame_octets(self) -> u32 {
        self.sample.octets() * self.channels as u32
    }

    /// Octets that so many frames take.
    pub const fn octets(self, frames: Frames) -> Octets {
        Octets(frames.0.wrapping_mul(self.frame_octets() as u64))
    }

    /// Frames in so many octets; `None` when the octets end inside a frame.
    pub const fn frames(self, octets: Octets) -> Option<Frames> {
        let size = self.frame_octets() as u64;
        if octets.0.is_multiple_of(size) { Some(Frames(octets.0 / size)) } else { None }
    }

    /// Fills `out` (whole samples, interleaved) with silence. Safe in a sound callback.
    pub fn fill_silence(self, out: &mut [u8]) {
        let pattern = self.sample.silence();
        let size = self.sample.octets() as usize;
        for sample in out.chunks_mut(size) {
            for (to, from) in sample.iter_mut().zip(pattern) {
                *to = from;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_the_middle_of_each_format() {
        let mut out = [1u8; 8];
        StreamFormat::new(SampleFormat::U16Le, 2, 48_000).unwrap().fill_silence(&mut out);
        assert_eq!(out, [0, 0x80, 0, 0x80, 0, 0x80, 0, 0x80]);
        StreamFormat::new(SampleFormat::F64Le, 1, 48_000).unwrap().fill_silence(&mut out);
        assert_eq!(out, [0; 8]);
    }

    #[test]
    fn octets_that_end_inside_a_frame_are_no_frames() {
        let format = StreamFormat::new(SampleFormat::S16Le, 2, 48_000).unwrap();
        assert_eq!(format.frames(Octets(9600)), Some(Frames(2400)));
        assert_eq!(format.frames(Octets(9601)), None);
        assert_eq!(StreamFormat::new(SampleFormat::S16Le, 0, 48_000), None);
    }
}
