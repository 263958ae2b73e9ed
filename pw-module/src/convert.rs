//! Formats that a server lacks, carried as ones that it has. All others reach the server as the guest wrote them.
//!
//! Nothing is lost on the way but the last bits of floats of eight octets where a server has only those of four, in
//! which every server mixes.

use crate::units::Frames;
use crate::{SampleFormat, StreamFormat};

/// How samples of one format become samples of another, and back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Conversion {
    /// Unsigned or signed: the highest bit of each sample of so many octets, which lies in this one, is the other way round.
    Sign { octets: usize, at: usize },
    /// 24 bits in four octets, the sign extended or not: the octet with their highest bit, and the one beyond it.
    Sign24 { at: usize, beyond: usize },
    /// Samples of eight octets in the other byte order.
    Swap64,
    /// Floats of eight octets, the lowest octet first, and of four.
    NarrowLe,
    /// Floats of eight octets, the highest octet first, and of four, the lowest octet first.
    NarrowBe,
}

use Conversion::{NarrowBe, NarrowLe, Sign, Sign24, Swap64};

/// The formats that may stand in for `format`, the better one first, and how to get there.
fn stand_ins(format: SampleFormat) -> [Option<(SampleFormat, Conversion)>; 2] {
    let only = |format, conversion| [Some((format, conversion)), None];
    match format {
        SampleFormat::S8 => only(SampleFormat::U8, Sign { octets: 1, at: 0 }),
        SampleFormat::U16Le => only(SampleFormat::S16Le, Sign { octets: 2, at: 1 }),
        SampleFormat::U16Be => only(SampleFormat::S16Be, Sign { octets: 2, at: 0 }),
        SampleFormat::U24In32Le => only(SampleFormat::S24In32Le, Sign24 { at: 2, beyond: 3 }),
        SampleFormat::U24In32Be => only(SampleFormat::S24In32Be, Sign24 { at: 1, beyond: 0 }),
        SampleFormat::U32Le => only(SampleFormat::S32Le, Sign { octets: 4, at: 3 }),
        SampleFormat::U32Be => only(SampleFormat::S32Be, Sign { octets: 4, at: 0 }),
        SampleFormat::F64Le => only(SampleFormat::F32Le, NarrowLe),
        SampleFormat::F64Be => [Some((SampleFormat::F64Le, Swap64)), Some((SampleFormat::F32Le, NarrowBe))],
        _ => [None; 2],
    }
}

impl Conversion {
    /// From the guest's samples to as many of the server's.
    fn to_server(self, guest: &[u8], server: &mut [u8]) {
        let wide = guest.as_chunks::<8>().0.iter();
        match self {
            Sign { .. } | Swap64 => self.turn(guest, server),
            Sign24 { at, beyond } => {
                server.copy_from_slice(guest);
                for sample in server.as_chunks_mut::<4>().0 {
                    sample[at] ^= 0x80;
                    sample[beyond] = if sample[at] & 0x80 == 0 { 0 } else { 0xff };
                }
            }
            NarrowLe => narrow(wide.map(|sample| f64::from_le_bytes(*sample)), server),
            NarrowBe => narrow(wide.map(|sample| f64::from_be_bytes(*sample)), server),
        }
    }

    /// Back to as many of the guest's samples.
    fn to_guest(self, server: &[u8], guest: &mut [u8]) {
        match self {
            Sign { .. } | Swap64 => self.turn(server, guest),
            Sign24 { at, beyond } => {
                guest.copy_from_slice(server);
                for sample in guest.as_chunks_mut::<4>().0 {
                    sample[at] ^= 0x80;
                    sample[beyond] = 0;
                }
            }
            NarrowLe => widen(server, guest, f64::to_le_bytes),
            NarrowBe => widen(server, guest, f64::to_be_bytes),
        }
    }

    /// What is its own way back.
    fn turn(self, from: &[u8], to: &mut [u8]) {
        to.copy_from_slice(from);
        match self {
            Sign { octets, at } => to.iter_mut().skip(at).step_by(octets).for_each(|octet| *octet ^= 0x80),
            Swap64 => to.as_chunks_mut::<8>().0.iter_mut().for_each(|sample| sample.reverse()),
            Sign24 { .. } | NarrowLe | NarrowBe => (),
        }
    }
}

fn narrow(samples: impl Iterator<Item = f64>, server: &mut [u8]) {
    let (server, _) = server.as_chunks_mut::<4>();
    server.iter_mut().zip(samples).for_each(|(to, sample)| *to = (sample as f32).to_le_bytes());
}

fn widen(server: &[u8], guest: &mut [u8], octets: impl Fn(f64) -> [u8; 8]) {
    let samples = server.as_chunks::<4>().0.iter().map(|sample| f64::from(f32::from_le_bytes(*sample)));
    let (guest, _) = guest.as_chunks_mut::<8>();
    guest.iter_mut().zip(samples).for_each(|(to, sample)| *to = octets(sample));
}

/// What a server is given of a stream: its own format, or one that stands in for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Carrier {
    format: StreamFormat,
    conversion: Option<Conversion>,
}

impl Carrier {
    /// How a server that has these sample formats carries `format`; `None` if it can't.
    pub(crate) fn of(format: StreamFormat, has: impl Fn(SampleFormat) -> bool) -> Option<Self> {
        if has(format.sample()) {
            return Some(Self { format, conversion: None });
        }
        let stand_ins = stand_ins(format.sample()).into_iter().flatten();
        let (sample, conversion) = stand_ins.into_iter().find(|(sample, _)| has(*sample))?;
        let format = StreamFormat::new(sample, format.channels(), format.rate())?;
        Some(Self { format, conversion: Some(conversion) })
    }

    /// The stream's shape as the server has it.
    pub(crate) fn format(self) -> StreamFormat {
        self.format
    }
}

/// Frames on their way between a ring and a server.
///
/// [`play`](Self::play) and [`captured`](Self::captured) are for a callback.
pub(crate) struct Converter {
    carrier: Carrier,
    /// The guest's frames, as the server's memory is neither wide enough nor ours to write; empty where nothing is
    /// converted.
    guest: Vec<u8>,
    guest_frame: usize,
}

impl Converter {
    /// The way between a ring of `format` and what a server is given of it, `longest` frames at a time at most.
    pub(crate) fn new(format: StreamFormat, carrier: Carrier, longest: Frames) -> Self {
        let guest_frame = format.frame_octets() as usize;
        let needed = if carrier.conversion.is_some() { longest.0 as usize * guest_frame } else { 0 };
        Self { carrier, guest: vec![0; needed], guest_frame }
    }

    /// The stream's shape as the server has it.
    pub(crate) fn format(&self) -> StreamFormat {
        self.carrier.format
    }

    /// Fills `out`, whole frames of the server's, with what `play` gives of the guest's, and hands back what it says.
    /// Silence and `None` for more frames than the longest.
    pub(crate) fn play(
        &mut self,
        out: &mut [u8],
        play: impl FnOnce(&mut [u8]) -> Option<i64>,
    ) -> Option<i64> {
        let Some(conversion) = self.carrier.conversion else { return play(out) };
        let frames = out.len() / self.carrier.format.frame_octets() as usize;
        let Some(guest) = self.guest.get_mut(..frames * self.guest_frame) else {
            self.carrier.format.fill_silence(out);
            return None;
        };
        let first = play(guest);
        conversion.to_server(guest, out);
        first
    }

    /// Captured frames, whole ones of the server's, as the guest's; of too many the first.
    pub(crate) fn captured<'a>(&'a mut self, input: &'a [u8]) -> &'a [u8] {
        let Some(conversion) = self.carrier.conversion else { return input };
        let server_frame = self.carrier.format.frame_octets() as usize;
        let frames = (input.len() / server_frame).min(self.guest.len() / self.guest_frame);
        let (Some(guest), Some(input)) =
            (self.guest.get_mut(..frames * self.guest_frame), input.get(..frames * server_frame))
        else {
            return &[];
        };
        conversion.to_guest(input, guest);
        guest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both ways between a guest's samples and the server's of the same loudness, by a server that lacks `format` and
    /// has `carried`.
    fn check<const G: usize, const S: usize>(
        format: SampleFormat,
        carried: SampleFormat,
        pairs: &[([u8; G], [u8; S])],
    ) {
        let shape = StreamFormat::new(format, 1, 48_000).unwrap();
        let carrier = Carrier::of(shape, |sample| sample == carried).unwrap();
        assert_eq!(carrier.format().sample(), carried);
        assert_eq!((format.octets(), carried.octets()), (G as u32, S as u32));
        let guests: Vec<u8> = pairs.iter().flat_map(|pair| pair.0).collect();
        let servers: Vec<u8> = pairs.iter().flat_map(|pair| pair.1).collect();
        let mut converter = Converter::new(shape, carrier, Frames(pairs.len() as u64));
        let mut out = vec![1; servers.len()];
        let first = converter.play(&mut out, |guest| {
            guest.copy_from_slice(&guests);
            Some(7)
        });
        assert_eq!((first, out), (Some(7), servers.clone()), "{format:?}");
        assert_eq!(converter.captured(&servers), guests, "{format:?}");
        let mut silence = [1; S];
        converter.play(&mut silence, |guest| {
            shape.fill_silence(guest);
            None
        });
        assert_eq!(silence, carried.silence()[..S]);
    }

    #[test]
    fn every_sample_keeps_its_value() {
        use SampleFormat::*;
        check(S8, U8, &[([0x7f], [0xff]), ([0x80], [0]), ([0xff], [0x7f])]);
        let ends = [(0u16, i16::MIN), (1, i16::MIN + 1), (0x7fff, -1), (0x8000, 0), (0xffff, i16::MAX)];
        check(U16Le, S16Le, &ends.map(|(u, s)| (u.to_le_bytes(), s.to_le_bytes())));
        check(U16Be, S16Be, &ends.map(|(u, s)| (u.to_be_bytes(), s.to_be_bytes())));
        let ends = [(0u32, -0x80_0000i32), (0x7f_ffff, -1), (0x80_0000, 0), (0xff_ffff, 0x7f_ffff)];
        check(U24In32Le, S24In32Le, &ends.map(|(u, s)| (u.to_le_bytes(), s.to_le_bytes())));
        check(U24In32Be, S24In32Be, &ends.map(|(u, s)| (u.to_be_bytes(), s.to_be_bytes())));
        let ends = [(0u32, i32::MIN), (0x7fff_ffff, -1), (0x8000_0000, 0), (u32::MAX, i32::MAX)];
        check(U32Le, S32Le, &ends.map(|(u, s)| (u.to_le_bytes(), s.to_le_bytes())));
        check(U32Be, S32Be, &ends.map(|(u, s)| (u.to_be_bytes(), s.to_be_bytes())));
        check(F64Be, F64Le, &[0.0f64, -1.0, 0.3].map(|x| (x.to_be_bytes(), x.to_le_bytes())));
        let floats = [(0.0f64, 0.0f32), (-1.0, -1.0), (0.75, 0.75)];
        check(F64Le, F32Le, &floats.map(|(wide, narrow)| (wide.to_le_bytes(), narrow.to_le_bytes())));
        check(F64Be, F32Le, &floats.map(|(wide, narrow)| (wide.to_be_bytes(), narrow.to_le_bytes())));
    }

    #[test]
    fn what_a_server_has_passes_as_it_is_and_what_nothing_stands_in_for_does_not() {
        let shape = StreamFormat::new(SampleFormat::F64Be, 1, 48_000).unwrap();
        let carrier = Carrier::of(shape, |_| true).unwrap();
        let mut converter = Converter::new(shape, carrier, Frames(0));
        assert_eq!(converter.captured(&[1, 2, 3, 4, 5, 6, 7, 8]), [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(Carrier::of(shape, |sample| sample == SampleFormat::F32Be), None);
    }

    #[test]
    fn more_frames_than_the_longest_are_silence() {
        let shape = StreamFormat::new(SampleFormat::S8, 1, 48_000).unwrap();
        let carrier = Carrier::of(shape, |sample| sample == SampleFormat::U8).unwrap();
        let mut converter = Converter::new(shape, carrier, Frames(2));
        let mut out = [1; 3];
        assert_eq!(converter.play(&mut out, |_| Some(0)), None);
        assert_eq!(out, [0x80; 3]);
        assert_eq!(converter.captured(&[1, 2, 3]).len(), 2);
    }
}
