//! The main loop: finds the cards of all guests, and looks at each whenever something about it changed.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tracing::{error, info, warn};
use vsnd_pw_module::{Nanos, monotonic_now};

use crate::config::Config;
use crate::control::Control;
use crate::guest::names::Domain;
use crate::guest::{self, Account, Connection, Delay, Device, DeviceContext, DeviceId, Outcome, Total};
use crate::stream::lock;
use crate::xen::{DomId, Nodes, StoreError, Watch};

/// How long the last requests of a removed card are answered while its guest lets go: an application that plays sends
/// STOP and CLOSE then, and would hang for 3 s on each without an answer.
const LAST_REQUESTS: Nanos = Nanos::from_millis(5_000);

/// A guest that changes its states too often is not listened to for so long beyond its debt: time to come to rest.
const DEAF: Nanos = Nanos::from_millis(1_000);
/// When what XenStore refused is tried again.
const TRY_AGAIN: Nanos = Nanos::from_millis(1_000);
/// How long after a change of the user's it is saved.
const SAVE_AFTER: Duration = Duration::from_millis(200);

/// The bridge: every card of every guest of this domain.
pub struct Bridge {
    context: DeviceContext,
    config: Config,
    devices: BTreeMap<DeviceId, Device>,
    /// Cards that the bridge failed at. They stay closed until the toolstack takes them away.
    given_up: BTreeSet<DeviceId>,
    accounts: BTreeMap<DomId, Weak<Account>>,
    total: Arc<Total>,
    /// When to look at a device again although nothing changed.
    due: BTreeMap<DeviceId, Nanos>,
    /// When to list the cards again, because XenStore refused to.
    list_again: Option<Nanos>,
    /// Connections of removed cards, until the instant.
    leaving: Vec<(DomId, Connection, Nanos)>,
    changes: Arc<Changes>,
    _watches: (Box<dyn Watch>, Option<Box<dyn Watch>>),
}

/// Why a device is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// Its guest changed something, at its own charge.
    Guest,
    /// The toolstack did, or it is time.
    Host,
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
            given_up: BTreeSet::new(),
            accounts: BTreeMap::new(),
            total: Total::new(config.total()),
            due: BTreeMap::new(),
            list_again: None,
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
        let seen = std::mem::take(&mut *lock(&self.changes.seen));
        let due = self.due.iter().filter(|(_, due)| **due <= now).map(|(id, _)| *id);
        let mut others: BTreeSet<_> = due.collect();
        if seen.cards || self.list_again.is_some_and(|due| due <= now) {
            self.find_cards(now)?;
            others.extend(self.devices.keys().copied());
        }
        for id in &seen.devices {
            others.remove(id);
            self.look(*id, now, Cause::Guest)?;
        }
        for id in others {
            self.look(id, now, Cause::Host)?;
        }
        self.let_go(now)?;
        let leaving = self.leaving.iter().map(|(_, _, until)| *until);
        Ok(self.due.values().copied().chain(self.list_again).chain(leaving).min())
    }

    fn look(&mut self, id: DeviceId, now: Nanos, cause: Cause) -> Result<(), StoreError> {
        let Some(device) = self.devices.get_mut(&id) else { return Ok(()) };
        self.due.remove(&id);
        let context = &self.context;
        let looked = catch_unwind(AssertUnwindSafe(|| {
            device.listen(context, now)?;
            device.look(context)
        }));
        let next = match looked.unwrap_or(Ok(Outcome::Failed)) {
            Ok(Outcome::Rest) => None,
            Ok(Outcome::LookAgain(at)) => Some(at),
            Ok(Outcome::Gone) => {
                self.remove(id);
                return Ok(());
            }
            Ok(Outcome::Failed) => return self.give_up(id),
            Err(error @ StoreError::Disconnected(_)) => return Err(error),
            // This card's trouble, and no other's.
            Err(error) => {
                if let Some(more) = device.account().may_tell() {
                    warn!(domain = %device.domain().shown(), device = %id, "XenStore refuses what the sound card needs, it is tried again: {error}{more}");
                }
                Some(now + TRY_AGAIN)
            }
        };
        let changes = &device.account().state_changes;
        if cause == Cause::Guest
            && let Some(Delay { until, is_news }) = changes.take(now, 1)
        {
            if is_news {
                device.account().name_for(changes);
            }
            device.stop_listening(until + DEAF);
        }
        if let Some(next) = next.max(device.deaf_until()) {
            self.due.insert(id, next);
        }
        Ok(())
    }

    /// Closes a card at which the bridge failed: one guest's trouble ends its own card and nothing else.
    fn give_up(&mut self, id: DeviceId) -> Result<(), StoreError> {
        error!(device = %id, "the sound card is closed by a fault of the bridge, until it is attached anew; please report it");
        self.given_up.insert(id);
        let device = self.forget(id);
        // What broke may break again.
        let dropped = catch_unwind(AssertUnwindSafe(|| drop(device)));
        let closed = catch_unwind(AssertUnwindSafe(|| guest::close(&self.context, id)));
        match closed {
            Ok(Err(error @ StoreError::Disconnected(_))) => return Err(error),
            Ok(Ok(())) if dropped.is_ok() => (),
            _ => error!(device = %id, "and it can't even be closed"),
        }
        Ok(())
    }

    /// Takes up cards that came.
    fn find_cards(&mut self, now: Nanos) -> Result<(), StoreError> {
        let store = Arc::clone(&self.context.xen.store);
        let cards = match list_cards(&*store, &backends(&self.context)) {
            Ok(cards) => cards,
            Err(error @ StoreError::Disconnected(_)) => return Err(error),
            // A list that is not whole says of no card that it went.
            Err(error) => {
                if self.list_again.replace(now + TRY_AGAIN).is_none() {
                    error!("sound cards can't be listed, which is tried again: {error}");
                }
                return Ok(());
            }
        };
        self.list_again = None;
        // Also of cards that went while no bridge ran.
        self.context.records.retain(|card| cards.contains(&card));
        // One that was attached anew may have come before it was seen to be gone.
        self.given_up.retain(|card| cards.contains(card) && !guest::is_new(&self.context, *card));
        self.accounts.retain(|_, account| account.strong_count() > 0);
        for id in cards {
            if self.devices.contains_key(&id) || self.given_up.contains(&id) {
                continue;
            }
            match catch_unwind(AssertUnwindSafe(|| self.take_up(id))) {
                Ok(Ok(())) => (),
                Ok(Err(error @ StoreError::Disconnected(_))) => return Err(error),
                Ok(Err(error)) => {
                    error!(device = %id, "the sound card can't be watched, it has no sound: {error}");
                    self.forget(id);
                }
                Err(_) => self.give_up(id)?,
            }
        }
        Ok(())
    }

    fn take_up(&mut self, id: DeviceId) -> Result<(), StoreError> {
        let domain = Domain::read(&*self.context.xen.store, id.frontend)?;
        let policy = self.config.for_domain(domain.name.as_deref(), domain.uuid.as_deref());
        let changes = Arc::clone(&self.changes);
        let changed = move || {
            changes.note(|seen| {
                seen.devices.insert(id);
            });
        };
        info!(domain = %domain.shown(), device = %id, "found a sound card");
        self.context.control.domain_came(&domain, policy.capture);
        let account = self.accounts.get(&id.frontend).and_then(Weak::upgrade).unwrap_or_else(|| {
            let account = Account::new(domain.shown(), policy.limits, &self.total);
            self.accounts.insert(id.frontend, Arc::downgrade(&account));
            account
        });
        let device = Device::new(&self.context, id, domain, policy, account, changed)?;
        self.devices.insert(id, device);
        Ok(())
    }

    fn remove(&mut self, id: DeviceId) {
        let Some(device) = self.forget(id) else { return };
        info!(domain = %device.domain().shown(), device = %id, "the sound card was removed");
        if let Some(connection) = device.into_connection() {
            self.leaving.push((id.frontend, connection, monotonic_now() + LAST_REQUESTS));
        }
    }

    /// A card that is served no more, unless it never was.
    fn forget(&mut self, id: DeviceId) -> Option<Device> {
        self.due.remove(&id);
        let device = self.devices.remove(&id);
        self.context.control.card_went(id);
        if self.devices.keys().all(|other| other.frontend != id.frontend) {
            self.context.control.domain_went(id.frontend);
        }
        self.context.records.retain(|card| card != id);
        device
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
                Ok(_) => {
                    cards.insert(DeviceId { frontend: DomId(domain), device: number });
                }
                Err(StoreError::NotFound) => (),
                Err(error) => return Err(error),
            }
        }
    }
    Ok(cards)
}

fn children(store: &dyn Nodes, path: &str) -> Result<Vec<String>, StoreError> {
    match store.directory(path) {
        Err(StoreError::NotFound) => Ok(Vec::new()),
        listed => listed,
    }
}
