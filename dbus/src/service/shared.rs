//! What the bridge, the objects on the bus and the signaller share.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, mpsc};
use zbus::{OwnedVariant, Variant, fdo};

use crate::{BridgeState, Command, DomainId, Object, Request};

/// The values of an object's properties.
pub(super) type Properties = HashMap<String, OwnedVariant>;

pub(crate) struct Shared {
    state: Mutex<BridgeState>,
    told: Mutex<Told>,
    /// Domains that started to record without permission, and nobody was told yet.
    asking: Mutex<BTreeSet<DomainId>>,
    changed: Notify,
    requests: mpsc::Sender<Request>,
}

/// What listeners know.
#[derive(Default)]
pub(super) struct Told {
    /// The values that they were told last.
    pub(super) properties: BTreeMap<Object, Properties>,
    /// Properties that somebody on the bus is setting. zbus itself tells the new value when that is done; it need not be told
    /// twice.
    pub(super) setting: Vec<(Object, &'static str)>,
}

impl Shared {
    pub(super) fn new(state: BridgeState, requests: mpsc::Sender<Request>) -> Self {
        Self {
            state: Mutex::new(state),
            told: Mutex::default(),
            asking: Mutex::default(),
            changed: Notify::new(),
            requests,
        }
    }

    /// What is published.
    pub(crate) fn state(&self) -> MutexGuard<'_, BridgeState> {
        lock(&self.state)
    }

    pub(super) fn told(&self) -> MutexGuard<'_, Told> {
        lock(&self.told)
    }

    pub(super) fn wake(&self) {
        self.changed.notify_one();
    }

    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    pub(super) fn note_request(&self, domain: DomainId) {
        lock(&self.asking).insert(domain);
        self.wake();
    }

    pub(super) fn take_requests(&self) -> BTreeSet<DomainId> {
        std::mem::take(&mut lock(&self.asking))
    }

    /// The objects that are to be on the bus.
    pub(super) fn objects(&self) -> BTreeSet<Object> {
        let state = self.state();
        let domains = state.domains.iter().flat_map(|(id, domain)| {
            let streams = domain.streams.keys().map(|stream| Object::Stream(*id, *stream));
            streams.chain([Object::Domain(*id)])
        });
        domains.chain([Object::Bridge]).collect()
    }

    /// Whether there is a stream that runs, and so changes by itself.
    pub(super) fn runs(&self) -> bool {
        self.state().domains.values().flat_map(|domain| domain.streams.values()).any(|stream| stream.runs())
    }

    /// Has the bridge carry out `command`, which sets `property` of `object`; `read` reads what has become of it.
    pub(crate) async fn set<'v, V: Into<Variant<'v>>>(
        &self,
        object: Object,
        property: &'static str,
        command: Command,
        read: impl Fn() -> fdo::Result<V>,
    ) -> fdo::Result<()> {
        let ended = || fdo::Error::Failed("the bridge is shutting down".to_owned());
        let setting = Setting::of(self, object, property);
        let (request, answer) = Request::new(command);
        self.requests.send(request).await.map_err(|_| ended())?;
        answer.await.map_err(|_| ended())??;
        setting.told_by_zbus(read()?.into().try_into_owned()?);
        Ok(())
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

/// A property that is being set, until this is dropped.
struct Setting<'a> {
    shared: &'a Shared,
    what: (Object, &'static str),
}

impl<'a> Setting<'a> {
    fn of(shared: &'a Shared, object: Object, property: &'static str) -> Self {
        let what = (object, property);
        shared.told().setting.push(what);
        Self { shared, what }
    }

    fn told_by_zbus(self, value: OwnedVariant) {
        let (object, property) = self.what;
        if let Some(properties) = self.shared.told().properties.get_mut(&object) {
            properties.insert(property.to_owned(), value);
        }
    }
}

impl Drop for Setting<'_> {
    fn drop(&mut self) {
        let mut told = self.shared.told();
        if let Some(index) = told.setting.iter().position(|what| *what == self.what) {
            told.setting.swap_remove(index);
        }
        drop(told);
        self.shared.wake();
    }
}

/// A value that a property can't have.
pub(crate) fn invalid(error: impl std::error::Error) -> fdo::Error {
    fdo::Error::InvalidArgs(error.to_string())
}

/// A mutex's content; whoever panicked while holding it left it whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
