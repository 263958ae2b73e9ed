//! The event page: both counters and every slot are the guest's to write at any time.

use arbitrary::{Arbitrary, Unstructured};
use vsnd_bridge::sndif::{EVENT_SLOTS, EventPage, PACKET};
use vsnd_bridge::stream::EventWriter;
use vsnd_pw_module::Octets;

use crate::xen::shared_page;

const IN_CONS: usize = 0;
const IN_PROD: usize = 4;
const FIRST_SLOT: usize = 64;

#[derive(Debug, Arbitrary)]
enum Step {
    Consumed { value: u32 },
    ConsumedBehind { by: u8 },
    Produced { value: u32 },
    Slot { slot: u8, octet: u8 },
    Open { stride: u16 },
    Close,
    Send { position: u64 },
    SendMany { positions: u8 },
    Flush,
}

pub fn run(input: &mut Unstructured<'_>) -> arbitrary::Result<()> {
    let (page, back) = shared_page();
    // A bridge that starts again takes up the count where it finds it.
    let mut produced: u32 = input.arbitrary()?;
    page.store(IN_PROD, produced).unwrap();
    page.store(IN_CONS, produced).unwrap();
    let mut writer = EventWriter::new(EventPage::attach(back).unwrap());
    let load = |counter| page.load(counter).unwrap();
    // Whether the guest was to be notified; then there are more events than before, else as many.
    let mut told = |notify: bool| {
        if notify {
            let more = load(IN_PROD).wrapping_sub(produced);
            assert!((1..=EVENT_SLOTS).contains(&more), "{more} events at once");
            produced = produced.wrapping_add(more);
            let unread = produced.wrapping_sub(load(IN_CONS));
            assert!(unread <= EVENT_SLOTS, "{unread} events in a page of {EVENT_SLOTS}");
        }
        produced
    };
    for step in crate::steps(input) {
        match step {
            Step::Consumed { value } => page.store(IN_CONS, value).unwrap(),
            Step::ConsumedBehind { by } => {
                page.store(IN_CONS, told(false).wrapping_sub(by.into())).unwrap();
            }
            Step::Produced { value } => page.store(IN_PROD, value).unwrap(),
            Step::Slot { slot, octet } => {
                page.write(FIRST_SLOT + usize::from(slot % 63) * PACKET, &[octet; PACKET]).unwrap();
            }
            Step::Open { stride } => {
                writer.opened(Octets(stride.into()));
            }
            Step::Close => {
                writer.closed();
                assert!(!writer.flush(), "nothing may follow a CLOSE");
            }
            Step::Send { position } => {
                told(writer.send(Octets(position)));
            }
            Step::SendMany { positions } => {
                for position in 0..positions {
                    told(writer.send(Octets(position.into())));
                }
            }
            Step::Flush => {
                told(writer.flush());
            }
        }
    }
    Ok(())
}
