//! One card of one guest, from the moment the toolstack makes its directory until it is removed.

use std::fmt;
use std::sync::Arc;

use tracing::{debug, error, info, warn};
use vsnd_pw_module::{SoundServer, monotonic_now};

use super::bus::{Bus, Facts, Step};
use super::connection::{ConnectError, Connection, Start};
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
    LookAgain(vsnd_pw_module::Nanos),
    /// Its directory is gone.
    Gone,
}

/// A card and what is known of it.
pub struct Device {
    id: DeviceId,
    domain: Domain,
    policy: DomainPolicy,
    backend: String,
    frontend: String,
    /// What the toolstack configured, taken before the guest runs: the guest may rewrite every node of it later.
    config: Option<Result<CardConfig, ConfigError>>,
    bus: Bus,
    connection: Option<Connection>,
    _frontend_state: Box<dyn Watch>,
}

impl Device {
    /// The card at `id` of `domain`; `changed` is called whenever the frontend's state changes.
    ///
    /// # Errors
    /// What XenStore says.
    pub fn new(
        context: &DeviceContext,
        id: DeviceId,
        domain: Domain,
        policy: DomainPolicy,
        changed: impl Fn() + Send + 'static,
    ) -> Result<Self, StoreError> {
        // Both paths are made of our own tree and numbers; what the nodes `frontend` and `backend` say is not trusted.
        let backend = format!("/local/domain/{}/backend/vsnd/{}/{}", context.xen.own, id.frontend, id.device);
        let frontend = format!("/local/domain/{}/device/vsnd/{}", id.frontend, id.device);
        let watch = context.xen.store.watch(&format!("{frontend}/state"), Box::new(move |_| changed()))?;
        Ok(Self {
            id,
            domain,
            policy,
            backend,
            frontend,
            config: None,
            bus: Bus::default(),
            connection: None,
            _frontend_state: watch,
        })
    }

    /// The guest that the card belongs to.
    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// Hands out the connection, for the last requests of a card that is being removed.
    pub fn into_connection(self) -> Option<Connection> {
        self.connection
    }

    /// Looks at the device and does what is due.
    ///
    /// # Errors
    /// [`StoreError::Disconnected`]: XenStore itself is gone.
    pub fn look(&mut self, context: &DeviceContext) -> Result<Outcome, StoreError> {
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
        warn!(domain = %self.domain.shown(), device = %self.id, "the card's states go round in a circle; it is left alone until they change");
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
        let config = CardConfig::read(&*context.xen.store, &self.frontend);
        self.config = Some(match config {
            Ok((config, warnings)) => {
                for warning in warnings {
                    warn!(%domain, %device, "the sound card's configuration is odd: {warning}");
                }
                Ok(config)
            }
            Err(ConfigError { problem: Problem::Store(error @ StoreError::Disconnected(_)), .. }) => {
                return Err(error);
            }
            Err(error) => {
                // The card is offered all the same: a domain must not fail to start for want of sound.
                error!(%domain, %device, "the sound card's configuration can't be used, the guest will have no sound; mend vsnd= in its configuration: {error}");
                Err(error)
            }
        });
        Ok(())
    }

    fn connect(&mut self, context: &DeviceContext, start: Start) -> Result<(), StoreError> {
        // A bridge that starts beside a running guest finds the rings published, and takes the configuration now.
        if self.config.is_none() {
            self.take_config(context)?;
        }
        let connected = match &self.config {
            Some(Ok(config)) => {
                Connection::open(context, self.id, &self.domain, self.policy, config, &self.frontend, start)
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
                match start {
                    Start::Anew => self.write_state(context, BusState::Connected),
                    Start::TakeOver => Ok(()),
                }
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
                error!(domain = %self.domain.shown(), device = %self.id, "the sound card can't be connected: {error}");
                self.bus.failed(monotonic_now());
                self.write_state(context, BusState::Closed)
            }
        }
    }

    fn write_state(&self, context: &DeviceContext, state: BusState) -> Result<(), StoreError> {
        write_existing(context, &self.backend, "state", state.value().as_bytes())
    }
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

/// A state node; `None` when it is missing or not for us to read, `Unknown` when it holds no state.
fn state(store: &dyn Nodes, path: &str) -> Result<Option<BusState>, StoreError> {
    match store.read(path) {
        Ok(value) => Ok(Some(BusState::from_value(&value).unwrap_or(BusState::Unknown))),
        Err(error @ StoreError::Disconnected(_)) => Err(error),
        Err(_) => Ok(None),
    }
}
