//! The controls on the session bus, as `org.vsnd.Bridge1`.
//!
//! They are served by a thread of their own: however much others ask, and however slowly they listen, guests and the main loop
//! don't wait for them.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::thread;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{info, warn};
use vsnd_dbus::{Request, Service, StartError};
use zbus::Connection;

use crate::control::Control;
use crate::runtime::PREDECESSOR;

/// How soon after a change that was told the next one is: a guest can start and stop a stream far more often than anybody looks.
const TOGETHER: Duration = Duration::from_millis(20);
/// How long a bus may take to answer: guests wait meanwhile for a bridge that starts, and give a request up after three seconds.
const ANSWER: Duration = Duration::from_secs(1);
/// How often a bus that is not there is looked for.
const RETRY: Duration = Duration::from_secs(5);
/// How often a name is tried that a bridge before may just be losing.
const POLL: Duration = Duration::from_millis(50);
/// Requests that wait for their turn; who asks for more waits himself.
const REQUESTS: usize = 16;

/// Why the controls can't be put on the session bus.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The name is taken.
    #[error(transparent)]
    Start(#[from] StartError),
    /// There is no thread for it.
    #[error("no thread for D-Bus: {0}")]
    Thread(#[from] io::Error),
}

/// Serves `control` on the bus that `connect` leads to, until the process ends. Returns once it is there, or it is known that there
/// is no bus at present, or none that answers: it is looked for again then, and also when it goes away later.
///
/// # Errors
/// Another bridge serves this session, or there is no thread.
pub fn serve<C, F>(control: Control, connect: C) -> Result<(), Error>
where
    C: Fn() -> F + Send + 'static,
    F: Future<Output = zbus::Result<Connection>> + 'static,
{
    let (told, outcome) = oneshot::channel();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    thread::Builder::new().name("vsnd-dbus".to_owned()).spawn(move || {
        runtime.block_on(keep_serving(&control, connect, told));
    })?;
    outcome.blocking_recv().unwrap_or(Ok(())).map_err(Error::from)
}

/// Whether there is a bus where `connect` leads, and it answers. Nothing is shown on it.
///
/// # Errors
/// It can't be reached, or doesn't answer, or there is no runtime for asking.
pub fn probe<F>(connect: F) -> Result<(), Error>
where
    F: Future<Output = zbus::Result<Connection>>,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let connected = runtime.block_on(async { timeout(ANSWER, connect).await });
    let connected = connected.unwrap_or_else(|_| Err(silent()));
    connected.map(drop).map_err(|error| StartError::from(error).into())
}

async fn keep_serving<F>(
    control: &Control,
    connect: impl Fn() -> F,
    told: oneshot::Sender<Result<(), StartError>>,
) where
    F: Future<Output = zbus::Result<Connection>>,
{
    let mut told = Some(told);
    let patience = Instant::now() + PREDECESSOR;
    // The last failure that was logged: one line per change, not one per try.
    let mut logged = None;
    loop {
        let start = async { Controls::start(control, connect().await?).await };
        let started = timeout(ANSWER, start).await.unwrap_or_else(|_| Err(silent().into()));
        let taken = matches!(started, Err(StartError::NameTaken(_)));
        if taken && told.is_some() && Instant::now() < patience {
            sleep(POLL).await;
            continue;
        }
        if let Some(told) = told.take() {
            if taken {
                let _ = told.send(started.map(drop));
                return;
            }
            // Nobody waits for it where the process ends already.
            let _ = told.send(Ok(()));
        }
        match started {
            Ok(controls) => {
                info!("on the session bus as {}", vsnd_dbus::BUS_NAME);
                controls.serve().await;
                warn!("the session bus went away: mixers and vsndctl find no guests until it is back");
                logged = None;
            }
            Err(error) => {
                let failure = error.to_string();
                if logged.as_ref() != Some(&failure) {
                    warn!("mixers and vsndctl find no guests: {failure}");
                    logged = Some(failure);
                }
            }
        }
        sleep(RETRY).await;
    }
}

/// What is said of a bus that takes connections and doesn't answer.
fn silent() -> zbus::Error {
    zbus::Error::Failure(format!("the session bus does not answer within {ANSWER:?}"))
}

/// The controls on one connection.
struct Controls<'a> {
    control: &'a Control,
    connection: Connection,
    service: Service,
    requests: mpsc::Receiver<Request>,
}

impl<'a> Controls<'a> {
    async fn start(control: &'a Control, connection: Connection) -> Result<Self, StartError> {
        let (sender, requests) = mpsc::channel(REQUESTS);
        let service = Service::start(connection.clone(), control.snapshot(), sender).await?;
        Ok(Self { control, connection, service, requests })
    }

    /// Until the connection ends.
    async fn serve(mut self) {
        let mut changes = self.control.changes();
        changes.mark_changed();
        let mut soonest = Instant::now();
        let closed = self.connection.clone();
        let mut closed = pin!(closed.closed());
        loop {
            tokio::select! {
                () = &mut closed => return,
                Some(request) = self.requests.recv() => {
                    let outcome = self.control.obey(request.command.clone());
                    self.publish();
                    request.answer(outcome);
                }
                () = async {
                    // Never ends: the sender lives as long as the controls.
                    let _ = changes.changed().await;
                    sleep_until(soonest).await;
                } => {
                    self.publish();
                    soonest = Instant::now() + TOGETHER;
                }
            }
        }
    }

    fn publish(&self) {
        let now = self.control.snapshot();
        self.service.update(|state| *state = now);
        for domain in self.control.take_capture_requests() {
            self.service.capture_requested(domain);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bus_that_does_not_answer_is_none() {
        let error = probe(std::future::pending()).unwrap_err().to_string();
        assert!(error.contains("does not answer"), "{error}");
    }
}
