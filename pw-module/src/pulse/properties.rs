//! What mixers and the server's modules read of clients and streams.

use libpulse_binding::proplist::{Proplist, properties};

use crate::server::clean;
use crate::{Client, Direction, NodeSpec};

/// A list of properties; `None` when there is no memory for it.
fn list(entries: &[(&str, &str)]) -> Option<Proplist> {
    let mut list = Proplist::new()?;
    for (key, value) in entries {
        list.set_str(key, &clean(value)).ok()?;
    }
    Some(list)
}

/// Properties of the connection that only watches the server.
pub(super) fn watch() -> Option<Proplist> {
    list(&[
        (properties::APPLICATION_NAME, "vsnd-bridge"),
        (properties::APPLICATION_ID, "org.vsnd.Bridge1"),
        (properties::APPLICATION_ICON_NAME, "computer"),
    ])
}

/// Properties of a domain's connection. Mixers print its `application.name` in bold: that of a stream doesn't count.
pub(super) fn client(client: &Client) -> Option<Proplist> {
    list(&[
        (properties::APPLICATION_NAME, &client.name),
        (properties::APPLICATION_ID, &client.id),
        (properties::APPLICATION_ICON_NAME, "computer"),
        ("xen.domid", &client.domid.to_string()),
    ])
}

/// Properties of a stream.
///
/// Left out on purpose: `media.role`, for which servers duck, move or remember streams together.
pub(super) fn node(spec: &NodeSpec) -> Option<Proplist> {
    list(&[
        (properties::MEDIA_NAME, &spec.media_name),
        (properties::MEDIA_ICON_NAME, "computer"),
        ("media.category", if spec.direction == Direction::Playback { "Playback" } else { "Capture" }),
        ("node.name", &spec.name),
        ("node.description", &spec.description),
        // The key under which PulseAudio remembers volume and routing, and the one where pipewire-pulse stands in.
        ("module-stream-restore.id", &spec.restore_key),
        (properties::APPLICATION_ID, &spec.restore_key),
        (properties::APPLICATION_NAME, &spec.client.name),
        ("xen.domid", &spec.client.domid.to_string()),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_guests_lose_what_a_c_string_cannot_hold() {
        let list = client(&Client { name: "a\0b\n".to_owned(), id: "id".to_owned(), domid: 7 }).unwrap();
        assert_eq!(list.get_str(properties::APPLICATION_NAME).as_deref(), Some("ab"));
        assert_eq!(list.get_str("xen.domid").as_deref(), Some("7"));
    }
}
