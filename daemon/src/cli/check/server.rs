//! What the sound server says of itself.

use vsnd_pw_module::{Presence, ServerInfo, prefer};

use crate::cli::server::Server;

/// How long a server may take to answer.
#[cfg(any(feature = "pipewire", feature = "pulseaudio"))]
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(2);

/// A sound server that answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) server: ServerInfo,
    /// Whether somebody links streams to devices.
    pub(super) session_manager: bool,
    /// Sinks that guests could be heard on.
    pub(super) sinks: usize,
}

/// The server that guests would be shown on now, and its answer; when none answers, the first that is looked for. The error is
/// a text for people.
pub(super) fn ask(servers: &[Server]) -> (Server, Result<Answer, String>) {
    let (mut answers, mut present) = (Vec::new(), Vec::new());
    for server in servers {
        let answer = ask_one(*server);
        let sinks = answer.as_ref().map_or(0, |answer| answer.sinks);
        let info = answer.as_ref().ok().map(|answer| answer.server.clone());
        present.push(Presence { info, is_silent: sinks == 0 });
        answers.push((*server, answer));
        // As when guests are served: a server that nobody needs isn't looked for.
        if sinks > 0 {
            break;
        }
    }
    let best = prefer(&present).unwrap_or(0);
    answers.into_iter().nth(best).unwrap_or((Server::Null, ask_one(Server::Null)))
}

fn ask_one(server: Server) -> Result<Answer, String> {
    match server {
        Server::Null => {
            let server = ServerInfo { name: "null".to_owned(), version: String::new(), is_stand_in: false };
            Ok(Answer { server, session_manager: true, sinks: 0 })
        }
        Server::PipeWire => pipewire(),
        Server::PulseAudio => pulseaudio(),
    }
}

#[cfg(feature = "pulseaudio")]
fn pulseaudio() -> Result<Answer, String> {
    let survey = vsnd_pw_module::pulse::survey(None, PATIENCE);
    let survey = survey.map_err(|error| format!("{:#}", anyhow::Error::from(error)))?;
    Ok(Answer {
        server: survey.server,
        // It links streams itself.
        session_manager: true,
        sinks: survey.sinks.len(),
    })
}

#[cfg(not(feature = "pulseaudio"))]
fn pulseaudio() -> Result<Answer, String> {
    Err("this vsnd-bridge was built without PulseAudio".to_owned())
}

#[cfg(feature = "pipewire")]
use pipewire::pipewire;

#[cfg(not(feature = "pipewire"))]
fn pipewire() -> Result<Answer, String> {
    Err("this vsnd-bridge was built without PipeWire".to_owned())
}

#[cfg(feature = "pipewire")]
mod pipewire {
    use std::sync::mpsc;

    use vsnd_pw_module::ServerEvent;
    use vsnd_pw_module::pipewire::{Object, PipeWireServer, survey};

    use super::{Answer, PATIENCE};

    pub(super) fn pipewire() -> Result<Answer, String> {
        let chain = |error: anyhow::Error| format!("{error:#}");
        let objects = survey(None, PATIENCE).map_err(|error| chain(error.into()))?;
        let (events, seen) = mpsc::channel();
        let tell = move |event| {
            let _ = events.send(event);
        };
        let _server = PipeWireServer::start(tell, None).map_err(|error| chain(error.into()))?;
        let server = loop {
            match seen.recv_timeout(PATIENCE) {
                Ok(ServerEvent::Connected(info)) => break info,
                Ok(ServerEvent::Lost(why)) => return Err(why),
                Ok(ServerEvent::Targets(_) | ServerEvent::Node(_) | ServerEvent::Volume(_)) => (),
                Err(_) => return Err("PipeWire doesn't answer".to_owned()),
            }
        };
        Ok(Answer { server, session_manager: has_session_manager(&objects), sinks: count_sinks(&objects) })
    }

    /// The session manager is who keeps the default devices.
    fn has_session_manager(objects: &[Object]) -> bool {
        objects
            .iter()
            .any(|object| object.kind == "Metadata" && object.get("metadata.name") == Some("default"))
    }

    fn count_sinks(objects: &[Object]) -> usize {
        objects.iter().filter(|object| object.get("media.class") == Some("Audio/Sink")).count()
    }

    #[cfg(test)]
    mod tests {
        use vsnd_pw_module::pipewire::private::{Options, PrivateServer};

        use super::*;

        #[test]
        fn a_private_server_shows_its_sinks_and_session_manager() {
            let private = PrivateServer::start(Options::default()).unwrap();
            let objects = survey(Some(&private.remote()), PATIENCE).unwrap();
            assert_eq!((count_sinks(&objects), has_session_manager(&objects)), (2, true));
        }
    }
}
