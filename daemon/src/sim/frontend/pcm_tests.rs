use std::cell::RefCell;
use std::os::fd::AsFd;

use proptest::prelude::*;
use vsnd_pw_module::{Access, Pages};

use super::super::position::Kernel;
use super::*;
use crate::sndif::{Errno, Event, EventPage};

/// A backend in memory: answers at once, and moves only when told to.
struct Backend {
    page: EventPage,
    total: u16,
    per_open: u16,
    position: u64,
    running: bool,
    /// Rounds the position up to a whole ring at STOP and tells it.
    aligns: bool,
    buffer: u64,
    log: Vec<Operation>,
    refuse: Option<Errno>,
}

const FRAME: u64 = 4;

impl Backend {
    fn tell(&mut self) {
        let position = Octets(self.position * FRAME);
        for id in [self.total, self.total.wrapping_add(1)] {
            let id = if id == self.total { self.total } else { self.per_open.wrapping_add(1) };
            self.page.push(&Event { id, position });
        }
        self.total = self.total.wrapping_add(2);
        self.per_open = self.per_open.wrapping_add(2);
    }
}

struct TestDriver(RefCell<Backend>);

impl Driver for TestDriver {
    fn request(&self, operation: &Operation) -> Result<Response, PcmError> {
        let backend = &mut *self.0.borrow_mut();
        let request = crate::sndif::Request { id: 0, operation: *operation };
        if let Some(errno) = backend.refuse {
            return Ok(request.response(Err(errno)));
        }
        let mut response = request.response(Ok(()));
        match operation {
            Operation::HwParamQuery(ranges) => {
                response.hw_params = Some(*ranges);
                return Ok(response);
            }
            Operation::Open(open) => {
                (backend.position, backend.per_open) = (0, 0);
                backend.buffer = open.buffer.0 / FRAME;
            }
            Operation::Trigger(Trigger::Start) => backend.running = true,
            Operation::Trigger(Trigger::Stop) => {
                backend.running = false;
                if backend.aligns {
                    backend.position = backend.position.next_multiple_of(backend.buffer);
                    backend.tell();
                }
            }
            _ => (),
        }
        backend.log.push(*operation);
        Ok(response)
    }

    fn reset_ids(&self) {}

    fn allocate(&self, _octets: Octets) -> Result<GrantRef, PcmError> {
        Ok(GrantRef(9))
    }

    fn release(&self) {}
}

fn pcm(direction: Direction, kernel: Kernel) -> Pcm<TestDriver> {
    let file = tempfile::tempfile().unwrap();
    file.set_len(4096).unwrap();
    let page = || Pages::scattered(file.as_fd(), &[0], Access::ReadWrite).unwrap();
    let inbox = Inbox::new(kernel, Word::Bits64, page()).unwrap();
    let page = EventPage::attach(page()).unwrap();
    let backend = Backend {
        page,
        total: 0,
        per_open: 0,
        position: 0,
        running: false,
        aligns: true,
        buffer: 1,
        log: Vec::new(),
        refuse: None,
    };
    let driver = TestDriver(RefCell::new(backend));
    Pcm::new(direction, Word::Bits64, Capabilities::default(), Arc::new(Mutex::new(inbox)), driver)
}

fn ready(direction: Direction, kernel: Kernel, period: u64, buffer: u64) -> Pcm<TestDriver> {
    let mut pcm = pcm(direction, kernel);
    pcm.open();
    pcm.hw_params(HwParams::cd(period, buffer)).unwrap();
    pcm.prepare().unwrap();
    pcm
}

/// The hardware moves on by `frames` and tells it.
fn run(pcm: &mut Pcm<TestDriver>, frames: u64, now: &mut Nanos) {
    *now += Frames(frames).duration(48_000);
    let mut backend = pcm.driver.0.borrow_mut();
    if backend.running {
        backend.position += frames;
        backend.tell();
    }
    drop(backend);
    pcm.interrupt(*now);
}

fn write(pcm: &mut Pcm<TestDriver>, frames: u64, now: Nanos) -> Result<u64, PcmError> {
    pcm.transfer(Frames(frames), now, &mut |_| ()).map(|frames| frames.0)
}

fn log(pcm: &Pcm<TestDriver>) -> Vec<Operation> {
    std::mem::take(&mut pcm.driver.0.borrow_mut().log)
}

fn span(offset: u64, length: u64) -> Span {
    Span { offset: Octets(offset * FRAME), length: Octets(length * FRAME) }
}

#[test]
fn a_sound_is_written_started_drained_and_closed_in_linuxs_order() {
    for kernel in Kernel::ALL {
        let mut now = Nanos(0);
        let mut pcm = ready(Direction::Playback, kernel, 1024, 4096);
        pcm.sw_params(SwParams { start_threshold: Frames(4096), ..pcm.present_sw_params() });
        assert!(matches!(log(&pcm)[..], [Operation::Open(open)] if open.period == Octets(4096)));
        assert_eq!(write(&mut pcm, 5000, now), Ok(4096), "the ring is full");
        assert_eq!(log(&pcm), [Operation::Write(span(0, 4096)), Operation::Trigger(Trigger::Start)]);
        run(&mut pcm, 1025, &mut now);
        assert_eq!(write(&mut pcm, 904, now), Ok(904));
        assert_eq!(log(&pcm), [Operation::Write(span(0, 904))]);
        assert!(pcm.begin_drain(now).unwrap());
        for _ in 0..3 {
            run(&mut pcm, 1024, &mut now);
            assert_eq!(pcm.core().state(), State::Draining);
        }
        run(&mut pcm, 1024, &mut now);
        assert_eq!(pcm.core().state(), State::Setup, "one frame past the end of all that was written");
        pcm.hw_free().unwrap();
        assert_eq!(log(&pcm), [Operation::Trigger(Trigger::Stop), Operation::Close]);
        pcm.close();
        assert!(log(&pcm).is_empty());
        assert_eq!((pcm.counts().periods, pcm.counts().xruns), (5, 0));
    }
}

#[test]
fn a_drain_told_only_boundaries_never_ends() {
    let mut now = Nanos(0);
    let mut pcm = ready(Direction::Playback, Kernel::Until2026, 1024, 4096);
    assert_eq!(write(&mut pcm, 1024, now), Ok(1024));
    assert!(pcm.begin_drain(now).unwrap());
    run(&mut pcm, 1024, &mut now);
    assert_eq!(pcm.core().state(), State::Draining);
    run(&mut pcm, 1, &mut now);
    assert_eq!(pcm.core().state(), State::Setup);
}

/// Plays `first` frames until the ring runs dry, then again 1024: how many the core believes played 256 frames later.
fn after_an_xrun(aligns: bool, buffer: u64) -> (State, u64) {
    let mut now = Nanos(0);
    let mut pcm = ready(Direction::Playback, Kernel::Since2026, buffer / 4, buffer);
    pcm.driver.0.borrow_mut().aligns = aligns;
    write(&mut pcm, 900, now).unwrap();
    while pcm.core().state() == State::Running {
        run(&mut pcm, 500, &mut now);
    }
    assert_eq!(pcm.core().state(), State::Xrun);
    assert_eq!(write(&mut pcm, 1, now), Err(PcmError::Xrun));
    log(&pcm);
    pcm.prepare().unwrap();
    assert!(log(&pcm).is_empty(), "no OPEN after an xrun");
    pcm.interrupt(now);
    write(&mut pcm, 1024, now).unwrap();
    run(&mut pcm, 256, &mut now);
    let _ = pcm.avail(now);
    (pcm.core().state(), pcm.core().hw().0)
}

#[test]
fn after_an_xrun_only_whole_rings_bring_the_pointer_back_to_the_start() {
    for buffer in [4096, 4800, 6000] {
        assert_eq!(after_an_xrun(true, buffer), (State::Running, 256), "ring of {buffer}");
        let (_, believed) = after_an_xrun(false, buffer);
        assert_ne!(believed, 256);
    }
}

#[test]
fn capture_starts_with_the_first_read_and_overruns_when_nobody_reads() {
    let mut now = Nanos(0);
    let mut pcm = ready(Direction::Capture, Kernel::Until2026, 1024, 4096);
    log(&pcm);
    assert_eq!(write(&mut pcm, 512, now), Ok(0), "nothing there yet");
    assert_eq!(log(&pcm), [Operation::Trigger(Trigger::Start)]);
    run(&mut pcm, 1025, &mut now);
    assert_eq!(write(&mut pcm, 512, now), Ok(512));
    assert_eq!(log(&pcm), [Operation::Read(span(0, 512))]);
    for _ in 0..4 {
        run(&mut pcm, 1024, &mut now);
    }
    assert_eq!(pcm.core().state(), State::Xrun);
    assert_eq!(pcm.counts().xruns, 1);
}

#[test]
fn a_rewind_rewrites_and_transfers_split_at_the_rings_end() {
    let now = Nanos(0);
    let mut pcm = ready(Direction::Playback, Kernel::Until2026, 1024, 4096);
    pcm.sw_params(SwParams { start_threshold: Frames(8192), ..pcm.present_sw_params() });
    write(&mut pcm, 4000, now).unwrap();
    pcm.start(now).unwrap();
    log(&pcm);
    let mut now = now;
    run(&mut pcm, 1025, &mut now);
    assert_eq!(pcm.rewind(Frames(10_000), now), Ok(Frames(2975)), "only what isn't played");
    assert_eq!(pcm.forward(Frames(975), now), Ok(Frames(975)));
    write(&mut pcm, 2500, now).unwrap();
    assert_eq!(log(&pcm), [Operation::Write(span(2000, 2096)), Operation::Write(span(0, 404))]);
}

#[test]
fn every_open_hears_positions_in_both_kernels() {
    for kernel in Kernel::ALL {
        let mut pcm = pcm(Direction::Playback, kernel);
        for _ in 0..5 {
            let mut now = Nanos(0);
            pcm.open();
            pcm.hw_params(HwParams::cd(1024, 4096)).unwrap();
            pcm.prepare().unwrap();
            write(&mut pcm, 4096, now).unwrap();
            for _ in 0..10 {
                run(&mut pcm, 1024, &mut now);
                run(&mut pcm, 1, &mut now);
                write(&mut pcm, 1025, now).unwrap();
            }
            assert_eq!(pcm.counts().xruns, 0);
            assert_eq!(pcm.core().hw(), Frames(10_250));
            pcm.close();
        }
    }
}

#[test]
fn a_refusal_reaches_the_application_and_frees_everything() {
    let mut pcm = pcm(Direction::Playback, Kernel::Since2026);
    pcm.open();
    pcm.hw_params(HwParams::cd(1024, 4096)).unwrap();
    pcm.driver.0.borrow_mut().refuse = Some(Errno::Invalid);
    assert_eq!(pcm.prepare(), Err(PcmError::Refused(Errno::Invalid)));
    assert_eq!(pcm.hw_params(HwParams::cd(1024, 4096)), Err(PcmError::Refused(Errno::Invalid)));
    pcm.driver.0.borrow_mut().refuse = None;
    pcm.prepare().unwrap();
    pcm.driver.0.borrow_mut().refuse = Some(Errno::Io);
    assert_eq!(write(&mut pcm, 10, Nanos(0)), Err(PcmError::Refused(Errno::Io)));
    pcm.close();
    assert_eq!(pcm.core().state(), State::Open);
}

#[test]
fn a_suspended_stream_is_paused_and_begins_again_by_prepare() {
    let mut now = Nanos(0);
    let mut pcm = ready(Direction::Playback, Kernel::Until2026, 1024, 4096);
    write(&mut pcm, 4096, now).unwrap();
    run(&mut pcm, 1025, &mut now);
    log(&pcm);
    pcm.suspend();
    assert_eq!(log(&pcm), [Operation::Trigger(Trigger::Pause)]);
    assert_eq!(write(&mut pcm, 1, now), Err(PcmError::Suspended));
    pcm.prepare().unwrap();
    assert_eq!(pcm.core().state(), State::Prepared);
}

proptest! {
    /// An application that always writes in time and a backend that tells every step: the core's pointers are the truth.
    #[test]
    fn the_core_follows_a_truthful_backend(
        period in 16u64..600,
        periods in 2u64..8,
        extra in 0u64..16,
        steps in proptest::collection::vec((1u64..600, 0u64..900, 0u64..300), 1..150),
        since_2026: bool,
    ) {
        let kernel = if since_2026 { Kernel::Since2026 } else { Kernel::Until2026 };
        let buffer = period * periods + extra;
        let mut pcm = ready(Direction::Playback, kernel, period, buffer);
        let (mut now, mut played, mut written) = (Nanos(0), 0u64, 0u64);
        written += write(&mut pcm, buffer, now).unwrap();
        for (step, wish, rewind) in steps {
            let step = step.min((written - played).saturating_sub(1));
            if step > 0 {
                run(&mut pcm, step, &mut now);
                played += step;
            }
            prop_assert_eq!(pcm.avail(now), Ok(Frames(buffer - (written - played))));
            prop_assert_eq!(pcm.core().hw(), Frames(played));
            written -= pcm.rewind(Frames(rewind), now).unwrap().0;
            written += write(&mut pcm, wish.max(1), now).unwrap();
            prop_assert_eq!(pcm.core().appl(), Frames(written));
            prop_assert_eq!(pcm.core().state(), State::Running);
            if written == played {
                break;
            }
        }
        prop_assert_eq!(pcm.counts().unexpected, 0);
    }
}
