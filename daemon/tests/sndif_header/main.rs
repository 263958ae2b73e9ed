//! The wire against Xen's own headers: a C program built on `xen/io/sndif.h` and `xen/io/ring.h` says what packets and
//! pages look like, and ours have to look the same, octet by octet.
#![allow(clippy::unwrap_used)] // a test from head to foot

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;

use vsnd_bridge::sndif::{
    BackRing, BusState, EVENT_SLOTS, Errno, Event, EventPage, FormatCode, FormatSet, FrontEventPage,
    FrontRing, HwParams, Interval, Open, Operation, PAGE, PcmFormat, RING_SLOTS, Request, Response,
    SUPPORTED_VERSIONS, Span, Trigger, directory, keys,
};
use vsnd_bridge::xen::GrantRef;
use vsnd_pw_module::{Access, Frames, Octets, Pages};

/// What the C program says, by name; formats are called "format 0" and so on. Or why it says nothing.
static HEADER: LazyLock<Result<HashMap<String, String>, String>> = LazyLock::new(|| {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sndif_header/header.c");
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("sndif_header");
    let built = Command::new("cc").args(["-std=gnu11", "-o"]).arg(&program).arg(&source).output();
    let built = built.map_err(|error| format!("cc can't be run, install gcc: {error}"))?;
    if !built.status.success() {
        let errors = String::from_utf8_lossy(&built.stderr);
        return Err(format!("Xen's headers don't compile, install the package libxen-dev:\n{errors}"));
    }
    let said = Command::new(&program).output().map_err(|error| error.to_string())?;
    let lines = String::from_utf8_lossy(&said.stdout);
    let pairs = lines.lines().filter_map(|line| line.rsplit_once(' '));
    Ok(pairs.map(|(name, value)| (name.into(), value.into())).collect())
});

fn said(name: &str) -> Option<&'static str> {
    match &*HEADER {
        Ok(values) => values.get(name).map(String::as_str),
        Err(reason) => panic!("{reason}"),
    }
}

fn header(name: &str) -> &'static str {
    said(name).unwrap_or_else(|| panic!("the C program doesn't say what {name} is"))
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

#[track_caller]
fn assert_octets(name: &str, octets: &[u8]) {
    let (ours, theirs) = (hex(octets), header(name));
    assert_eq!(ours.len(), theirs.len(), "length of {name}");
    let differs = |at: &usize| ours.get(*at..at + 2) != theirs.get(*at..at + 2);
    if let Some(at) = (0..ours.len()).step_by(2).find(differs) {
        panic!("{name} differs from octet {} on:\nours   {}\ntheirs {}", at / 2, &ours[at..], &theirs[at..]);
    }
}

fn hw_params() -> HwParams {
    HwParams {
        formats: FormatSet::from_bits(0x0102_0304_0506_0708),
        rates: Interval::new(0x1112_1314, 0x2122_2324),
        channels: Interval::new(0x3132_3334, 0x4142_4344),
        buffer: Interval::new(Frames(0x5152_5354), Frames(0x6162_6364)),
        period: Interval::new(Frames(0x7172_7374), Frames(0x8182_8384)),
    }
}

#[test]
fn requests_are_those_of_the_header() {
    let open = Open {
        rate: 0x1112_1314,
        format: FormatCode(0x15),
        channels: 0x16,
        buffer: Octets(0x2122_2324),
        directory: GrantRef(0x3132_3334),
        period: Octets(0x4142_4344),
    };
    let span = Span { offset: Octets(0x1112_1314), length: Octets(0x2122_2324) };
    let operations = [
        ("open", Operation::Open(open)),
        ("close", Operation::Close),
        ("read", Operation::Read(span)),
        ("write", Operation::Write(span)),
        ("set_volume", Operation::SetVolume(span)),
        ("get_volume", Operation::GetVolume(span)),
        ("mute", Operation::Mute(span)),
        ("unmute", Operation::Unmute(span)),
        ("start", Operation::Trigger(Trigger::Start)),
        ("pause", Operation::Trigger(Trigger::Pause)),
        ("stop", Operation::Trigger(Trigger::Stop)),
        ("resume", Operation::Trigger(Trigger::Resume)),
        ("hw_param_query", Operation::HwParamQuery(hw_params())),
    ];
    for (name, operation) in operations {
        assert_octets(name, &Request { id: 0x0102, operation }.encode());
    }
}

#[test]
fn responses_and_events_are_those_of_the_header() {
    let query = Request { id: 0x0102, operation: Operation::HwParamQuery(hw_params()) };
    assert_octets(
        "hw_param_response",
        &Response { hw_params: Some(hw_params()), ..query.response(Ok(())) }.encode(),
    );
    let refusal = Response { id: 0x0102, operation: 0, status: Err(Errno::Invalid), hw_params: None };
    assert_octets("refusal", &refusal.encode());
    assert_octets("event", &Event { id: 0x0102, position: Octets(0x0102_0304_0506_0708) }.encode());
}

/// Three mappings of one zeroed page: for each end, and to look at.
fn shared_page() -> [Pages; 3] {
    let file = tempfile::tempfile().unwrap();
    file.set_len(PAGE as u64).unwrap();
    std::array::from_fn(|_| Pages::scattered(file.as_fd(), &[0], Access::ReadWrite).unwrap())
}

fn contents(page: &Pages) -> [u8; PAGE] {
    let mut octets = [0; PAGE];
    page.read(0, &mut octets).unwrap();
    octets
}

#[test]
fn the_ring_page_takes_the_course_that_the_macros_give_it() {
    let [front, back, page] = shared_page();
    let (mut front, mut back) = (FrontRing::init(front).unwrap(), BackRing::attach(back).unwrap());
    assert_octets("ring_fresh", &contents(&page));

    for id in 0..3u16 {
        let notify = front.push(&Request { id, operation: Operation::Close }.encode()).unwrap();
        assert_eq!(u8::from(notify).to_string(), header(&format!("ring_notify_{id}")));
    }
    assert_octets("ring_requests", &contents(&page));

    let taken: Vec<_> = std::iter::from_fn(|| back.take().unwrap()).collect();
    let requests: Vec<_> = taken.iter().map(|packet| Request::parse(packet).unwrap()).collect();
    assert_eq!(requests.iter().map(|request| request.id).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(back.final_check(), Ok(false));
    back.respond(&requests[0].response(Ok(())).encode()).unwrap();
    assert_octets("ring_response", &contents(&page));

    assert!(front.take_response().unwrap().is_some());
    assert_eq!(front.take_response(), Ok(None));
    assert_octets("ring_idle", &contents(&page));
}

#[test]
fn the_event_page_is_that_of_the_header() {
    let [front, back, page] = shared_page();
    let (mut front, mut back) = (FrontEventPage::init(front).unwrap(), EventPage::attach(back).unwrap());
    for number in 0..=EVENT_SLOTS {
        front.confirm().unwrap();
        assert!(back.push(&Event { id: number as u16, position: Octets(u64::from(number) * 1000) }));
        assert!(front.take().unwrap().is_some());
    }
    assert_octets("event_page", &contents(&page));
}

#[test]
fn the_page_directory_is_that_of_the_header() {
    let per_page = PAGE as u32 / 4 - 1;
    let pages: Vec<_> = (1000..=1000 + per_page).map(GrantRef).collect();
    let built = directory::build(&[GrantRef(1), GrantRef(0x0102_0304)], &pages).unwrap();
    assert_octets("directory", &built[0]);
}

#[test]
fn numbers_are_those_of_the_headers() {
    let errnos = [
        ("EPERM", Errno::Permission),
        ("ENOENT", Errno::NotFound),
        ("EIO", Errno::Io),
        ("ENOMEM", Errno::NoMemory),
        ("EBUSY", Errno::Busy),
        ("ENODEV", Errno::NoDevice),
        ("EINVAL", Errno::Invalid),
        ("ENOSYS", Errno::NoFunction),
        ("ENODATA", Errno::NoData),
        ("EOPNOTSUPP", Errno::NotSupported),
        ("ETIMEDOUT", Errno::TimedOut),
    ];
    assert_eq!(errnos.map(|(_, errno)| errno), Errno::ALL);
    for (name, errno) in errnos {
        assert_eq!(errno.number().to_string(), header(&format!("XEN_{name}")), "{name}");
    }
    for state in BusState::ALL {
        assert_eq!(state.value(), header(&format!("XenbusState{state:?}")), "{state}");
    }
    assert_eq!(SUPPORTED_VERSIONS, header("XENSND_PROTOCOL_VERSION"));
    assert_eq!(RING_SLOTS.to_string(), header("ring_slots"));
    assert_eq!(EVENT_SLOTS.to_string(), header("XENSND_IN_RING_LEN"));
}

#[test]
fn formats_are_those_of_the_header() {
    for format in PcmFormat::ALL {
        assert_eq!(format.name(), header(&format!("format {}", format.code())));
    }
    assert_eq!(said(&format!("format {}", PcmFormat::ALL.len())), None);
}

#[test]
fn nodes_are_called_as_in_the_header() {
    let separator = keys::LIST_SEPARATOR.to_string();
    let names = [
        ("DRIVER_NAME", keys::DRIVER),
        ("LIST_SEPARATOR", separator.as_str()),
        ("FIELD_BE_VERSIONS", keys::VERSIONS),
        ("FIELD_FE_VERSION", keys::VERSION),
        ("FIELD_RING_REF", keys::RING_REF),
        ("FIELD_EVT_CHNL", keys::EVENT_CHANNEL),
        ("FIELD_EVT_RING_REF", keys::EVT_RING_REF),
        ("FIELD_EVT_EVT_CHNL", keys::EVT_EVENT_CHANNEL),
        ("FIELD_DEVICE_NAME", keys::NAME),
        ("FIELD_TYPE", keys::TYPE),
        ("FIELD_CHANNELS_MIN", keys::CHANNELS_MIN),
        ("FIELD_CHANNELS_MAX", keys::CHANNELS_MAX),
        ("FIELD_SAMPLE_RATES", keys::SAMPLE_RATES),
        ("FIELD_SAMPLE_FORMATS", keys::SAMPLE_FORMATS),
        ("FIELD_BUFFER_SIZE", keys::BUFFER_SIZE),
        ("STREAM_TYPE_PLAYBACK", keys::TYPE_PLAYBACK),
        ("STREAM_TYPE_CAPTURE", keys::TYPE_CAPTURE),
    ];
    for (name, ours) in names {
        assert_eq!(ours, header(&format!("XENSND_{name}")), "{name}");
    }
}
