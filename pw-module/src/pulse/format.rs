//! Sample formats, channel positions and buffer lengths in PulseAudio's words.

use libpulse_binding::channelmap::{Map, Position};
use libpulse_binding::def::BufferAttr;
use libpulse_binding::sample::{Format, Spec};

use crate::convert::Carrier;
use crate::units::{Frames, Nanos};
use crate::{Bounds, Direction, SampleFormat, StreamFormat};

/// The length that the server is to choose itself.
const ANY: u32 = u32::MAX;
/// Bounds of a stream's latency, in parts of a second. Below, a busy desktop can't keep pace with a server that isn't
/// real-time throughout; above, nobody who opens long periods gains from more.
const SHORTEST: u32 = 100;
const LONGEST: u32 = 10;

/// PulseAudio's own limits, of rates those that every version has, and a ring as long as the shortest latency, which the server takes at once in the beginning.
pub(super) const BOUNDS: Bounds = Bounds {
    channels: Spec::CHANNELS_MAX,
    rate: 384_000,
    buffer: Nanos::from_millis(1_000 / SHORTEST as i64),
};

/// PulseAudio's name for a sample format, or `None` where it has none. Its `S24le` is packed in three octets; what ALSA
/// and sndif call 24 bits is `S24_32le`.
fn native(format: SampleFormat) -> Option<Format> {
    Some(match format {
        SampleFormat::U8 => Format::U8,
        SampleFormat::S16Le => Format::S16le,
        SampleFormat::S16Be => Format::S16be,
        SampleFormat::S24In32Le => Format::S24_32le,
        SampleFormat::S24In32Be => Format::S24_32be,
        SampleFormat::S32Le => Format::S32le,
        SampleFormat::S32Be => Format::S32be,
        SampleFormat::F32Le => Format::F32le,
        SampleFormat::F32Be => Format::F32be,
        SampleFormat::MuLaw => Format::ULaw,
        SampleFormat::ALaw => Format::ALaw,
        SampleFormat::S8
        | SampleFormat::U16Le
        | SampleFormat::U16Be
        | SampleFormat::U24In32Le
        | SampleFormat::U24In32Be
        | SampleFormat::U32Le
        | SampleFormat::U32Be
        | SampleFormat::F64Le
        | SampleFormat::F64Be => return None,
    })
}

/// What PulseAudio is given of a stream; `None` if it doesn't carry it.
pub(super) fn carrier(format: StreamFormat) -> Option<Carrier> {
    Carrier::of(format, |sample| native(sample).is_some()).filter(|carrier| spec(carrier.format()).is_some())
}

/// The shape of a stream in one of PulseAudio's own formats.
pub(super) fn spec(format: StreamFormat) -> Option<Spec> {
    let spec = Spec { format: native(format.sample())?, channels: format.channels(), rate: format.rate() };
    spec.is_valid().then_some(spec)
}

/// Where the channels of a stream sound, in the order in which ALSA interleaves them. Streams of more than eight
/// channels have no places of their own: aux0, aux1, ... `None` for more channels than PulseAudio has.
pub(super) fn channel_map(channels: u8) -> Option<Map> {
    use Position::{
        FrontCenter, FrontLeft, FrontRight, Lfe, Mono, RearCenter, RearLeft, RearRight, SideLeft, SideRight,
    };
    let places: &[Position] = match channels {
        1 => &[Mono],
        2 => &[FrontLeft, FrontRight],
        3 => &[FrontLeft, FrontRight, Lfe],
        4 => &[FrontLeft, FrontRight, RearLeft, RearRight],
        5 => &[FrontLeft, FrontRight, RearLeft, RearRight, FrontCenter],
        6 => &[FrontLeft, FrontRight, RearLeft, RearRight, FrontCenter, Lfe],
        7 => &[FrontLeft, FrontRight, RearLeft, RearRight, FrontCenter, Lfe, RearCenter],
        8 => &[FrontLeft, FrontRight, RearLeft, RearRight, FrontCenter, Lfe, SideLeft, SideRight],
        _ => AUX.get(..usize::from(channels))?,
    };
    let mut map = Map::default();
    map.set_len(channels);
    map.get_mut().copy_from_slice(places);
    Some(map)
}

/// Positions without a place.
const AUX: [Position; 32] = {
    use Position::{
        Aux0, Aux1, Aux2, Aux3, Aux4, Aux5, Aux6, Aux7, Aux8, Aux9, Aux10, Aux11, Aux12, Aux13, Aux14, Aux15,
        Aux16, Aux17, Aux18, Aux19, Aux20, Aux21, Aux22, Aux23, Aux24, Aux25, Aux26, Aux27, Aux28, Aux29,
        Aux30, Aux31,
    };
    [
        Aux0, Aux1, Aux2, Aux3, Aux4, Aux5, Aux6, Aux7, Aux8, Aux9, Aux10, Aux11, Aux12, Aux13, Aux14, Aux15,
        Aux16, Aux17, Aux18, Aux19, Aux20, Aux21, Aux22, Aux23, Aux24, Aux25, Aux26, Aux27, Aux28, Aux29,
        Aux30, Aux31,
    ]
};

/// The latency that a stream asks for: two periods, within bounds.
pub(super) fn latency(format: StreamFormat, period: Frames) -> Frames {
    let rate = format.rate();
    let bound = |part: u32| u64::from(rate.div_ceil(part));
    Frames((2 * period.0).clamp(bound(SHORTEST), bound(LONGEST)))
}

/// How much a stream keeps in the server. It moves a quarter of its latency at a time: with `ADJUST_LATENCY` the server
/// gives half of what is beyond two such steps to the device, so that half a latency is left for this side to answer in.
///
/// A server that ran out of frames waits for a whole latency of them (`prebuf`). Without that its read index would run on,
/// and take what is written before the news of it has come here for too late: frames that nobody hears.
pub(super) fn buffers(format: StreamFormat, period: Frames, direction: Direction) -> BufferAttr {
    let latency = latency(format, period);
    let octets = |frames: u64| u32::try_from(format.octets(Frames(frames)).0).unwrap_or(ANY);
    let (whole, step) = (octets(latency.0), octets((latency.0 / 4).max(1)));
    match direction {
        Direction::Playback => {
            let maxlength = octets(latency.0 * 4);
            BufferAttr { maxlength, tlength: whole, prebuf: whole, minreq: step, fragsize: ANY }
        }
        Direction::Capture => {
            let maxlength = octets(u64::from(format.rate()));
            BufferAttr { maxlength, tlength: ANY, prebuf: ANY, minreq: ANY, fragsize: step }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stereo() -> StreamFormat {
        StreamFormat::new(SampleFormat::S16Le, 2, 48_000).unwrap()
    }

    #[test]
    fn twenty_four_bits_lie_in_four_octets() {
        let format = StreamFormat::new(SampleFormat::U24In32Le, 2, 44_100).unwrap();
        let spec = spec(carrier(format).unwrap().format()).unwrap();
        assert_eq!(spec.format, Format::S24_32le);
        assert_eq!(spec.frame_size() as u32, format.frame_octets());
    }

    #[test]
    fn what_pulseaudio_has_not_is_not_offered() {
        let shape = |channels, rate| StreamFormat::new(SampleFormat::U16Le, channels, rate).unwrap();
        let Bounds { channels, rate, .. } = BOUNDS;
        assert!(carrier(shape(channels, rate)).is_some() && channel_map(channels).is_some());
        assert!(carrier(shape(channels + 1, rate)).is_none() && channel_map(channels + 1).is_none());
    }

    #[test]
    fn six_channels_lie_in_the_order_of_alsa() {
        let map = channel_map(6).unwrap();
        assert!(map.is_valid());
        assert_eq!(map.get()[4..], [Position::FrontCenter, Position::Lfe]);
        assert_eq!(channel_map(32).unwrap().get()[31], Position::Aux31);
    }

    #[test]
    fn latency_is_two_periods_within_bounds() {
        let octets = |period| buffers(stereo(), Frames(period), Direction::Playback).tlength;
        assert_eq!(octets(960), 1920 * 4);
        assert_eq!(octets(16), 480 * 4);
        assert_eq!(octets(48_000), 4_800 * 4);
        assert_eq!(buffers(stereo(), Frames(960), Direction::Capture).fragsize, 480 * 4);
    }
}
