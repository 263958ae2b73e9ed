//! Which sound server guests are shown on.

use std::sync::Arc;

use vsnd_pw_module::{NullServer, ServerEvent, SoundServer};

use super::ServerChoice;

/// A sound server that guests can be served on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Server {
    PipeWire,
    PulseAudio,
    Null,
}

impl ServerChoice {
    /// The server that is meant. `auto` looks at what answers, which takes two seconds at most.
    pub(super) fn server(self) -> Server {
        match self {
            Self::Pipewire => Server::PipeWire,
            Self::Pulseaudio => Server::PulseAudio,
            Self::Null => Server::Null,
            Self::Auto => prefer(&looked_at()),
        }
    }
}

/// What answers.
#[derive(Clone, Copy, Debug, Default)]
struct Answers {
    /// The sinks that PipeWire has, if it answers.
    pipewire: Option<usize>,
    /// Whether it is PipeWire that answers as PulseAudio, if anybody does.
    pulse: Option<bool>,
}

/// PipeWire where it plays, then PulseAudio. A PipeWire that has no sinks beside a PulseAudio is there for pictures. When
/// nobody answers, the first that this program knows is waited for, and guests run on the clock meanwhile.
fn prefer(answers: &Answers) -> Server {
    match answers {
        Answers { pipewire: Some(1..), .. } => Server::PipeWire,
        Answers { pipewire, pulse: Some(is_pipewire) } if !is_pipewire || pipewire.is_none() => {
            Server::PulseAudio
        }
        Answers { pipewire: Some(_), .. } => Server::PipeWire,
        _ if cfg!(feature = "pipewire") => Server::PipeWire,
        _ if cfg!(feature = "pulseaudio") => Server::PulseAudio,
        _ => Server::Null,
    }
}

fn looked_at() -> Answers {
    match pipewire_sinks() {
        Some(sinks @ 1..) => Answers { pipewire: Some(sinks), pulse: None },
        pipewire => Answers { pipewire, pulse: pulse_is_pipewire() },
    }
}

/// How long a server may take to answer.
#[cfg(any(feature = "pipewire", feature = "pulseaudio"))]
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(1);

#[cfg(feature = "pipewire")]
fn pipewire_sinks() -> Option<usize> {
    let objects = vsnd_pw_module::pipewire::survey(None, PATIENCE).ok()?;
    Some(objects.iter().filter(|object| object.get("media.class") == Some("Audio/Sink")).count())
}

#[cfg(not(feature = "pipewire"))]
fn pipewire_sinks() -> Option<usize> {
    None
}

#[cfg(feature = "pulseaudio")]
fn pulse_is_pipewire() -> Option<bool> {
    vsnd_pw_module::pulse::survey(None, PATIENCE).ok().map(|survey| survey.is_pipewire())
}

#[cfg(not(feature = "pulseaudio"))]
fn pulse_is_pipewire() -> Option<bool> {
    None
}

/// The server that streams are shown on; `events` is told what becomes of it.
pub(super) fn start(
    server: Server,
    events: impl Fn(ServerEvent) + Send + 'static,
) -> anyhow::Result<Arc<dyn SoundServer>> {
    match server {
        Server::PipeWire => pipewire(events),
        Server::PulseAudio => pulseaudio(events),
        Server::Null => Ok(Arc::new(NullServer)),
    }
}

#[cfg(feature = "pipewire")]
fn pipewire(events: impl Fn(ServerEvent) + Send + 'static) -> anyhow::Result<Arc<dyn SoundServer>> {
    use anyhow::Context as _;
    Ok(Arc::new(vsnd_pw_module::pipewire::PipeWireServer::start(events, None).context("PipeWire")?))
}

#[cfg(not(feature = "pipewire"))]
fn pipewire(_: impl Fn(ServerEvent) + Send + 'static) -> anyhow::Result<Arc<dyn SoundServer>> {
    anyhow::bail!("this vsnd-bridge was built without PipeWire (cargo feature pipewire); try --server auto")
}

#[cfg(feature = "pulseaudio")]
fn pulseaudio(events: impl Fn(ServerEvent) + Send + 'static) -> anyhow::Result<Arc<dyn SoundServer>> {
    use anyhow::Context as _;
    Ok(Arc::new(vsnd_pw_module::pulse::PulseServer::start(events, None).context("PulseAudio")?))
}

#[cfg(not(feature = "pulseaudio"))]
fn pulseaudio(_: impl Fn(ServerEvent) + Send + 'static) -> anyhow::Result<Arc<dyn SoundServer>> {
    anyhow::bail!(
        "this vsnd-bridge was built without PulseAudio (cargo feature pulseaudio); try --server auto"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn preferred(pipewire: Option<usize>, pulse: Option<bool>) -> Server {
        prefer(&Answers { pipewire, pulse })
    }

    #[test]
    fn pipewire_is_preferred_where_it_plays() {
        assert_eq!(preferred(Some(1), None), Server::PipeWire);
        assert_eq!(preferred(Some(2), Some(false)), Server::PipeWire);
        assert_eq!(preferred(Some(0), None), Server::PipeWire);
        assert_eq!(preferred(Some(0), Some(true)), Server::PipeWire, "its own stand-in");
    }

    #[test]
    fn pulseaudio_is_preferred_where_it_plays() {
        assert_eq!(preferred(None, Some(false)), Server::PulseAudio);
        assert_eq!(preferred(Some(0), Some(false)), Server::PulseAudio, "PipeWire carries the screen");
        assert_eq!(preferred(None, Some(true)), Server::PulseAudio, "built without PipeWire");
    }

    #[test]
    fn who_does_not_answer_yet_is_waited_for() {
        let waited = preferred(None, None);
        assert_eq!(waited == Server::Null, !cfg!(any(feature = "pipewire", feature = "pulseaudio")));
    }
}
