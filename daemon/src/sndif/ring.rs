//! Both ends of the request ring: one page with four counters and 32 slots, which request and response share.
//!
//! Counters run freely over 32 bits; a slot's place is its counter modulo 32. Each end keeps its own counters in private
//! and only publishes them: what lies in the page may have been changed by the other.

use vsnd_pw_module::{OutOfRange, Pages};

use super::{PACKET, PAGE, Packet};

const REQ_PROD: usize = 0;
const REQ_EVENT: usize = 4;
const RSP_PROD: usize = 8;
const RSP_EVENT: usize = 12;
const FIRST_SLOT: usize = 64;

/// Slots of the ring: as many as fit behind the counters, rounded down to a power of two.
pub const RING_SLOTS: u32 = 32;

/// Why a ring can't be served any longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RingError {
    /// The guest's counter says that more is outstanding than the ring holds.
    #[error("the guest claims {0} outstanding requests, more than the ring's {RING_SLOTS}")]
    Overrun(u32),
    /// There is no request left that this would answer, or no slot for another request.
    #[error("the ring has no slot for this packet")]
    NoSlot,
    /// The mapping isn't a writable page.
    #[error("the ring's page can't be used: {0}")]
    Page(#[from] OutOfRange),
}

/// Where the slot of a counter lies in the page.
fn slot(counter: u32) -> usize {
    FIRST_SLOT + (counter % RING_SLOTS) as usize * PACKET
}

fn copy_slot(pages: &Pages, counter: u32) -> Result<Packet, OutOfRange> {
    let mut packet = [0; PACKET];
    pages.read(slot(counter), &mut packet)?;
    Ok(packet)
}

/// The backend's end.
pub struct BackRing {
    pages: Pages,
    /// The next request to take.
    req_cons: u32,
    /// The next response to publish; never beyond `req_cons`.
    rsp_prod: u32,
}

impl BackRing {
    /// Takes up a ring where its responses ended, so that a restarted backend serves what is still unanswered. On a
    /// fresh page that is its beginning.
    ///
    /// Linux gives a request up after 3 s and sends the next, without a look at the room in the ring. Of more than a ring
    /// that no backend was there to answer, the newest overwrote the oldest: those are passed over.
    ///
    /// # Errors
    /// [`RingError::Page`] when the mapping is shorter than a page.
    pub fn attach(pages: Pages) -> Result<Self, RingError> {
        if pages.len() < PAGE {
            return Err(OutOfRange.into());
        }
        let (rsp_prod, req_prod) = (pages.load(RSP_PROD)?, pages.load(REQ_PROD)?);
        let unanswered = req_prod.wrapping_sub(rsp_prod).min(RING_SLOTS);
        let start = req_prod.wrapping_sub(unanswered);
        Ok(Self { pages, req_cons: start, rsp_prod: start })
    }

    /// Requests published and not taken; from one read of the guest's counter.
    fn unconsumed(&self) -> Result<u32, RingError> {
        let req_prod = self.pages.load(REQ_PROD)?;
        // Every slot from the oldest unanswered request on is taken, so the guest can't have produced a whole ring more.
        // One that stepped back behind what was taken shows as a huge number.
        let outstanding = req_prod.wrapping_sub(self.rsp_prod);
        let unconsumed = req_prod.wrapping_sub(self.req_cons);
        match outstanding.max(unconsumed) {
            0..=RING_SLOTS => Ok(unconsumed),
            claimed => Err(RingError::Overrun(claimed)),
        }
    }

    /// The next request, copied once out of the page; `None` when all are taken. Each one taken needs one
    /// [`respond`](Self::respond).
    ///
    /// # Errors
    /// [`RingError::Overrun`]: the guest broke the protocol, and the ring is to be left.
    pub fn take(&mut self) -> Result<Option<Packet>, RingError> {
        if self.unconsumed()? == 0 {
            return Ok(None);
        }
        let packet = copy_slot(&self.pages, self.req_cons)?;
        self.req_cons = self.req_cons.wrapping_add(1);
        Ok(Some(packet))
    }

    /// Whether there is more to take. If not, the guest is told first to notify of its very next request, and the ring
    /// looked at once more: to be called before waiting (RING_FINAL_CHECK_FOR_REQUESTS).
    ///
    /// # Errors
    /// [`RingError::Overrun`].
    pub fn final_check(&mut self) -> Result<bool, RingError> {
        if self.unconsumed()? > 0 {
            return Ok(true);
        }
        // A full barrier stands between this store and the look at the guest's counter.
        self.pages.store(REQ_EVENT, self.req_cons.wrapping_add(1))?;
        Ok(self.unconsumed()? > 0)
    }

    /// Requests taken and not answered.
    pub fn unanswered(&self) -> u32 {
        self.req_cons.wrapping_sub(self.rsp_prod)
    }

    /// Publishes a response. Notify the guest afterwards, always: the Linux frontend may leave its wish for a
    /// notification behind and would never hear of another response.
    ///
    /// # Errors
    /// [`RingError::NoSlot`] when every request taken has been answered.
    pub fn respond(&mut self, packet: &Packet) -> Result<(), RingError> {
        if self.unanswered() == 0 {
            return Err(RingError::NoSlot);
        }
        self.pages.write(slot(self.rsp_prod), packet)?;
        let next = self.rsp_prod.wrapping_add(1);
        // "Front sees responses before updated producer index."
        self.pages.store(RSP_PROD, next)?;
        self.rsp_prod = next;
        Ok(())
    }
}

/// The frontend's end, for the simulator.
pub struct FrontRing {
    pages: Pages,
    req_prod: u32,
    rsp_cons: u32,
}

impl FrontRing {
    /// Prepares a page as an empty ring.
    ///
    /// # Errors
    /// [`RingError::Page`] when the mapping is no writable page.
    pub fn init(pages: Pages) -> Result<Self, RingError> {
        Self::init_at(pages, 0)
    }

    fn init_at(pages: Pages, start: u32) -> Result<Self, RingError> {
        pages.write(0, &[0; PAGE])?;
        pages.store(REQ_PROD, start)?;
        pages.store(RSP_PROD, start)?;
        pages.store(REQ_EVENT, start.wrapping_add(1))?;
        pages.store(RSP_EVENT, start.wrapping_add(1))?;
        Ok(Self { pages, req_prod: start, rsp_cons: start })
    }

    /// Publishes a request; whether the backend wants to be notified of it.
    ///
    /// # Errors
    /// [`RingError::NoSlot`] when 32 requests are unanswered.
    pub fn push(&mut self, packet: &Packet) -> Result<bool, RingError> {
        if self.req_prod.wrapping_sub(self.rsp_cons) >= RING_SLOTS {
            return Err(RingError::NoSlot);
        }
        self.pages.write(slot(self.req_prod), packet)?;
        self.req_prod = self.req_prod.wrapping_add(1);
        self.pages.store(REQ_PROD, self.req_prod)?;
        // "Back sees new requests before we check req_event": notify if the wish lies at the request just published.
        Ok(self.pages.load(REQ_EVENT)? == self.req_prod)
    }

    /// The next response; `None` when all are taken, and then the backend has been asked to notify of the next.
    ///
    /// # Errors
    /// [`RingError::Overrun`] when the backend claims more responses than there were requests.
    pub fn take_response(&mut self) -> Result<Option<Packet>, RingError> {
        if self.unconsumed()? == 0 {
            self.pages.store(RSP_EVENT, self.rsp_cons.wrapping_add(1))?;
            if self.unconsumed()? == 0 {
                return Ok(None);
            }
        }
        let packet = copy_slot(&self.pages, self.rsp_cons)?;
        self.rsp_cons = self.rsp_cons.wrapping_add(1);
        Ok(Some(packet))
    }

    fn unconsumed(&self) -> Result<u32, RingError> {
        let unconsumed = self.pages.load(RSP_PROD)?.wrapping_sub(self.rsp_cons);
        let expected = self.req_prod.wrapping_sub(self.rsp_cons);
        if unconsumed > expected { Err(RingError::Overrun(unconsumed)) } else { Ok(unconsumed) }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::mpsc;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::super::testing::shared_pages;
    use super::*;

    fn ring(start: u32) -> (FrontRing, BackRing, Pages) {
        let [front, back, page] = shared_pages();
        (FrontRing::init_at(front, start).unwrap(), BackRing::attach(back).unwrap(), page)
    }

    fn packet(number: u32) -> Packet {
        let mut packet = [0xa5; PACKET];
        packet[..4].copy_from_slice(&number.to_le_bytes());
        packet[60..].copy_from_slice(&number.to_le_bytes());
        packet
    }

    /// Counters near the wrap-around of 32 bits as often as others.
    fn starts() -> impl Strategy<Value = u32> {
        prop_oneof![Just(0), any::<u32>(), (0u32..200).prop_map(|n| n.wrapping_neg())]
    }

    #[derive(Clone, Debug)]
    enum Step {
        Push,
        Take,
        Respond,
        TakeResponse,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = proptest::sample::select(vec![Step::Push, Step::Take, Step::Respond, Step::TakeResponse]);
        proptest::collection::vec(step, 0..400)
    }

    proptest! {
        #[test]
        fn every_request_and_response_arrives_once_and_in_order(start in starts(), steps in steps()) {
            let (mut front, mut back, _) = ring(start);
            let (mut sent, mut seen, mut answered, mut heard) = (0u32, 0u32, 0u32, 0u32);
            for step in steps {
                match step {
                    Step::Push => match front.push(&packet(sent)) {
                        Ok(_) => sent += 1,
                        Err(error) => {
                            prop_assert_eq!(error, RingError::NoSlot);
                            prop_assert_eq!(sent - heard, RING_SLOTS);
                        }
                    },
                    Step::Take => match back.take().unwrap() {
                        Some(request) => {
                            prop_assert_eq!(request, packet(seen));
                            seen += 1;
                        }
                        None => prop_assert_eq!(seen, sent),
                    },
                    Step::Respond => match back.respond(&packet(!answered)) {
                        Ok(()) => answered += 1,
                        Err(error) => {
                            prop_assert_eq!(error, RingError::NoSlot);
                            prop_assert_eq!(answered, seen);
                        }
                    },
                    Step::TakeResponse => match front.take_response().unwrap() {
                        Some(response) => {
                            prop_assert_eq!(response, packet(!heard));
                            heard += 1;
                        }
                        None => prop_assert_eq!(heard, answered),
                    },
                }
                prop_assert_eq!(back.unanswered(), seen - answered);
            }
        }

        #[test]
        fn a_backend_that_sleeps_after_its_final_check_is_always_notified(start in starts(), bursts in proptest::collection::vec(1u32..8, 1..40)) {
            let (mut front, mut back, _) = ring(start);
            for burst in bursts {
                prop_assert!(!back.final_check().unwrap());
                let notified: Vec<_> = (0..burst).map(|n| front.push(&packet(n)).unwrap()).collect();
                prop_assert!(notified[0], "the first request after the final check must notify");
                prop_assert!(!notified[1..].contains(&true), "and only the first");
                prop_assert!(back.final_check().unwrap());
                while let Some(request) = back.take().unwrap() {
                    back.respond(&request).unwrap();
                    prop_assert!(front.take_response().unwrap().is_some());
                }
            }
        }

        #[test]
        fn no_counter_makes_the_backend_take_more_than_a_ring(start: u32, writes in proptest::collection::vec((0usize..4, any::<u32>()), 0..40)) {
            let (_, mut back, page) = ring(start);
            for (counter, value) in writes {
                page.store(counter * 4, value).unwrap();
                let mut taken = VecDeque::new();
                while let Ok(Some(request)) = back.take() {
                    taken.push_back(request);
                    prop_assert!(taken.len() <= RING_SLOTS as usize);
                }
                for request in taken {
                    back.respond(&request).unwrap();
                }
                let _ = back.final_check();
                prop_assert_eq!(back.respond(&packet(0)), Err(RingError::NoSlot));
            }
        }
    }

    #[test]
    fn no_wake_up_is_lost_between_two_threads() {
        const REQUESTS: u32 = 20_000;
        const PATIENCE: Duration = Duration::from_secs(20);
        let (mut front, mut back, _) = ring(u32::MAX - 1000);
        // An event channel holds one notification, however often it is notified.
        let (notify_back, back_notified) = mpsc::sync_channel(1);
        let (notify_front, front_notified) = mpsc::sync_channel(1);
        let backend = std::thread::spawn(move || {
            let mut served = 0;
            while served < REQUESTS {
                while let Some(request) = back.take().unwrap() {
                    back.respond(&request).unwrap();
                    let _ = notify_front.try_send(());
                    served += 1;
                }
                if served < REQUESTS && !back.final_check().unwrap() {
                    back_notified.recv_timeout(PATIENCE).unwrap();
                }
            }
        });
        for number in 0..REQUESTS {
            // At every moment of the backend's going to sleep.
            for _ in 0..number % 97 {
                std::hint::spin_loop();
            }
            if front.push(&packet(number)).unwrap() {
                let _ = notify_back.try_send(());
            }
            let response = loop {
                match front.take_response().unwrap() {
                    Some(response) => break response,
                    None => front_notified.recv_timeout(PATIENCE).unwrap(),
                }
            };
            assert_eq!(response, packet(number));
        }
        backend.join().unwrap();
    }

    #[test]
    fn a_full_ring_is_served_and_one_more_is_an_overrun() {
        let (mut front, mut back, page) = ring(u32::MAX - 5);
        for number in 0..RING_SLOTS {
            front.push(&packet(number)).unwrap();
        }
        assert_eq!(front.push(&packet(32)), Err(RingError::NoSlot));
        assert_eq!(back.take(), Ok(Some(packet(0))));
        page.store(REQ_PROD, (u32::MAX - 5).wrapping_add(33)).unwrap();
        // The slot of the 33rd is that of the first, which isn't answered yet.
        assert_eq!(back.take(), Err(RingError::Overrun(33)));
    }

    #[test]
    fn a_counter_that_steps_back_is_an_overrun() {
        let (mut front, mut back, page) = ring(100);
        front.push(&packet(0)).unwrap();
        front.push(&packet(1)).unwrap();
        back.take().unwrap();
        back.take().unwrap();
        page.store(REQ_PROD, 101).unwrap();
        assert_eq!(back.take(), Err(RingError::Overrun(u32::MAX)));
        assert_eq!(back.final_check(), Err(RingError::Overrun(u32::MAX)));
    }

    #[test]
    fn a_restarted_backend_serves_what_is_unanswered() {
        let [front, back, again] = shared_pages();
        let (mut front, mut back) = (FrontRing::init(front).unwrap(), BackRing::attach(back).unwrap());
        for number in 0..3 {
            front.push(&packet(number)).unwrap();
        }
        back.take().unwrap();
        back.respond(&packet(100)).unwrap();
        back.take().unwrap();
        drop(back);
        let mut back = BackRing::attach(again).unwrap();
        assert_eq!(back.take(), Ok(Some(packet(1))));
        assert_eq!(back.take(), Ok(Some(packet(2))));
        assert_eq!(back.take(), Ok(None));
    }

    #[test]
    fn of_more_than_a_ring_that_nobody_answered_the_newest_are_served() {
        let [front, back, page] = shared_pages();
        let mut front = FrontRing::init_at(front, u32::MAX - 20).unwrap();
        // Linux counts on and looks at no room.
        for number in 0..RING_SLOTS + 8 {
            front.rsp_cons = front.req_prod;
            front.push(&packet(number)).unwrap();
        }
        let mut back = BackRing::attach(back).unwrap();
        for number in 8..RING_SLOTS + 8 {
            assert_eq!(back.take(), Ok(Some(packet(number))));
            back.respond(&packet(number)).unwrap();
        }
        assert_eq!(back.take(), Ok(None));
        assert_eq!(page.load(RSP_PROD), page.load(REQ_PROD));
    }

    #[test]
    fn half_a_page_is_no_ring() {
        assert!(BackRing::attach(Pages::anonymous(PAGE / 2).unwrap()).is_err());
    }
}
