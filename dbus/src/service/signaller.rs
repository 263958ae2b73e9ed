//! Keeps the objects on the bus in step with what is published, and tells what changed.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tracing::warn;
use zbus::object_server::{Interface, SignalEmitter};
use zbus::{Connection, Variant, fdo};

use super::shared::{Properties, Shared};
use crate::Object;
use crate::bridge::BridgeObject;
use crate::domain::DomainObject;
use crate::stream::{StreamObject, UNSIGNALLED};

/// How often running streams are looked at, whose latency and xruns change by themselves.
const LOOK: Duration = Duration::from_secs(1);

pub(super) struct Signaller {
    connection: Connection,
    shared: Arc<Shared>,
    served: BTreeSet<Object>,
}

impl Signaller {
    pub(super) fn new(connection: Connection, shared: Arc<Shared>) -> Self {
        Self { connection, shared, served: BTreeSet::new() }
    }

    /// Works until the connection ends.
    pub(super) async fn run(mut self) {
        loop {
            if self.shared.runs() {
                // Either way there may be something to tell.
                let _ = tokio::time::timeout(LOOK, self.shared.changed()).await;
            } else {
                self.shared.changed().await;
            }
            if let Err(error) = self.turn().await {
                warn!("nobody on the session bus is told of changes any more: {error}");
                return;
            }
        }
    }

    /// Tells everything that was not told yet.
    pub(super) async fn turn(&mut self) -> zbus::Result<()> {
        let wanted = self.shared.objects();
        for object in self.served.iter().rev().filter(|object| !wanted.contains(object)) {
            self.shared.told().properties.remove(object);
            self.remove(*object).await?;
        }
        for object in wanted.difference(&self.served) {
            self.add(*object).await?;
        }
        self.served = wanted;
        for object in &self.served {
            self.tell_changes(*object).await?;
        }
        for domain in self.shared.take_requests() {
            let object = Object::Domain(domain);
            if self.served.contains(&object) {
                DomainObject::capture_requested(&self.emitter(object)?).await?;
            }
        }
        Ok(())
    }

    async fn add(&self, object: Object) -> zbus::Result<()> {
        // Noted before it is announced: what changes in between is told twice rather than never.
        let properties = self.properties(object).await?;
        self.shared.told().properties.insert(object, properties);
        let (server, path) = (self.connection.object_server(), object.path());
        match object {
            Object::Bridge => server.at(path, BridgeObject::new(&self.shared)).await.map(drop),
            Object::Domain(id) => server.at(path, DomainObject::new(&self.shared, id)).await.map(drop),
            Object::Stream(domain, id) => {
                server.at(path, StreamObject::new(&self.shared, domain, id)).await.map(drop)
            }
        }
    }

    async fn remove(&self, object: Object) -> zbus::Result<()> {
        let name = zbus::names::InterfaceName::from_static_str(object.interface())?;
        self.connection.object_server().remove_named(object.path(), name).await.map(drop)
    }

    async fn tell_changes(&self, object: Object) -> zbus::Result<()> {
        let properties = self.properties(object).await?;
        let changed = {
            let mut told = self.shared.told();
            let setting = told.setting.clone();
            let told = told.properties.entry(object).or_default();
            let mut changed = Vec::new();
            for (name, value) in properties {
                let being_set = setting.iter().any(|(set, property)| *set == object && *property == name);
                if !being_set && told.get(&name) != Some(&value) {
                    told.insert(name.clone(), value.clone());
                    changed.push((name, value));
                }
            }
            changed
        };
        if changed.is_empty() {
            return Ok(());
        }
        let changed = changed.iter().map(|(name, value)| Ok((name.as_str(), Variant::try_from(value)?)));
        let changed = changed.collect::<zbus::Result<_>>()?;
        let interface = zbus::names::InterfaceName::from_static_str(object.interface())?;
        fdo::Properties::properties_changed(&self.emitter(object)?, interface, changed, Cow::Borrowed(&[]))
            .await
    }

    /// The present values of all properties whose changes are signalled.
    async fn properties(&self, object: Object) -> zbus::Result<Properties> {
        let (server, emitter) = (self.connection.object_server(), self.emitter(object)?);
        let all = match object {
            Object::Bridge => {
                BridgeObject::new(&self.shared).get_all(server, &self.connection, None, &emitter).await
            }
            Object::Domain(id) => {
                DomainObject::new(&self.shared, id).get_all(server, &self.connection, None, &emitter).await
            }
            Object::Stream(domain, id) => {
                StreamObject::new(&self.shared, domain, id)
                    .get_all(server, &self.connection, None, &emitter)
                    .await
            }
        };
        let mut properties = all?;
        properties.retain(|name, _| !UNSIGNALLED.contains(&name.as_str()));
        Ok(properties)
    }

    fn emitter(&self, object: Object) -> zbus::Result<SignalEmitter<'_>> {
        SignalEmitter::new(&self.connection, object.path())
    }
}
