//! The other end: what mixers and tools see of a bridge.

mod event;
mod snapshot;

use std::io;
use std::time::Duration;

use futures::Stream;
use zbus::Connection;
use zbus::connection::Builder;
use zbus::fdo::{DBusProxy, ObjectManagerProxy, PropertiesProxy};
use zbus::names::{BusName, InterfaceName};

pub use crate::bridge::proxy::BridgeProxy;
pub use crate::domain::proxy::DomainProxy;
pub use crate::stream::proxy::StreamProxy;
pub use event::Event;
pub use snapshot::{Bridge, Domain, Stream as StreamView};

use crate::{BUS_NAME, DomainId, Object, StreamId};

/// How long a bridge may take to answer; one that runs answers in milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);

/// A bridge, seen over a connection.
#[derive(Clone, Debug)]
pub struct Client {
    connection: Connection,
}

/// Why a bridge can't be asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// There is no session bus, or it can't be reached.
    #[error("there is no session bus here: {0}")]
    NoBus(zbus::Error),
    /// No bridge has the name on this bus.
    #[error("no bridge runs in this session")]
    NotRunning,
    /// The bridge has the name, and doesn't answer.
    #[error("the bridge doesn't answer")]
    NoAnswer,
    /// It is another bridge than this client knows.
    #[error("the bridge says {found} of {object}, which this program doesn't understand")]
    Protocol {
        /// Of which object.
        object: Object,
        /// What it says.
        found: String,
    },
    /// The bridge refuses, in its own words, which may hold a guest's.
    #[error("{0}")]
    Refused(String),
    /// The bus doesn't do its part.
    #[error("D-Bus: {0}")]
    Bus(zbus::Error),
}

impl Client {
    /// The bridge of this session. It is not started where none runs.
    ///
    /// # Errors
    /// [`ClientError::NoBus`], [`ClientError::NotRunning`].
    pub async fn session() -> Result<Self, ClientError> {
        let connection =
            Builder::session().method_timeout(PATIENCE).build().await.map_err(ClientError::NoBus)?;
        let client = Self::on(connection);
        client.bridge().await?;
        Ok(client)
    }

    /// The bridge at the other end of a connection, or with the name on its bus.
    pub fn on(connection: Connection) -> Self {
        Self { connection }
    }

    /// What the bridge that runs is called on the bus. A call to the well-known name would start one where the bus can.
    async fn bridge(&self) -> Result<BusName<'static>, ClientError> {
        let name = BusName::from_static_str(BUS_NAME).map_err(ClientError::Bus)?;
        if !self.connection.is_bus() {
            return Ok(name);
        }
        let bus = DBusProxy::new(&self.connection).await?;
        Ok(bus.get_name_owner(name).await.map_err(zbus::Error::from)?.into())
    }

    /// All that the bridge publishes.
    ///
    /// # Errors
    /// [`ClientError::NotRunning`]; when the bridge doesn't answer, or says what isn't understood.
    pub async fn snapshot(&self) -> Result<Bridge, ClientError> {
        let (name, path) = (self.bridge().await?, Object::Bridge.path());
        let manager = ObjectManagerProxy::builder(&self.connection).destination(&name).path(&path);
        let objects = manager.build().await?.get_managed_objects().await.map_err(zbus::Error::from)?;
        // The manager's own aren't among them.
        let bridge = PropertiesProxy::builder(&self.connection).destination(&name).path(&path);
        let interface = InterfaceName::from_static_str(Object::Bridge.interface())?;
        let properties = bridge.build().await?.get_all(interface).await.map_err(zbus::Error::from)?;
        Bridge::new(properties, objects)
    }

    /// What happens to the bridge and its objects from now on. Ends with the connection.
    ///
    /// They are to be read on: some dozens that wait hold up all that comes on this connection, answers among it. Who asks
    /// while they wait asks another client.
    ///
    /// # Errors
    /// When the bus doesn't tell.
    pub async fn events(&self) -> Result<impl Stream<Item = Event> + Unpin + use<>, ClientError> {
        event::events(&self.connection).await.map_err(ClientError::from)
    }

    /// A domain of the bridge that runs now.
    ///
    /// # Errors
    /// [`ClientError::NotRunning`]; when the connection is gone.
    pub async fn domain(&self, id: DomainId) -> Result<DomainProxy<'static>, ClientError> {
        let domain = DomainProxy::builder(&self.connection).destination(self.bridge().await?);
        Ok(domain.path(Object::Domain(id).path()).build().await?)
    }

    /// A stream of a domain of the bridge that runs now.
    ///
    /// # Errors
    /// [`ClientError::NotRunning`]; when the connection is gone.
    pub async fn stream(&self, domain: DomainId, id: StreamId) -> Result<StreamProxy<'static>, ClientError> {
        let stream = StreamProxy::builder(&self.connection).destination(self.bridge().await?);
        Ok(stream.path(Object::Stream(domain, id).path()).build().await?)
    }
}

impl From<zbus::Error> for ClientError {
    fn from(error: zbus::Error) -> Self {
        match error {
            zbus::Error::MethodError(name, text, _) => match name.as_str() {
                "org.freedesktop.DBus.Error.ServiceUnknown" | "org.freedesktop.DBus.Error.NameHasNoOwner" => {
                    Self::NotRunning
                }
                _ => Self::Refused(text.unwrap_or_else(|| name.to_string())),
            },
            zbus::Error::FDO(error) => match *error {
                zbus::fdo::Error::ZBus(error) => error.into(),
                zbus::fdo::Error::ServiceUnknown(_) | zbus::fdo::Error::NameHasNoOwner(_) => Self::NotRunning,
                error => match zbus::DBusError::description(&error) {
                    Some(text) => Self::Refused(text.to_owned()),
                    None => Self::Bus(error.into()),
                },
            },
            zbus::Error::InputOutput(error) if error.kind() == io::ErrorKind::TimedOut => Self::NoAnswer,
            error => Self::Bus(error),
        }
    }
}
