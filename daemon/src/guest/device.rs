//! One card of one guest, from the moment the toolstack makes its directory until it is removed.

use std::fmt;
use std::sync::Arc;

use tracing::{debug, error, info, warn};
use vsnd_pw_module::{Nanos, SoundServer, monotonic_now};

use super::account::{Account, CardHeld, Metered, OverBound};
use super::bus::{Bus, Facts, Step};
use super::connection::{CardSetup, ConnectError, Connection, Start};
use super::names::Domain;
use crate::config::DomainPolicy;
use crate::control::Control;
use crate::runtime::Records;
use crate::sndif::{BusState, CardConfig, ConfigError, Problem, SUPPORTED_VERSIONS};
use crate::stream::Pacer;
use crate::xen::{DomId, Nodes, StoreError, Watch, Xen};

/// A card's place: backend/vsnd/`frontend`/`device` below our own directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceId {
    /// The guest's domain.
    pub frontend: DomId,
    /// The card's number in the guest.
    pub device: u32,
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.frontend, self.device)
    }
}

/// What devices share.
#[derive(Clone)]
pub struct DeviceContext {
    /// Xen.
    pub xen: Xen,
    /// Where streams become nodes.
    pub server: Arc<dyn SoundServer>,
    /// Tells guests their positions.
    pub pacer: Pacer,
    /// What the user sees of guests, and changes.
    pub control: Control,
    /// What the next process takes over.
    pub records: Arc<Records>,
}

/// What a look at a device came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing more before something changes.
    Rest,
    /// Look again at this instant.
    LookAgain(Nanos),
    /// Its directory is gone.
    Gone,
    /// The bridge failed at it.
    Failed,
}

/// Why a card has no sound.
#[derive(Debug, thiserror::Error)]
enum NoSound {
    #[error(
        "the sound card's configuration can't be used, the guest will have no sound; mend vsnd= in its configuration: {0}"
    )]
    Config(#[from] ConfigError),
    #[error("the sound card is not served, the guest has {0}")]
    OverBound(#[from] OverBound),
}

/// A card that can be served.
struct Served {
    config: CardConfig,
    _held: CardHeld,
}

/// A card and what is known of it.
pub struct Device {
    id: DeviceId,
    domain: Domain,
    policy: DomainPolicy,
    account: Arc<Account>,
    backend: String,
    frontend: String,
    /// What the toolstack configured, taken before the guest runs: the guest may rewrite every node of it later.
    config: Option<Result<Served, NoSound>>,
    bus: Bus,
    connection: Option<Connection>,
    changed: Arc<dyn Fn() + Send + Sync>,
    listening: Listening,
}

/// Whether a device hears of changes of its frontend's state.
enum Listening {
    /// As long as this is kept.
    On(#[allow(dead_code)] Box<dyn Watch>),
    /// Not before this instant: the guest changes its state too often.
    From(Nanos),
}

impl Device {
    /// The card at `id` of `domain`, at the charge of `account`; `changed` is called whenever there is something to
    /// [look](Self::look) at.
    ///
    /// # Errors
    /// What XenStore says.
    pub fn new(
        context: &DeviceContext,
        id: DeviceId,
        domain: Domain,
        policy: DomainPolicy,
        account: Arc<Account>,
        changed: impl Fn() + Send + Sync + 'static,
    ) -> Result<Self, StoreError> {
        let mut device = Self {
            id,
            domain,
            policy,
            account,
            backend: backend(context, id),
            frontend: format!("/local/domain/{}/device/vsnd/{}", id.frontend, id.device),
            config: None,
            bus: Bus::default(),
            connection: None,
            changed: Arc::new(changed),
            listening: Listening::From(Nanos(i64::MIN)),
        };
        device.listen(context, monotonic_now())?;
        Ok(device)
    }

    /// Listens for changes of the frontend's state again, if that is due at `now`.
    ///
    /// # Errors
    /// What XenStore says.
    pub fn listen(&mut self, context: &DeviceContext, now: Nanos) -> Result<(), StoreError> {
        if self.deaf_until().is_some_and(|until| now >= until) {
            let changed = Arc::clone(&self.changed);
            let state = format!("{}/state", self.frontend);
            self.listening = Listening::On(context.xen.store.watch(&state, Box::new(move |_| changed()))?);
        }
        Ok(())
    }

    /// Hears of no change until `until`: a watch that fires without end costs more than a look now and then.
    pub fn stop_listening(&mut self, until: Nanos) {
        self.listening = Listening::From(until);
    }

    /// Until when it hears of no change, if so.
    pub fn deaf_until(&self) -> Option<Nanos> {
        match self.listening {
            Listening::On(_) => None,
            Listening::From(until) => Some(until),
        }
    }

    /// What the guest has had.
    pub fn account(&self) -> &Arc<Account> {
        &self.account
    }

    /// The guest that the card belongs to.
    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// Hands out the connection, for the last requests of a card that is being removed.
    pub fn into_connection(self) -> Option<Connection> {
        self.connection
    }

    /// Looks at the device and does what is due. After an error the next look goes on from there.
    ///
    /// # Errors
    /// What XenStore says.
    pub fn look(&mut self, context: &DeviceContext) -> Result<Outcome, StoreError> {
        if self.connection.as_ref().is_some_and(Connection::has_failed) {
            return Ok(Outcome::Failed);
        }
        // Every step changes a fact, and no sequence of them is longer than this.
        for _ in 0..8 {
            let Some(facts) = self.facts(context)? else { return Ok(Outcome::Gone) };
            let step = self.bus.next(facts);
            debug!(domain = %self.domain.shown(), device = %self.id, ?facts, ?step);
            match step {
                Step::Rest => return Ok(Outcome::Rest),
                Step::Wait(until) => return Ok(Outcome::LookAgain(until)),
                Step::Offer => self.offer(context)?,
                Step::Connect => self.connect(context, Start::Anew)?,
                Step::TakeOver => self.connect(context, Start::TakeOver)?,
                Step::Release => {
                    if let Some(connection) = self.connection.take() {
                        connection.release();
                    }
                    info!(domain = %self.domain.shown(), device = %self.id, "sound card released");
                }
                Step::Write(state) => self.write_state(context, state)?,
            }
        }
        if let Some(more) = self.account.may_tell() {
            warn!(domain = %self.domain.shown(), device = %self.id, "the card's states go round in a circle; it is left alone until they change{more}");
        }
        Ok(Outcome::Rest)
    }

    /// The states as XenStore has them; `None` when our directory is gone.
    fn facts(&self, context: &DeviceContext) -> Result<Option<Facts>, StoreError> {
        let store = &*context.xen.store;
        let Some(backend) = state(store, &format!("{}/state", self.backend))? else { return Ok(None) };
        let frontend = state(store, &format!("{}/state", self.frontend))?;
        // A toolstack that writes no `online` means the device to stay.
        let online = !matches!(store.read(&format!("{}/online", self.backend)), Ok(value) if value == b"0");
        let connected = self.connection.is_some();
        Ok(Some(Facts { backend, online, frontend, connected, now: monotonic_now() }))
    }

    /// Takes the configuration, publishes the protocol's versions and offers the card.
    fn offer(&mut self, context: &DeviceContext) -> Result<(), StoreError> {
        if self.config.is_none() {
            self.take_config(context)?;
        }
        write_existing(context, &self.backend, "versions", SUPPORTED_VERSIONS.as_bytes())?;
        self.write_state(context, BusState::InitWait)?;
        self.bus.offered(monotonic_now());
        Ok(())
    }

    fn take_config(&mut self, context: &DeviceContext) -> Result<(), StoreError> {
        let (domain, device) = (self.domain.shown(), self.id);
        let (config, warnings) = match CardConfig::read(&*context.xen.store, &self.frontend) {
            Err(ConfigError { problem: Problem::Store(error @ StoreError::Disconnected(_)), .. }) => {
                return Err(error);
            }
            read => read.map_or_else(|error| (Err(error), Vec::new()), |(config, odd)| (Ok(config), odd)),
        };
        for warning in warnings {
            warn!(%domain, %device, "the sound card's configuration is odd: {warning}");
        }
        let served = config.map_err(NoSound::from).and_then(|config| {
            let streams: usize = config.pcms.iter().map(|pcm| pcm.streams.len()).sum();
            let held = self.account.add_card(u32::try_from(streams).unwrap_or(u32::MAX))?;
            Ok(Served { config, _held: held })
        });
        // The card is offered all the same: a domain must not fail to start for want of sound.
        self.config = Some(served.inspect_err(|error| error!(%domain, %device, "{error}")));
        Ok(())
    }

    fn connect(&mut self, context: &DeviceContext, start: Start) -> Result<(), StoreError> {
        // A bridge that starts beside a running guest finds the rings published, and takes the configuration now.
        if self.config.is_none() {
            self.take_config(context)?;
        }
        let connected = match &self.config {
            Some(Ok(Served { config, .. })) => {
                let card = CardSetup {
                    id: self.id,
                    domain: &self.domain,
                    policy: self.policy,
                    account: &self.account,
                    config,
                    frontend: &self.frontend,
                };
                let grants = Metered::new(&context.xen.grants, &self.account);
                let metered = DeviceContext { xen: Xen { grants, ..context.xen.clone() }, ..context.clone() };
                let changed = Arc::clone(&self.changed);
                Connection::open(&metered, &card, start, move || changed())
            }
            // Told when it was taken.
            Some(Err(_)) => {
                self.bus.failed(monotonic_now());
                return self.write_state(context, BusState::Closed);
            }
            None => return Ok(()),
        };
        match connected {
            Ok(connection) => {
                let how = if start == Start::Anew { "connected" } else { "taken over" };
                info!(domain = %self.domain.shown(), device = %self.id, "sound card {how}");
                self.connection = Some(connection);
                self.bus.connected();
                Ok(())
            }
            Err(ConnectError::Config(ConfigError {
                problem: Problem::Store(error @ StoreError::Disconnected(_)),
                ..
            })) => Err(error),
            // Closing it would silence a guest that another bridge serves.
            Err(error @ ConnectError::Event { .. }) if start == Start::TakeOver => {
                warn!(domain = %self.domain.shown(), device = %self.id, "the sound card can't be taken over yet: {error}");
                self.bus.not_yet_free(monotonic_now());
                Ok(())
            }
            Err(error) => {
                if let Some(more) = self.account.may_tell() {
                    error!(domain = %self.domain.shown(), device = %self.id, "the sound card can't be connected: {error}{more}");
                }
                self.bus.failed(monotonic_now());
                self.write_state(context, BusState::Closed)
            }
        }
    }

    fn write_state(&self, context: &DeviceContext, state: BusState) -> Result<(), StoreError> {
        write_existing(context, &self.backend, "state", state.value().as_bytes())
    }
}

/// Our directory of a card. Both ends' paths are made of our own tree and numbers; what the nodes `frontend` and `backend` say
/// is not trusted.
fn backend(context: &DeviceContext, id: DeviceId) -> String {
    format!("/local/domain/{}/backend/vsnd/{}/{}", context.xen.own, id.frontend, id.device)
}

/// Whether the toolstack has just made the card at `id`: nobody else writes this state.
pub fn is_new(context: &DeviceContext, id: DeviceId) -> bool {
    let found = state(&*context.xen.store, &format!("{}/state", backend(context, id)));
    found == Ok(Some(BusState::Initialising))
}

/// Tells the frontend, and the toolstack, that the card at `id` is closed.
///
/// # Errors
/// What XenStore says.
pub fn close(context: &DeviceContext, id: DeviceId) -> Result<(), StoreError> {
    write_existing(context, &backend(context, id), "state", BusState::Closed.value().as_bytes())
}

/// Writes a node of our directory unless the toolstack has removed the directory: it must not come back half.
fn write_existing(
    context: &DeviceContext,
    directory: &str,
    node: &str,
    value: &[u8],
) -> Result<(), StoreError> {
    let written = context.xen.store.transaction(&mut |nodes| {
        nodes.read(&format!("{directory}/state"))?;
        nodes.write(&format!("{directory}/{node}"), value)
    });
    match written {
        Err(StoreError::NotFound) => Ok(()),
        other => other,
    }
}

/// A state node; `None` when it is missing or not for us to read, `Unknown` when it holds no state. Any other error says nothing
/// of it: a card must not be taken for gone because XenStore had a bad moment.
fn state(store: &dyn Nodes, path: &str) -> Result<Option<BusState>, StoreError> {
    match store.read(path) {
        Ok(value) => Ok(Some(BusState::from_value(&value).unwrap_or(BusState::Unknown))),
        Err(StoreError::NotFound | StoreError::Denied) => Ok(None),
        Err(error) => Err(error),
    }
}
