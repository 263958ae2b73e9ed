//! Requests as a hostile guest makes them: near what is allowed, or any octets.

use arbitrary::Arbitrary;
use vsnd_bridge::sndif::{
    FormatCode, FormatSet, HwParams, Interval, Open, Operation, PACKET, Packet, Request, Span, Trigger,
};
use vsnd_pw_module::{Frames, Octets};

use crate::memory::Memory;

/// The rates, channels and so on that are asked for most.
const RATES: [u32; 4] = [48_000, 44_100, 8_000, 192_000];

#[derive(Debug, Arbitrary)]
pub enum Ask {
    Open {
        rate: u8,
        format: u8,
        channels: u8,
        buffer: u16,
        period: u16,
        directory: u8,
    },
    Close,
    Read {
        offset: u16,
        length: u16,
    },
    Write {
        offset: u16,
        length: u16,
    },
    /// Start, pause, stop, resume.
    Trigger(u8),
    Query {
        formats: u64,
        buffer: [u32; 2],
        period: [u32; 2],
    },
    Volume {
        operation: u8,
        offset: u32,
        length: u32,
    },
    Any([u8; PACKET]),
}

impl Ask {
    /// The request, and the packet that says it.
    pub fn packet(&self, id: u16, memory: &Memory) -> Packet {
        let span = |offset: u16, length: u16| Span {
            offset: Octets(u64::from(offset) * 2),
            length: Octets(u64::from(length) * 2),
        };
        let operation = match *self {
            Self::Any(packet) => return packet,
            Self::Volume { operation, offset, length } => {
                let span = Span { offset: Octets(offset.into()), length: Octets(length.into()) };
                [Operation::SetVolume, Operation::GetVolume, Operation::Mute, Operation::Unmute]
                    [usize::from(operation % 4)](span)
            }
            Self::Open { rate, format, channels, buffer, period, directory } => {
                // Frames of four octets fit most often.
                let octets = |frames: u16| Octets(u64::from(frames) * 4);
                Operation::Open(Open {
                    rate: RATES[usize::from(rate) % RATES.len()],
                    format: FormatCode(if format < 128 { 2 } else { format % 32 }),
                    channels: if channels < 128 { 2 } else { channels % 32 },
                    buffer: octets(buffer % 4100),
                    directory: memory.reference(directory),
                    period: octets(period % 1025),
                })
            }
            Self::Close => Operation::Close,
            Self::Read { offset, length } => Operation::Read(span(offset, length)),
            Self::Write { offset, length } => Operation::Write(span(offset, length)),
            Self::Trigger(kind) => Operation::Trigger(
                [Trigger::Start, Trigger::Pause, Trigger::Stop, Trigger::Resume][usize::from(kind % 4)],
            ),
            Self::Query { formats, buffer, period } => {
                let frames = |[from, to]: [u32; 2]| Interval::new(Frames(from.into()), Frames(to.into()));
                Operation::HwParamQuery(HwParams {
                    formats: FormatSet::from_bits(formats),
                    rates: Interval::new(0, u32::MAX),
                    channels: Interval::new(1, 8),
                    buffer: frames(buffer),
                    period: frames(period),
                })
            }
        };
        Request { id, operation }.encode()
    }
}
