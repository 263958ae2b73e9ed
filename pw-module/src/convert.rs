//! Formats that a server lacks, carried as ones that it has, of the same width and without loss: done in place, in the
//! callback's own copy. All others reach the server as the guest wrote them.

use crate::SampleFormat;

/// How samples of one format become samples of another. Each is its own way back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Conversion {
    /// Unsigned or signed: the highest bit of each sample of so many octets, which lies in this one, is the other way round.
    Sign { octets: usize, at: usize },
    /// 24 bits in four octets, the sign extended or not: the octet with their highest bit, and the one beyond it.
    Sign24 { at: usize, beyond: usize },
    /// Samples of eight octets in the other byte order.
    Swap64,
}

impl Conversion {
    /// The format that stands in for `format`, and how to get there; `None` where there is nothing to gain.
    pub(crate) fn of(format: SampleFormat) -> Option<(SampleFormat, Self)> {
        Some(match format {
            SampleFormat::S8 => (SampleFormat::U8, Self::Sign { octets: 1, at: 0 }),
            SampleFormat::U16Le => (SampleFormat::S16Le, Self::Sign { octets: 2, at: 1 }),
            SampleFormat::U16Be => (SampleFormat::S16Be, Self::Sign { octets: 2, at: 0 }),
            SampleFormat::U24In32Le => (SampleFormat::S24In32Le, Self::Sign24 { at: 2, beyond: 3 }),
            SampleFormat::U24In32Be => (SampleFormat::S24In32Be, Self::Sign24 { at: 1, beyond: 0 }),
            SampleFormat::U32Le => (SampleFormat::S32Le, Self::Sign { octets: 4, at: 3 }),
            SampleFormat::U32Be => (SampleFormat::S32Be, Self::Sign { octets: 4, at: 0 }),
            SampleFormat::F64Be => (SampleFormat::F64Le, Self::Swap64),
            _ => return None,
        })
    }

    /// From the guest's format to the one that stands in for it.
    ///
    /// For a callback.
    pub(crate) fn to_server(self, samples: &mut [u8]) {
        match self {
            Self::Sign24 { at, beyond } => {
                for sample in samples.as_chunks_mut::<4>().0 {
                    sample[at] ^= 0x80;
                    sample[beyond] = if sample[at] & 0x80 == 0 { 0 } else { 0xff };
                }
            }
            other => other.apply(samples),
        }
    }

    /// Back to the guest's format.
    ///
    /// For a callback.
    pub(crate) fn to_guest(self, samples: &mut [u8]) {
        match self {
            Self::Sign24 { at, beyond } => {
                for sample in samples.as_chunks_mut::<4>().0 {
                    sample[at] ^= 0x80;
                    sample[beyond] = 0;
                }
            }
            other => other.apply(samples),
        }
    }

    fn apply(self, samples: &mut [u8]) {
        match self {
            Self::Sign { octets, at } => {
                samples.iter_mut().skip(at).step_by(octets).for_each(|octet| *octet ^= 0x80)
            }
            Self::Swap64 => samples.as_chunks_mut::<8>().0.iter_mut().for_each(|sample| sample.reverse()),
            Self::Sign24 { .. } => (),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A guest's sample, and the server's of the same loudness.
    fn check<const N: usize>(format: SampleFormat, pairs: &[([u8; N], [u8; N])]) {
        let (carried, conversion) = Conversion::of(format).unwrap();
        assert_eq!((format.octets(), carried.octets()), (N as u32, N as u32));
        let guests: Vec<u8> = pairs.iter().flat_map(|pair| pair.0).collect();
        let servers: Vec<u8> = pairs.iter().flat_map(|pair| pair.1).collect();
        let mut samples = guests.clone();
        conversion.to_server(&mut samples);
        assert_eq!(samples, servers, "{format:?}");
        conversion.to_guest(&mut samples);
        assert_eq!(samples, guests, "{format:?}");
        let mut silence = format.silence();
        conversion.to_server(&mut silence[..N]);
        assert_eq!(silence[..N], carried.silence()[..N]);
    }

    #[test]
    fn every_sample_keeps_its_value() {
        check(SampleFormat::S8, &[([0x7f], [0xff]), ([0x80], [0]), ([0xff], [0x7f])]);
        let ends = [(0u16, i16::MIN), (1, i16::MIN + 1), (0x7fff, -1), (0x8000, 0), (0xffff, i16::MAX)];
        check(SampleFormat::U16Le, &ends.map(|(u, s)| (u.to_le_bytes(), s.to_le_bytes())));
        check(SampleFormat::U16Be, &ends.map(|(u, s)| (u.to_be_bytes(), s.to_be_bytes())));
        let ends = [(0u32, -0x80_0000i32), (0x7f_ffff, -1), (0x80_0000, 0), (0xff_ffff, 0x7f_ffff)];
        check(SampleFormat::U24In32Le, &ends.map(|(u, s)| (u.to_le_bytes(), s.to_le_bytes())));
        check(SampleFormat::U24In32Be, &ends.map(|(u, s)| (u.to_be_bytes(), s.to_be_bytes())));
        let ends = [(0u32, i32::MIN), (0x7fff_ffff, -1), (0x8000_0000, 0), (u32::MAX, i32::MAX)];
        check(SampleFormat::U32Le, &ends.map(|(u, s)| (u.to_le_bytes(), s.to_le_bytes())));
        check(SampleFormat::U32Be, &ends.map(|(u, s)| (u.to_be_bytes(), s.to_be_bytes())));
        check(SampleFormat::F64Be, &[0.0f64, -1.0, 0.3].map(|x| (x.to_be_bytes(), x.to_le_bytes())));
    }
}
