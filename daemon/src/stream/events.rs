//! Position events that every Linux frontend accepts.
//!
//! Kernels until 2026 number events on for the life of the channel, one number per consumed slot, match or not; later
//! ones start at 0 with every OPEN. A frontend doesn't say which it is, and ignores events with any other number. Up to
//! the second OPEN both agree. From then on each position is put in twice, in neighbouring slots: first under the
//! channel's number, then under the OPEN's. Each kernel takes the one that it expects and skips the other.
//!
//! A frontend keeps its pointer modulo its ring, so that it can't see a step of a whole one: it would go on a ring behind, and
//! all that it writes would come too late. After a time in which nothing could be told, the way is told in steps.

use vsnd_pw_module::Octets;

use crate::sndif::{EVENT_SLOTS, Event, EventPage};

/// Writes positions into a stream's event page. Numbers are given at the moment of writing, so none is ever lost.
pub struct EventWriter {
    page: EventPage,
    /// The channel's own count, which is the page's, at the last OPEN.
    opened_at: u32,
    /// How far the positions of neighbouring events may be from each other.
    stride: Octets,
    /// The last position put in since the OPEN.
    last: Octets,
    /// The newest position that found no room.
    pending: Option<Octets>,
}

impl EventWriter {
    /// A writer that goes on where the page stands (an untouched page: at 0).
    pub fn new(page: EventPage) -> Self {
        Self { opened_at: page.produced(), page, stride: Octets(u64::MAX), last: Octets(0), pending: None }
    }

    /// OPEN: events are numbered from 0 again, and what waited is of the past. A position further than `stride` from the one
    /// before is told by several. Returns what [`take_over`](Self::take_over) asks for.
    pub fn opened(&mut self, stride: Octets) -> u32 {
        self.opened_at = self.page.produced();
        (self.stride, self.last, self.pending) = (stride, Octets(0), None);
        self.opened_at
    }

    /// The stream is open since the channel's count was at `opened_at`, and `told` was the last position.
    pub fn take_over(&mut self, opened_at: u32, told: Octets) {
        (self.opened_at, self.last) = (opened_at, told);
    }

    /// CLOSE: nothing may follow, as old kernels would take a left-over position for one of the next OPEN.
    pub fn closed(&mut self) {
        self.pending = None;
    }

    /// Puts the `position` of a stream that runs in, or keeps it until there is room, in place of an older one that waits.
    /// Returns whether the guest is to be notified.
    pub fn send(&mut self, position: Octets) -> bool {
        self.pending = Some(position);
        self.flush()
    }

    /// As [`send`](Self::send), of a stream at rest: by one event however far it is, as a frontend begins anew after it.
    pub fn rest(&mut self, position: Octets) -> bool {
        self.last = Octets(position.0.saturating_sub(self.stride.0));
        self.send(position)
    }

    /// Puts in what waits, if there is room now. Returns whether the guest is to be notified.
    pub fn flush(&mut self) -> bool {
        if !self.is_waiting() {
            return false;
        }
        let numbered_alike = self.of_channel() == self.of_open();
        let slots = if numbered_alike { 1 } else { 2 };
        // Asked once: a guest that takes as fast as it is told must not keep the pacer.
        let room = self.page.free() / slots;
        let unread = self.page.unread();
        let mut is_news = false;
        for put in 0..room {
            let Some(position) = self.pending else { break };
            let furthest = Octets(self.last.0.saturating_add(self.stride.0));
            let next = position.min(furthest);
            // The guest does not look. The page's other half is for great steps only, so that it holds more than a ring: the guest is
            // to see at once that its ring ran dry, and not to write first what comes too late.
            if unread + put * slots > EVENT_SLOTS / 2 && next < furthest {
                break;
            }
            self.put(self.of_channel(), next);
            if !numbered_alike {
                self.put(self.of_open(), next);
            }
            self.last = next;
            self.pending = Some(position).filter(|position| *position > next);
            is_news = true;
        }
        is_news
    }

    /// Whether a position waits for room.
    pub fn is_waiting(&self) -> bool {
        self.pending.is_some()
    }

    /// The next event's number since the channel was made.
    fn of_channel(&self) -> u16 {
        self.page.produced() as u16
    }

    /// The next event's number since the last OPEN.
    fn of_open(&self) -> u16 {
        self.page.produced().wrapping_sub(self.opened_at) as u16
    }

    fn put(&mut self, id: u16, position: Octets) {
        // Room was checked, and only this writer fills slots: it always fits.
        self.page.push(&Event { id, position });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sndif::FrontEventPage;
    use crate::sndif::testing::shared_pages;
    use proptest::prelude::*;

    /// The numbers that a kernel of either kind expects, and what it accepts.
    struct Front {
        page: FrontEventPage,
        /// Since 2026: an OPEN begins at 0 and drops what is in the page.
        restarts: bool,
        expected: u16,
        accepted: Vec<u64>,
    }

    impl Front {
        fn open(&mut self) {
            if self.restarts {
                self.expected = 0;
                self.page.discard().unwrap();
            }
            self.accepted.clear();
        }

        fn interrupt(&mut self) {
            while let Some(event) = self.page.take().unwrap() {
                if event.id == self.expected {
                    self.accepted.push(event.position.0);
                }
                self.expected = self.expected.wrapping_add(1);
            }
            self.page.confirm().unwrap();
        }
    }

    fn pair(restarts: bool) -> (EventWriter, Front) {
        let [ours, theirs] = shared_pages();
        let page = FrontEventPage::init(theirs).unwrap();
        let front = Front { page, restarts, expected: 0, accepted: Vec::new() };
        (EventWriter::new(EventPage::attach(ours).unwrap()), front)
    }

    /// No position is further than this from the one before.
    const FAR: Octets = Octets(u64::MAX);

    /// Tries it with kernels of both kinds, each at an OPEN whose events have one number and at one whose events have two.
    fn at_each_open(stride: Octets, test: impl Fn(&mut EventWriter, &mut Front)) {
        for restarts in [false, true] {
            let (mut writer, mut front) = pair(restarts);
            for _ in 0..2 {
                front.open();
                writer.opened(stride);
                test(&mut writer, &mut front);
            }
        }
    }

    fn without_repeats(positions: &[u64]) -> Vec<u64> {
        let mut positions = positions.to_vec();
        positions.dedup();
        positions
    }

    #[test]
    fn kernels_of_both_kinds_accept_every_position_of_every_open() {
        for restarts in [false, true] {
            let (mut writer, mut front) = pair(restarts);
            for open in 0..5_u64 {
                front.open();
                writer.opened(FAR);
                let sent: Vec<u64> = (1..=100 + open).collect();
                for position in &sent {
                    assert!(writer.send(Octets(*position)));
                    front.interrupt();
                }
                assert_eq!(without_repeats(&front.accepted), sent, "restarts: {restarts}, OPEN {open}");
                writer.closed();
            }
        }
    }

    #[test]
    fn a_full_page_loses_no_number_and_gives_the_newest_position_when_room_returns() {
        at_each_open(FAR, |writer, front| {
            for position in 1..=200 {
                writer.send(Octets(position));
            }
            assert!(writer.is_waiting());
            assert!(!writer.flush(), "no room yet");
            front.interrupt();
            assert!(writer.flush());
            front.interrupt();
            assert_eq!(front.accepted.last(), Some(&200), "restarts: {}", front.restarts);
            assert!(writer.send(Octets(201)));
            front.interrupt();
            assert_eq!(front.accepted.last(), Some(&201), "restarts: {}", front.restarts);
        });
    }

    #[test]
    fn a_long_way_is_told_in_steps_however_little_room_there_is() {
        const STRIDE: u64 = 100;
        at_each_open(Octets(STRIDE), |writer, front| {
            for position in [STRIDE, 150, 151 + 2 * STRIDE, 90 * STRIDE] {
                assert!(writer.send(Octets(position)));
            }
            while writer.is_waiting() {
                front.interrupt();
                assert!(writer.flush());
            }
            front.interrupt();
            let accepted = without_repeats(&front.accepted);
            assert_eq!(accepted[..5], [100, 150, 250, 350, 351], "restarts: {}", front.restarts);
            assert_eq!(accepted.last(), Some(&(90 * STRIDE)));
            assert!(accepted.windows(2).all(|pair| pair[1] - pair[0] <= STRIDE), "{accepted:?}");
        });
    }

    #[test]
    fn a_page_holds_more_than_a_ring_for_a_guest_that_does_not_look() {
        const STRIDE: u64 = 1_000;
        at_each_open(Octets(STRIDE), |writer, front| {
            for position in (10..=90 * STRIDE).step_by(10) {
                writer.send(Octets(position));
            }
            front.interrupt();
            assert!(*front.accepted.last().unwrap() > 10 * STRIDE, "restarts: {}", front.restarts);
            let accepted = without_repeats(&front.accepted);
            assert!(accepted.windows(2).all(|pair| pair[1] - pair[0] <= STRIDE), "{accepted:?}");
        });
    }

    #[test]
    fn a_stream_that_came_to_rest_is_told_so_at_once() {
        at_each_open(Octets(100), |writer, front| {
            for position in 1..=5_000 {
                writer.send(Octets(position));
            }
            writer.rest(Octets(9_000));
            front.interrupt();
            writer.flush();
            front.interrupt();
            assert!(!writer.is_waiting());
            let [.., before, last] = without_repeats(&front.accepted)[..] else { panic!("no positions") };
            assert!(before <= 5_000, "restarts: {}", front.restarts);
            assert_eq!(last, 9_000);
        });
    }

    #[test]
    fn what_waited_at_close_is_dropped() {
        let (mut writer, _front) = pair(false);
        writer.opened(FAR);
        for position in 1..=64 {
            writer.send(Octets(position));
        }
        assert!(writer.is_waiting());
        writer.closed();
        assert!(!writer.is_waiting());
    }

    #[test]
    fn a_restarted_bridge_goes_on_with_both_numbers() {
        for restarts in [false, true] {
            let [ours, theirs, again] = shared_pages();
            let page = FrontEventPage::init(theirs).unwrap();
            let mut front = Front { page, restarts, expected: 0, accepted: Vec::new() };
            let mut writer = EventWriter::new(EventPage::attach(ours).unwrap());
            let mut opened_at = 0;
            for position in 1..=2 {
                front.open();
                opened_at = writer.opened(FAR);
                writer.send(Octets(position));
                front.interrupt();
            }
            let mut writer = EventWriter::new(EventPage::attach(again).unwrap());
            writer.take_over(opened_at, Octets(2));
            writer.send(Octets(3));
            front.interrupt();
            assert_eq!(front.accepted, [2, 3], "restarts: {restarts}");
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Open,
        Send(u64),
        Interrupt,
        /// A new bridge takes the page up, and the OPEN.
        Restart,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            1 => Just(Step::Open),
            6 => (1u64..100).prop_map(Step::Send),
            6 => Just(Step::Interrupt),
            1 => Just(Step::Restart),
        ];
        proptest::collection::vec(step, 1..200)
    }

    /// Counters anywhere, and around the places where they and the numbers wrap.
    fn starts() -> impl Strategy<Value = u32> {
        let around = |place: u32| (0u32..300).prop_map(move |n| place.wrapping_add(n).wrapping_sub(200));
        prop_oneof![Just(0), any::<u32>(), around(0), around(1 << 16), around(!0xffff)]
    }

    proptest! {
        /// However many events the page has seen, how often the stream was opened and the bridge restarted, and whenever the
        /// guest looks: positions are accepted in their order, and each OPEN's newest one once the guest has looked.
        #[test]
        fn a_position_once_sent_is_accepted_whatever_happened_before(
            start in starts(), restarts: bool, steps in steps(),
        ) {
            let [theirs, ours, restarted @ ..] = shared_pages::<20>();
            let mut restarted = restarted.into_iter();
            // A frontend that counts on has counted every event of this page.
            let page = FrontEventPage::init_at(theirs, start).unwrap();
            let mut front = Front { page, restarts, expected: start as u16, accepted: Vec::new() };
            let mut writer = EventWriter::new(EventPage::attach(ours).unwrap());
            let (mut opened_at, mut sent) = (None, Vec::new());
            for step in steps {
                match step {
                    Step::Open => {
                        // What was told before was notified before, too.
                        front.interrupt();
                        front.open();
                        (opened_at, sent) = (Some(writer.opened(FAR)), Vec::new());
                    }
                    Step::Send(count) if opened_at.is_some() => {
                        for position in (sent.len() as u64 + 1..).take(count as usize) {
                            sent.push(position);
                            writer.send(Octets(position));
                        }
                    }
                    Step::Send(_) => (),
                    Step::Interrupt => {
                        front.interrupt();
                        while writer.flush() {
                            front.interrupt();
                        }
                        prop_assert!(!writer.is_waiting());
                        prop_assert_eq!(front.accepted.last(), sent.last());
                    }
                    Step::Restart => {
                        let Some(pages) = restarted.next() else { continue };
                        writer = EventWriter::new(EventPage::attach(pages).unwrap());
                        if let Some(opened_at) = opened_at {
                            writer.take_over(opened_at, Octets(sent.len() as u64));
                        }
                        // What waited for room is forgotten: the new bridge soon has a newer position.
                        front.interrupt();
                        sent.truncate(front.accepted.last().map_or(0, |last| *last as usize));
                    }
                }
                let accepted = without_repeats(&front.accepted);
                prop_assert!(accepted.windows(2).all(|pair| pair[0] < pair[1]), "{:?}", accepted);
            }
        }
    }
}
