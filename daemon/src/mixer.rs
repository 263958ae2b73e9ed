//! Three volumes, one product: what the user's mixer says of a node, what the user says of a domain, and what the guest
//! says of its stream. Each is kept apart, and volume and mute are two values everywhere. Nothing here does anything.

use serde::{Deserialize, Serialize};
use vsnd_dbus::{Capture, CubicVolume};
use vsnd_pw_module::{Direction, UserVolume};

use crate::guest::names::Domain;

/// A guest's volume in 0.001 dB, from silence to 0. Never more: with a gain of its own a guest could undo what the host turned
/// down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Millibels(i32);

impl Millibels {
    /// The sound as it is.
    pub const FULL: Self = Self(0);
    /// Less than the smallest step of 32 bits: no sound at all.
    pub const SILENCE: Self = Self(-200_000);

    /// The nearest volume that a guest can have.
    pub fn nearest(value: i32) -> Self {
        Self(value.clamp(Self::SILENCE.0, Self::FULL.0))
    }

    /// The number.
    pub fn get(self) -> i32 {
        self.0
    }

    fn amplitude(self) -> f64 {
        if self <= Self::SILENCE { 0.0 } else { 10f64.powf(f64::from(self.0) / 20_000.0) }
    }
}

/// What a guest says of one channel of its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestChannel {
    /// SET_VOLUME.
    pub volume: Millibels,
    /// MUTE and UNMUTE.
    pub muted: bool,
}

impl Default for GuestChannel {
    fn default() -> Self {
        Self { volume: Millibels::FULL, muted: false }
    }
}

/// What the user says of a domain, as far as it concerns a stream's loudness.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DomainVolume {
    /// How loud.
    pub volume: CubicVolume,
    /// Whether it is silent.
    pub muted: bool,
}

impl DomainVolume {
    /// What leaves the sound as it is.
    pub const FULL: Self = Self { volume: CubicVolume::FULL, muted: false };

    /// What counts for a stream of this direction: a domain's volume is that of its loudspeakers. Who turns a guest down does
    /// not want to be heard worse by it.
    pub fn of(self, direction: Direction) -> Self {
        if direction == Direction::Playback { self } else { Self::FULL }
    }
}

/// The factors that the bridge itself applies to a stream's channels: domain times guest. The server applies the third.
pub fn factors(domain: DomainVolume, guest: &[GuestChannel]) -> Vec<f32> {
    let factor = |channel: &GuestChannel| {
        if domain.muted || channel.muted {
            0.0
        } else {
            (domain.volume.amplitude() * channel.volume.amplitude()) as f32
        }
    };
    guest.iter().map(factor).collect()
}

/// What GET_VOLUME answers, in 0.001 dB for each channel: the product of all three volumes, and of no mute.
pub fn effective(domain: DomainVolume, guest: &[GuestChannel], node: Option<&UserVolume>) -> Vec<i32> {
    let of_channel = |(index, channel): (usize, &GuestChannel)| {
        let host = domain.volume.amplitude() * node.map_or(1.0, |node| f64::from(node.channel(index)));
        let host = 20_000.0 * host.log10();
        // Rounded apart: what the guest set is read back as it was while the host leaves the sound as it is.
        let product = f64::from(channel.volume.get()) + host.round();
        if channel.volume == Millibels::SILENCE {
            Millibels::SILENCE.get()
        } else {
            (product as i32).max(Millibels::SILENCE.get())
        }
    };
    guest.iter().enumerate().map(of_channel).collect()
}

/// What holds for a domain at the moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// How loud, and whether at all.
    pub volume: DomainVolume,
    /// Whether it may record.
    pub capture: Capture,
}

/// By what a domain is known again after a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    uuid: Option<String>,
    name: Option<String>,
}

impl Identity {
    /// The domain's; `None` when it has neither UUID nor name.
    pub fn of(domain: &Domain) -> Option<Self> {
        let (uuid, name) = (domain.clean_uuid(), domain.clean_name());
        (uuid.is_some() || name.is_some()).then_some(Self { uuid, name })
    }
}

/// What the user changed for domains, to be remembered. A domain is known again by its UUID, else by its name: a guest whose
/// configuration gives no UUID gets another one with each start.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    #[serde(default)]
    domain: Vec<Remembered>,
    #[serde(skip)]
    in_doubt: bool,
}

/// What the user changed for one domain.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Remembered {
    uuid: Option<String>,
    name: Option<String>,
    volume: Option<CubicVolume>,
    muted: Option<bool>,
    capture: Option<Capture>,
}

/// A change that the user makes to a domain.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Change {
    /// How loud it is.
    Volume(CubicVolume),
    /// Whether it is silent.
    Muted(bool),
    /// Whether it may record.
    Capture(Capture),
}

impl Memory {
    /// More was remembered than can be read. The user may have denied a domain the microphone, so a policy that allows it to record
    /// has the user asked.
    pub fn doubt(&mut self) {
        self.in_doubt = true;
    }

    /// What holds for a domain: what the user changed, else what the policy says.
    pub fn settings(&self, identity: Option<&Identity>, policy: Capture) -> Settings {
        let found = identity.and_then(|identity| self.find(identity)).map(|index| &self.domain[index]);
        let policy = if self.in_doubt && policy == Capture::Allow { Capture::Ask } else { policy };
        Settings {
            volume: DomainVolume {
                volume: found.and_then(|found| found.volume).unwrap_or(CubicVolume::FULL),
                muted: found.and_then(|found| found.muted).unwrap_or(false),
            },
            capture: found.and_then(|found| found.capture).unwrap_or(policy),
        }
    }

    /// Remembers a change for a domain, under the UUID and the name that it has now.
    pub fn remember(&mut self, identity: &Identity, change: Change) {
        let index = self.find(identity).unwrap_or_else(|| {
            self.domain.push(Remembered::default());
            self.domain.len() - 1
        });
        let entry = &mut self.domain[index];
        entry.uuid.clone_from(&identity.uuid);
        entry.name.clone_from(&identity.name);
        match change {
            Change::Volume(volume) => entry.volume = Some(volume),
            Change::Muted(muted) => entry.muted = Some(muted),
            Change::Capture(capture) => entry.capture = Some(capture),
        }
    }

    fn find(&self, identity: &Identity) -> Option<usize> {
        let by = |known: fn(&Remembered) -> &Option<String>, wanted: &Option<String>| {
            wanted.as_ref()?;
            self.domain.iter().position(|entry| known(entry) == wanted)
        };
        by(|entry| &entry.uuid, &identity.uuid).or_else(|| by(|entry| &entry.name, &identity.name))
    }
}

impl Settings {
    /// The settings after a change.
    #[must_use]
    pub fn with(mut self, change: Change) -> Self {
        match change {
            Change::Volume(volume) => self.volume.volume = volume,
            Change::Muted(muted) => self.volume.muted = muted,
            Change::Capture(capture) => self.capture = capture,
        }
        self
    }
}

#[cfg(test)]
#[path = "mixer_tests.rs"]
mod tests;
