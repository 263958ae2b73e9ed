//! Objects and their paths, which are made of numbers only: no text of a guest is a part of a path.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;
use zbus::ObjectPath;

/// The path of the manager, and the beginning of all others.
const ROOT: &str = "/org/vsnd/Bridge1";

/// A domain's present number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct DomainId(pub u32);

/// Where a stream is on its domain's cards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId {
    /// The card's number.
    pub card: u32,
    /// The PCM's index on the card.
    pub pcm: u32,
    /// The stream's index on the PCM.
    pub stream: u32,
}

/// A text that names no stream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no stream; it is written CARD_PCM_STREAM, such as 0_0_1")]
pub struct UnknownStreamId(pub String);

/// An object on the bus. A domain comes before its streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Object {
    /// The bridge itself.
    Bridge,
    /// A domain.
    Domain(DomainId),
    /// A stream of a domain.
    Stream(DomainId, StreamId),
}

impl Object {
    /// The name of its interface.
    pub const fn interface(self) -> &'static str {
        match self {
            Self::Bridge => "org.vsnd.Bridge1",
            Self::Domain(_) => "org.vsnd.Bridge1.Domain",
            Self::Stream(..) => "org.vsnd.Bridge1.Stream",
        }
    }

    /// Its path.
    pub fn path(self) -> ObjectPath<'static> {
        // ROOT, letters, digits, slashes and underlines: always a path.
        ObjectPath::from_string_unchecked(self.to_string())
    }

    /// The object that would have this path.
    pub fn at(path: &str) -> Option<Self> {
        let Some(parts) = path.strip_prefix(ROOT)?.strip_prefix('/') else {
            return (path == ROOT).then_some(Self::Bridge);
        };
        let parts: Vec<&str> = parts.split('/').collect();
        match parts[..] {
            ["domain", id] => Some(Self::Domain(DomainId(number(id)?))),
            ["domain", id, "stream", stream] => {
                Some(Self::Stream(DomainId(number(id)?), stream.parse().ok()?))
            }
            _ => None,
        }
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bridge => f.write_str(ROOT),
            Self::Domain(id) => write!(f, "{ROOT}/domain/{id}"),
            Self::Stream(id, stream) => write!(f, "{ROOT}/domain/{id}/stream/{stream}"),
        }
    }
}

impl fmt::Display for DomainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}_{}", self.card, self.pcm, self.stream)
    }
}

impl FromStr for StreamId {
    type Err = UnknownStreamId;

    fn from_str(text: &str) -> Result<Self, UnknownStreamId> {
        let numbers: Option<Vec<u32>> = text.split('_').map(number).collect();
        match numbers.as_deref() {
            Some(&[card, pcm, stream]) => Ok(Self { card, pcm, stream }),
            _ => Err(UnknownStreamId(text.to_owned())),
        }
    }
}

impl Serialize for StreamId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A number as paths hold it: digits without a leading zero.
fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|number: &u32| number.to_string() == text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_object_is_found_by_its_path(domain: u32, card: u32, pcm: u32, stream: u32) {
            let domain = DomainId(domain);
            for object in [
                Object::Bridge,
                Object::Domain(domain),
                Object::Stream(domain, StreamId { card, pcm, stream }),
            ] {
                prop_assert!(ObjectPath::try_from(object.to_string()).is_ok());
                prop_assert_eq!(Object::at(&object.path()), Some(object));
            }
        }
    }

    #[test]
    fn other_paths_are_no_objects() {
        for path in [
            "/",
            "/org/vsnd/Bridge12",
            "/org/vsnd/Bridge1/",
            "/org/vsnd/Bridge1/domain",
            "/org/vsnd/Bridge1/domain/05",
            "/org/vsnd/Bridge1/domain/-1",
            "/org/vsnd/Bridge1/domain/4294967296",
            "/org/vsnd/Bridge1/domain/5/stream",
            "/org/vsnd/Bridge1/domain/5/stream/0_0",
            "/org/vsnd/Bridge1/domain/5/stream/0_0_0_0",
            "/org/vsnd/Bridge1/domain/5/stream/0_0_+1",
        ] {
            assert_eq!(Object::at(path), None, "{path}");
        }
    }
}
