//! `vsndctl monitor`: a line for each change.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write};

use futures::StreamExt;
use serde_json::{Map, Value, json as object};
use vsnd_dbus::client::{Bridge, Client, ClientError, Event};
use vsnd_dbus::{DomainId, Object};
use zbus::{OwnedVariant, Variant};

use crate::list::headline;
use crate::text::{count, json, safe};
use crate::volume::percent;

/// `client` is asked, and nothing else: events that wait to be read hold up the answers on their connection.
pub async fn monitor(client: &Client, as_json: bool) -> anyhow::Result<()> {
    // First listen, then look: nothing falls in between.
    let mut events = Client::session().await?.events().await?;
    let mut seen = Seen::look(client).await?;
    tell(&Event::Appeared, &seen, as_json)?;
    while let Some(event) = events.next().await {
        if let Event::Appeared = event {
            seen = match Seen::look(client).await {
                // It went again, which is told next.
                Err(ClientError::NotRunning) => continue,
                looked => looked?,
            };
        }
        seen.note(&event);
        tell(&event, &seen, as_json)?;
        seen.forget(&event);
    }
    anyhow::bail!("the session bus went away")
}

fn tell(event: &Event, seen: &Seen, in_json: bool) -> anyhow::Result<()> {
    let line = if in_json { json(&as_value(event, seen))? } else { as_line(event, seen) };
    Ok(writeln!(io::stdout().lock(), "{line}")?)
}

/// What was there when it was looked at last.
struct Seen {
    bridge: Bridge,
    /// The names of domains, which events name by their numbers only.
    names: BTreeMap<DomainId, String>,
}

impl Seen {
    async fn look(client: &Client) -> Result<Self, ClientError> {
        let bridge = client.snapshot().await?;
        let names = bridge.domains.iter().map(|domain| (domain.id, domain.name.clone())).collect();
        Ok(Self { bridge, names })
    }

    fn note(&mut self, event: &Event) {
        let (Event::Added { object, properties } | Event::Changed { object, properties }) = event else {
            return;
        };
        let (Object::Domain(id), Some(Variant::Str(name))) =
            (object, properties.get("Name").map(|name| &**name))
        else {
            return;
        };
        self.names.insert(*id, name.to_string());
    }

    fn forget(&mut self, event: &Event) {
        if let Event::Removed(Object::Domain(id)) = event {
            self.names.remove(id);
        }
    }

    fn name(&self, id: DomainId) -> &str {
        self.names.get(&id).map_or("?", String::as_str)
    }

    fn title(&self, object: Object) -> String {
        match object {
            Object::Bridge => "bridge".to_owned(),
            Object::Domain(id) => format!("{} ({id})", safe(self.name(id))),
            Object::Stream(id, stream) => format!("{} ({id}) {stream}", safe(self.name(id))),
        }
    }
}

fn as_line(event: &Event, seen: &Seen) -> String {
    match event {
        Event::Added { object, .. } => format!("{}: came", seen.title(*object)),
        Event::Removed(object) => format!("{}: went", seen.title(*object)),
        Event::Changed { object, properties } => {
            let changes: Vec<_> = sorted(properties)
                .into_iter()
                .map(|(name, value)| match (name, value) {
                    ("Volume", value) => format!("Volume = {}", volume(value)),
                    _ => format!("{} = {}", safe(name), plain(value)),
                })
                .collect();
            format!("{}: {}", seen.title(*object), changes.join(", "))
        }
        Event::CaptureRequested(id) => {
            format!("{}: asks for the microphone", seen.title(Object::Domain(*id)))
        }
        Event::Appeared => {
            format!("{}: {}", headline(&seen.bridge), count(seen.bridge.domains.len(), "guest"))
        }
        Event::Vanished => "bridge: went".to_owned(),
    }
}

/// A domain's volume, or those of a stream's channels.
fn volume(value: &Variant<'_>) -> String {
    match value {
        Variant::F64(volume) => percent(*volume),
        Variant::Array(channels) => channels.iter().map(volume).collect::<Vec<_>>().join(" "),
        other => plain(other),
    }
}

/// A value as people read it.
fn plain(value: &Variant<'_>) -> String {
    match as_json(value) {
        Value::String(text) => safe(&text),
        // A number, a word, or a list of them: JSON writes it in every case.
        other => json(&other).unwrap_or_default(),
    }
}

fn as_value(event: &Event, seen: &Seen) -> Value {
    let (kind, of, properties) = match event {
        Event::Added { object, properties } => ("added", Some(*object), Some(properties)),
        Event::Removed(object) => ("removed", Some(*object), None),
        Event::Changed { object, properties } => ("changed", Some(*object), Some(properties)),
        Event::CaptureRequested(id) => ("capture-requested", Some(Object::Domain(*id)), None),
        Event::Appeared => return object!({ "event": "bridge", "bridge": seen.bridge }),
        Event::Vanished => ("vanished", None, None),
    };
    let mut value = Map::from_iter([("event".to_owned(), kind.into())]);
    if let Some(Object::Domain(id) | Object::Stream(id, _)) = of {
        value.insert("domain".to_owned(), id.0.into());
        value.insert("name".to_owned(), seen.name(id).into());
    }
    if let Some(Object::Stream(_, stream)) = of {
        value.insert("stream".to_owned(), stream.to_string().into());
    }
    if let Some(properties) = properties {
        let properties =
            sorted(properties).into_iter().map(|(name, value)| (name.to_owned(), as_json(value)));
        value.insert("properties".to_owned(), Value::Object(properties.collect()));
    }
    Value::Object(value)
}

fn sorted(properties: &HashMap<String, OwnedVariant>) -> BTreeMap<&str, &Variant<'static>> {
    properties.iter().map(|(name, value)| (name.as_str(), &**value)).collect()
}

/// A value of D-Bus as one of JSON, as far as the interface has such.
fn as_json(value: &Variant<'_>) -> Value {
    match value {
        Variant::Bool(value) => (*value).into(),
        Variant::U32(value) => (*value).into(),
        Variant::U64(value) => (*value).into(),
        Variant::I64(value) => (*value).into(),
        Variant::F64(value) => (*value).into(),
        Variant::Str(value) => value.as_str().into(),
        Variant::Array(values) => values.iter().map(as_json).collect(),
        _ => Value::Null,
    }
}
