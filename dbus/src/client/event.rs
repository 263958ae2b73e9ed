//! Signals of a bridge, as events.

use std::collections::HashMap;

use futures::{Stream, StreamExt, future, stream};
use zbus::message::{Message, Type};
use zbus::names::{InterfaceName, OwnedInterfaceName};
use zbus::{Connection, MatchRule, MessageStream, OwnedObjectPath, OwnedVariant};

use crate::{BUS_NAME, DomainId, Object};

/// Something that happens to a bridge. Texts are as they came: a terminal must be guarded from them.
#[derive(Debug)]
pub enum Event {
    /// An object came.
    Added {
        /// Which.
        object: Object,
        /// Its properties.
        properties: HashMap<String, OwnedVariant>,
    },
    /// An object went.
    Removed(Object),
    /// Properties have other values.
    Changed {
        /// Whose.
        object: Object,
        /// The new values.
        properties: HashMap<String, OwnedVariant>,
    },
    /// A domain starts to record without permission.
    CaptureRequested(DomainId),
    /// A bridge took the name, after there was none.
    Appeared,
    /// The bridge gave the name up.
    Vanished,
}

/// The properties of several interfaces.
type Interfaces = HashMap<OwnedInterfaceName, HashMap<String, OwnedVariant>>;

pub(super) async fn events(
    connection: &Connection,
) -> zbus::Result<impl Stream<Item = Event> + Unpin + use<>> {
    let of_bridge = MatchRule::builder()
        .msg_type(Type::Signal)
        .sender(BUS_NAME)
        .path_namespace(Object::Bridge.path())
        .build()?;
    let signals = MessageStream::for_match_rule(of_bridge, connection, None).await?;
    let signals = signals.map(|message| message.ok().as_ref().and_then(signal));
    let names = if connection.is_bus() {
        let of_bus = MatchRule::builder()
            .msg_type(Type::Signal)
            .sender("org.freedesktop.DBus")
            .member("NameOwnerChanged")
            .arg(0, BUS_NAME)
            .build()?;
        let names = MessageStream::for_match_rule(of_bus, connection, None).await?;
        names.map(|message| message.ok().as_ref().and_then(owner)).left_stream()
    } else {
        stream::empty().right_stream()
    };
    Ok(stream::select(signals, names).filter_map(future::ready))
}

/// What a signal of a bridge says; `None` if it isn't about one of its objects.
fn signal(message: &Message) -> Option<Event> {
    let (header, body) = (message.header(), message.body());
    let of = Object::at(header.path()?)?;
    match (header.interface()?.as_str(), header.member()?.as_str()) {
        ("org.freedesktop.DBus.Properties", "PropertiesChanged") => {
            let (interface, properties, _): (InterfaceName<'_>, HashMap<String, OwnedVariant>, Vec<String>) =
                body.deserialize().ok()?;
            (interface == of.interface()).then_some(Event::Changed { object: of, properties })
        }
        ("org.freedesktop.DBus.ObjectManager", "InterfacesAdded") => {
            let (path, mut interfaces): (OwnedObjectPath, Interfaces) = body.deserialize().ok()?;
            let object = Object::at(&path)?;
            Some(Event::Added { object, properties: interfaces.remove(object.interface())? })
        }
        ("org.freedesktop.DBus.ObjectManager", "InterfacesRemoved") => {
            let (path, interfaces): (OwnedObjectPath, Vec<String>) = body.deserialize().ok()?;
            let object = Object::at(&path)?;
            interfaces.iter().any(|name| name == object.interface()).then_some(Event::Removed(object))
        }
        (_, "CaptureRequested") => match of {
            Object::Domain(id) => Some(Event::CaptureRequested(id)),
            _ => None,
        },
        _ => None,
    }
}

/// What a change of the name's owner says.
fn owner(message: &Message) -> Option<Event> {
    let body = message.body();
    let (_, _, owner): (&str, &str, &str) = body.deserialize().ok()?;
    Some(if owner.is_empty() { Event::Vanished } else { Event::Appeared })
}
