//! Volumes and the microphone's permission through the whole daemon.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use vsnd_bridge::control::Control;
use vsnd_bridge::sim::Card;
use vsnd_bridge::sim::frontend::{HwParams, Kernel, PcmError, PcmHandle};
use vsnd_bridge::sndif::{Errno, Operation};
use vsnd_bridge::state::StateFile;
use vsnd_bridge::xen::StoreError;
use vsnd_dbus::{
    Capture, Command, CubicVolume, DomainId, DomainState, NodeName, Refusal, StreamId, StreamState,
};
use vsnd_pw_module::{Direction, Frames, NullServer, Octets, ServerEvent, UserVolume, VolumeEvent};

use super::machine::{Machine, Running, SOON, Tape, in_real_time};

/// Where the arrays lie: the middle of the buffer.
const ARRAY: Octets = Octets(8_000);
const PLAYBACK: StreamId = StreamId { card: 0, pcm: 0, stream: 0 };

fn open(guest: &Running, direction: Direction) -> PcmHandle {
    let pcm = guest.card.open(0, direction).unwrap();
    pcm.hw_params(HwParams::cd(480, 9_600)).unwrap();
    pcm
}

fn set(pcm: &PcmHandle, volumes: [i32; 2]) {
    pcm.exchange(Operation::SetVolume, ARRAY, &volumes.map(i32::to_le_bytes).concat()).unwrap();
}

fn get(pcm: &PcmHandle) -> [i32; 2] {
    let array = pcm.exchange(Operation::GetVolume, ARRAY, &[0x55; 8]).unwrap();
    [0, 4].map(|at| i32::from_le_bytes(array[at..at + 4].try_into().unwrap()))
}

/// The guest's number on the bus.
fn number(guest: &Running) -> DomainId {
    guest.domain.id().into()
}

fn domain(control: &Control, id: DomainId) -> DomainState {
    control.snapshot().domains.remove(&id).unwrap()
}

fn playback(control: &Control, id: DomainId) -> StreamState {
    domain(control, id).streams.remove(&PLAYBACK).unwrap()
}

fn volume(volume: f64) -> CubicVolume {
    CubicVolume::new(volume).unwrap()
}

/// The samples of frames of 16000 in both channels, as a node hears them now.
fn plays(pcm: &PcmHandle, tape: &Tape) -> [i16; 2] {
    let tapes = tape.recordings();
    let before = tapes.last().unwrap().heard.lock().unwrap().len();
    pcm.write(&16_000i16.to_le_bytes().repeat(2 * 4_800)).unwrap();
    let deadline = Instant::now() + SOON;
    loop {
        let heard = tapes.last().unwrap().heard.lock().unwrap();
        // Behind the slope of a change; and most frames are none that an array of volumes lay over.
        if let Some(frames) = heard.get(before + 4 * 4_000..).and_then(|rest| rest.get(..4 * 101)) {
            let frame = |octets: &[u8]| [0, 2].map(|at| i16::from_le_bytes([octets[at], octets[at + 1]]));
            let mut frames: Vec<_> = frames.chunks_exact(4).map(frame).collect();
            frames.sort_unstable();
            return frames[50];
        }
        drop(heard);
        assert!(Instant::now() < deadline, "nothing is heard");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn what_a_guest_sets_is_read_back_and_kept_over_its_opens() {
    let machine = Machine::start(Arc::new(NullServer));
    let guest = machine.guest("work", Kernel::Since2026);
    let pcm = open(&guest, Direction::Playback);
    assert_eq!(get(&pcm), [0, 0]);
    set(&pcm, [-6_021, -40_000]);
    assert_eq!(get(&pcm), [-6_021, -40_000]);
    pcm.close();
    let pcm = open(&guest, Direction::Playback);
    assert_eq!(get(&pcm), [-6_021, -40_000]);
    pcm.close();
    let pcm = guest.card.open(0, Direction::Playback).unwrap();
    pcm.hw_params(HwParams { channels: 1, ..HwParams::cd(480, 9_600) }).unwrap();
    pcm.exchange(Operation::SetVolume, ARRAY, &(-7_000i32).to_le_bytes()).unwrap();
    assert_eq!(pcm.exchange(Operation::GetVolume, ARRAY, &[0x55; 4]).unwrap(), (-7_000i32).to_le_bytes());
    pcm.close();
    let pcm = open(&guest, Direction::Playback);
    assert_eq!(get(&pcm), [-7_000, -40_000], "also over one of fewer channels");
    set(&pcm, [i32::MAX, i32::MIN]);
    assert_eq!(get(&pcm), [0, -200_000], "the ends of what a guest may have");
    pcm.exchange(Operation::Mute, ARRAY, &[1, 0]).unwrap();
    assert_eq!(get(&pcm), [0, -200_000], "mute and volume are two values");
    assert_eq!(guest.card.harm(), []);
}

#[test]
fn a_guest_reads_the_users_slider_and_its_domains_volume_in_its_own() {
    let machine = Machine::start(Arc::new(Tape::new(256)));
    let guest = machine.guest("work", Kernel::Since2026);
    let pcm = open(&guest, Direction::Playback);
    set(&pcm, [-6_000, 0]);
    let id = number(&guest);
    machine.control.obey(Command::SetVolume { domain: id, volume: volume(0.5) }).unwrap();
    assert_eq!(get(&pcm), [-24_062, -18_062]);
    let client = "vsnd.name.work".to_owned();
    let volume = UserVolume { channels: vec![0.125, 1.0], muted: false };
    let moved = VolumeEvent { node: "vsnd.work.0.0.0".to_owned(), client, volume };
    machine.control.server_event(&ServerEvent::Volume(moved));
    assert_eq!(get(&pcm), [-42_124, -18_062]);
    assert_eq!(playback(&machine.control, id).volume, [0.5, 1.0]);
    machine.control.obey(Command::SetMuted { domain: id, muted: true }).unwrap();
    assert_eq!(get(&pcm), [-42_124, -18_062], "mute and volume are two values");
}

#[test]
fn arrays_of_the_wrong_length_or_place_are_refused() {
    let machine = Machine::start(Arc::new(NullServer));
    let guest = machine.guest("work", Kernel::Since2026);
    let pcm = open(&guest, Direction::Playback);
    set(&pcm, [-1, -2]);
    let invalid = Err(PcmError::Refused(Errno::Invalid));
    for operation in [Operation::SetVolume, Operation::GetVolume, Operation::Mute, Operation::Unmute] {
        for length in [0, 1, 3, 4, 7, 9, 4_096] {
            assert_eq!(pcm.exchange(operation, ARRAY, &vec![0; length]), invalid, "{length}");
        }
        let request = |offset| {
            let span = vsnd_bridge::sndif::Span { offset: Octets(offset), length: Octets(8) };
            vsnd_bridge::sim::frontend::Driver::request(pcm.driver(), &operation(span)).unwrap().status
        };
        for offset in [9_600 * 4 - 7, 9_600 * 4, u64::from(u32::MAX)] {
            assert_eq!(request(offset), Err(Errno::Invalid), "{offset}");
        }
        assert_eq!(request(9_600 * 4 - 8), Ok(()), "the end of the buffer");
        pcm.hw_free().unwrap();
        assert_eq!(request(0), Err(Errno::Io), "closed");
        pcm.hw_params(HwParams::cd(480, 9_600)).unwrap();
        set(&pcm, [-1, -2]);
    }
    assert_eq!(get(&pcm), [-1, -2]);
}

#[test]
fn all_volumes_are_heard_as_one_product() {
    in_real_time(|| {
        let tape = Tape::new(256);
        let machine = Machine::start(Arc::new(tape.clone()));
        let guest = machine.guest("work", Kernel::Since2026);
        let id = number(&guest);
        let pcm = open(&guest, Direction::Playback);
        let say = |command| machine.control.obey(command).unwrap();
        say(Command::SetVolume { domain: id, volume: volume(0.5) });
        pcm.write(&16_000i16.to_le_bytes().repeat(2 * 9_600)).unwrap();
        let first = tape.recordings()[0].heard.lock().unwrap().iter().position(|octet| *octet != 0);
        assert_eq!(plays(&pcm, &tape), [2_000, 2_000]);
        let heard = tape.heard();
        let first = first.or_else(|| heard.iter().position(|octet| *octet != 0)).unwrap() & !3;
        assert_eq!(heard[first..first + 4], 2_000i16.to_le_bytes().repeat(2), "from the first sample");
        set(&pcm, [-20_000, 0]);
        assert_eq!(plays(&pcm, &tape), [200, 2_000]);
        pcm.exchange(Operation::Mute, ARRAY, &[0, 0, 0, 0, 1, 0, 0, 0]).unwrap();
        assert_eq!(plays(&pcm, &tape), [200, 0]);
        say(Command::SetVolume { domain: id, volume: volume(1.0) });
        assert_eq!(plays(&pcm, &tape), [1_600, 0]);
        pcm.exchange(Operation::Unmute, ARRAY, &[1, 1]).unwrap();
        set(&pcm, [60_000, 0]);
        assert_eq!(plays(&pcm, &tape), [16_000, 16_000], "exactly");
        say(Command::SetMuted { domain: id, muted: true });
        assert_eq!(plays(&pcm, &tape), [0, 0]);
        let reading = (playback(&machine.control, id).probe)();
        assert_eq!(reading.levels.len(), 2);
        assert!(reading.position > 9_600, "{reading:?}");
        pcm.close();
        assert_eq!(guest.card.harm(), []);
    });
}

#[test]
fn what_the_user_changed_outlives_the_guest_and_the_bridge() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("domains.toml");
    let ask = "[default]\ncapture = \"ask\"\n";
    let remembering = || {
        let (file, memory) = StateFile::open(path.clone());
        Control::new(Some(file), memory)
    };
    let tape = Tape::new(256);
    let mut machine = Machine::without_bridge();
    machine.control = remembering();
    machine.start_bridge(Arc::new(tape.clone()), ask);
    let guest = machine.guest("work", Kernel::Since2026);
    let id = number(&guest);
    for command in [
        Command::SetVolume { domain: id, volume: volume(0.5) },
        Command::SetMuted { domain: id, muted: true },
        Command::SetCapture { domain: id, capture: Capture::Allow },
    ] {
        machine.control.obey(command).unwrap();
    }
    let same = |machine: &Machine, id| {
        let domain = domain(&machine.control, id);
        assert_eq!((domain.volume, domain.muted), (volume(0.5), true));
        assert_eq!(domain.capture, Capture::Allow);
    };
    same(&machine, id);
    // The guest reboots.
    machine.xen.destroy(&guest.domain).unwrap();
    machine.wait_let_go(guest.domain.id());
    let guest = machine.guest("work", Kernel::Since2026);
    assert_ne!(number(&guest), id);
    same(&machine, number(&guest));
    // Another guest knows nothing of it.
    let other = machine.guest("play", Kernel::Since2026);
    assert_eq!(domain(&machine.control, number(&other)).volume, CubicVolume::FULL);
    // The bridge is started again.
    machine.end_bridge();
    machine.control = remembering();
    machine.start_bridge(Arc::new(tape), ask);
    until("found", || !machine.control.snapshot().domains.is_empty());
    same(&machine, number(&guest));
    for unknown in [DomainId(77), DomainId(0x1_0000 + number(&guest).0)] {
        let command = Command::SetMuted { domain: unknown, muted: true };
        let refused = machine.control.obey(command);
        assert_eq!(refused, Err(Refusal::Gone(format!("domain {unknown} has no sound card"))));
    }
}

#[test]
fn a_stream_is_routed_now_and_when_it_is_opened_again() {
    let tape = Tape::new(256);
    let machine = Machine::start(Arc::new(tape.clone()));
    let guest = machine.guest("work", Kernel::Since2026);
    let route = |target: Option<&str>, stream| {
        let target = target.map(|name| NodeName::new(name).unwrap());
        machine.control.obey(Command::SetTarget { domain: number(&guest), stream, target })
    };
    let routed = || tape.recordings().last().unwrap().target.lock().unwrap().clone();
    let pcm = open(&guest, Direction::Playback);
    assert_eq!(routed(), None);
    route(Some("hdmi"), PLAYBACK).unwrap();
    assert_eq!(routed().as_deref(), Some("hdmi"));
    pcm.close();
    let pcm = open(&guest, Direction::Playback);
    assert_eq!(routed().as_deref(), Some("hdmi"));
    assert_eq!(playback(&machine.control, number(&guest)).target, Some(NodeName::new("hdmi").unwrap()));
    route(None, PLAYBACK).unwrap();
    assert_eq!(routed(), None);
    let nowhere = StreamId { stream: 9, ..PLAYBACK };
    assert!(matches!(route(None, nowhere), Err(Refusal::Gone(_))));
    drop(pcm);
}

#[test]
fn a_removed_cards_streams_are_gone_and_the_others_stay() {
    let machine = Machine::start(Arc::new(NullServer));
    let guest = machine.guest("work", Kernel::Since2026);
    let id = number(&guest);
    let cards = || {
        let streams = domain(&machine.control, id).streams;
        streams.keys().map(|stream| stream.card).collect::<std::collections::BTreeSet<_>>()
    };
    let second = machine.xen.attach(&guest.domain, super::machine::DOM0, &Card::simple()).unwrap();
    until("connected", || cards() == [0, second.device].into());
    assert!(machine.xen.detach(&second).unwrap());
    until("gone", || cards() == [0].into());
}

#[test]
fn a_card_that_can_not_be_watched_leaves_no_domain_behind() {
    let machine = Machine::start(Arc::new(NullServer));
    let unwatched = machine.xen.create_domain("unwatched", "u").unwrap();
    let state = format!("/local/domain/{}/device/vsnd/0/state", unwatched.id());
    machine.xen.faults().fail_store(&state, StoreError::Other("E2BIG".to_owned()), u32::MAX);
    machine.xen.announce_card(&unwatched, super::machine::DOM0, &Card::simple()).unwrap();
    // Found behind it.
    let guest = machine.guest("work", Kernel::Since2026);
    let shown: Vec<_> = machine.control.snapshot().domains.into_keys().collect();
    assert_eq!(shown, [number(&guest)]);
}

/// Reads 30 ms.
fn record(pcm: &PcmHandle) -> Vec<u8> {
    let mut data = vec![0x55; 1_440 * 4];
    assert_eq!(pcm.read(&mut data), Ok(Frames(1_440)));
    data
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !done() {
        assert!(Instant::now() < deadline, "never {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn the_microphone_comes_and_goes_while_a_guest_records() {
    in_real_time(|| {
        for kernel in Kernel::ALL {
            let tape = Tape::new(256);
            let machine = Machine::with_config(Arc::new(tape.clone()), "[default]\ncapture = \"ask\"\n");
            let guest = machine.guest("work", kernel);
            let id = number(&guest);
            let allow = |capture| machine.control.obey(Command::SetCapture { domain: id, capture }).unwrap();
            let pcm = open(&guest, Direction::Capture);
            let silent = |data: &[u8]| data.iter().all(|octet| *octet == 0);
            for round in 0..3 {
                for _ in 0..5 {
                    assert!(silent(&record(&pcm)));
                }
                assert!(!domain(&machine.control, id).capture_active);
                assert_eq!(tape.recordings().len(), round, "no node");
                allow(Capture::Allow);
                assert_eq!(tape.recordings().len(), round + 1);
                until("sound", || !silent(&record(&pcm)));
                assert!(domain(&machine.control, id).capture_active);
                let sound = record(&pcm);
                let numbers: Vec<u32> = sound
                    .chunks_exact(4)
                    .map(|frame| u32::from_le_bytes(frame.try_into().unwrap()))
                    .collect();
                assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "frames are missing");
                allow(if round == 0 { Capture::Ask } else { Capture::Deny });
                assert!(tape.recordings().iter().all(|node| node.ended.load(Ordering::Acquire)));
                until("silence", || silent(&record(&pcm)));
            }
            let counters = pcm.counters();
            assert_eq!((counters.core.xruns, counters.core.unexpected), (0, 0));
            assert_eq!(guest.card.harm(), []);
        }
    });
}

#[test]
fn a_guest_that_records_unallowed_is_asked_for_once_and_not_each_time() {
    let machine = Machine::with_config(Arc::new(NullServer), "[default]\ncapture = \"ask\"\n");
    let guest = machine.guest("work", Kernel::Since2026);
    let id = number(&guest);
    let requests = || machine.control.take_capture_requests();
    let changes = machine.control.changes();
    let pcm = open(&guest, Direction::Capture);
    assert_eq!(requests(), []);
    let start = || {
        pcm.start().unwrap();
        pcm.stop();
        pcm.prepare().unwrap();
    };
    start();
    assert!(changes.has_changed().unwrap());
    assert_eq!(requests(), [id]);
    (0..20).for_each(|_| start());
    assert_eq!(requests(), [], "it was asked a moment ago");
    machine.control.obey(Command::SetCapture { domain: id, capture: Capture::Deny }).unwrap();
    start();
    assert_eq!(requests(), []);
    let other = machine.guest("denied", Kernel::Since2026);
    machine.control.obey(Command::SetCapture { domain: number(&other), capture: Capture::Deny }).unwrap();
    let pcm = open(&other, Direction::Capture);
    pcm.start().unwrap();
    assert_eq!(requests(), [], "the user has said no");
}

#[test]
fn a_guests_volume_and_mute_outlive_the_bridge_before() {
    in_real_time(|| {
        let tape = Tape::new(256);
        let mut machine = Machine::start(Arc::new(tape.clone()));
        let guest = machine.guest("work", Kernel::Since2026);
        let pcm = open(&guest, Direction::Playback);
        set(&pcm, [-20_000, -40_000]);
        pcm.exchange(Operation::Mute, ARRAY, &[0, 1]).unwrap();
        machine.end_bridge();
        machine.control = Control::default();
        machine.start_bridge(Arc::new(tape.clone()), super::machine::POLICY);
        assert_eq!(get(&pcm), [-20_000, -40_000]);
        pcm.write(&16_000i16.to_le_bytes().repeat(2 * 9_600)).unwrap();
        assert_eq!(plays(&pcm, &tape), [1_600, 0]);
    });
}
