//! What the user's mixer set for a stream, as PipeWire tells it.
#![allow(unsafe_code)] // the values of a control are raw memory

use pipewire::spa::sys::{SPA_PROP_channelVolumes as VOLUMES, SPA_PROP_mute as MUTE};
use pipewire::sys::pw_stream_control;

use crate::UserVolume;

/// One change of a stream's controls.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Control {
    /// The amplitude factors of its channels.
    Volumes(Vec<f32>),
    /// Whether it is silent.
    Muted(bool),
}

/// More channels than PipeWire has.
const MOST_VALUES: u32 = 64;

impl Control {
    /// Reads what `control_info` was called with; `None` for controls that aren't about volume.
    pub(super) fn read(id: u32, control: *const pw_stream_control) -> Option<Self> {
        // SAFETY: PipeWire calls with a control that is valid during the call, or with none.
        let control = unsafe { control.as_ref() }?;
        if control.values.is_null() || control.n_values == 0 || control.n_values > MOST_VALUES {
            return None;
        }
        // SAFETY: `values` points to `n_values` numbers that stay unchanged during the call.
        let values = unsafe { std::slice::from_raw_parts(control.values, control.n_values as usize) };
        match (id, values) {
            (VOLUMES, values) => Some(Self::Volumes(values.to_vec())),
            (MUTE, [muted, ..]) => Some(Self::Muted(*muted != 0.0)),
            _ => None,
        }
    }

    /// Takes the change over into what was known. Returns whether anything is another now.
    pub(super) fn apply(self, volume: &mut UserVolume) -> bool {
        let before = volume.clone();
        match self {
            Self::Volumes(channels) => volume.channels = channels,
            Self::Muted(muted) => volume.muted = muted,
        }
        *volume != before
    }
}
