//! The example that asks the user by a notification, with a desktop that answers as told.

use std::collections::HashMap;
use std::process::Stdio;

use futures::Stream;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::time::timeout;
use vsnd_dbus::client::{Client, Event};
use vsnd_dbus::{Capture, DomainId, DomainState, Object};
use zbus::object_server::SignalEmitter;
use zbus::{Connection, OwnedVariant, interface};

use crate::bus::Bus;
use crate::fake::{Fake, WORK, domain};
use crate::peer::{PATIENCE, next};

const PATH: &str = "/org/freedesktop/Notifications";

/// A desktop's notifications, as far as the example uses them.
struct Desktop {
    shown: mpsc::UnboundedSender<Shown>,
    last: u32,
}

#[derive(Debug, PartialEq)]
enum Shown {
    Notification { id: u32, body: String, actions: Vec<String> },
    Closed(u32),
}

#[interface(name = "org.freedesktop.Notifications")]
impl Desktop {
    #[allow(clippy::too_many_arguments)] // the desktop's interface
    fn notify(
        &mut self,
        _application: &str,
        _replaces: u32,
        _icon: &str,
        _summary: &str,
        body: String,
        actions: Vec<String>,
        _hints: HashMap<String, OwnedVariant>,
        _timeout: i32,
    ) -> u32 {
        self.last += 1;
        self.shown.send(Shown::Notification { id: self.last, body, actions }).unwrap();
        self.last
    }

    fn close_notification(&self, id: u32) {
        self.shown.send(Shown::Closed(id)).unwrap();
    }

    #[zbus(signal)]
    async fn action_invoked(emitter: &SignalEmitter<'_>, id: u32, action: &str) -> zbus::Result<()>;

    #[zbus(signal)]
    async fn notification_closed(emitter: &SignalEmitter<'_>, id: u32, reason: u32) -> zbus::Result<()>;
}

/// A session with a bridge, a desktop and the example.
struct Session {
    fake: Fake,
    bridge: Connection,
    desktop: Connection,
    shown: mpsc::UnboundedReceiver<Shown>,
    client: Client,
    example: Child,
    bus: Bus,
}

impl Session {
    async fn new() -> Self {
        let bus = Bus::start();
        let bridge = bus.connect().await;
        let fake = Fake::on(bridge.clone()).await;
        let (sender, shown) = mpsc::unbounded_channel();
        let desktop = bus.connect().await;
        desktop.object_server().at(PATH, Desktop { shown: sender, last: 0 }).await.unwrap();
        desktop.request_name("org.freedesktop.Notifications").await.unwrap();
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../contrib/examples/vsnd-ask-capture");
        let mut command = Command::new(file);
        bus.environment(&mut command).stdout(Stdio::piped()).kill_on_drop(true);
        let mut example = command.spawn().expect("/usr/bin/python3 with python3-gi");
        let mut lines = BufReader::new(example.stdout.take().unwrap()).lines();
        let ready = timeout(PATIENCE, lines.next_line()).await.expect("a start in time").unwrap();
        assert_eq!(ready.as_deref(), Some("listening"), "is python3-gi installed?");
        let client = Client::on(bus.connect().await);
        Self { fake, bridge, desktop, shown, client, example, bus }
    }

    /// Ends the bridge, and starts another.
    async fn restart(&mut self) {
        self.bridge.clone().close().await.unwrap();
        self.bridge = self.bus.connect().await;
        self.fake = Fake::on(self.bridge.clone()).await;
    }

    async fn shown(&mut self) -> Shown {
        timeout(PATIENCE, self.shown.recv()).await.expect("a notification in time").unwrap()
    }

    /// A guest asks, and the user takes one of the answers.
    async fn answer(&mut self, action: &str) {
        self.fake.service.capture_requested(WORK);
        let Shown::Notification { id, .. } = self.shown().await else { panic!("a notification") };
        let emitter = SignalEmitter::new(&self.desktop, PATH).unwrap();
        Desktop::action_invoked(&emitter, id, action).await.unwrap();
    }

    /// The next value of a property of the domain.
    async fn told(&self, events: &mut (impl Stream<Item = Event> + Unpin), property: &str) -> String {
        loop {
            if let Event::Changed { object: Object::Domain(WORK), properties } = next(events).await
                && let Some(value) = properties.get(property)
            {
                return value.to_string();
            }
        }
    }
}

#[tokio::test]
async fn the_user_is_asked_once_with_three_answers_and_the_guests_name_as_text() {
    let mut session = Session::new().await;
    session.fake.update_work(|work| work.name = "<b>work</b>".to_owned());
    session.fake.service.capture_requested(WORK);
    let Shown::Notification { id, body, actions } = session.shown().await else { panic!("a notification") };
    assert_eq!(body, "The guest &lt;b&gt;work&lt;/b&gt; wants to hear the microphone.");
    assert_eq!(actions, ["once", "Allow once", "always", "Always", "never", "Never"]);
    // It asks again while the first question stands: the next question is of another.
    session.fake.service.capture_requested(WORK);
    session.fake.service.update(|state| {
        state.domains.insert(DomainId(6), domain("vault", []));
    });
    session.fake.service.capture_requested(DomainId(6));
    let Shown::Notification { body, .. } = session.shown().await else { panic!("a notification") };
    assert!(body.contains("vault"), "{body}");
    // It goes, and so does its question.
    session.fake.service.update(|state| {
        state.domains.remove(&WORK);
    });
    assert_eq!(session.shown().await, Shown::Closed(id));
}

#[tokio::test]
async fn always_and_never_are_set_and_stay() {
    let mut session = Session::new().await;
    let mut events = session.client.events().await.unwrap();
    session.answer("always").await;
    assert_eq!(session.told(&mut events, "Capture").await, r#""allow""#);
    session.answer("never").await;
    assert_eq!(session.told(&mut events, "Capture").await, r#""deny""#);
}

#[tokio::test]
async fn allowed_once_ends_with_the_recording() {
    let mut session = Session::new().await;
    let mut events = session.client.events().await.unwrap();
    session.answer("once").await;
    assert_eq!(session.told(&mut events, "Capture").await, r#""allow""#);
    session.fake.update_work(|work| work.capture_active = true);
    assert_eq!(session.told(&mut events, "CaptureActive").await, "true");
    let bridge = session.client.snapshot().await.unwrap();
    assert_eq!(bridge.domains[0].capture, Capture::Allow);
    session.fake.update_work(|work| work.capture_active = false);
    assert_eq!(session.told(&mut events, "Capture").await, r#""ask""#);
}

/// The bridge remembers the permission, and the example that it was for once.
#[tokio::test]
async fn allowed_once_ends_with_the_bridge_too() {
    let mut session = Session::new().await;
    let mut events = session.client.events().await.unwrap();
    session.answer("once").await;
    assert_eq!(session.told(&mut events, "Capture").await, r#""allow""#);
    session.restart().await;
    session.fake.service.update(|state| {
        let work = DomainState { capture: Capture::Allow, ..domain("work", []) };
        state.domains = [(DomainId(9), work)].into();
    });
    loop {
        if let Event::Changed { object: Object::Domain(DomainId(9)), properties } = next(&mut events).await
            && let Some(capture) = properties.get("Capture")
        {
            break assert_eq!(capture.to_string(), r#""ask""#);
        }
    }
}

/// What it takes back at its end is out of reach then.
#[tokio::test]
async fn it_starts_no_bridge_that_was_stopped() {
    let mut session = Session::new().await;
    let started = session.bus.activates_a_file().await;
    let mut events = session.client.events().await.unwrap();
    session.answer("once").await;
    assert_eq!(session.told(&mut events, "Capture").await, r#""allow""#);
    session.bridge.clone().close().await.unwrap();
    let example = session.example.id().unwrap().to_string();
    assert!(Command::new("kill").arg(example).status().await.unwrap().success());
    let status = timeout(PATIENCE, session.example.wait()).await.expect("an end in time").unwrap();
    assert!(status.success());
    assert!(!started.exists());
}
