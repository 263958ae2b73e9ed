//! What the targets stand on: pages that both ends see, nodes in memory, and a simulated machine.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use vsnd_bridge::config::{Capture, DomainPolicy, GuestLimits, TotalLimits};
use vsnd_bridge::control::Control;
use vsnd_bridge::guest::names::Domain;
use vsnd_bridge::guest::{Account, DeviceContext, Total};
use vsnd_bridge::sim::{Guest, Holdings, Hypervisor};
use vsnd_bridge::sndif::PAGE;
use vsnd_bridge::stream::Pacer;
use vsnd_bridge::xen::{DomId, Nodes, Permission, StoreError};
use vsnd_pw_module::{
    Access, Bounds, Direction, Frames, Node, NodeSpec, Pages, PcmRing, SampleFormat, SoundServer, Timing,
    monotonic_now,
};

use crate::memory::Memory;

/// The bridge's own domain.
pub const DOM0: DomId = DomId(0);

/// One zeroed page as both ends map it: the guest's for good, the bridge's for one input.
pub fn shared_page() -> (&'static Pages, Pages) {
    static PAGE_OF_BOTH: OnceLock<(OwnedFd, Pages)> = OnceLock::new();
    let map = |file: &OwnedFd| Pages::scattered(file.as_fd(), &[0], Access::ReadWrite).unwrap();
    let (file, page) = PAGE_OF_BOTH.get_or_init(|| {
        let file = memfd_create("fuzz-page", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&file, PAGE as u64).unwrap();
        let page = map(&file);
        (file, page)
    });
    page.write(0, &[0; PAGE]).unwrap();
    (page, map(file))
}

/// Nodes in memory, to be read.
#[derive(Clone, Debug, Default)]
pub struct Tree(pub BTreeMap<String, Vec<u8>>);

impl Nodes for Tree {
    fn read(&self, path: &str) -> Result<Vec<u8>, StoreError> {
        self.0.get(path).cloned().ok_or(StoreError::NotFound)
    }

    fn directory(&self, path: &str) -> Result<Vec<String>, StoreError> {
        let below = format!("{path}/");
        let nodes = self.0.range(below.clone()..).map_while(|(node, _)| node.strip_prefix(&below));
        Ok(nodes.filter_map(|rest| rest.split('/').next()).map(String::from).collect())
    }

    fn write(&self, _: &str, _: &[u8]) -> Result<(), StoreError> {
        Err(StoreError::Denied)
    }

    fn remove(&self, _: &str) -> Result<(), StoreError> {
        Err(StoreError::Denied)
    }

    fn permissions(&self, _: &str) -> Result<Vec<Permission>, StoreError> {
        Err(StoreError::Denied)
    }

    fn set_permissions(&self, _: &str, _: &[Permission]) -> Result<(), StoreError> {
        Err(StoreError::Denied)
    }
}

/// A machine with one guest, on which inputs are tried one after the other.
pub struct Machine {
    pub xen: Hypervisor,
    pub guest: Guest,
    pub context: DeviceContext,
    pub desk: Desk,
    memory: Mutex<Memory>,
    /// The guest's own ports and grants between two inputs.
    in_use: (usize, usize),
}

impl Machine {
    pub fn start() -> Self {
        let xen = Hypervisor::new();
        let guest = xen.create_domain("hostile", "6e1c5f3a-0000-4000-8000-000000000001").unwrap();
        let desk = Desk::default();
        let context = context(&xen, &desk);
        let memory = Mutex::new(Memory::new(&guest));
        let in_use = guest.in_use();
        Self { xen, guest, context, desk, memory, in_use }
    }

    /// Pages that the bridge has mapped of the guest.
    pub fn mapped(&self) -> usize {
        self.xen.holdings(self.guest.id()).pages
    }

    /// Has an input tried on the guest's pages, which are as an honest guest lays them out.
    ///
    /// # Panics
    /// If anything is left of it.
    pub fn run(&self, input: impl FnOnce(&mut Memory)) {
        let mut memory = self.memory.lock().unwrap();
        memory.reset();
        input(&mut memory);
        memory.revoke();
        assert_let_go(&self.xen, &self.guest, &self.desk);
        assert_eq!(self.guest.in_use(), self.in_use, "the target itself leaks ports or grants");
    }
}

/// What the cards of a bridge in Dom0 of `xen` share; `desk` is the sound server.
pub fn context(xen: &Hypervisor, desk: &Desk) -> DeviceContext {
    let (server, pacer) = (Arc::new(desk.clone()), Pacer::start().unwrap());
    DeviceContext { xen: xen.dom0(), server, pacer, records: Arc::default(), control: Control::default() }
}

/// Ends an input.
///
/// # Panics
/// If anything of the guest is still mapped, bound or on the desk.
pub fn assert_let_go(xen: &Hypervisor, guest: &Guest, desk: &Desk) {
    assert_eq!(xen.holdings(guest.id()), Holdings::default(), "still held of the guest");
    assert_eq!(desk.nodes.load(Ordering::Acquire), 0, "nodes are left on the desktop");
    // Readers that the server kept until now see closed rings only.
    desk.cycle(64);
    desk.rings.lock().unwrap().clear();
}

/// A guest as the host knows it.
pub fn domain(guest: &Guest) -> Domain {
    Domain { id: guest.id(), name: Some(guest.name().into()), uuid: None }
}

/// A policy that allows whatever a guest can ask for.
pub fn policy() -> DomainPolicy {
    DomainPolicy { capture: Capture::Allow, ..DomainPolicy::default() }
}

/// The account of a guest that has just come, as wide as the policy makes it by default.
pub fn account(guest: &Guest) -> Arc<Account> {
    Account::new(guest.name(), GuestLimits::DEFAULT, &Total::new(TotalLimits::default()))
}

/// A sound server whose cycles come when they are called for, on every ring that it was ever given.
#[derive(Clone, Default)]
pub struct Desk {
    nodes: Arc<AtomicUsize>,
    rings: Arc<Mutex<Vec<Arc<PcmRing>>>>,
}

impl Desk {
    /// A cycle of so many frames.
    pub fn cycle(&self, frames: u16) {
        let frames = Frames(frames.into());
        for ring in &*self.rings.lock().unwrap() {
            let at = monotonic_now();
            let mut buffer = vec![0x5a; ring.format().octets(frames).0 as usize];
            let first = match ring.direction() {
                Direction::Playback => ring.play(at, &mut buffer),
                Direction::Capture => ring.capture(at, &buffer),
            };
            if let Some(heard) = first {
                ring.publish(Timing { at, heard, given: ring.cursor().position, cycle: frames });
            }
        }
    }
}

impl SoundServer for Desk {
    fn open(&self, spec: NodeSpec, ring: Arc<PcmRing>) -> Option<Box<dyn Node>> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        assert!(spec.name.chars().all(plain) && spec.restore_key.chars().all(plain), "{spec:?}");
        assert!(spec.description.starts_with("hostile: "), "{spec:?}");
        self.rings.lock().unwrap().push(ring);
        self.nodes.fetch_add(1, Ordering::AcqRel);
        Some(Box::new(Shown(Arc::clone(&self.nodes))))
    }

    fn carries(&self, _: SampleFormat) -> bool {
        true
    }

    fn bounds(&self) -> Bounds {
        Bounds::NONE
    }
}

struct Shown(Arc<AtomicUsize>);

impl Node for Shown {
    fn start(&self) {}

    fn stop(&self) {}

    fn set_target(&self, _: Option<String>) {}
}

impl Drop for Shown {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
