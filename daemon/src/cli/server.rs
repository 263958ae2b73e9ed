//! Which sound servers guests are shown on.

use std::sync::Arc;

use vsnd_pw_module::{NullServer, ServerEvent, SoundServer, Switch};

use super::ServerChoice;

/// A sound server that guests can be served on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Server {
    PipeWire,
    PulseAudio,
    Null,
}

/// What this program knows, in order of preference.
const AUTO: &[Server] = &[
    #[cfg(feature = "pipewire")]
    Server::PipeWire,
    #[cfg(feature = "pulseaudio")]
    Server::PulseAudio,
    #[cfg(not(any(feature = "pipewire", feature = "pulseaudio")))]
    Server::Null,
];

impl ServerChoice {
    /// The servers that are meant, in order of preference.
    pub(super) fn servers(self) -> &'static [Server] {
        match self {
            Self::Pipewire => &[Server::PipeWire],
            Self::Pulseaudio => &[Server::PulseAudio],
            Self::Null => &[Server::Null],
            Self::Auto => AUTO,
        }
    }

    /// What guests are shown on: the best of these servers at any time. `events` is told what becomes of it.
    pub(super) fn start(
        self,
        events: impl Fn(ServerEvent) + Send + 'static,
    ) -> anyhow::Result<Arc<dyn SoundServer>> {
        let switch = Switch::new(events);
        for server in self.servers() {
            match server {
                Server::PipeWire => pipewire(&switch)?,
                Server::PulseAudio => pulseaudio(&switch)?,
                Server::Null => return Ok(Arc::new(NullServer)),
            }
        }
        Ok(Arc::new(switch))
    }
}

#[cfg(feature = "pipewire")]
fn pipewire(switch: &Switch) -> anyhow::Result<()> {
    use anyhow::Context as _;
    use vsnd_pw_module::pipewire::PipeWireServer;
    switch.add(|events| PipeWireServer::start(events, None)).context("PipeWire")
}

#[cfg(not(feature = "pipewire"))]
fn pipewire(_: &Switch) -> anyhow::Result<()> {
    anyhow::bail!("this vsnd-bridge was built without PipeWire (cargo feature pipewire); try --server auto")
}

#[cfg(feature = "pulseaudio")]
fn pulseaudio(switch: &Switch) -> anyhow::Result<()> {
    use anyhow::Context as _;
    use vsnd_pw_module::pulse::PulseServer;
    switch.add(|events| PulseServer::start(events, None)).context("PulseAudio")
}

#[cfg(not(feature = "pulseaudio"))]
fn pulseaudio(_: &Switch) -> anyhow::Result<()> {
    anyhow::bail!(
        "this vsnd-bridge was built without PulseAudio (cargo feature pulseaudio); try --server auto"
    )
}
