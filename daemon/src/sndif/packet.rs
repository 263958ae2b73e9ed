//! Requests, responses and events: 64 octets each.
//!
//! "All reserved fields in the structures below must be 0": they are written as zero, but not checked, since the Linux
//! frontend leaves in them whatever the slot held before.

use vsnd_pw_module::{Frames, Octets};
use zerocopy::byteorder::little_endian::{I32, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, transmute};

use super::{Errno, FormatCode, FormatSet, Interval, Status, status};
use crate::xen::GrantRef;

/// The size of every packet, in octets.
pub const PACKET: usize = 64;

/// A packet as it lies in a ring.
pub type Packet = [u8; PACKET];

/// What follows the eight octets of each packet's head.
type Body = [u8; 56];

const OPEN: u8 = 0;
const CLOSE: u8 = 1;
const READ: u8 = 2;
const WRITE: u8 = 3;
const SET_VOLUME: u8 = 4;
const GET_VOLUME: u8 = 5;
const MUTE: u8 = 6;
const UNMUTE: u8 = 7;
const TRIGGER: u8 = 8;
const HW_PARAM_QUERY: u8 = 9;

const CUR_POS: u8 = 0;

/// struct xensnd_req.
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct RequestLayout {
    id: U16,
    operation: u8,
    reserved: [u8; 5],
    body: Body,
}

/// struct xensnd_resp.
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct ResponseLayout {
    id: U16,
    operation: u8,
    reserved: u8,
    status: I32,
    body: Body,
}

/// struct xensnd_evt with struct xensnd_cur_pos_evt.
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct EventLayout {
    id: U16,
    kind: u8,
    reserved: [u8; 5],
    position: U64,
    rest: [u8; 48],
}

/// struct xensnd_open_req.
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct OpenLayout {
    rate: U32,
    format: u8,
    channels: u8,
    reserved: [u8; 2],
    buffer: U32,
    directory: U32,
    period: U32,
    rest: [u8; 36],
}

/// struct xensnd_rw_req.
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct SpanLayout {
    offset: U32,
    length: U32,
    rest: [u8; 48],
}

/// struct xensnd_trigger_req.
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct TriggerLayout {
    kind: u8,
    rest: [u8; 55],
}

/// struct xensnd_query_hw_param; of each pair the minimum comes first.
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct HwParamsLayout {
    formats: U64,
    rates: [U32; 2],
    channels: [U32; 2],
    buffer: [U32; 2],
    period: [U32; 2],
    rest: [u8; 16],
}

/// What a guest asks of one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// "Private guest value, echoed in response."
    pub id: u16,
    /// What is asked.
    pub operation: Operation,
}

/// XENSND_OP_*, each with what it carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Open the stream.
    Open(Open),
    /// Close the stream.
    Close,
    /// Captured sound is wanted at this place of the shared buffer.
    Read(Span),
    /// Sound to play lies at this place of the shared buffer.
    Write(Span),
    /// Volumes lie at this place: for each channel an i32 of 0.001 dB.
    SetVolume(Span),
    /// Volumes are wanted at this place.
    GetVolume(Span),
    /// Channels to mute are marked at this place.
    Mute(Span),
    /// Channels to unmute are marked at this place.
    Unmute(Span),
    /// The converter starts or stops.
    Trigger(Trigger),
    /// Which of these values could an OPEN have?
    HwParamQuery(HwParams),
}

/// What OPEN carries, unchecked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Open {
    /// Frames a second.
    pub rate: u32,
    /// XENSND_PCM_FORMAT_*, known or not.
    pub format: FormatCode,
    /// Channels of a frame.
    pub channels: u8,
    /// The whole shared buffer.
    pub buffer: Octets,
    /// The first page of the page directory.
    pub directory: GrantRef,
    /// The distance wanted between CUR_POS events. "If set to 0 no XENSND_EVT_CUR_POS events are sent."
    pub period: Octets,
}

/// A place in the shared buffer, unchecked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Where it begins, from the start of the buffer.
    pub offset: Octets,
    /// How long it is.
    pub length: Octets,
}

/// XENSND_OP_TRIGGER_*.
#[allow(missing_docs)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Trigger {
    Start = 0,
    Pause = 1,
    Stop = 2,
    Resume = 3,
}

/// The values an OPEN could have: what the guest still allows, or the subset of it that the backend allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HwParams {
    /// Formats.
    pub formats: FormatSet,
    /// Frames a second.
    pub rates: Interval<u32>,
    /// Channels of a frame.
    pub channels: Interval<u32>,
    /// The shared buffer. In frames, where OPEN counts octets.
    pub buffer: Interval<Frames>,
    /// The distance between CUR_POS events. In frames, where OPEN counts octets.
    pub period: Interval<Frames>,
}

/// A request that means nothing, with what an answer to it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("request {id} is malformed: {reason}")]
pub struct Malformed {
    /// The request's id.
    pub id: u16,
    /// The operation as it was sent.
    pub operation: u8,
    /// What is wrong with it.
    pub reason: MalformedReason,
}

/// What is wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MalformedReason {
    /// Not one of XENSND_OP_*.
    #[error("the protocol has no operation {0}")]
    Operation(u8),
    /// Not one of XENSND_OP_TRIGGER_*.
    #[error("the protocol has no trigger {0}")]
    Trigger(u8),
}

impl Malformed {
    /// The answer that it gets.
    pub fn response(self) -> Response {
        let errno = match self.reason {
            MalformedReason::Operation(_) => Errno::NotSupported,
            MalformedReason::Trigger(_) => Errno::Invalid,
        };
        Response { id: self.id, operation: self.operation, status: Err(errno), hw_params: None }
    }
}

/// A count as it goes into a field of 32 bits. One that doesn't fit is sent as the greatest that does, which no buffer
/// of the other side reaches either.
fn field(count: u64) -> U32 {
    U32::new(u32::try_from(count).unwrap_or(u32::MAX))
}

impl Request {
    /// Reads a packet that was copied out of a ring.
    ///
    /// # Errors
    /// [`Malformed`] when it means nothing.
    pub fn parse(packet: &Packet) -> Result<Self, Malformed> {
        let RequestLayout { id, operation, body, .. } = transmute!(*packet);
        let id = id.get();
        match Operation::parse(operation, body) {
            Ok(operation) => Ok(Self { id, operation }),
            Err(reason) => Err(Malformed { id, operation, reason }),
        }
    }

    /// The packet. Counts beyond 32 bits are sent as the greatest of 32 bits.
    pub fn encode(&self) -> Packet {
        transmute!(RequestLayout {
            id: self.id.into(),
            operation: self.operation.code(),
            reserved: [0; 5],
            body: self.operation.body(),
        })
    }

    /// The answer to this request: "id copied from the request, operation copied from request".
    pub fn response(&self, status: Status) -> Response {
        Response { id: self.id, operation: self.operation.code(), status, hw_params: None }
    }
}

impl Operation {
    fn parse(operation: u8, body: Body) -> Result<Self, MalformedReason> {
        match operation {
            OPEN => Ok(Self::Open(Open::parse(body))),
            CLOSE => Ok(Self::Close),
            READ => Ok(Self::Read(Span::parse(body))),
            WRITE => Ok(Self::Write(Span::parse(body))),
            SET_VOLUME => Ok(Self::SetVolume(Span::parse(body))),
            GET_VOLUME => Ok(Self::GetVolume(Span::parse(body))),
            MUTE => Ok(Self::Mute(Span::parse(body))),
            UNMUTE => Ok(Self::Unmute(Span::parse(body))),
            TRIGGER => Trigger::parse(body).map(Self::Trigger),
            HW_PARAM_QUERY => Ok(Self::HwParamQuery(HwParams::parse(body))),
            unknown => Err(MalformedReason::Operation(unknown)),
        }
    }

    /// XENSND_OP_*.
    pub const fn code(&self) -> u8 {
        match self {
            Self::Open(_) => OPEN,
            Self::Close => CLOSE,
            Self::Read(_) => READ,
            Self::Write(_) => WRITE,
            Self::SetVolume(_) => SET_VOLUME,
            Self::GetVolume(_) => GET_VOLUME,
            Self::Mute(_) => MUTE,
            Self::Unmute(_) => UNMUTE,
            Self::Trigger(_) => TRIGGER,
            Self::HwParamQuery(_) => HW_PARAM_QUERY,
        }
    }

    fn body(&self) -> Body {
        match self {
            Self::Open(open) => open.encode(),
            Self::Close => [0; 56],
            Self::Read(span)
            | Self::Write(span)
            | Self::SetVolume(span)
            | Self::GetVolume(span)
            | Self::Mute(span)
            | Self::Unmute(span) => span.encode(),
            Self::Trigger(trigger) => transmute!(TriggerLayout { kind: *trigger as u8, rest: [0; 55] }),
            Self::HwParamQuery(params) => params.encode(),
        }
    }
}

impl Open {
    fn parse(body: Body) -> Self {
        let OpenLayout { rate, format, channels, buffer, directory, period, .. } = transmute!(body);
        Self {
            rate: rate.get(),
            format: FormatCode(format),
            channels,
            buffer: Octets(buffer.into()),
            directory: GrantRef(directory.get()),
            period: Octets(period.into()),
        }
    }

    fn encode(&self) -> Body {
        transmute!(OpenLayout {
            rate: self.rate.into(),
            format: self.format.0,
            channels: self.channels,
            reserved: [0; 2],
            buffer: field(self.buffer.0),
            directory: self.directory.0.into(),
            period: field(self.period.0),
            rest: [0; 36],
        })
    }
}

impl Span {
    fn parse(body: Body) -> Self {
        let SpanLayout { offset, length, .. } = transmute!(body);
        Self { offset: Octets(offset.into()), length: Octets(length.into()) }
    }

    fn encode(&self) -> Body {
        transmute!(SpanLayout { offset: field(self.offset.0), length: field(self.length.0), rest: [0; 48] })
    }
}

impl Trigger {
    fn parse(body: Body) -> Result<Self, MalformedReason> {
        let TriggerLayout { kind, .. } = transmute!(body);
        match kind {
            0 => Ok(Self::Start),
            1 => Ok(Self::Pause),
            2 => Ok(Self::Stop),
            3 => Ok(Self::Resume),
            unknown => Err(MalformedReason::Trigger(unknown)),
        }
    }
}

impl HwParams {
    fn parse(body: Body) -> Self {
        let HwParamsLayout { formats, rates, channels, buffer, period, .. } = transmute!(body);
        let plain = |[min, max]: [U32; 2]| Interval::new(min.get(), max.get());
        let frames = |[min, max]: [U32; 2]| Interval::new(Frames(min.into()), Frames(max.into()));
        Self {
            formats: FormatSet::from_bits(formats.get()),
            rates: plain(rates),
            channels: plain(channels),
            buffer: frames(buffer),
            period: frames(period),
        }
    }

    fn encode(&self) -> Body {
        let plain = |range: Interval<u32>| [range.min.into(), range.max.into()];
        let frames = |range: Interval<Frames>| [field(range.min.0), field(range.max.0)];
        transmute!(HwParamsLayout {
            formats: self.formats.bits().into(),
            rates: plain(self.rates),
            channels: plain(self.channels),
            buffer: frames(self.buffer),
            period: frames(self.period),
            rest: [0; 16],
        })
    }
}

/// The one answer that every request gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Response {
    /// "Copied from the request." The Linux frontend ignores an answer of any other id.
    pub id: u16,
    /// "Copied from request", as it was sent, known or not.
    pub operation: u8,
    /// Done, or why not.
    pub status: Status,
    /// What HW_PARAM_QUERY asked for; with no other operation, and not with an error.
    pub hw_params: Option<HwParams>,
}

/// A response whose status is none that the bridge sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a response of status {0}")]
pub struct UnknownStatus(pub i32);

impl Response {
    /// The packet.
    pub fn encode(&self) -> Packet {
        transmute!(ResponseLayout {
            id: self.id.into(),
            operation: self.operation,
            reserved: 0,
            status: status::encode(self.status).into(),
            body: self.hw_params.map_or([0; 56], |params| params.encode()),
        })
    }

    /// Reads a packet that was copied out of a ring.
    ///
    /// # Errors
    /// [`UnknownStatus`], also for a positive one.
    pub fn parse(packet: &Packet) -> Result<Self, UnknownStatus> {
        let ResponseLayout { id, operation, status, body, .. } = transmute!(*packet);
        let status = status::parse(status.get()).ok_or(UnknownStatus(status.get()))?;
        let answers_query = operation == HW_PARAM_QUERY && status.is_ok();
        let hw_params = answers_query.then(|| HwParams::parse(body));
        Ok(Self { id: id.get(), operation, status, hw_params })
    }
}

/// What a backend tells the guest unasked: CUR_POS, the only event there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// "Event id, may be used by front", and is: the Linux frontend accepts only the id that it expects next.
    pub id: u16,
    /// "Current value of stream's playback/capture position."
    pub position: Octets,
}

/// An event that isn't XENSND_EVT_CUR_POS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event of type {0}")]
pub struct UnknownEvent(pub u8);

impl Event {
    /// The packet.
    pub fn encode(&self) -> Packet {
        transmute!(EventLayout {
            id: self.id.into(),
            kind: CUR_POS,
            reserved: [0; 5],
            position: self.position.0.into(),
            rest: [0; 48],
        })
    }

    /// Reads a packet that was copied out of an event page.
    ///
    /// # Errors
    /// [`UnknownEvent`].
    pub fn parse(packet: &Packet) -> Result<Self, UnknownEvent> {
        let EventLayout { id, kind, position, .. } = transmute!(*packet);
        if kind != CUR_POS {
            return Err(UnknownEvent(kind));
        }
        Ok(Self { id: id.get(), position: Octets(position.get()) })
    }
}

#[cfg(test)]
#[path = "packet_tests.rs"]
mod tests;
