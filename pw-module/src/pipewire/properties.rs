//! What mixers, graph tools and the session manager read of clients and nodes.

use pipewire::properties::{PropertiesBox, properties};

use crate::server::clean;
use crate::{Client, Direction, NodeSpec, Role};

/// Properties of the connection that only watches the server; it has no nodes and so no place in a mixer.
pub(super) fn watch() -> PropertiesBox {
    properties! {
        "application.name" => "vsnd-bridge",
        "application.id" => "org.vsnd.Bridge1",
        "application.icon-name" => "computer",
    }
}

/// Properties of a domain's connection. Mixers print its `application.name` in bold: the name of a node doesn't count.
pub(super) fn client(client: &Client) -> PropertiesBox {
    properties! {
        "application.name" => clean(&client.name),
        "application.id" => clean(&client.id),
        "application.icon-name" => "computer",
        "xen.domid" => client.domid.to_string(),
    }
}

/// Properties of a node.
///
/// Left out on purpose: `media.role` (WirePlumber 0.4 would keep one volume for all nodes of a role) and `node.virtual`
/// (mixers sort such streams away from their application). Only a node that is routed has a `target.object`: some desktops hide
/// streams that have one.
pub(super) fn node(spec: &NodeSpec) -> PropertiesBox {
    let rate = spec.format.rate();
    let category = match spec.direction {
        Direction::Playback => "Playback",
        Direction::Capture => "Capture",
    };
    let mut properties = properties! {
        "media.type" => "Audio",
        "media.category" => category,
        "media.name" => clean(&spec.media_name),
        "media.icon-name" => "computer",
        "node.name" => clean(&spec.name),
        "node.description" => clean(&spec.description),
        "node.latency" => format!("{}/{rate}", spec.period.0.max(1)),
        "node.rate" => format!("1/{rate}"),
        "node.dont-reconnect" => "false",
        // The key under which WirePlumber remembers volume and routing comes from here first.
        "application.id" => clean(&spec.restore_key),
        "application.name" => clean(&spec.client.name),
        "xen.domid" => spec.client.domid.to_string(),
    };
    if let Some(target) = &spec.target {
        properties.insert("target.object", clean(target));
    }
    if spec.role == Role::Device {
        properties.insert(
            "media.class",
            match spec.direction {
                Direction::Playback => "Audio/Source",
                Direction::Capture => "Audio/Sink",
            },
        );
        // A device's clock runs whether anybody listens or not.
        properties.insert("node.always-process", "true");
    }
    properties
}
