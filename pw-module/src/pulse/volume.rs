//! What the user's mixer set for a stream, as PulseAudio tells it.

use std::cell::RefCell;
use std::rc::Rc;

use libpulse_binding::callbacks::ListResult;
use libpulse_binding::context::introspect::Introspector;
use libpulse_binding::volume::{ChannelVolumes, VolumeLinear};

use crate::{Direction, UserVolume};

/// One stream's volume: asked for when it may have changed.
#[derive(Default)]
pub(super) struct Volume {
    /// The stream whose volume is to be asked for.
    wanted: bool,
    /// What the server answered last.
    answer: Rc<RefCell<Option<UserVolume>>>,
}

impl Volume {
    /// The stream is new on the server, or the server told that something about it changed.
    pub(super) fn changed(&mut self) {
        self.wanted = true;
    }

    /// Asks if there is reason to, and takes what was answered before.
    pub(super) fn turn(
        &mut self,
        id: u32,
        direction: Direction,
        server: impl FnOnce() -> Option<Introspector>,
    ) -> Option<UserVolume> {
        if self.wanted
            && let Some(server) = server()
        {
            self.wanted = false;
            // Only stores: a callback must not reach the objects whose methods may be on the stack.
            let slot = Rc::clone(&self.answer);
            let store =
                move |volume: &ChannelVolumes, muted| *slot.borrow_mut() = Some(user_volume(volume, muted));
            match direction {
                Direction::Playback => drop(server.get_sink_input_info(id, move |answer| {
                    if let ListResult::Item(input) = answer {
                        store(&input.volume, input.mute);
                    }
                })),
                Direction::Capture => drop(server.get_source_output_info(id, move |answer| {
                    if let ListResult::Item(output) = answer {
                        store(&output.volume, output.mute);
                    }
                })),
            }
        }
        self.answer.borrow_mut().take()
    }
}

fn user_volume(volume: &ChannelVolumes, muted: bool) -> UserVolume {
    let channels = volume.get().iter().map(|volume| VolumeLinear::from(*volume).0 as f32);
    UserVolume { channels: channels.collect(), muted }
}

#[cfg(test)]
mod tests {
    use libpulse_binding::volume::Volume as PulseVolume;

    use super::*;

    #[test]
    fn half_a_slider_is_an_eighth_of_the_amplitude() {
        let mut volumes = ChannelVolumes::default();
        volumes.set(2, PulseVolume(PulseVolume::NORMAL.0 / 2));
        assert_eq!(user_volume(&volumes, true), UserVolume { channels: vec![0.125, 0.125], muted: true });
    }
}
