//! Sample formats and channel positions in PipeWire's words.

use std::io::Cursor;

use pipewire::spa;
use spa::param::audio::{AudioFormat, AudioInfoRaw, MAX_CHANNELS};
use spa::pod::serialize::PodSerializer;
use spa::pod::{Object, Value};

use crate::convert::Carrier;
use crate::{SampleFormat, StreamFormat};

/// The most channels of a stream.
pub(super) const CHANNELS: u8 = MAX_CHANNELS as u8;

/// PipeWire's name for a sample format; `None` for those that its converter doesn't take (unsigned ones but
/// U8), or takes and plays as silence (64-bit floats of the other byte order, of which it swaps only half).
fn native(format: SampleFormat) -> Option<AudioFormat> {
    Some(match format {
        SampleFormat::S8 => AudioFormat::S8,
        SampleFormat::U8 => AudioFormat::U8,
        SampleFormat::S16Le => AudioFormat::S16LE,
        SampleFormat::S16Be => AudioFormat::S16BE,
        SampleFormat::S24In32Le => AudioFormat::S24_32LE,
        SampleFormat::S24In32Be => AudioFormat::S24_32BE,
        SampleFormat::S32Le => AudioFormat::S32LE,
        SampleFormat::S32Be => AudioFormat::S32BE,
        SampleFormat::F32Le => AudioFormat::F32LE,
        SampleFormat::F32Be => AudioFormat::F32BE,
        SampleFormat::F64Le => AudioFormat::F64LE,
        SampleFormat::MuLaw => AudioFormat::ULAW,
        SampleFormat::ALaw => AudioFormat::ALAW,
        SampleFormat::F64Be
        | SampleFormat::U16Le
        | SampleFormat::U16Be
        | SampleFormat::U24In32Le
        | SampleFormat::U24In32Be
        | SampleFormat::U32Le
        | SampleFormat::U32Be => return None,
    })
}

/// What PipeWire is given of a stream; `None` if it doesn't carry it.
pub(super) fn carrier(format: StreamFormat) -> Option<Carrier> {
    Carrier::of(format, |sample| native(sample).is_some()).filter(|_| format.channels() <= CHANNELS)
}

/// Where the channels of a stream sound, in the order in which ALSA interleaves them. Streams of more than eight
/// channels have no places of their own: AUX0, AUX1, ...
fn positions(channels: u8) -> [u32; MAX_CHANNELS] {
    use spa::sys::{
        SPA_AUDIO_CHANNEL_AUX0 as AUX0, SPA_AUDIO_CHANNEL_FC as FC, SPA_AUDIO_CHANNEL_FL as FL,
        SPA_AUDIO_CHANNEL_FR as FR, SPA_AUDIO_CHANNEL_LFE as LFE, SPA_AUDIO_CHANNEL_MONO as MONO,
        SPA_AUDIO_CHANNEL_RC as RC, SPA_AUDIO_CHANNEL_RL as RL, SPA_AUDIO_CHANNEL_RR as RR,
        SPA_AUDIO_CHANNEL_SL as SL, SPA_AUDIO_CHANNEL_SR as SR,
    };
    let places: &[u32] = match channels {
        1 => &[MONO],
        2 => &[FL, FR],
        3 => &[FL, FR, LFE],
        4 => &[FL, FR, RL, RR],
        5 => &[FL, FR, RL, RR, FC],
        6 => &[FL, FR, RL, RR, FC, LFE],
        7 => &[FL, FR, RL, RR, FC, LFE, RC],
        8 => &[FL, FR, RL, RR, FC, LFE, SL, SR],
        _ => &[],
    };
    let mut all = [0; MAX_CHANNELS];
    if places.is_empty() {
        for (place, aux) in all.iter_mut().zip(AUX0..).take(usize::from(channels)) {
            *place = aux;
        }
    } else {
        for (place, known) in all.iter_mut().zip(places) {
            *place = *known;
        }
    }
    all
}

/// The EnumFormat parameter with which a stream offers exactly `format`, one of PipeWire's own.
pub(super) fn enum_format(format: StreamFormat) -> Option<Vec<u8>> {
    let mut info = AudioInfoRaw::new();
    info.set_format(native(format.sample())?);
    info.set_rate(format.rate());
    info.set_channels(u32::from(format.channels()));
    info.set_position(positions(format.channels()));
    let object = Value::Object(Object {
        type_: spa::sys::SPA_TYPE_OBJECT_Format,
        id: spa::sys::SPA_PARAM_EnumFormat,
        properties: info.into(),
    });
    PodSerializer::serialize(Cursor::new(Vec::new()), &object).ok().map(|(pod, _)| pod.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn six_channels_lie_in_the_order_of_alsa() {
        use spa::sys::*;
        let six = [
            SPA_AUDIO_CHANNEL_FL,
            SPA_AUDIO_CHANNEL_FR,
            SPA_AUDIO_CHANNEL_RL,
            SPA_AUDIO_CHANNEL_RR,
            SPA_AUDIO_CHANNEL_FC,
            SPA_AUDIO_CHANNEL_LFE,
        ];
        assert_eq!(positions(6)[..7], [&six[..], &[0]].concat());
        assert_eq!(positions(9)[8], SPA_AUDIO_CHANNEL_AUX0 + 8);
    }

    #[test]
    fn what_the_converter_refuses_is_not_offered() {
        let shape = |sample, channels| StreamFormat::new(sample, channels, 48_000).unwrap();
        let signed = carrier(shape(SampleFormat::U16Le, 2)).unwrap().format();
        assert_eq!(signed.sample(), SampleFormat::S16Le);
        assert!(enum_format(signed).is_some());
        assert!(carrier(shape(SampleFormat::S16Le, 64)).is_some());
        assert_eq!(carrier(shape(SampleFormat::S16Le, 65)), None);
    }
}
