//! Values of the interface, checked where they enter.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A volume on the cubic scale of mixers: 0.0 is silence, 1.0 leaves the sound as it is, 1.5 is the most. The amplitude is the
/// cube of it, so that 0.5 is an eighth.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "f64")]
pub struct CubicVolume(f64);

/// A number that is no volume.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("{0} is no volume; it is a number from 0.0 to {max}", max = CubicVolume::MAX.get())]
pub struct InvalidVolume(pub f64);

impl CubicVolume {
    /// The loudest.
    pub const MAX: Self = Self(1.5);
    /// The sound as it is.
    pub const FULL: Self = Self(1.0);

    /// A volume.
    ///
    /// # Errors
    /// A number below 0.0 or above 1.5, or none at all.
    pub fn new(volume: f64) -> Result<Self, InvalidVolume> {
        // Adding makes a zero of a negative one, which would be shown with its sign.
        if (0.0..=Self::MAX.0).contains(&volume) {
            Ok(Self(volume + 0.0))
        } else {
            Err(InvalidVolume(volume))
        }
    }

    /// The number, 0.0 to 1.5.
    pub const fn get(self) -> f64 {
        self.0
    }

    /// The factor by which samples are multiplied, 0.0 to 3.375.
    pub const fn amplitude(self) -> f64 {
        self.0 * self.0 * self.0
    }
}

impl TryFrom<f64> for CubicVolume {
    type Error = InvalidVolume;

    fn try_from(volume: f64) -> Result<Self, InvalidVolume> {
        Self::new(volume)
    }
}

/// A word that isn't one of those that a property can have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is none of {known}")]
pub struct InvalidWord {
    found: String,
    known: &'static str,
}

/// An enumeration that is a word on the bus.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)+ } = $known:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "lowercase")]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)+
        }

        impl $name {
            /// The word on the bus.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }
        }

        impl FromStr for $name {
            type Err = InvalidWord;

            fn from_str(word: &str) -> Result<Self, InvalidWord> {
                match word {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(InvalidWord { found: word.to_owned(), known: $known }),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}

words! {
    /// Whether a domain may record.
    #[derive(Default)]
    Capture {
        /// It records.
        Allow = "allow",
        /// It records silence until the user allows it, and the user is asked.
        #[default]
        Ask = "ask",
        /// It records silence.
        Deny = "deny",
    } = "\"allow\", \"ask\" and \"deny\""
}

words! {
    /// Which way a stream's frames go, as the guest sees it.
    Direction {
        /// The guest plays.
        Playback = "playback",
        /// The guest records.
        Capture = "capture",
    } = "\"playback\" and \"capture\""
}

/// The name of a sink or source, as the sound server calls it (`node.name` of PipeWire, the name of a sink or source of
/// PulseAudio).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct NodeName(String);

/// A text that can't be the name of a node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} can't be a node's name; it has 1 to {longest} octets and no control characters", longest = NodeName::LONGEST)]
pub struct InvalidNodeName(pub String);

impl NodeName {
    /// The longest name in octets.
    pub const LONGEST: usize = 255;

    /// A name.
    ///
    /// # Errors
    /// An empty or overlong text, or one with control characters.
    pub fn new(name: &str) -> Result<Self, InvalidNodeName> {
        let possible = (1..=Self::LONGEST).contains(&name.len()) && !name.contains(char::is_control);
        if possible { Ok(Self(name.to_owned())) } else { Err(InvalidNodeName(name.to_owned())) }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<NodeName> for String {
    fn from(name: NodeName) -> Self {
        name.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_are_numbers_from_silence_to_one_and_a_half() {
        for volume in [0.0, 0.5, 1.0, 1.5] {
            assert_eq!(CubicVolume::new(volume).map(CubicVolume::get), Ok(volume));
        }
        assert!(CubicVolume::new(-0.0).unwrap().get().is_sign_positive());
        for volume in [-0.01, 1.500_001, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert!(CubicVolume::new(volume).is_err(), "{volume}");
        }
        let error = CubicVolume::new(2.0).unwrap_err();
        assert_eq!(error.to_string(), "2 is no volume; it is a number from 0.0 to 1.5");
    }

    #[test]
    fn words_are_those_of_the_interface() {
        assert_eq!("ask".parse(), Ok(Capture::Ask));
        assert_eq!(Direction::Capture.as_str(), "capture");
        let error = "Allow".parse::<Capture>().unwrap_err();
        assert_eq!(error.to_string(), r#""Allow" is none of "allow", "ask" and "deny""#);
    }

    #[test]
    fn a_nodes_name_is_short_and_holds_no_control() {
        for name in ["hdmi", "alsa_output.pci-0000_00_1f.3.analog-stereo", &"x".repeat(255)] {
            assert_eq!(NodeName::new(name).unwrap().as_str(), name);
        }
        for name in ["", "a\nb", "\u{1b}[2J", "\u{9b}2J", &"x".repeat(256)] {
            let error = NodeName::new(name).unwrap_err();
            assert!(!error.to_string().contains(char::is_control), "{error}");
        }
    }
}
