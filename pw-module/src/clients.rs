//! The connections of domains to a server, one each.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::Client;
use crate::units::Nanos;

/// How long a domain's connection stays after its last node: a guest that opens and closes in quick succession keeps it.
const LINGER: Nanos = Nanos::from_millis(3_000);

/// The connections, `C` each.
pub(crate) struct Clients<C> {
    /// By [`Client::id`].
    known: HashMap<String, Known<C>>,
}

struct Known<C> {
    client: Client,
    connection: C,
    /// Since when it has had no nodes.
    idle_since: Option<Nanos>,
}

impl<C> Default for Clients<C> {
    fn default() -> Self {
        Self { known: HashMap::new() }
    }
}

impl<C> Clients<C> {
    /// The connection of `client`, made by `connect` when there is none.
    pub(crate) fn connection<E>(
        &mut self,
        client: &Client,
        connect: impl FnOnce() -> Result<C, E>,
    ) -> Result<&mut C, E> {
        let known = || Ok(Known { client: client.clone(), connection: connect()?, idle_since: None });
        let entry = match self.known.entry(client.id.clone()) {
            // A domain that was restarted meanwhile has a new number, and mixers should show it.
            Entry::Occupied(entry) if entry.get().client == *client || entry.get().idle_since.is_none() => {
                entry.into_mut()
            }
            Entry::Occupied(mut entry) => {
                entry.insert(known()?);
                entry.into_mut()
            }
            Entry::Vacant(entry) => entry.insert(known()?),
        };
        entry.idle_since = None;
        Ok(&mut entry.connection)
    }

    /// All connections, with their clients.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Client, &C)> {
        self.known.values().map(|known| (&known.client, &known.connection))
    }

    /// All connections, with their clients.
    #[cfg(feature = "pulseaudio")]
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (&Client, &mut C)> {
        self.known.values_mut().map(|known| (&known.client, &mut known.connection))
    }

    /// Drops the connections that are not to be kept.
    #[cfg(feature = "pulseaudio")]
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&Client, &C) -> bool) {
        self.known.retain(|_, known| keep(&known.client, &known.connection));
    }

    /// Drops all connections.
    pub(crate) fn clear(&mut self) {
        self.known.clear();
    }

    /// Drops connections that have had no nodes for a while; `is_used` says whether the client `id` has any at `now`.
    pub(crate) fn drop_idle(&mut self, now: Nanos, is_used: impl Fn(&str) -> bool) {
        self.known.retain(|id, known| {
            if is_used(id) {
                known.idle_since = None;
                return true;
            }
            now < *known.idle_since.get_or_insert(now) + LINGER
        });
    }

    /// When the next connection is to be dropped.
    pub(crate) fn deadline(&self) -> Option<Nanos> {
        self.known.values().filter_map(|known| Some(known.idle_since? + LINGER)).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: i64) -> Nanos {
        Nanos::from_millis(millis)
    }

    fn connect(clients: &mut Clients<u32>, client: &Client, fresh: u32) -> u32 {
        *clients.connection(client, || Ok::<_, ()>(fresh)).unwrap()
    }

    #[test]
    fn a_connection_outlives_its_last_node_for_a_while() {
        let mut clients = Clients::default();
        let work = Client { name: "work".to_owned(), id: "work".to_owned(), domid: 1 };
        let restarted = Client { domid: 2, ..work.clone() };
        assert_eq!(connect(&mut clients, &work, 1), 1);
        assert_eq!(connect(&mut clients, &work, 2), 1);
        assert_eq!(connect(&mut clients, &restarted, 3), 1, "nodes use it");
        clients.drop_idle(ms(0), |_| false);
        assert_eq!(clients.deadline(), Some(ms(3_000)));
        assert_eq!(connect(&mut clients, &work, 4), 1);
        clients.drop_idle(ms(10), |_| false);
        assert_eq!(connect(&mut clients, &restarted, 5), 5, "mixers show its number");
        clients.drop_idle(ms(20), |_| false);
        clients.drop_idle(ms(3_020), |id| id == "work");
        assert_eq!(clients.iter().count(), 1);
        clients.drop_idle(ms(4_000), |_| false);
        clients.drop_idle(ms(7_000), |_| false);
        assert_eq!(clients.iter().count(), 0);
    }
}
