//! Event channels by /dev/xen/evtchn. A read returns ports that were notified, each masked by the kernel until it is
//! written back; closing the file unbinds all its ports.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::OnceLock;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fs::OFlags;
use rustix::io::Errno;
use tracing::{debug, warn};

use super::ioctl;
use crate::xen::{DomId, EventError, Events, LocalPort, RemotePort};

/// Ports taken by one wait.
const PORTS: usize = 64;

/// One handle on the event channel device. It serves one domain: with the first port that it binds the kernel is told to
/// refuse it ports of any other.
pub struct EventChannels {
    device: OwnedFd,
    domain: OnceLock<DomId>,
    /// Readable while a wake is owed.
    woken: OwnedFd,
}

impl EventChannels {
    /// Opens the device.
    ///
    /// # Errors
    /// What opening says.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
        let device = File::options().read(true).write(true).custom_flags(flags).open(path)?;
        Self::over(device.into())
    }

    fn over(device: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            device,
            domain: OnceLock::new(),
            woken: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        })
    }

    /// Takes what a wake left, if there was one.
    fn take_wake(&self) -> bool {
        rustix::io::read(&self.woken, &mut [0; 8]).is_ok()
    }
}

/// What the kernel said, in words.
fn words(errno: Errno) -> String {
    io::Error::from(errno).to_string()
}

impl Events for EventChannels {
    fn bind(&self, domain: DomId, remote: RemotePort) -> Result<LocalPort, EventError> {
        let of = *self.domain.get_or_init(|| {
            // Domain 0 can't be named, and kernels before 4.8 know no such request.
            match ioctl::restrict(self.device.as_fd(), domain.0) {
                Ok(()) => debug!("event channels are restricted to domain {domain}"),
                Err(errno) => {
                    warn!("event channels are not restricted to domain {domain}: {}", words(errno))
                }
            }
            domain
        });
        if of != domain {
            return Err(EventError::Bind(remote.0, format!("the handle is domain {of}'s")));
        }
        ioctl::bind_interdomain(self.device.as_fd(), domain.0.into(), remote.0)
            .map(LocalPort)
            .map_err(|errno| EventError::Bind(remote.0, words(errno)))
    }

    fn unbind(&self, port: LocalPort) {
        if let Err(errno) = ioctl::unbind(self.device.as_fd(), port.0) {
            debug!("event channel {} can't be unbound: {}", port.0, words(errno));
        }
    }

    fn notify(&self, port: LocalPort) {
        if let Err(errno) = ioctl::notify(self.device.as_fd(), port.0) {
            debug!("event channel {} can't be notified: {}", port.0, words(errno));
        }
    }

    fn unmask(&self, port: LocalPort) {
        if let Err(errno) = rustix::io::write(&self.device, &port.0.to_ne_bytes()) {
            debug!("event channel {} can't be unmasked: {}", port.0, words(errno));
        }
    }

    fn wait(&self, ports: &mut Vec<LocalPort>) -> Result<(), EventError> {
        let failed = |errno: Errno| EventError::Device(words(errno));
        loop {
            let mut fds = [PollFd::new(&self.device, PollFlags::IN), PollFd::new(&self.woken, PollFlags::IN)];
            match poll(&mut fds, None) {
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(failed(errno)),
            }
            let woken = self.take_wake();
            let mut octets = [0; 4 * PORTS];
            match rustix::io::read(&self.device, &mut octets) {
                Ok(0) => return Err(EventError::Device("the device ended".into())),
                Ok(len) => {
                    let whole = octets[..len].as_chunks::<4>().0;
                    ports.extend(whole.iter().map(|port| LocalPort(u32::from_ne_bytes(*port))));
                    return Ok(());
                }
                Err(Errno::AGAIN) if woken => return Ok(()),
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(errno) => return Err(failed(errno)),
            }
        }
    }

    fn wake(&self) {
        // Fails only when 2^64 wakes are owed.
        let _ = rustix::io::write(&self.woken, &1u64.to_ne_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    use std::time::{Duration, Instant};

    /// Channels over a socket whose other end plays the device: words in are notified ports, words out are unmasked.
    fn channels() -> (EventChannels, OwnedFd) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap();
        (EventChannels::over(ours).unwrap(), theirs)
    }

    fn notify(device: &OwnedFd, ports: impl IntoIterator<Item = u32>) {
        let octets: Vec<u8> = ports.into_iter().flat_map(u32::to_ne_bytes).collect();
        rustix::io::write(device, &octets).unwrap();
    }

    #[test]
    fn a_wait_returns_notified_ports_and_at_most_64() {
        let (channels, device) = channels();
        notify(&device, 0..70);
        let mut ports = vec![LocalPort(1000)];
        channels.wait(&mut ports).unwrap();
        assert_eq!(ports.len(), 65, "appended");
        assert_eq!(ports[64], LocalPort(63));
        channels.wait(&mut ports).unwrap();
        assert_eq!(ports[65..], [64, 65, 66, 67, 68, 69].map(LocalPort));
    }

    #[test]
    fn a_wake_ends_the_wait_under_way_and_the_next_one_but_no_more() {
        let (channels, _device) = channels();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| channels.wait(&mut Vec::new()));
            std::thread::sleep(Duration::from_millis(50));
            assert!(!waiting.is_finished());
            channels.wake();
            waiting.join().unwrap().unwrap();
        });
        channels.wake();
        channels.wake();
        channels.wait(&mut Vec::new()).unwrap();
        assert!(!channels.take_wake());
    }

    #[test]
    fn a_wake_loses_no_port() {
        let (channels, device) = channels();
        notify(&device, [5]);
        channels.wake();
        let mut ports = Vec::new();
        channels.wait(&mut ports).unwrap();
        assert_eq!(ports, [LocalPort(5)]);
    }

    #[test]
    fn unmasking_writes_the_port_back() {
        let (channels, device) = channels();
        channels.unmask(LocalPort(0x0102_0304));
        let mut octets = [0; 8];
        assert_eq!(rustix::io::read(&device, &mut octets).unwrap(), 4);
        assert_eq!(octets[..4], 0x0102_0304u32.to_ne_bytes());
    }

    #[test]
    fn a_dead_device_is_an_error_and_not_a_loop() {
        let (channels, device) = channels();
        drop(device);
        let before = Instant::now();
        assert!(matches!(channels.wait(&mut Vec::new()), Err(EventError::Device(_))));
        assert!(before.elapsed() < Duration::from_secs(1));
        let refused = channels.bind(DomId(3), RemotePort(9));
        assert!(matches!(refused, Err(EventError::Bind(9, _))), "{refused:?}");
        let Err(EventError::Bind(9, why)) = channels.bind(DomId(4), RemotePort(9)) else { panic!("bound") };
        assert_eq!(why, "the handle is domain 3's");
    }
}
