//! What streams can be routed to.

use std::collections::BTreeSet;

use vsnd_dbus::NodeName;
use vsnd_pw_module::Direction;

use crate::guess::probably_meant;

/// The sinks and sources of the sound server that answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Targets {
    /// For playback.
    pub sinks: BTreeSet<NodeName>,
    /// For capture.
    pub sources: BTreeSet<NodeName>,
}

/// A name that the sound server doesn't know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no {kind} {wanted}{}{}", known(.names), guess(.wanted, .names))]
pub struct UnknownTarget {
    /// "sink" or "source".
    kind: &'static str,
    wanted: String,
    names: Vec<String>,
}

fn known(names: &[String]) -> String {
    if names.is_empty() { ", nor any other".to_owned() } else { format!("; there is {}", names.join(", ")) }
}

fn guess(wanted: &str, names: &[String]) -> String {
    let meant = probably_meant(wanted, names.iter().map(String::as_str));
    meant.map_or_else(String::new, |name| format!("; did you mean {name}?"))
}

impl Targets {
    /// Whether a stream can be routed to `wanted`.
    ///
    /// # Errors
    /// There is no sink or source of this name.
    pub fn check(&self, direction: Direction, wanted: &NodeName) -> Result<(), UnknownTarget> {
        let (kind, names) = match direction {
            Direction::Playback => ("sink", &self.sinks),
            Direction::Capture => ("source", &self.sources),
        };
        if names.contains(wanted) {
            return Ok(());
        }
        let text = |name: &NodeName| name.as_str().to_owned();
        Err(UnknownTarget { kind, wanted: text(wanted), names: names.iter().map(text).collect() })
    }
}

impl From<&vsnd_pw_module::Targets> for Targets {
    /// Names that nobody could ask for are left out.
    fn from(targets: &vsnd_pw_module::Targets) -> Self {
        let names =
            |texts: &BTreeSet<String>| texts.iter().filter_map(|text| NodeName::new(text).ok()).collect();
        Self { sinks: names(&targets.sinks), sources: names(&targets.sources) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(sinks: &[&str], direction: Direction, wanted: &str) -> Option<String> {
        let sinks = sinks.iter().map(|&name| name.to_owned()).collect();
        let targets = vsnd_pw_module::Targets { sinks, sources: ["webcam".to_owned()].into() };
        let checked = Targets::from(&targets).check(direction, &NodeName::new(wanted).unwrap());
        checked.err().map(|error| error.to_string())
    }

    #[test]
    fn a_name_that_is_not_there_is_answered_with_those_that_are() {
        let sinks = ["usb", "hdmi", "a\nb", ""];
        let refused = |direction, wanted| refusal(&sinks, direction, wanted).unwrap();
        assert_eq!(refusal(&sinks, Direction::Playback, "hdmi"), None);
        assert_eq!(refusal(&sinks, Direction::Capture, "webcam"), None);
        assert_eq!(refused(Direction::Playback, "line"), "there is no sink line; there is hdmi, usb");
        assert_eq!(
            refused(Direction::Playback, "hmdi"),
            "there is no sink hmdi; there is hdmi, usb; did you mean hdmi?"
        );
        assert_eq!(refused(Direction::Capture, "usb"), "there is no source usb; there is webcam");
        assert_eq!(refusal(&[], Direction::Playback, "usb").unwrap(), "there is no sink usb, nor any other");
    }
}
