//! What SET_VOLUME, GET_VOLUME, MUTE and UNMUTE carry: an array with a value for each channel, in the shared buffer.

use vsnd_pw_module::Octets;

use super::Span;

/// An array of another length than its stream has channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an array of {length} for {channels} channels")]
pub struct BadLength {
    length: Octets,
    channels: u8,
}

/// Octets of the array of volumes of so many channels: an i32 each.
pub fn volumes_length(channels: u8) -> usize {
    usize::from(channels) * size_of::<i32>()
}

/// Octets of the array of volumes that `span` names.
///
/// # Errors
/// [`BadLength`]: another number of channels than the stream has.
pub fn check_volumes(span: Span, channels: u8) -> Result<usize, BadLength> {
    let length = volumes_length(channels);
    if span.length == Octets(length as u64) {
        Ok(length)
    } else {
        Err(BadLength { length: span.length, channels })
    }
}

/// Octets of the array of marks that `span` names. The protocol's text has an octet for each channel, its picture four, of
/// which the first is the one: both are taken.
///
/// # Errors
/// [`BadLength`]: neither.
pub fn check_marks(span: Span, channels: u8) -> Result<usize, BadLength> {
    if span.length == Octets(u64::from(channels)) {
        Ok(usize::from(channels))
    } else {
        check_volumes(span, channels)
    }
}

/// The volumes in a checked array, in 0.001 dB.
pub fn volumes(array: &[u8]) -> impl Iterator<Item = i32> {
    array.as_chunks().0.iter().map(|octets| i32::from_le_bytes(*octets))
}

/// An array of volumes in 0.001 dB.
pub fn encode_volumes(volumes: impl Iterator<Item = i32>) -> Vec<u8> {
    volumes.flat_map(i32::to_le_bytes).collect()
}

/// The marks in a checked array: which channels are meant.
pub fn marks(array: &[u8], channels: u8) -> impl Iterator<Item = bool> {
    let stride = array.len() / usize::from(channels.max(1));
    array.iter().step_by(stride.max(1)).map(|octet| *octet != 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(length: u64) -> Span {
        Span { offset: Octets(0), length: Octets(length) }
    }

    #[test]
    fn arrays_have_a_value_for_each_channel_and_no_more() {
        assert_eq!(check_volumes(of(8), 2), Ok(8));
        for length in [0, 2, 4, 7, 9, 16, u64::from(u32::MAX)] {
            assert!(check_volumes(of(length), 2).is_err(), "{length}");
        }
        assert_eq!((check_marks(of(2), 2), check_marks(of(8), 2)), (Ok(2), Ok(8)));
        let error = check_marks(of(4), 2).unwrap_err();
        assert_eq!(error.to_string(), "an array of 4 octets for 2 channels");
    }

    #[test]
    fn marks_lie_one_or_four_octets_apart() {
        assert_eq!(marks(&[1, 0, 255], 3).collect::<Vec<_>>(), [true, false, true]);
        assert_eq!(
            marks(&[0, 7, 7, 7, 1, 0, 0, 0], 2).collect::<Vec<_>>(),
            [false, true],
            "the rest is padding"
        );
    }

    proptest! {
        #[test]
        fn volumes_are_read_as_they_were_written(values: Vec<i32>) {
            prop_assert_eq!(volumes(&encode_volumes(values.iter().copied())).collect::<Vec<_>>(), values);
        }

        #[test]
        fn there_is_a_mark_for_each_channel(channels in 1u8.., wide: bool) {
            let length = u64::from(channels) * if wide { 4 } else { 1 };
            let array = vec![1; check_marks(of(length), channels).unwrap()];
            prop_assert_eq!(marks(&array, channels).collect::<Vec<_>>(), vec![true; usize::from(channels)]);
        }
    }
}
