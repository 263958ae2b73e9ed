//! The well-known name: one bridge per session.

use std::fmt;

use zbus::fdo::{DBusProxy, RequestNameFlags};
use zbus::names::BusName;
use zbus::{Connection, Error};

use super::StartError;
use crate::BUS_NAME;

/// The process that has the name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// Its number, if the bus knows it.
    pub process: Option<u32>,
    /// What it runs, if the system says.
    pub program: Option<String>,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.process, &self.program) {
            (Some(process), Some(program)) => write!(f, "process {process} ({})", program.escape_debug()),
            (Some(process), None) => write!(f, "process {process}"),
            (None, _) => f.write_str("a process that can't be found"),
        }
    }
}

/// Takes the name. It is neither waited for nor given away to another bridge that would start later.
pub(super) async fn claim(connection: &Connection) -> Result<(), StartError> {
    match connection.request_name_with_flags(BUS_NAME, RequestNameFlags::DO_NOT_QUEUE).await {
        Ok(_) => Ok(()),
        Err(Error::NameTaken) => Err(StartError::NameTaken(owner(connection).await.unwrap_or_default())),
        Err(error) => Err(error.into()),
    }
}

async fn owner(connection: &Connection) -> zbus::Result<Owner> {
    let bus = DBusProxy::new(connection).await?;
    let name = BusName::try_from(BUS_NAME)?;
    let process = bus.get_connection_unix_process_id(name).await?;
    let program = std::fs::read_to_string(format!("/proc/{process}/comm"));
    Ok(Owner { process: Some(process), program: program.ok().map(|name| name.trim_end().to_owned()) })
}
