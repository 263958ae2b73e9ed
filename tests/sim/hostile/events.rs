//! Event channels: a guest that notifies without end, and one whose ring never empties.

use std::sync::{Arc, Mutex};

use vsnd_bridge::sndif::Operation;
use vsnd_bridge::xen::{DomId, EventError, Events, LocalPort, RemotePort, Xen};
use vsnd_fuzz::raw::{REQ_PROD, RSP_PROD};
use vsnd_pw_module::{NullServer, Pages};

use super::{Hostile, PATIENCE};
use crate::machine::Machine;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Notify(LocalPort),
    Unmask(LocalPort),
}

/// What a card's thread does with its event channels, and a ring that fills up again with each of its answers.
#[derive(Clone, Default)]
pub struct Observed {
    calls: Arc<Mutex<Vec<Call>>>,
    never_empty: Arc<Mutex<Option<Pages>>>,
}

struct ObservedEvents(Observed, Arc<dyn Events>);

impl Observed {
    /// A machine whose bridge is observed.
    pub fn machine(&self, config: &str) -> Machine {
        let observed = self.clone();
        Machine::with_view(Arc::new(NullServer), config, move |xen| {
            let open = Arc::clone(&xen.open_events);
            let open_events = move || {
                let events: Arc<dyn Events> = Arc::new(ObservedEvents(observed.clone(), open()?));
                Ok(events)
            };
            Xen { open_events: Arc::new(open_events), ..xen }
        })
    }

    /// Times that a port was unmasked: looks at a notification.
    pub fn unmasked(&self) -> usize {
        self.calls.lock().unwrap().iter().filter(|call| matches!(call, Call::Unmask(_))).count()
    }

    fn call(&self, call: Call) {
        self.calls.lock().unwrap().push(call);
    }
}

impl Events for ObservedEvents {
    fn bind(&self, domain: DomId, remote: RemotePort) -> Result<LocalPort, EventError> {
        self.1.bind(domain, remote)
    }

    fn unbind(&self, port: LocalPort) {
        self.1.unbind(port);
    }

    fn notify(&self, port: LocalPort) {
        self.0.call(Call::Notify(port));
        if let Some(ring) = &*self.0.never_empty.lock().unwrap() {
            let answered = ring.load(RSP_PROD).unwrap();
            ring.store(REQ_PROD, answered.wrapping_add(32)).unwrap();
        }
        self.1.notify(port);
    }

    fn unmask(&self, port: LocalPort) {
        self.0.call(Call::Unmask(port));
        self.1.unmask(port);
    }

    fn wait(&self, ports: &mut Vec<LocalPort>) -> Result<(), EventError> {
        self.1.wait(ports)
    }

    fn wake(&self) {
        self.1.wake();
    }
}

#[test]
fn rule_10_a_port_is_unmasked_after_its_work() {
    let observed = Observed::default();
    let machine = observed.machine("");
    let mut guest = Hostile::connected(&machine, "hostile");
    assert_eq!(guest.ask(Operation::Close), Ok(()));
    machine.xen.destroy(&guest.domain).unwrap();
    machine.wait_let_go(guest.domain.id());
    let calls = observed.calls.lock().unwrap();
    let port = calls.iter().find_map(|call| if let Call::Notify(port) = call { Some(*port) } else { None });
    let port = port.expect("the guest was answered");
    let since_answer = calls.iter().rev().take_while(|call| **call != Call::Notify(port));
    assert!(since_answer.into_iter().any(|call| *call == Call::Unmask(port)), "{calls:?}");
}

#[test]
fn rule_10_a_stream_whose_ring_is_never_empty_holds_up_no_other() {
    let observed = Observed::default();
    let machine = observed.machine("");
    let mut guest = Hostile::connected(&machine, "hostile");
    let mut honest = Hostile::connected(&machine, "honest");
    *observed.never_empty.lock().unwrap() = Some(guest.playback.raw.ring.view().unwrap());
    guest.playback.raw.push(&[0; 64]);
    guest.playback.raw.requests.notify();
    for _ in 0..20 {
        assert_eq!(guest.capture.ask(Operation::Close, PATIENCE), Some(Ok(())), "the guest's other stream");
        assert_eq!(honest.ask(Operation::Close), Ok(()), "another guest");
    }
    *observed.never_empty.lock().unwrap() = None;
}

#[test]
fn rule_10_notifications_without_end_hold_up_nobody() {
    let machine = Machine::start(Arc::new(NullServer));
    let mut guest = Hostile::connected(&machine, "hostile");
    let mut honest = Hostile::connected(&machine, "honest");
    for _ in 0..100 {
        for _ in 0..1_000 {
            guest.capture.raw.requests.notify();
            guest.capture.raw.positions.notify();
        }
        assert_eq!(guest.ask(Operation::Close), Ok(()), "the guest's other stream");
        assert_eq!(honest.ask(Operation::Close), Ok(()), "another guest");
    }
}
