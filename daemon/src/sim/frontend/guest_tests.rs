//! The guest against a backend that follows a script, good or bad.

use vsnd_pw_module::{Access, Direction, Octets};

use super::super::core::{PcmError, State};
use super::super::handle::PcmHandle;
use super::super::params::HwParams;
use super::*;
use crate::sim::{Attached, Card, Hypervisor};
use crate::sndif::{BackRing, Event, EventPage, Operation, Request, Response, Trigger};
use crate::xen::{Events, GrantRef, LocalPort, RemotePort, Xen};

const SOON: Duration = Duration::from_secs(5);
const DOM0: DomId = DomId(0);

/// The backend's end of one stream.
struct End {
    events: Arc<dyn Events>,
    ring: BackRing,
    page: EventPage,
    requests: LocalPort,
    positions: LocalPort,
}

/// What a script does with a request.
enum Answer {
    With(Response),
    Without,
}

impl End {
    fn connect(xen: &Xen, guest: DomId, stream: &str) -> Self {
        let number = |key: &str| {
            let value = xen.store.read(&format!("{stream}/{key}")).unwrap();
            String::from_utf8(value).unwrap().parse::<u32>().unwrap()
        };
        let page = |key| xen.grants.map(guest, &[GrantRef(number(key))], Access::ReadWrite).unwrap();
        let events = (xen.open_events)().unwrap();
        let bind = |key| events.bind(guest, RemotePort(number(key))).unwrap();
        let (requests, positions) = (bind("event-channel"), bind("evt-event-channel"));
        let ring = BackRing::attach(page("ring-ref")).unwrap();
        let page = EventPage::attach(page("evt-ring-ref")).unwrap();
        Self { events, ring, page, requests, positions }
    }

    fn respond(&mut self, response: Response) {
        self.ring.respond(&response.encode()).unwrap();
        self.events.notify(self.requests);
    }

    /// Serves `count` requests.
    fn serve(&mut self, count: usize, mut script: impl FnMut(&mut Self, Request) -> Answer) {
        for _ in 0..count {
            let request = loop {
                if let Some(packet) = self.ring.take().unwrap() {
                    break Request::parse(&packet).unwrap();
                }
                if self.ring.final_check().unwrap() {
                    continue;
                }
                let mut ports = Vec::new();
                self.events.wait(&mut ports).unwrap();
                ports.into_iter().for_each(|port| self.events.unmask(port));
            };
            if let Answer::With(response) = script(self, request) {
                self.respond(response);
            }
        }
    }
}

/// What any backend answers.
fn yes(request: Request) -> Response {
    let mut response = request.response(Ok(()));
    if let Operation::HwParamQuery(ranges) = request.operation {
        response.hw_params = Some(ranges);
    }
    response
}

fn put_state(xen: &Hypervisor, card: &Attached, state: &str) {
    xen.store().write(&format!("{}/state", card.backend()), state.as_bytes()).unwrap();
}

struct Bench {
    xen: Hypervisor,
    linux: SimGuest,
    attached: Attached,
}

impl Bench {
    fn new(kernel: Kernel) -> Self {
        let xen = Hypervisor::new();
        let guest = xen.create_domain("work", "u").unwrap();
        let attached = xen.announce_card(&guest, DOM0, &Card::simple()).unwrap();
        // Before the guest boots: a backend that comes to InitWait while the guest sets its watch up is seen there twice,
        // and the card's rings are published twice.
        put_state(&xen, &attached, "2");
        let linux = SimGuest::boot(&guest, kernel).unwrap();
        Self { xen, linux, attached }
    }

    fn set_state(&self, state: &str) {
        put_state(&self.xen, &self.attached, state);
    }

    fn connect(&self) -> (End, SimCard) {
        assert!(self.xen.wait_frontend(&self.attached, "3", SOON));
        let stream = format!("{}/0/0", self.attached.frontend());
        let end = End::connect(&self.xen.dom0(), self.linux.domain().id(), &stream);
        self.set_state("4");
        (end, self.linux.card(0, SOON).unwrap())
    }
}

fn ready(card: &SimCard, end: &mut End) -> PcmHandle {
    let pcm = card.open(0, Direction::Playback).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut open = false;
            while !open {
                end.serve(1, |_, request| {
                    open = matches!(request.operation, Operation::Open(_));
                    Answer::With(yes(request))
                });
            }
        });
        pcm.hw_params(HwParams::cd(6000, 24_000)).unwrap();
    });
    pcm
}

#[test]
fn a_sound_is_played_against_a_script_in_both_kernels() {
    for kernel in Kernel::ALL {
        let bench = Bench::new(kernel);
        let (mut end, card) = bench.connect();
        let pcm = ready(&card, &mut end);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut operations = Vec::new();
                // WRITE, START; then positions; STOP at the end of the drain.
                end.serve(3, |end, request| {
                    operations.push(request.operation.code());
                    if request.operation == Operation::Trigger(Trigger::Start) {
                        end.respond(yes(request));
                        for id in 0..5u16 {
                            std::thread::sleep(Duration::from_millis(50));
                            let position = Octets((u64::from(id) + 1) * 4 * 6001);
                            end.page.push(&Event { id, position });
                            end.events.notify(end.positions);
                        }
                        return Answer::Without;
                    }
                    Answer::With(yes(request))
                });
                assert_eq!(operations, [3, 8, 8]);
            });
            assert_eq!(pcm.write(&[1; 24_000 * 4]).unwrap().0, 24_000);
            pcm.drain().unwrap();
        });
        let counters = pcm.counters();
        assert_eq!((counters.core.xruns, counters.core.periods), (0, 4));
        assert_eq!(counters.events.ignored, 0);
        std::thread::scope(|scope| {
            scope.spawn(|| end.serve(1, |_, request| Answer::With(yes(request))));
            drop(pcm);
        });
        assert_eq!(card.harm(), []);
    }
}

#[test]
fn an_answer_of_another_id_or_too_late_is_none() {
    let bench = Bench::new(Kernel::Since2026);
    let (mut end, card) = bench.connect();
    let pcm = ready(&card, &mut end);
    let mut late = None;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            end.serve(1, |_, request| {
                late = Some(request);
                Answer::Without
            });
        });
        assert_eq!(pcm.write(&[0; 400]), Err(PcmError::NoAnswer), "after three seconds");
    });
    end.respond(yes(late.unwrap()));
    std::thread::scope(|scope| {
        scope.spawn(|| end.serve(1, |_, request| Answer::With(yes(request))));
        assert_eq!(pcm.write(&[0; 400]).unwrap().0, 100);
    });
    let requests = pcm.counters().requests;
    assert_eq!((requests.unanswered, requests.ignored), (1, 1));
    assert!(requests.longest.0 >= 3_000_000_000);
    std::thread::scope(|scope| {
        scope.spawn(|| end.serve(1, |_, request| Answer::With(yes(request))));
        drop(pcm);
    });
}

#[test]
fn a_backend_that_doesn_t_notify_is_not_heard() {
    let bench = Bench::new(Kernel::Until2026);
    let (mut end, card) = bench.connect();
    let pcm = ready(&card, &mut end);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            end.serve(1, |end, request| {
                end.ring.respond(&yes(request).encode()).unwrap();
                Answer::Without
            });
        });
        assert_eq!(pcm.write(&[0; 400]), Err(PcmError::NoAnswer));
    });
    bench.xen.crash(bench.linux.domain());
    let began = Instant::now();
    drop(pcm);
    assert!(began.elapsed() < SOON / 5, "a dead guest waits for nobody");
}

#[test]
fn the_frontend_follows_the_backends_states() {
    let bench = Bench::new(Kernel::Since2026);
    let frontend = |state| bench.xen.wait_frontend(&bench.attached, state, SOON);
    let (end, card) = bench.connect();
    assert!(frontend("4"));
    assert_eq!(card.streams().len(), 2);
    assert_eq!(bench.linux.domain().in_use(), (4, 4), "two ports and two pages for each stream");
    bench.set_state("6");
    assert!(frontend("1") && card.wait_gone(SOON));
    drop(end);
    assert_eq!(bench.linux.domain().in_use(), (0, 0));
    bench.set_state("2");
    assert!(frontend("3"));
    bench.set_state("1");
    assert!(frontend("1"));
    bench.set_state("4");
    assert!(
        bench.linux.card(0, Duration::from_millis(50)).is_none(),
        "Connected counts only after Initialised"
    );
}

#[test]
fn an_unknown_stream_type_costs_the_whole_card() {
    let bench = Bench::new(Kernel::Since2026);
    assert!(bench.xen.wait_frontend(&bench.attached, "3", SOON));
    let path = format!("{}/0/1/type", bench.attached.frontend());
    bench.xen.store().write(&path, b"x").unwrap();
    bench.set_state("1");
    assert!(bench.xen.wait_frontend(&bench.attached, "1", SOON));
    bench.set_state("2");
    assert!(bench.xen.wait_frontend(&bench.attached, "5", SOON));
    assert_eq!(bench.linux.domain().in_use(), (0, 0));
}

#[test]
fn a_card_that_goes_waits_for_its_applications() {
    let bench = Bench::new(Kernel::Since2026);
    let (mut end, card) = bench.connect();
    let pcm = ready(&card, &mut end);
    assert!(matches!(card.open(0, Direction::Playback), Err(PcmError::Busy)));
    assert!(matches!(card.open(1, Direction::Playback), Err(PcmError::Gone)));
    bench.set_state("6");
    let deadline = Instant::now() + SOON;
    while pcm.state() != State::Disconnected {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(pcm.write(&[0; 4]), Err(PcmError::Gone));
    assert!(!bench.xen.wait_frontend(&bench.attached, "1", Duration::from_millis(50)), "still open");
    std::thread::scope(|scope| {
        scope.spawn(|| end.serve(1, |_, request| Answer::With(yes(request))));
        drop(pcm);
    });
    assert!(bench.xen.wait_frontend(&bench.attached, "1", SOON));
}
