//! What a guest leaves behind that comes, goes, opens and closes ten thousand times: nothing.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test from head to foot

mod live;
#[path = "../sim/machine.rs"]
#[allow(dead_code)] // the tests of the simulator use the rest
mod machine;

use std::slice;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use vsnd_bridge::sim::frontend::{HwParams, Kernel};
use vsnd_bridge::xen::Nodes;
use vsnd_pw_module::pipewire::PipeWireServer;
use vsnd_pw_module::pipewire::private::{Options, PrivateServer};
use vsnd_pw_module::{Direction, NullServer};

use live::{Counted, in_use, live};
use machine::{DOM0, Machine, Running, SOON};

/// Every guest may record, and come and go as often as it can.
const POLICY: &str = "[default]
capture = \"allow\"
limits.opens-per-minute = 1000000
limits.state-changes-per-minute = 1000000
";

/// Held by each test: they count what the whole process holds.
static ALONE: Mutex<()> = Mutex::new(());

#[global_allocator]
static ALLOCATOR: Counted = Counted;

/// What may be left of all cycles, in octets allocated: less than a name for each.
const LEFT: usize = 16 << 10;

/// What may be left of all cycles in octets in use for each thread, C libraries included: what the allocator keeps at hand for
/// a thread counts as used. A stream of PipeWire's is some 9 MiB.
const KEPT: usize = 32 << 10;

/// What may be left of all cycles in KiB resident: a page stays where one piece in it is in use.
const PAGES: u64 = 16 << 10;

/// What the process holds, and XenStore for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Held {
    descriptors: usize,
    threads: usize,
    watches: usize,
    nodes: usize,
    /// Of all guests: what each lets go of comes back with each.
    pages: usize,
    ports: usize,
}

fn count(directory: &str) -> usize {
    std::fs::read_dir(directory).unwrap().count()
}

impl Held {
    fn now(machine: &Machine, guests: &[Running]) -> Self {
        let holdings = || guests.iter().map(|guest| machine.xen.holdings(guest.domain.id()));
        Self {
            descriptors: count("/proc/self/fd"),
            threads: count("/proc/self/task"),
            watches: machine.xen.watches(DOM0),
            nodes: machine.xen.owned_nodes(DOM0),
            pages: holdings().map(|held| held.pages).sum(),
            ports: holdings().map(|held| held.ports).sum(),
        }
    }

    /// What is held once threads that end have ended, and a domain's connection that nobody uses.
    fn settled(machine: &Machine, guests: &[Running]) -> Self {
        const REST: Duration = Duration::from_millis(3_500);
        let mut seen = (Self::now(machine, guests), Instant::now());
        while seen.1.elapsed() < REST {
            std::thread::sleep(Duration::from_millis(20));
            let now = Self::now(machine, guests);
            if now != seen.0 {
                seen = (now, Instant::now());
            }
        }
        seen.0
    }

    fn is_within(self, other: Self) -> bool {
        self.descriptors <= other.descriptors
            && self.threads <= other.threads
            && self.watches <= other.watches
            && self.nodes <= other.nodes
            && (self.pages, self.ports) == (other.pages, other.ports)
    }

    /// Waits until no more is held than was: a thread may end a moment after it is done.
    fn wait_again(self, machine: &Machine, guests: &[Running]) {
        let deadline = Instant::now() + SOON;
        while !Self::now(machine, guests).is_within(self) {
            let now = Self::now(machine, guests);
            assert!(Instant::now() < deadline, "was {self:?}, is {now:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Where both ends of a card stand.
fn states(machine: &Machine, guest: &Running) -> String {
    let Running { attached, .. } = guest;
    [attached.backend(), attached.frontend()]
        .map(|end| machine.xen.store().read(&format!("{end}/state")))
        .map(|state| format!("{state:?}"))
        .join(" ")
}

/// Ranges of memory that are mapped.
fn mapped() -> usize {
    std::fs::read_to_string("/proc/self/maps").unwrap().lines().count()
}

/// KiB of the process that are in memory.
fn resident() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    let resident: u64 = pages.split(' ').nth(1).unwrap().parse().unwrap();
    resident * 4
}

/// Opens a stream and closes it after so long.
fn open_and_close(guest: &Running, direction: Direction, after: Duration) {
    let pcm = guest.card.open(0, direction).unwrap();
    pcm.hw_params(HwParams::cd(480, 4800)).unwrap();
    pcm.prepare().unwrap();
    std::thread::sleep(after);
    pcm.close();
}

/// So many cycles with these guests, after a tenth of them that may make what stays.
fn churn(machine: &Machine, guests: &[Running], cycles: u32, cycle: impl Fn(u32)) {
    (0..cycles / 10).for_each(&cycle);
    let before = Held::settled(machine, guests);
    let (maps, held, used, allocated) = (mapped(), resident(), in_use(), live());
    (0..cycles).for_each(&cycle);
    before.wait_again(machine, guests);
    // What a server was told to take away it may still hold for a moment.
    let deadline = Instant::now() + SOON;
    while live() > allocated + LEFT && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    let (maps_now, held_now, used_now, allocated_now) = (mapped(), resident(), in_use(), live());
    println!(
        "{cycles} cycles: {allocated} octets were allocated and {allocated_now} are, {used} were in use and {used_now} are, \
         {held} KiB were resident and {held_now} are"
    );
    assert!(allocated_now <= allocated + LEFT, "{allocated} octets were allocated, {allocated_now} are");
    assert!(used_now <= used + before.threads * KEPT, "{used} octets were in use, {used_now} are");
    assert!(held_now <= held + PAGES, "{held} KiB were resident, {held_now} are");
    assert!(maps_now <= maps + 16, "{maps} ranges were mapped, {maps_now} are");
    for guest in guests {
        assert_eq!(machine.xen.deferred_grants(guest.domain.id()), 0, "memory was given up while mapped");
        assert_eq!(guest.card.harm(), []);
    }
}

#[test]
fn ten_thousand_opens_and_closes_leave_nothing() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let machine = Machine::with_config(Arc::new(NullServer), POLICY);
    let guest = machine.guest("work", Kernel::Since2026);
    churn(&machine, slice::from_ref(&guest), 10_000, |number| {
        let direction = if number % 2 == 0 { Direction::Playback } else { Direction::Capture };
        open_and_close(&guest, direction, Duration::ZERO);
    });
}

#[test]
fn five_hundred_opens_and_closes_leave_nothing_on_pipewire() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let pipewire = PrivateServer::start(Options::default()).unwrap();
    let server = PipeWireServer::start(|_| (), Some(pipewire.remote())).unwrap();
    let machine = Machine::with_config(Arc::new(server), POLICY);
    let guest = machine.guest("work", Kernel::Since2026);
    // At any moment of the node's making: the server names it, the session manager links it.
    churn(&machine, slice::from_ref(&guest), 500, |number| {
        open_and_close(&guest, Direction::Playback, Duration::from_millis((number % 25).into()));
    });
}

#[test]
fn a_thousand_connects_and_disconnects_leave_nothing() {
    // InitWait is held for 200 ms each time, so many guests come and go at once.
    const GUESTS: u32 = 40;
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let machine = Machine::with_config(Arc::new(NullServer), POLICY);
    let guests: Vec<_> =
        (0..GUESTS).map(|number| machine.guest(&format!("guest-{number}"), Kernel::Since2026)).collect();
    churn(&machine, &guests, 1_000 / GUESTS, |_| {
        std::thread::scope(|scope| {
            for guest in &guests {
                scope.spawn(|| {
                    let card = || {
                        let card = guest.linux.card(guest.attached.device, SOON);
                        card.unwrap_or_else(|| panic!("no card: {}", states(&machine, guest)))
                    };
                    let before = card();
                    guest.linux.reload_driver();
                    assert!(before.wait_gone(SOON), "the card didn't go: {}", states(&machine, guest));
                    card();
                });
            }
        });
    });
    for guest in &guests {
        machine.xen.destroy(&guest.domain).unwrap();
        machine.wait_let_go(guest.domain.id());
    }
}
