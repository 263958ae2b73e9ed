//! Both ends of the event page: two counters and 63 slots, filled by the backend and emptied by the frontend.
//!
//! Counters run freely over 32 bits; a slot's place is its counter modulo 63. Since 63 doesn't divide 2^32, places jump
//! where the counter wraps around: the first four events after it lie where the last four before it did.

use vsnd_pw_module::{OutOfRange, Pages};

use super::{Event, PACKET, PAGE, UnknownEvent};

const IN_CONS: usize = 0;
const IN_PROD: usize = 4;
const FIRST_SLOT: usize = 64;

/// Slots of the page: XENSND_IN_RING_LEN.
pub const EVENT_SLOTS: u32 = 63;

/// Where the slot of a counter lies in the page: XENSND_IN_RING_REF.
fn slot(counter: u32) -> usize {
    FIRST_SLOT + (counter % EVENT_SLOTS) as usize * PACKET
}

/// Events whose slots come around too early at the wrap of the counter: 2^32 modulo 63.
const EARLY: u32 = 4;

/// Whether the slot of `in_prod` holds nothing that the guest has yet to read, by what it confirmed last.
fn is_free(in_prod: u32, in_cons: u32) -> bool {
    let unread = in_prod.wrapping_sub(in_cons);
    unread < if in_prod < EARLY { EARLY } else { EVENT_SLOTS }
}

/// The backend's end.
pub struct EventPage {
    pages: Pages,
    in_prod: u32,
}

impl EventPage {
    /// Takes up a page where its events ended. The counter found there is the guest's to forge, which harms only itself.
    ///
    /// # Errors
    /// [`OutOfRange`] when the mapping is no writable page.
    pub fn attach(pages: Pages) -> Result<Self, OutOfRange> {
        if pages.len() < PAGE {
            return Err(OutOfRange);
        }
        let in_prod = pages.load(IN_PROD)?;
        pages.store(IN_PROD, in_prod)?;
        Ok(Self { pages, in_prod })
    }

    /// Events that can be pushed now; from one read of the guest's counter. "Upon reception of an event(s) front may
    /// confirm its reception for either each event, group of events or none": a counter that makes no sense is a full page.
    pub fn free(&self) -> u32 {
        let Ok(in_cons) = self.pages.load(IN_CONS) else { return 0 };
        let mut free = 0;
        while free < EVENT_SLOTS && is_free(self.in_prod.wrapping_add(free), in_cons) {
            free += 1;
        }
        free
    }

    /// Events that the guest has not confirmed; a counter that makes no sense is a full page.
    pub fn unread(&self) -> u32 {
        let unread = self.pages.load(IN_CONS).map(|in_cons| self.in_prod.wrapping_sub(in_cons));
        unread.unwrap_or(EVENT_SLOTS).min(EVENT_SLOTS)
    }

    /// Publishes an event, of which the guest is to be notified; `false` if the page is full and nothing was published.
    pub fn push(&mut self, event: &Event) -> bool {
        if self.free() == 0 || self.pages.write(slot(self.in_prod), &event.encode()).is_err() {
            return false;
        }
        let next = self.in_prod.wrapping_add(1);
        // The event is seen before the counter that makes it one.
        if self.pages.store(IN_PROD, next).is_err() {
            return false;
        }
        self.in_prod = next;
        true
    }

    /// Events ever published on this page, modulo 2^32.
    pub fn produced(&self) -> u32 {
        self.in_prod
    }
}

/// What a backend must never do to an event page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EventPageError {
    /// More events than slots: those not taken are overwritten, and Linux would run round the page 2^32 times.
    #[error("{0} events lie in a page of {EVENT_SLOTS}")]
    Overrun(u32),
    /// An event that the protocol doesn't have.
    #[error(transparent)]
    Unknown(#[from] UnknownEvent),
    /// The mapping isn't a writable page.
    #[error("the event page can't be used: {0}")]
    Page(#[from] OutOfRange),
}

/// The frontend's end, for the simulator.
pub struct FrontEventPage {
    pages: Pages,
    in_cons: u32,
}

impl FrontEventPage {
    /// Prepares an empty page.
    ///
    /// # Errors
    /// [`OutOfRange`] when the mapping is no writable page.
    pub fn init(pages: Pages) -> Result<Self, OutOfRange> {
        Self::init_at(pages, 0)
    }

    /// An empty page whose counters stand at `start`, as after so many events.
    pub(crate) fn init_at(pages: Pages, start: u32) -> Result<Self, OutOfRange> {
        pages.write(0, &[0; PAGE])?;
        pages.store(IN_CONS, start)?;
        pages.store(IN_PROD, start)?;
        Ok(Self { pages, in_cons: start })
    }

    /// The next event; `None` when all are taken. Confirms nothing.
    ///
    /// # Errors
    /// What a backend must never do.
    pub fn take(&mut self) -> Result<Option<Event>, EventPageError> {
        let unconsumed = self.pages.load(IN_PROD)?.wrapping_sub(self.in_cons);
        if unconsumed > EVENT_SLOTS {
            return Err(EventPageError::Overrun(unconsumed));
        }
        if unconsumed == 0 {
            return Ok(None);
        }
        let mut packet = [0; PACKET];
        self.pages.read(slot(self.in_cons), &mut packet)?;
        self.in_cons = self.in_cons.wrapping_add(1);
        Ok(Some(Event::parse(&packet)?))
    }

    /// Lets the backend use the slots of what was taken.
    ///
    /// # Errors
    /// [`OutOfRange`] when the mapping is read-only.
    pub fn confirm(&mut self) -> Result<(), OutOfRange> {
        self.pages.store(IN_CONS, self.in_cons)
    }

    /// Drops whatever lies in the page, unread, as Linux does when a stream is prepared anew.
    ///
    /// # Errors
    /// [`OutOfRange`] when the mapping is read-only.
    pub fn discard(&mut self) -> Result<(), OutOfRange> {
        self.in_cons = self.pages.load(IN_PROD)?;
        self.confirm()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use vsnd_pw_module::Octets;

    use super::super::testing::shared_pages;
    use super::*;

    fn page(start: u32) -> (FrontEventPage, EventPage, Pages) {
        let [front, back, page] = shared_pages();
        (FrontEventPage::init_at(front, start).unwrap(), EventPage::attach(back).unwrap(), page)
    }

    fn event(number: u32) -> Event {
        Event { id: number as u16, position: Octets(u64::from(number) << 32 | 0x55) }
    }

    fn starts() -> impl Strategy<Value = u32> {
        prop_oneof![Just(0), any::<u32>(), (0u32..200).prop_map(|n| n.wrapping_neg())]
    }

    #[derive(Clone, Debug)]
    enum Step {
        Push,
        Take,
        Confirm,
    }

    proptest! {
        #[test]
        fn every_event_arrives_once_and_in_order(
            start in starts(),
            steps in proptest::collection::vec(proptest::sample::select(vec![Step::Push, Step::Push, Step::Take, Step::Confirm]), 0..600),
        ) {
            let (mut front, mut back, _) = page(start);
            let (mut pushed, mut taken, mut confirmed) = (0u32, 0u32, 0u32);
            for step in steps {
                match step {
                    Step::Push if back.push(&event(pushed)) => pushed += 1,
                    Step::Push => {
                        let wraps = back.produced() < EARLY && pushed >= EARLY;
                        let full = if wraps { EARLY } else { EVENT_SLOTS };
                        prop_assert!(pushed - confirmed >= full);
                    }
                    Step::Take => match front.take().unwrap() {
                        Some(seen) => {
                            prop_assert_eq!(seen, event(taken));
                            taken += 1;
                        }
                        None => prop_assert_eq!(taken, pushed),
                    },
                    Step::Confirm => {
                        front.confirm().unwrap();
                        confirmed = taken;
                    }
                }
                prop_assert!(back.free() <= EVENT_SLOTS - (pushed - confirmed));
                prop_assert_eq!(back.produced(), start.wrapping_add(pushed));
            }
        }

        #[test]
        fn no_counter_of_the_guest_moves_the_backend_s_own(start: u32, forged in proptest::collection::vec(any::<[u32; 2]>(), 0..40)) {
            let (_, mut back, page) = page(start);
            let mut pushed = 0;
            for [in_cons, in_prod] in forged {
                page.store(IN_CONS, in_cons).unwrap();
                page.store(IN_PROD, in_prod).unwrap();
                pushed += u32::from(back.push(&event(0)));
                prop_assert_eq!(back.produced(), start.wrapping_add(pushed));
            }
        }
    }

    #[test]
    fn a_full_page_takes_no_more_until_confirmed() {
        let (mut front, mut back, _) = page(1000);
        for number in 0..EVENT_SLOTS {
            assert_eq!(back.free(), EVENT_SLOTS - number);
            assert!(back.push(&event(number)));
        }
        assert!(!back.push(&event(63)));
        assert_eq!(front.take(), Ok(Some(event(0))));
        assert!(!back.push(&event(63)), "taken, but not confirmed");
        front.confirm().unwrap();
        assert!(back.push(&event(63)));
    }

    #[test]
    fn events_before_the_wrap_of_the_counter_are_not_overwritten_by_those_after_it() {
        let (mut front, mut back, _) = page(2u32.wrapping_neg());
        assert_eq!(back.free(), EARLY);
        for number in 0..EARLY {
            assert!(back.push(&event(number)));
        }
        assert_eq!((back.produced(), back.free()), (2, 0), "slot 2 holds the first event still");
        assert!(!back.push(&event(4)));
        for number in 0..EARLY {
            assert_eq!(front.take(), Ok(Some(event(number))));
        }
        front.confirm().unwrap();
        assert_eq!(back.free(), EVENT_SLOTS);
    }

    #[test]
    fn a_consumer_ahead_of_the_producer_is_a_full_page() {
        let (_, mut back, page) = page(0);
        page.store(IN_CONS, 1).unwrap();
        assert_eq!(back.free(), 0);
        assert!(!back.push(&event(0)));
    }

    #[test]
    fn a_restarted_backend_goes_on_counting() {
        let [front, back, again] = shared_pages();
        let (mut front, mut back) = (FrontEventPage::init(front).unwrap(), EventPage::attach(back).unwrap());
        assert!(back.push(&event(0)));
        drop(back);
        let mut back = EventPage::attach(again).unwrap();
        assert_eq!(back.produced(), 1);
        assert!(back.push(&event(1)));
        assert_eq!(front.take(), Ok(Some(event(0))));
        front.discard().unwrap();
        assert_eq!(front.take(), Ok(None));
        assert_eq!(back.free(), EVENT_SLOTS);
    }

    #[test]
    fn a_backend_that_jumps_ahead_is_caught() {
        let (mut front, _, page) = page(0);
        page.store(IN_PROD, 64).unwrap();
        assert_eq!(front.take(), Err(EventPageError::Overrun(64)));
    }

    #[test]
    fn half_a_page_is_no_event_page() {
        assert!(EventPage::attach(Pages::anonymous(PAGE / 2).unwrap()).is_err());
    }
}
