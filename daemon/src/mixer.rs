//! Three volumes, one product: what the user's mixer says of a node, what the user says of a domain, and what the guest
//! says of its stream. Each is kept apart, and volume and mute are two values everywhere. Nothing here does anything.

use serde::{Deserialize, Serialize};
use vsnd_pw_module::{Direction, UserVolume};

use crate::config::Capture;
use crate::guest::names::Domain;

/// A domain's volume on the cubic scale of mixers: 0 is silence, 1 leaves the sound as it is, 1.5 is the most. The amplitude
/// is its cube, so that 0.5 is an eighth.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Volume(f64);

/// A number that is no volume.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("{0} is no volume; it is a number from 0.0 to 1.5")]
pub struct BadVolume(pub f64);

impl Volume {
    /// The sound as it is.
    pub const FULL: Self = Self(1.0);
    const MOST: f64 = 1.5;

    /// The number, 0.0 to 1.5.
    pub fn get(self) -> f64 {
        self.0
    }

    /// The factor by which samples are multiplied.
    fn amplitude(self) -> f64 {
        self.0 * self.0 * self.0
    }
}

impl TryFrom<f64> for Volume {
    type Error = BadVolume;

    fn try_from(volume: f64) -> Result<Self, BadVolume> {
        if (0.0..=Self::MOST).contains(&volume) { Ok(Self(volume)) } else { Err(BadVolume(volume)) }
    }
}

impl From<Volume> for f64 {
    fn from(volume: Volume) -> Self {
        volume.0
    }
}

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
    pub volume: Volume,
    /// Whether it is silent.
    pub muted: bool,
}

impl DomainVolume {
    /// What leaves the sound as it is.
    pub const FULL: Self = Self { volume: Volume::FULL, muted: false };

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
}

/// What the user changed for one domain.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Remembered {
    uuid: Option<String>,
    name: Option<String>,
    volume: Option<Volume>,
    muted: Option<bool>,
    capture: Option<Capture>,
}

/// A change that the user makes to a domain.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Change {
    /// How loud it is.
    Volume(Volume),
    /// Whether it is silent.
    Muted(bool),
    /// Whether it may record.
    Capture(Capture),
}

impl Memory {
    /// What holds for a domain: what the user changed, else what the policy says.
    pub fn settings(&self, identity: Option<&Identity>, policy: Capture) -> Settings {
        let found = identity.and_then(|identity| self.find(identity)).map(|index| &self.domain[index]);
        Settings {
            volume: DomainVolume {
                volume: found.and_then(|found| found.volume).unwrap_or(Volume::FULL),
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
