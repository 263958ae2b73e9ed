//! One connection to XenStore: requests out, answers to whoever waits for them, fired watches to [`Watches`].
//!
//! Three threads serve it, so that nothing waits for anything else: one writes, one reads, one calls the watches' sinks.
//! The writer is there because a write to /dev/xen/xenbus that sets a watch returns only when xenstored has answered the
//! kernel: a caller that wrote itself could not give up after [`PATIENCE`].

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with};
use tracing::debug;

use super::watches::Watches;
use super::wire::{self, Decoder, HEADER, Kind, Message, PAYLOAD_MAX};
use crate::xen::{StoreError, WatchSink};

/// How long an answer may take. xenstored answers within microseconds; a live update of it takes up to a second or two.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// The request id of messages whose answer nobody waits for.
const UNANSWERED: u32 = 0;

/// Where XenStore is reached.
enum Transport {
    /// xenstored's own socket.
    Socket(UnixStream),
    /// /dev/xen/xenbus, the kernel's connection. One write takes a whole message; nothing ever says when it can take
    /// one (poll knows no POLLOUT there), it always can.
    Device(File),
}

impl Transport {
    /// Octets of payload that it takes: the device keeps header and payload in one buffer of 4096.
    fn payload_max(&self) -> usize {
        match self {
            Self::Socket(_) => PAYLOAD_MAX,
            Self::Device(_) => PAYLOAD_MAX - HEADER,
        }
    }

    fn write(&self, message: &[u8]) -> io::Result<()> {
        match self {
            Self::Socket(socket) => { socket }.write_all(message),
            Self::Device(device) => { device }.write_all(message),
        }
    }
}

impl AsFd for Transport {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Socket(socket) => socket.as_fd(),
            Self::Device(device) => device.as_fd(),
        }
    }
}

type Answer = Result<Vec<u8>, StoreError>;

/// A request under way.
struct Waiter {
    kind: Kind,
    /// Where the answer goes; none once the caller gave up.
    answer: Option<mpsc::SyncSender<Answer>>,
}

#[derive(Default)]
struct Requests {
    last_id: u32,
    waiting: HashMap<u32, Waiter>,
    /// Why there is no connection any more.
    gone: Option<String>,
}

/// What the threads share.
struct Shared {
    transport: Transport,
    requests: Mutex<Requests>,
    watches: Watches,
    /// Readable once the reader shall end.
    stop: OwnedFd,
}

/// A message for the writer.
struct Outgoing {
    id: u32,
    octets: Vec<u8>,
}

/// A connection. Dropping it ends the threads and with them every watch.
pub(super) struct Connection {
    shared: Arc<Shared>,
    outbox: mpsc::Sender<Outgoing>,
}

impl Connection {
    /// Through xenstored's socket.
    ///
    /// # Errors
    /// What connecting says; TimedOut if nobody takes the connection for [`PATIENCE`].
    pub(super) fn socket(path: &Path) -> io::Result<Self> {
        Self::over(Transport::Socket(connect(path)?))
    }

    /// Through the kernel's device.
    ///
    /// # Errors
    /// What opening says.
    pub(super) fn device(path: &Path) -> io::Result<Self> {
        Self::over(Transport::Device(File::options().read(true).write(true).open(path)?))
    }

    fn over(transport: Transport) -> io::Result<Self> {
        let (outbox, inbox) = mpsc::channel();
        let shared = Arc::new(Shared {
            transport,
            requests: Mutex::default(),
            watches: Watches::default(),
            stop: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        });
        // From here on a drop ends the threads that have started.
        let connection = Self { shared: shared.clone(), outbox: outbox.clone() };
        let spawn = |name: &str| thread::Builder::new().name(name.into());
        let of_reader = shared.clone();
        spawn("xenstore-read").spawn(move || of_reader.read(&outbox))?;
        let of_writer = shared.clone();
        spawn("xenstore-write").spawn(move || of_writer.write(&inbox))?;
        spawn("xenstore-watch").spawn(move || shared.watches.run())?;
        Ok(connection)
    }

    /// Asks and waits for the answer, at most [`PATIENCE`].
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub(super) fn call(&self, kind: Kind, transaction: u32, parts: &[&[u8]]) -> Answer {
        let (to, answer) = mpsc::sync_channel(1);
        let id = self.shared.requests().enter(kind, to)?;
        let limit = self.shared.transport.payload_max();
        let octets = match wire::encode(kind, id, transaction, parts, limit) {
            Ok(octets) => octets,
            Err(error) => {
                self.shared.requests().waiting.remove(&id);
                return Err(error);
            }
        };
        // Fails only when the writer has ended; the connection is gone then and the answer says so.
        let _ = self.outbox.send(Outgoing { id, octets });
        match answer.recv_timeout(PATIENCE) {
            Ok(answer) => answer,
            Err(_) => {
                self.shared.requests().give_up(id);
                // An answer that came in between counts.
                answer.try_recv().unwrap_or_else(|_| {
                    let seconds = PATIENCE.as_secs();
                    Err(StoreError::Disconnected(format!("no answer within {seconds} seconds")))
                })
            }
        }
    }

    /// Sends without waiting for an answer, for what is said in passing: an end of something.
    pub(super) fn tell(&self, kind: Kind, transaction: u32, parts: &[&[u8]]) {
        send_unanswered(&self.outbox, kind, transaction, parts);
    }

    /// Sets a watch and returns its token.
    ///
    /// # Errors
    /// Any [`StoreError`]; no watch is left then.
    pub(super) fn watch(&self, path: &str, sink: WatchSink) -> Result<u64, StoreError> {
        let octets = wire::string(path)?;
        // Before the request: the first event may overtake the answer.
        let token = self.shared.watches.add(path, sink);
        match self.call(Kind::Watch, 0, &[&octets, token_octets(token).as_bytes()]) {
            Ok(_) => Ok(token),
            Err(error) => {
                self.unwatch(path, token);
                Err(error)
            }
        }
    }

    /// Ends a watch.
    pub(super) fn unwatch(&self, path: &str, token: u64) {
        self.shared.watches.remove(token);
        if let Ok(path) = wire::string(path) {
            self.tell(Kind::Unwatch, 0, &[&path, token_octets(token).as_bytes()]);
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // The writer ends when the last sender is gone: ours and the reader's.
        let _ = rustix::io::write(&self.shared.stop, &1u64.to_ne_bytes());
        self.shared.watches.close();
    }
}

/// Connects without waiting for ever: xenstored lets one connection wait until it is accepted, and one that hangs accepts
/// none.
fn connect(path: &Path) -> io::Result<UnixStream> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    let address = SocketAddrUnix::new(path)?;
    let deadline = Instant::now() + PATIENCE;
    while let Err(errno) = rustix::net::connect(&socket, &address) {
        if errno != Errno::AGAIN {
            return Err(errno.into());
        }
        if Instant::now() > deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
        thread::sleep(Duration::from_millis(5));
    }
    let socket = UnixStream::from(socket);
    socket.set_nonblocking(false)?;
    Ok(socket)
}

fn token_octets(token: u64) -> String {
    format!("{token}\0")
}

fn send_unanswered(outbox: &mpsc::Sender<Outgoing>, kind: Kind, transaction: u32, parts: &[&[u8]]) {
    if let Ok(octets) = wire::encode(kind, UNANSWERED, transaction, parts, PAYLOAD_MAX - HEADER) {
        let _ = outbox.send(Outgoing { id: UNANSWERED, octets });
    }
}

impl Requests {
    /// Notes a request and gives it an id that no other under way has.
    fn enter(&mut self, kind: Kind, answer: mpsc::SyncSender<Answer>) -> Result<u32, StoreError> {
        if let Some(why) = &self.gone {
            return Err(StoreError::Disconnected(why.clone()));
        }
        loop {
            self.last_id = self.last_id.wrapping_add(1);
            if self.last_id != UNANSWERED && !self.waiting.contains_key(&self.last_id) {
                break;
            }
        }
        self.waiting.insert(self.last_id, Waiter { kind, answer: Some(answer) });
        Ok(self.last_id)
    }

    /// The caller waits no longer; its answer may come yet.
    fn give_up(&mut self, id: u32) {
        if let Some(waiter) = self.waiting.get_mut(&id) {
            waiter.answer = None;
        }
    }
}

impl Shared {
    fn requests(&self) -> MutexGuard<'_, Requests> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection is gone: everyone who waits is told, and so is everyone who calls later. Watches fire once more,
    /// or a daemon that only watches would never learn of it.
    fn fail(&self, why: &str) {
        let waiting = {
            let mut requests = self.requests();
            requests.gone.get_or_insert_with(|| why.to_owned());
            std::mem::take(&mut requests.waiting)
        };
        for waiter in waiting.into_values() {
            if let Some(answer) = waiter.answer {
                let _ = answer.try_send(Err(StoreError::Disconnected(why.to_owned())));
            }
        }
        self.watches.fire_all();
    }

    /// Hands an answer to whoever waits for it.
    fn answer(&self, id: u32, answer: Answer, outbox: &mpsc::Sender<Outgoing>) {
        let Some(waiter) = self.requests().waiting.remove(&id) else { return };
        match waiter.answer {
            Some(to) => {
                let _ = to.try_send(answer);
            }
            // A transaction that nobody waits for any more would stay open in xenstored, where they are counted.
            None if waiter.kind == Kind::TransactionStart => {
                if let Some(transaction) = answer.ok().and_then(|octets| transaction_id(&octets)) {
                    send_unanswered(outbox, Kind::TransactionEnd, transaction, &[b"F\0"]);
                }
            }
            None => {}
        }
    }

    fn dispatch(&self, message: Message, outbox: &mpsc::Sender<Outgoing>) {
        if message.kind == Kind::WatchEvent.number() {
            // The device leaves the other fields of an event's header as they come.
            match wire::watch_event(&message.payload) {
                Some((path, token)) => self.watches.fire(token, &path),
                None => debug!("XenStore sent a watch event that can't be read"),
            }
            return;
        }
        let refused = message.kind == Kind::Error.number();
        let asked = self.requests().waiting.get(&message.request).map(|waiter| waiter.kind);
        let Some(asked) = asked else {
            if refused {
                debug!("XenStore refused what was said in passing: {}", wire::error(&message.payload));
            }
            return;
        };
        let answer = match message.kind {
            _ if refused => Err(wire::error(&message.payload)),
            kind if kind == asked.number() => Ok(message.payload),
            _ => Err(wire::malformed("an answer to another request")),
        };
        self.answer(message.request, answer, outbox);
    }

    /// The reader's life. Holds a sender of its own, which keeps the writer alive as long as it.
    fn read(&self, outbox: &mpsc::Sender<Outgoing>) {
        let why = match self.read_until_stopped(outbox) {
            Ok(()) => "closed".to_owned(),
            Err(error) => match error {
                StoreError::Disconnected(why) => why,
                other => other.to_string(),
            },
        };
        self.fail(&why);
    }

    fn read_until_stopped(&self, outbox: &mpsc::Sender<Outgoing>) -> Result<(), StoreError> {
        let broken = |errno: Errno| StoreError::Disconnected(io::Error::from(errno).to_string());
        let mut decoder = Decoder::default();
        let mut buffer = [0; 8192];
        loop {
            let mut fds =
                [PollFd::new(&self.transport, PollFlags::IN), PollFd::new(&self.stop, PollFlags::IN)];
            match poll(&mut fds, None) {
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(broken(errno)),
            }
            if !fds[1].revents().is_empty() {
                return Ok(());
            }
            let len = match rustix::io::read(&self.transport, &mut buffer) {
                Ok(0) => return Err(StoreError::Disconnected("xenstored ended the connection".into())),
                Ok(len) => len,
                Err(Errno::INTR | Errno::AGAIN) => continue,
                Err(errno) => return Err(broken(errno)),
            };
            decoder.push(&buffer[..len]);
            while let Some(message) = decoder.next()? {
                self.dispatch(message, outbox);
            }
        }
    }

    /// The writer's life.
    fn write(&self, inbox: &mpsc::Receiver<Outgoing>) {
        for Outgoing { id, octets } in inbox {
            let Err(error) = self.transport.write(&octets) else { continue };
            match &self.transport {
                Transport::Socket(_) => return self.fail(&error.to_string()),
                // The kernel refuses one request by its write's error and goes on with the next.
                Transport::Device(_) => {
                    let waiter = self.requests().waiting.remove(&id);
                    if let Some(to) = waiter.and_then(|waiter| waiter.answer) {
                        let _ = to.try_send(Err(refusal(&error)));
                    }
                }
            }
        }
    }
}

/// The error behind a write that the device refused.
fn refusal(error: &io::Error) -> StoreError {
    match Errno::from_io_error(error) {
        Some(Errno::NOENT) => StoreError::NotFound,
        Some(Errno::ACCESS | Errno::PERM) => StoreError::Denied,
        Some(Errno::AGAIN) => StoreError::Again,
        _ => StoreError::Other(error.to_string()),
    }
}

/// The number of a transaction as [`Kind::TransactionStart`] is answered.
pub(super) fn transaction_id(answer: &[u8]) -> Option<u32> {
    let digits = answer.strip_suffix(&[0]).unwrap_or(answer);
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_gets_an_id_that_is_neither_in_use_nor_for_unanswered_ones() {
        let (to, _answer) = mpsc::sync_channel(1);
        let mut requests = Requests { last_id: u32::MAX - 1, ..Requests::default() };
        requests.waiting.insert(1, Waiter { kind: Kind::Read, answer: None });
        let mut enter = || requests.enter(Kind::Read, to.clone());
        assert_eq!((enter(), enter()), (Ok(u32::MAX), Ok(2)));
    }

    #[test]
    fn what_the_device_refuses_by_its_write_is_told_as_xenstore_would() {
        let refused = |errno: Errno| refusal(&errno.into());
        assert_eq!(refused(Errno::NOENT), StoreError::NotFound);
        assert_eq!(refused(Errno::ACCESS), StoreError::Denied);
        assert!(matches!(refused(Errno::INVAL), StoreError::Other(_)));
    }
}
