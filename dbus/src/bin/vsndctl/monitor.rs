//! `vsndctl monitor`: a line for each change.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write};

use futures::StreamExt;
use serde_json::{Map, Value, json as object};
use vsnd_dbus::client::{Bridge, Client, Event};
use vsnd_dbus::{DomainId, Object};
use zbus::{OwnedVariant, Variant};

use crate::list::headline;
use crate::text::{count, json, safe};
use crate::volume::percent;

pub async fn monitor(client: &Client, as_json: bool) -> anyhow::Result<()> {
    // First listen, then look: nothing falls in between.
    let mut events = client.events().await?;
    let mut names = Names::default();
    tell_bridge(&names.learn(client).await?, as_json)?;
    while let Some(event) = events.next().await {
        if let Event::Appeared = event {
            tell_bridge(&names.learn(client).await?, as_json)?;
            continue;
        }
        names.note(&event);
        let line = if as_json { json(&as_value(&event, &names))? } else { as_line(&event, &names) };
        writeln!(io::stdout().lock(), "{line}")?;
        names.forget(&event);
    }
    anyhow::bail!("the session bus went away")
}

fn tell_bridge(bridge: &Bridge, as_json: bool) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    if as_json {
        writeln!(out, "{}", json(&object!({ "event": "bridge", "bridge": bridge }))?)?;
    } else {
        writeln!(out, "{}: {}", headline(bridge), count(bridge.domains.len(), "guest"))?;
    }
    Ok(())
}

/// The names of domains, which events name by their numbers only.
#[derive(Default)]
struct Names(BTreeMap<DomainId, String>);

impl Names {
    async fn learn(&mut self, client: &Client) -> anyhow::Result<Bridge> {
        let bridge = client.snapshot().await?;
        self.0 = bridge.domains.iter().map(|domain| (domain.id, domain.name.clone())).collect();
        Ok(bridge)
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
        self.0.insert(*id, name.to_string());
    }

    fn forget(&mut self, event: &Event) {
        if let Event::Removed(Object::Domain(id)) = event {
            self.0.remove(id);
        }
    }

    fn of(&self, id: DomainId) -> &str {
        self.0.get(&id).map_or("?", String::as_str)
    }

    fn title(&self, object: Object) -> String {
        match object {
            Object::Bridge => "bridge".to_owned(),
            Object::Domain(id) => format!("{} ({id})", safe(self.of(id))),
            Object::Stream(id, stream) => format!("{} ({id}) {stream}", safe(self.of(id))),
        }
    }
}

fn as_line(event: &Event, names: &Names) -> String {
    match event {
        Event::Added { object, .. } => format!("{}: came", names.title(*object)),
        Event::Removed(object) => format!("{}: went", names.title(*object)),
        Event::Changed { object, properties } => {
            let changes: Vec<_> = sorted(properties)
                .into_iter()
                .map(|(name, value)| match (name, value) {
                    ("Volume", Variant::F64(volume)) => format!("Volume = {}", percent(*volume)),
                    _ => format!("{} = {}", safe(name), plain(value)),
                })
                .collect();
            format!("{}: {}", names.title(*object), changes.join(", "))
        }
        Event::CaptureRequested(id) => {
            format!("{}: asks for the microphone", names.title(Object::Domain(*id)))
        }
        Event::Appeared => "bridge: came".to_owned(),
        Event::Vanished => "bridge: went".to_owned(),
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

fn as_value(event: &Event, names: &Names) -> Value {
    let (kind, of, properties) = match event {
        Event::Added { object, properties } => ("added", Some(*object), Some(properties)),
        Event::Removed(object) => ("removed", Some(*object), None),
        Event::Changed { object, properties } => ("changed", Some(*object), Some(properties)),
        Event::CaptureRequested(id) => ("capture-requested", Some(Object::Domain(*id)), None),
        Event::Appeared => ("appeared", None, None),
        Event::Vanished => ("vanished", None, None),
    };
    let mut value = Map::from_iter([("event".to_owned(), kind.into())]);
    if let Some(Object::Domain(id) | Object::Stream(id, _)) = of {
        value.insert("domain".to_owned(), id.0.into());
        value.insert("name".to_owned(), names.of(id).into());
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
