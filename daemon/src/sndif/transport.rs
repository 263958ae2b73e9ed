//! What a frontend publishes of itself when it is ready to be connected.

use super::node::{ConfigError, Problem, Quote, fault, number, text};
use super::{Interval, SUPPORTED_VERSIONS, keys};
use crate::xen::{GrantRef, Nodes, RemotePort};

/// Grant 0 is the console's, and port 0 is none.
const REFERENCE: Interval<u32> = Interval::new(1, u32::MAX);

/// Where a stream's request ring and event page are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transport {
    /// The page of the request ring.
    pub ring: GrantRef,
    /// The event channel of the request ring.
    pub ring_port: RemotePort,
    /// The event page.
    pub events: GrantRef,
    /// The event channel of the event page.
    pub events_port: RemotePort,
}

impl Transport {
    /// Reads what was published for one stream, whose directory this is.
    ///
    /// # Errors
    /// [`ConfigError`] for the first node that is missing or wrong.
    pub fn read(nodes: &dyn Nodes, stream: &str) -> Result<Self, ConfigError> {
        let read = |key: &str, meaning| {
            let node = format!("{stream}/{key}");
            number(nodes, &node, REFERENCE)?.ok_or_else(|| fault(&node, Problem::Missing(meaning)))
        };
        Ok(Self {
            ring: GrantRef(read(keys::RING_REF, "a grant reference")?),
            ring_port: RemotePort(read(keys::EVENT_CHANNEL, "an event channel port")?),
            events: GrantRef(read(keys::EVT_RING_REF, "a grant reference")?),
            events_port: RemotePort(read(keys::EVT_EVENT_CHANNEL, "an event channel port")?),
        })
    }
}

/// Checks the version that a frontend chose "among the ones supported by the backend". Linux chooses none and speaks
/// version 2.
///
/// # Errors
/// [`Problem::Version`] for another.
pub fn check_version(nodes: &dyn Nodes, frontend: &str) -> Result<(), ConfigError> {
    let node = format!("{frontend}/{}", keys::VERSION);
    match text(nodes, &node)? {
        Some(version) if version != SUPPORTED_VERSIONS => {
            Err(fault(&node, Problem::Version(Quote::new(&version))))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::TestNodes;
    use super::*;

    fn published() -> TestNodes {
        TestNodes::of(&[
            ("/s/ring-ref", "386"),
            ("/s/event-channel", "15"),
            ("/s/evt-ring-ref", "1386"),
            ("/s/evt-event-channel", "4294967295"),
        ])
    }

    #[test]
    fn references_and_ports_are_read() {
        let expected = Transport {
            ring: GrantRef(386),
            ring_port: RemotePort(15),
            events: GrantRef(1386),
            events_port: RemotePort(u32::MAX),
        };
        assert_eq!(Transport::read(&published(), "/s"), Ok(expected));
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        for key in [keys::RING_REF, keys::EVENT_CHANNEL, keys::EVT_RING_REF, keys::EVT_EVENT_CHANNEL] {
            let node = format!("/s/{key}");
            let mut nodes = published();
            nodes.unset(&node);
            let error = Transport::read(&nodes, "/s").unwrap_err();
            assert!(matches!(error.problem, Problem::Missing(_)), "{error}");
            for value in ["0", "-1", "4294967296", ""] {
                nodes.set(&node, value.as_bytes());
                let error = Transport::read(&nodes, "/s").unwrap_err();
                assert_eq!(error.node, node);
                assert!(matches!(error.problem, Problem::Number { .. }), "{error}");
            }
        }
    }

    #[test]
    fn another_version_is_refused() {
        assert_eq!(check_version(&TestNodes::of(&[]), "/f"), Ok(()));
        assert_eq!(check_version(&TestNodes::of(&[("/f/version", "2")]), "/f"), Ok(()));
        let error = check_version(&TestNodes::of(&[("/f/version", "1")]), "/f").unwrap_err();
        assert_eq!(error.to_string(), "/f/version: holds \"1\"; the bridge speaks version 2 only");
    }
}
