//! A bridge without guests or sound: it holds what it is told, and publishes it.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use vsnd_dbus::{
    BridgeState, Capture, Command, CubicVolume, Direction, DomainId, DomainState, NodeName, OpenStream,
    Reading, Refusal, Request, Run, Service, StreamId, StreamState,
};
use zbus::Connection;

pub const WORK: DomainId = DomainId(5);
pub const PLAYBACK: StreamId = StreamId { card: 0, pcm: 0, stream: 0 };
pub const CAPTURE: StreamId = StreamId { card: 0, pcm: 0, stream: 1 };
/// A sink that the fake's sound server doesn't have.
pub const NO_SUCH_SINK: &str = "no-such-sink";

/// A bridge that carries commands out on its published state only.
pub struct Fake {
    pub service: Arc<Service>,
    /// What it was asked for.
    pub commands: Arc<Mutex<Vec<Command>>>,
    /// The position of its playback stream.
    pub position: Arc<AtomicU64>,
    /// The underruns of its playback stream.
    pub underruns: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Fake {
    /// A bridge with the domain "work", which plays.
    pub async fn on(connection: Connection) -> Self {
        let (requests, mut inbox) = mpsc::channel::<Request>(4);
        let (position, underruns) = (Arc::new(AtomicU64::new(48_000)), Arc::new(AtomicU64::new(0)));
        let mut state = BridgeState::new("PipeWire 1.4.2");
        state.sinks = names(["hdmi", "usb"]);
        state.sources = names(["webcam"]);
        state.domains.insert(WORK, work(Arc::clone(&position), Arc::clone(&underruns)));
        let service = Arc::new(Service::start(connection, state, requests).await.unwrap());
        let commands = Arc::new(Mutex::new(Vec::new()));
        let task = tokio::spawn({
            let (service, commands) = (Arc::clone(&service), Arc::clone(&commands));
            async move {
                while let Some(request) = inbox.recv().await {
                    commands.lock().unwrap().push(request.command.clone());
                    let outcome = carry_out(&service, &request.command);
                    request.answer(outcome);
                }
            }
        });
        Self { service, commands, position, underruns, task }
    }

    /// Changes what is published of "work".
    pub fn update_work(&self, change: impl FnOnce(&mut DomainState)) {
        self.service.update(|state| change(state.domains.get_mut(&WORK).unwrap()));
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Names of sinks or sources.
pub fn names<const N: usize>(names: [&str; N]) -> BTreeSet<NodeName> {
    names.into_iter().map(|name| NodeName::new(name).unwrap()).collect()
}

fn carry_out(service: &Service, command: &Command) -> Result<(), Refusal> {
    let mut outcome = Ok(());
    service.update(|state| {
        let gone = |domain: &DomainId| Refusal::Gone(format!("there is no domain {domain}"));
        outcome = match command {
            Command::SetVolume { domain, volume } => {
                state.domains.get_mut(domain).map(|state| state.volume = *volume).ok_or_else(|| gone(domain))
            }
            Command::SetMuted { domain, muted } => {
                state.domains.get_mut(domain).map(|state| state.muted = *muted).ok_or_else(|| gone(domain))
            }
            Command::SetCapture { domain, capture } => state
                .domains
                .get_mut(domain)
                .map(|state| state.capture = *capture)
                .ok_or_else(|| gone(domain)),
            Command::SetTarget { target: Some(target), .. } if target.as_str() == NO_SUCH_SINK => {
                Err(Refusal::Invalid(format!("there is no sink {NO_SUCH_SINK}")))
            }
            Command::SetTarget { stream, .. } if *stream == CAPTURE => {
                Err(Refusal::NotSupported("a capture stream can't be routed".to_owned()))
            }
            Command::SetTarget { domain, stream, target } => {
                let domain = state.domains.get_mut(domain);
                let stream = domain.and_then(|domain| domain.streams.get_mut(stream));
                stream
                    .map(|stream| stream.target = target.clone())
                    .ok_or(Refusal::Gone("no stream".to_owned()))
            }
        };
    });
    outcome
}

fn work(position: Arc<AtomicU64>, underruns: Arc<AtomicU64>) -> DomainState {
    let playing = move || Reading {
        position: position.load(Ordering::Relaxed),
        position_error_usec: -40,
        latency: Duration::from_micros(21_333),
        underruns: underruns.load(Ordering::Relaxed),
        overruns: 0,
        levels: vec![0.5, 0.25],
    };
    let playback = StreamState {
        direction: Direction::Playback,
        open: Some(OpenStream {
            run: Run::Running,
            format: "s16_le".to_owned(),
            rate: 48_000,
            channels: 2,
            period_frames: 1024,
            buffer_frames: 4096,
        }),
        volume: vec![1.0, 1.0],
        muted: false,
        node_name: "vsnd.work.0.0.0".to_owned(),
        node_id: Some(47),
        target: None,
        probe: Arc::new(playing),
    };
    let capture = StreamState {
        direction: Direction::Capture,
        open: None,
        volume: Vec::new(),
        muted: false,
        node_name: "vsnd.work.0.0.1".to_owned(),
        node_id: None,
        target: None,
        probe: Arc::new(Reading::default),
    };
    domain("work", [(PLAYBACK, playback), (CAPTURE, capture)])
}

/// A domain at its defaults.
pub fn domain(name: &str, streams: impl IntoIterator<Item = (StreamId, StreamState)>) -> DomainState {
    DomainState {
        name: name.to_owned(),
        uuid: Some("ab8a8e6e-3d4c-4d6f-9f6e-2f9c8b1d7a55".to_owned()),
        volume: CubicVolume::FULL,
        muted: false,
        capture: Capture::Ask,
        capture_active: false,
        streams: streams.into_iter().collect(),
    }
}
