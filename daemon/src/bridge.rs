//! The main loop: finds the cards of all guests, and looks at each whenever something about it changed.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tracing::{error, info};
use vsnd_pw_module::{Nanos, monotonic_now};

use crate::config::Config;
use crate::control::Control;
use crate::guest::names::Domain;
use crate::guest::{Connection, Device, DeviceContext, DeviceId, Outcome};
use crate::stream::lock;
use crate::xen::{DomId, Nodes, StoreError, Watch};

/// How long the last requests of a removed card are answered while its guest lets go: an application that plays sends
/// STOP and CLOSE then, and would hang for 3 s on each without an answer.
const LAST_REQUESTS: Nanos = Nanos::from_millis(5_000);

/// How long after a change of the user's it is saved.
const SAVE_AFTER: Duration = Duration::from_millis(200);

/// The bridge: every card of every guest of this domain.
pub struct Bridge {
    context: DeviceContext,
    config: Config,
    devices: BTreeMap<DeviceId, Device>,
    /// When to look at a device again although nothing changed.
    due: BTreeMap<DeviceId, Nanos>,
    /// Connections of removed cards, until the instant.
    leaving: Vec<(DomId, Connection, Nanos)>,
    changes: Arc<Changes>,
    _watches: (Box<dyn Watch>, Option<Box<dyn Watch>>),
}

/// What changed since the last turn. Bounded, however often watches fire.
#[derive(Default)]
struct Changes {
    seen: Mutex<Seen>,
    any: Notify,
}

#[derive(Default)]
struct Seen {
    /// Cards may have come or gone.
    cards: bool,
    /// These cards' states changed.
    devices: BTreeSet<DeviceId>,
}

impl Changes {
    fn note(&self, what: impl FnOnce(&mut Seen)) {
        what(&mut lock(&self.seen));
        self.any.notify_one();
    }
}

impl Bridge {
    /// A bridge that serves nothing yet.
    ///
    /// # Errors
    /// What XenStore says.
    pub fn new(context: DeviceContext, config: Config) -> Result<Self, StoreError> {
        let changes = Arc::new(Changes::default());
        let watch = |path: &str| {
            let changes = Arc::clone(&changes);
            context.xen.store.watch(path, Box::new(move |_| changes.note(|seen| seen.cards = true)))
        };
        let cards = watch(&backends(&context))?;
        // A driver domain may not be told of deaths: the toolstack removes a dead domain's cards all the same.
        let deaths = match watch("@releaseDomain") {
            Err(error @ StoreError::Disconnected(_)) => return Err(error),
            other => other.ok(),
        };
        Ok(Self {
            devices: BTreeMap::new(),
            due: BTreeMap::new(),
            leaving: Vec::new(),
            _watches: (cards, deaths),
            context,
            config,
            changes,
        })
    }

    /// Serves guests until `shutdown` is ready.
    ///
    /// # Errors
    /// [`StoreError::Disconnected`]: XenStore itself is gone.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) -> Result<(), StoreError> {
        let control = self.context.control.clone();
        let ended = tokio::select! {
            ended = self.serve(shutdown) => ended,
            () = keep_saved(&control) => Ok(()),
        };
        control.save();
        ended
    }

    async fn serve(&mut self, shutdown: impl Future<Output = ()>) -> Result<(), StoreError> {
        let changes = Arc::clone(&self.changes);
        tokio::pin!(shutdown);
        loop {
            let next = self.turn(monotonic_now())?;
            let pause = async {
                match next {
                    Some(next) => {
                        tokio::time::sleep((next - monotonic_now()).into()).await;
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = &mut shutdown => return Ok(()),
                () = changes.any.notified() => (),
                () = pause => (),
            }
        }
    }

    /// Does all that is due at `now`. Returns when to be called next if nothing changes.
    fn turn(&mut self, now: Nanos) -> Result<Option<Nanos>, StoreError> {
        let mut seen = std::mem::take(&mut *lock(&self.changes.seen));
        if seen.cards {
            self.find_cards()?;
            seen.devices.extend(self.devices.keys().copied());
        }
        seen.devices.extend(self.due.iter().filter(|(_, due)| **due <= now).map(|(id, _)| *id));
        for id in seen.devices {
            self.look(id)?;
        }
        self.let_go(now)?;
        let leaving = self.leaving.iter().map(|(_, _, until)| *until);
        Ok(self.due.values().copied().chain(leaving).min())
    }

    fn look(&mut self, id: DeviceId) -> Result<(), StoreError> {
        let Some(device) = self.devices.get_mut(&id) else { return Ok(()) };
        self.due.remove(&id);
        match device.look(&self.context)? {
            Outcome::Rest => (),
            Outcome::LookAgain(at) => {
                self.due.insert(id, at);
            }
            Outcome::Gone => self.remove(id),
        }
        Ok(())
    }

    /// Takes up cards that came.
    fn find_cards(&mut self) -> Result<(), StoreError> {
        let store = Arc::clone(&self.context.xen.store);
        let cards = list_cards(&*store, &backends(&self.context))?;
        // Also of cards that went while no bridge ran.
        self.context.records.retain(|card| cards.contains(&card));
        for id in cards {
            if self.devices.contains_key(&id) {
                continue;
            }
            let domain = Domain::read(&*store, id.frontend)?;
            let policy = self.config.for_domain(domain.name.as_deref(), domain.uuid.as_deref());
            let changes = Arc::clone(&self.changes);
            let changed = move || {
                changes.note(|seen| {
                    seen.devices.insert(id);
                });
            };
            info!(domain = %domain.shown(), device = %id, "found a sound card");
            self.context.control.domain_came(&domain, policy.capture);
            match Device::new(&self.context, id, domain, policy, changed) {
                Ok(device) => {
                    self.devices.insert(id, device);
                }
                Err(error @ StoreError::Disconnected(_)) => return Err(error),
                Err(error) => {
                    error!(device = %id, "the sound card can't be watched, it has no sound: {error}")
                }
            }
        }
        Ok(())
    }

    fn remove(&mut self, id: DeviceId) {
        self.due.remove(&id);
        let Some(device) = self.devices.remove(&id) else { return };
        self.context.control.card_went(id);
        if self.devices.keys().all(|other| other.frontend != id.frontend) {
            self.context.control.domain_went(id.frontend);
        }
        self.context.records.retain(|card| card != id);
        info!(domain = %device.domain().shown(), device = %id, "the sound card was removed");
        if let Some(connection) = device.into_connection() {
            self.leaving.push((id.frontend, connection, monotonic_now() + LAST_REQUESTS));
        }
    }

    /// Ends connections of removed cards whose guest is gone or had time enough.
    fn let_go(&mut self, now: Nanos) -> Result<(), StoreError> {
        let store = Arc::clone(&self.context.xen.store);
        let mut failed = None;
        self.leaving.retain(|(domain, _, until)| match Domain::exists(&*store, *domain) {
            Ok(exists) => exists && now < *until,
            Err(error) => {
                failed = Some(error);
                false
            }
        });
        failed.map_or(Ok(()), Err)
    }
}

/// Saves what the user changes, a moment after it: a slider that is drawn changes many times a second.
async fn keep_saved(control: &Control) {
    let mut unsaved = control.unsaved();
    // Never ends: the sender lives as long as `control`.
    while unsaved.wait_for(|unsaved| *unsaved).await.is_ok() {
        tokio::time::sleep(SAVE_AFTER).await;
        let control = control.clone();
        // What it died of is in its own message; the next change is saved all the same.
        let _ = tokio::task::spawn_blocking(move || control.save()).await;
    }
}

/// The directory that holds the backends of all guests' cards.
fn backends(context: &DeviceContext) -> String {
    format!("/local/domain/{}/backend/vsnd", context.xen.own)
}

/// The cards that have a directory of ours.
fn list_cards(store: &dyn Nodes, backends: &str) -> Result<BTreeSet<DeviceId>, StoreError> {
    let mut cards = BTreeSet::new();
    for frontend in children(store, backends)? {
        let Ok(domain) = frontend.parse() else { continue };
        for device in children(store, &format!("{backends}/{frontend}"))? {
            let Ok(number) = device.parse() else { continue };
            // A directory without a state is one that the toolstack is still making, or already removing.
            match store.read(&format!("{backends}/{frontend}/{device}/state")) {
                Err(error @ StoreError::Disconnected(_)) => return Err(error),
                Err(_) => (),
                Ok(_) => {
                    cards.insert(DeviceId { frontend: DomId(domain), device: number });
                }
            }
        }
    }
    Ok(cards)
}

fn children(store: &dyn Nodes, path: &str) -> Result<Vec<String>, StoreError> {
    match store.directory(path) {
        Err(error @ StoreError::Disconnected(_)) => Err(error),
        other => Ok(other.unwrap_or_default()),
    }
}
