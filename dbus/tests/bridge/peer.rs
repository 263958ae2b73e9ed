//! Two ends of a socket, without a bus between them.

use std::os::unix::net::UnixStream;
use std::time::Duration;

use futures::{Stream, StreamExt};
use vsnd_dbus::client::{Client, Event};
use zbus::connection::Builder;
use zbus::{Connection, Guid};

use crate::fake::Fake;

/// How long anything may take that doesn't have to wait.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A fake bridge and what is connected to it.
pub struct Pair {
    pub fake: Fake,
    pub connection: Connection,
    pub client: Client,
}

impl Pair {
    pub async fn new() -> Self {
        let (here, there) = UnixStream::pair().unwrap();
        let server = Builder::unix_stream(there).server(Guid::generate()).p2p().build();
        let client = Builder::unix_stream(here).p2p().build();
        let (server, connection) = tokio::try_join!(server, client).unwrap();
        let fake = Fake::on(server).await;
        let client = Client::on(connection.clone());
        // What the bridge told when it came up has arrived before the answer.
        client.snapshot().await.unwrap();
        Self { fake, client, connection }
    }
}

/// The next event, which is due.
pub async fn next(events: &mut (impl Stream<Item = Event> + Unpin)) -> Event {
    tokio::time::timeout(PATIENCE, events.next()).await.expect("an event in time").expect("a connection")
}
