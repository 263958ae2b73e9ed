//! Event channels: the guests' ports, and the [`Events`] handles through which a backend binds them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::faults::Faults;
use super::lock;
use crate::xen::{DomId, EventError, Events, LocalPort, RemotePort};

/// Ports that one call of [`Events::wait`] reports at most.
const BATCH: usize = 64;

/// One port's interrupt line into its guest.
#[derive(Default)]
struct Line {
    state: Mutex<LineState>,
    changed: Condvar,
}

#[derive(Default)]
struct LineState {
    pending: bool,
    /// A paused guest takes no interrupts; they wait.
    paused: bool,
    woken: bool,
}

impl Line {
    fn change(&self, change: impl FnOnce(&mut LineState)) {
        change(&mut lock(&self.state));
        self.changed.notify_all();
    }
}

/// All interrupt lines of one guest.
#[derive(Default)]
pub(super) struct Interrupts {
    lines: Mutex<(Vec<Weak<Line>>, bool)>,
}

impl Interrupts {
    fn add(&self) -> Arc<Line> {
        let line = Arc::<Line>::default();
        let (lines, paused) = &mut *lock(&self.lines);
        line.change(|state| state.paused = *paused);
        lines.retain(|line| line.strong_count() > 0);
        lines.push(Arc::downgrade(&line));
        line
    }

    /// Holds interrupts back, or lets them through again.
    pub fn pause(&self, pause: bool) {
        let (lines, paused) = &mut *lock(&self.lines);
        *paused = pause;
        for line in lines.iter().filter_map(Weak::upgrade) {
            line.change(|state| state.paused = pause);
        }
    }

    /// Wakes everything that waits in the guest, for it is dead.
    pub fn wake(&self) {
        for line in lock(&self.lines).0.iter().filter_map(Weak::upgrade) {
            line.change(|state| state.woken = true);
        }
    }
}

struct Channel {
    /// The domain that may bind the other end.
    to: DomId,
    line: Arc<Line>,
    bound: Option<(Weak<Ports>, LocalPort)>,
}

/// All event channels, by the guest's end.
#[derive(Default)]
pub(super) struct Channels {
    state: Mutex<ChannelMap>,
}

#[derive(Default)]
struct ChannelMap {
    channels: BTreeMap<(DomId, u32), Channel>,
    last_local: u32,
}

impl Channels {
    /// Offers a new port of `domain` to `to`.
    pub fn allocate(self: &Arc<Self>, domain: DomId, to: DomId, interrupts: &Interrupts) -> GuestPort {
        let mut state = lock(&self.state);
        let taken = |port: &u32| state.channels.contains_key(&(domain, *port));
        let port = (1..).find(|port| !taken(port)).unwrap_or(u32::MAX);
        let line = interrupts.add();
        state.channels.insert((domain, port), Channel { to, line: Arc::clone(&line), bound: None });
        GuestPort { channels: Arc::clone(self), domain, port, line }
    }

    /// Ports of `domain` that a backend has bound.
    pub fn bound(&self, domain: DomId) -> usize {
        let state = lock(&self.state);
        let of_domain = state.channels.range((domain, 0)..=(domain, u32::MAX));
        of_domain.filter(|(_, channel)| channel.bound.is_some()).count()
    }

    /// Ports that `domain` has.
    pub fn allocated(&self, domain: DomId) -> usize {
        lock(&self.state).channels.range((domain, 0)..=(domain, u32::MAX)).count()
    }

    /// Closes one end for good; a backend's end is then bound to nothing.
    fn close(&self, domain: DomId, port: u32) {
        lock(&self.state).channels.remove(&(domain, port));
    }

    /// Closes all ports of a dying domain.
    pub fn destroy(&self, domain: DomId) {
        lock(&self.state).channels.retain(|(owner, _), _| *owner != domain);
    }

    /// A guest notifies.
    fn notify(&self, domain: DomId, port: u32) {
        let state = lock(&self.state);
        let bound = state.channels.get(&(domain, port)).and_then(|channel| channel.bound.clone());
        drop(state);
        if let Some((ports, local)) = bound
            && let Some(ports) = ports.upgrade()
        {
            ports.raise(local);
        }
    }
}

/// A guest's end of an event channel. Dropping it closes it.
pub struct GuestPort {
    channels: Arc<Channels>,
    domain: DomId,
    port: u32,
    line: Arc<Line>,
}

impl GuestPort {
    /// The number that the guest publishes.
    pub fn number(&self) -> u32 {
        self.port
    }

    /// Notifies the other end, if it is bound.
    pub fn notify(&self) {
        self.channels.notify(self.domain, self.port);
    }

    /// Waits up to `timeout` for the other end to notify; `false` after a time-out or a [`wake`](Self::wake).
    pub fn wait(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let mut state = lock(&self.line.state);
        loop {
            if std::mem::take(&mut state.woken) {
                return false;
            }
            if !state.paused && std::mem::take(&mut state.pending) {
                return true;
            }
            let Some(left) = deadline.checked_duration_since(Instant::now()) else { return false };
            state = self.line.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Makes the [`wait`](Self::wait) under way, or the next one, return.
    pub fn wake(&self) {
        self.line.change(|state| state.woken = true);
    }
}

impl Drop for GuestPort {
    fn drop(&mut self) {
        self.channels.close(self.domain, self.port);
    }
}

/// One bound port of a handle.
struct Local {
    peer: (DomId, u32),
    masked: bool,
    /// Notified again while it was masked.
    pending: bool,
}

#[derive(Default)]
struct Handle {
    /// The only domain whose ports it may bind, from the first one on.
    of: Option<DomId>,
    ports: BTreeMap<LocalPort, Local>,
    ready: VecDeque<LocalPort>,
    woken: bool,
    killed: bool,
}

/// The ports of one handle.
#[derive(Default)]
pub(super) struct Ports {
    handle: Mutex<Handle>,
    changed: Condvar,
}

impl Ports {
    fn raise(&self, port: LocalPort) {
        let mut guard = lock(&self.handle);
        let handle = &mut *guard;
        let Some(local) = handle.ports.get_mut(&port) else { return };
        if local.masked {
            local.pending = true;
            return;
        }
        local.masked = true;
        handle.ready.push_back(port);
        self.changed.notify_all();
    }
}

/// One handle of domain `by` on the event channel device.
pub(super) struct EventDevice {
    channels: Arc<Channels>,
    by: DomId,
    faults: Arc<Faults>,
    ports: Arc<Ports>,
}

impl EventDevice {
    pub fn open(channels: &Arc<Channels>, by: DomId, faults: &Arc<Faults>) -> Self {
        Self { channels: Arc::clone(channels), by, faults: Arc::clone(faults), ports: Arc::default() }
    }

    /// The process dies, and its handle with it.
    pub fn kill(&self) {
        lock(&self.ports.handle).killed = true;
        self.release_all();
    }

    fn release_all(&self) {
        let ports = std::mem::take(&mut lock(&self.ports.handle).ports);
        for (port, local) in ports {
            self.release(port, local.peer);
        }
    }

    /// The guest's port becomes free to be bound again.
    fn release(&self, port: LocalPort, peer: (DomId, u32)) {
        let mut state = lock(&self.channels.state);
        if let Some(channel) = state.channels.get_mut(&peer)
            && channel.bound.as_ref().is_some_and(|(_, local)| *local == port)
        {
            channel.bound = None;
        }
    }
}

impl Events for EventDevice {
    fn bind(&self, domain: DomId, remote: RemotePort) -> Result<LocalPort, EventError> {
        let refused = |why: &str| Err(EventError::Bind(remote.0, why.to_owned()));
        if self.faults.on_bind() {
            return refused("fault on order");
        }
        let mut guard = lock(&self.channels.state);
        let state = &mut *guard;
        let Some(channel) = state.channels.get_mut(&(domain, remote.0)) else {
            return refused("no such port");
        };
        if channel.to != self.by {
            return refused("offered to another domain");
        }
        if channel.bound.is_some() {
            return refused("bound already");
        }
        let mut handle = lock(&self.ports.handle);
        if handle.killed {
            return refused("the process is dead");
        }
        if *handle.of.get_or_insert(domain) != domain {
            return refused("the handle is another domain's");
        }
        state.last_local += 1;
        let port = LocalPort(state.last_local);
        channel.bound = Some((Arc::downgrade(&self.ports), port));
        handle.ports.insert(port, Local { peer: (domain, remote.0), masked: false, pending: false });
        drop((handle, guard));
        // Xen notifies a port when it is bound, as what came before may have been lost.
        self.ports.raise(port);
        Ok(port)
    }

    fn unbind(&self, port: LocalPort) {
        let mut handle = lock(&self.ports.handle);
        handle.ready.retain(|ready| *ready != port);
        let local = handle.ports.remove(&port);
        drop(handle);
        if let Some(local) = local {
            self.release(port, local.peer);
        }
    }

    fn notify(&self, port: LocalPort) {
        let Some(peer) = lock(&self.ports.handle).ports.get(&port).map(|local| local.peer) else { return };
        let state = lock(&self.channels.state);
        let line = state.channels.get(&peer).and_then(|channel| {
            let ours = channel.bound.as_ref().is_some_and(|(_, local)| *local == port);
            ours.then(|| Arc::clone(&channel.line))
        });
        drop(state);
        if let Some(line) = line {
            line.change(|state| state.pending = true);
        }
    }

    fn unmask(&self, port: LocalPort) {
        let mut handle = lock(&self.ports.handle);
        let Some(local) = handle.ports.get_mut(&port) else { return };
        local.masked = false;
        let pending = std::mem::take(&mut local.pending);
        drop(handle);
        if pending {
            self.ports.raise(port);
        }
    }

    fn wait(&self, ports: &mut Vec<LocalPort>) -> Result<(), EventError> {
        let mut handle = lock(&self.ports.handle);
        // The thread of a dead process stands still here, until its ghost is told to end.
        while handle.ready.is_empty() && !std::mem::take(&mut handle.woken) {
            handle = self.ports.changed.wait(handle).unwrap_or_else(PoisonError::into_inner);
        }
        let count = handle.ready.len().min(BATCH);
        ports.extend(handle.ready.drain(..count));
        Ok(())
    }

    fn wake(&self) {
        lock(&self.ports.handle).woken = true;
        self.ports.changed.notify_all();
    }
}

impl Drop for EventDevice {
    fn drop(&mut self) {
        self.release_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GUEST: DomId = DomId(1);
    const DOM0: DomId = DomId(0);
    const SOON: Duration = Duration::from_secs(5);

    fn setup() -> (Arc<Channels>, Interrupts, GuestPort, EventDevice) {
        let channels = Arc::<Channels>::default();
        let interrupts = Interrupts::default();
        let port = channels.allocate(GUEST, DOM0, &interrupts);
        let device = EventDevice::open(&channels, DOM0, &Arc::default());
        (channels, interrupts, port, device)
    }

    fn notified(device: &EventDevice) -> Vec<LocalPort> {
        device.wake();
        let mut ports = Vec::new();
        device.wait(&mut ports).unwrap();
        let _ = std::mem::take(&mut lock(&device.ports.handle).woken);
        ports
    }

    #[test]
    fn a_port_is_masked_from_its_notification_until_the_work_is_done() {
        let (_channels, _interrupts, guest, device) = setup();
        let port = device.bind(GUEST, RemotePort(guest.number())).unwrap();
        assert_eq!(notified(&device), [port], "binding notifies");
        guest.notify();
        guest.notify();
        assert!(notified(&device).is_empty(), "masked");
        device.unmask(port);
        assert_eq!(notified(&device), [port], "once, however often it came");
        device.unmask(port);
        assert!(notified(&device).is_empty());
    }

    #[test]
    fn a_port_is_bound_once_by_whom_it_is_offered_to() {
        let (channels, _interrupts, guest, device) = setup();
        let remote = RemotePort(guest.number());
        let stranger = EventDevice::open(&channels, DomId(5), &Arc::default());
        assert!(stranger.bind(GUEST, remote).is_err());
        assert!(device.bind(GUEST, RemotePort(77)).is_err());
        let port = device.bind(GUEST, remote).unwrap();
        let second = EventDevice::open(&channels, DOM0, &Arc::default());
        assert!(second.bind(GUEST, remote).is_err());
        assert_eq!(channels.bound(GUEST), 1);
        device.unbind(port);
        assert_eq!(channels.bound(GUEST), 0);
        let again = second.bind(GUEST, remote).unwrap();
        device.unbind(port);
        device.notify(port);
        assert_eq!(notified(&second), [again], "an old number touches nothing");
        drop(second);
        assert_eq!((channels.bound(GUEST), channels.allocated(GUEST)), (0, 1));
    }

    #[test]
    fn a_handle_serves_one_domain() {
        let (channels, interrupts, guest, device) = setup();
        let other = channels.allocate(DomId(2), DOM0, &interrupts);
        device.bind(GUEST, RemotePort(guest.number())).unwrap();
        assert!(device.bind(DomId(2), RemotePort(other.number())).is_err());
    }

    #[test]
    fn a_killed_process_leaves_ports_that_the_next_one_binds() {
        let (channels, _interrupts, guest, device) = setup();
        let remote = RemotePort(guest.number());
        let port = device.bind(GUEST, remote).unwrap();
        let _ = notified(&device);
        device.kill();
        assert_eq!(channels.bound(GUEST), 0);
        device.notify(port);
        assert!(!guest.wait(Duration::from_millis(5)), "notified by the dead");
        assert!(device.bind(GUEST, remote).is_err());
        let next = EventDevice::open(&channels, DOM0, &Arc::default());
        next.bind(GUEST, remote).unwrap();
    }

    #[test]
    fn guests_wait_for_notifications_and_paused_ones_get_them_later() {
        let (_channels, interrupts, guest, device) = setup();
        let port = device.bind(GUEST, RemotePort(guest.number())).unwrap();
        let rest = Duration::from_millis(5);
        assert!(!guest.wait(rest));
        std::thread::scope(|scope| {
            scope.spawn(|| device.notify(port));
            assert!(guest.wait(SOON));
        });
        interrupts.pause(true);
        device.notify(port);
        assert!(!guest.wait(rest));
        interrupts.pause(false);
        assert!(guest.wait(SOON));
        guest.wake();
        assert!(!guest.wait(SOON), "woken for nothing");
    }

    #[test]
    fn a_guests_death_leaves_ports_that_lead_nowhere() {
        let (channels, _interrupts, guest, device) = setup();
        let port = device.bind(GUEST, RemotePort(guest.number())).unwrap();
        channels.destroy(GUEST);
        assert_eq!(channels.bound(GUEST), 0);
        device.notify(port);
        guest.notify();
        assert_eq!(notified(&device), [port]);
        device.unbind(port);
    }
}
