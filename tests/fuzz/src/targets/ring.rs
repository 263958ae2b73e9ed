//! The request ring: counters and slots are the guest's to write at any time.

use arbitrary::{Arbitrary, Unstructured};
use vsnd_bridge::sndif::{BackRing, PACKET, RING_SLOTS, Request, Response, RingError};

use crate::xen::shared_page;

const REQ_PROD: usize = 0;
const REQ_EVENT: usize = 4;
const RSP_PROD: usize = 8;
const FIRST_SLOT: usize = 64;

#[derive(Debug, Arbitrary)]
enum Step {
    /// Any value into one of the four counters.
    Counter { which: u8, value: u32 },
    /// Requests as an honest guest publishes them: so many more.
    Publish { more: u8 },
    /// The producer, near where the backend is.
    ProduceNear { by: i8 },
    /// A slot's octets.
    Slot { slot: u8, packet: [u8; PACKET] },
    /// The backend's turn, in which the guest overwrites what is being read if it likes to.
    Serve { most: u8, meanwhile: Option<u32> },
    /// The backend is about to sleep.
    FinalCheck,
}

pub fn run(input: &mut Unstructured<'_>) -> arbitrary::Result<()> {
    let (page, back) = shared_page();
    let start: u32 = input.arbitrary()?;
    page.store(REQ_PROD, start).unwrap();
    page.store(RSP_PROD, start).unwrap();
    let mut ring = BackRing::attach(back).unwrap();
    // The backend's own count of requests taken, which no guest can change.
    let mut taken = start;
    for step in crate::steps(input) {
        match step {
            Step::Counter { which, value } => page.store(usize::from(which % 4) * 4, value).unwrap(),
            Step::Publish { more } => {
                let produced = page.load(REQ_PROD).unwrap();
                page.store(REQ_PROD, produced.wrapping_add(u32::from(more % 34))).unwrap();
            }
            Step::ProduceNear { by } => {
                page.store(REQ_PROD, taken.wrapping_add_signed(by.into())).unwrap();
            }
            Step::Slot { slot, packet } => {
                page.write(FIRST_SLOT + usize::from(slot % 32) * PACKET, &packet).unwrap();
            }
            Step::FinalCheck => match ring.final_check() {
                Ok(true) => (),
                Ok(false) => assert_eq!(page.load(REQ_EVENT), Ok(taken.wrapping_add(1))),
                Err(RingError::Overrun(claimed)) => assert!(claimed > RING_SLOTS),
                Err(error) => panic!("{error}"),
            },
            Step::Serve { most, meanwhile } => {
                for _ in 0..most % 64 {
                    let packet = match ring.take() {
                        Ok(Some(packet)) => packet,
                        Ok(None) => break,
                        // The card's thread leaves the ring here for good.
                        Err(RingError::Overrun(claimed)) => {
                            assert!(claimed > RING_SLOTS);
                            return Ok(());
                        }
                        Err(error) => panic!("{error}"),
                    };
                    if let Some(value) = meanwhile {
                        page.write(FIRST_SLOT, &value.to_le_bytes().repeat(32 * PACKET / 4)).unwrap();
                        page.store(RSP_PROD, value).unwrap();
                    }
                    let response = answer(&packet);
                    ring.respond(&response.encode()).unwrap();
                    taken = taken.wrapping_add(1);
                    assert_eq!(page.load(RSP_PROD), Ok(taken), "answers are counted in private");
                    assert_eq!(ring.respond(&packet), Err(RingError::NoSlot), "one answer to a request");
                }
            }
        }
    }
    Ok(())
}

fn answer(packet: &[u8; PACKET]) -> Response {
    let response = match Request::parse(packet) {
        Ok(request) => {
            // What is understood means the same when it is sent again.
            assert_eq!(Request::parse(&request.encode()), Ok(request));
            request.response(Ok(()))
        }
        Err(malformed) => malformed.response(),
    };
    assert_eq!(response.id.to_le_bytes(), [packet[0], packet[1]]);
    assert_eq!(response.operation, packet[2]);
    response
}
