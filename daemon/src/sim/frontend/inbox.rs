//! The guest's end of a stream's events: which of them the driver takes, by kernel.

use vsnd_pw_module::{Frames, Octets, Pages};

use super::position::{Kernel, Measure, Position, Word};
use crate::sndif::{EventPageError, FrontEventPage};

/// What a backend did that harms the guest's kernel.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Harm {
    /// A position before the ring's size is known: the older kernels divide by zero.
    #[error("a position before hw_params: the kernel divides by zero")]
    DivisionByZero,
    /// More events than slots, or an event that the protocol does not have.
    #[error("the event page: {0}")]
    Page(#[from] EventPageError),
    /// More answers than requests.
    #[error("the request ring: {0}")]
    Ring(String),
}

/// What was taken and what was not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventCounts {
    /// Events of the id that the driver expects.
    pub accepted: u64,
    /// Events of another id.
    pub ignored: u64,
    /// Accepted events that ended a period by the driver's own count.
    pub periods: u64,
}

/// An accepted event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// What it said.
    pub position: Octets,
    /// Whether the driver tells the sound core of an elapsed period.
    pub elapsed: bool,
}

/// The event channel of one stream, as its interrupt handler keeps it.
pub struct Inbox {
    kernel: Kernel,
    page: FrontEventPage,
    /// The id that the next event must have; counts every slot taken, accepted or not.
    next_id: u16,
    connected: bool,
    measure: Option<Measure>,
    position: Position,
    word: Word,
    counts: EventCounts,
    harm: Vec<Harm>,
}

impl Inbox {
    /// The inbox of a fresh event page.
    ///
    /// # Errors
    /// [`Harm::Page`] when it is no page.
    pub fn new(kernel: Kernel, word: Word, page: Pages) -> Result<Self, Harm> {
        let page = FrontEventPage::init(page).map_err(EventPageError::from)?;
        Ok(Self {
            kernel,
            page,
            next_id: 0,
            connected: false,
            measure: None,
            position: Position::new(word),
            word,
            counts: EventCounts::default(),
            harm: Vec::new(),
        })
    }

    /// Where the hardware is in the ring, as the driver knows.
    pub fn pointer(&self) -> Frames {
        self.position.pointer()
    }

    /// What was taken so far.
    pub fn counts(&self) -> EventCounts {
        self.counts
    }

    /// What the backend did that harms the guest.
    pub fn harm(&self) -> &[Harm] {
        &self.harm
    }

    /// An application opens the stream.
    pub(super) fn open(&mut self) {
        self.measure = None;
        self.clear();
        self.connected = self.kernel == Kernel::Until2026;
    }

    /// The driver's stream_clear: at open, hw_params and hw_free.
    pub(super) fn clear(&mut self) {
        self.position = Position::new(self.word);
        if self.kernel == Kernel::Since2026 {
            self.next_id = 0;
            if let Err(error) = self.page.discard() {
                self.harm.push(Harm::Page(error.into()));
            }
        }
    }

    pub(super) fn set_measure(&mut self, measure: Measure) {
        self.measure = Some(measure);
    }

    pub(super) fn prepared(&mut self) {
        self.connected = true;
    }

    pub(super) fn freeing(&mut self) {
        if self.kernel == Kernel::Since2026 {
            self.connected = false;
        }
    }

    pub(super) fn close(&mut self) {
        self.connected = false;
        self.measure = None;
    }

    /// The interrupt handler's next step: the next event that is accepted, `None` once the page is empty.
    pub fn take(&mut self) -> Option<Taken> {
        if !self.connected {
            return None;
        }
        loop {
            let event = match self.page.take() {
                Ok(Some(event)) => event,
                Ok(None) => {
                    let confirmed = self.page.confirm();
                    self.harm.extend(confirmed.err().map(|error| Harm::Page(error.into())));
                    return None;
                }
                Err(error) => {
                    self.harm.push(Harm::Page(error));
                    self.connected = false;
                    return None;
                }
            };
            let expected = self.next_id;
            self.next_id = expected.wrapping_add(1);
            if event.id != expected {
                self.counts.ignored += 1;
                continue;
            }
            self.counts.accepted += 1;
            let Some(measure) = self.measure else {
                if self.kernel == Kernel::Until2026 {
                    self.harm.push(Harm::DivisionByZero);
                }
                continue;
            };
            let elapsed = self.position.moved_to(event.position, measure);
            self.counts.periods += u64::from(elapsed);
            return Some(Taken { position: event.position, elapsed });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use vsnd_pw_module::Access;

    use super::*;
    use crate::sndif::{Event, EventPage};

    /// How a backend numbers its events.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Numbering {
        /// Never begins anew.
        Running,
        /// Begins anew with every OPEN.
        PerOpen,
        /// Each position twice, once under each number, while the two differ.
        Both,
    }

    struct Sender {
        page: EventPage,
        numbering: Numbering,
        total: u16,
        per_open: u16,
    }

    impl Sender {
        fn push(&mut self, id: u16, position: u64) {
            if self.page.push(&Event { id, position: Octets(position) }) {
                self.total = self.total.wrapping_add(1);
                self.per_open = self.per_open.wrapping_add(1);
            }
        }

        fn send(&mut self, position: u64) {
            match self.numbering {
                Numbering::Running => self.push(self.total, position),
                Numbering::PerOpen => self.push(self.per_open, position),
                Numbering::Both if self.total == self.per_open => self.push(self.total, position),
                Numbering::Both if self.page.free() >= 2 => {
                    self.push(self.total, position);
                    self.push(self.per_open, position);
                }
                Numbering::Both => (),
            }
        }
    }

    fn setup(kernel: Kernel, numbering: Numbering) -> (Inbox, Sender) {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4096).unwrap();
        let page = || Pages::scattered(file.as_fd(), &[0], Access::ReadWrite).unwrap();
        let inbox = Inbox::new(kernel, Word::Bits64, page()).unwrap();
        let page = EventPage::attach(page()).unwrap();
        (inbox, Sender { page, numbering, total: 0, per_open: 0 })
    }

    const MEASURE: Measure = Measure { period: Frames(1), buffer: Frames(4), frame_octets: 1 };

    /// Five times open, 100 positions, close: how many of each open's arrive.
    fn accepted(kernel: Kernel, numbering: Numbering) -> Vec<usize> {
        let (mut inbox, mut sender) = setup(kernel, numbering);
        let one_open = |_| {
            inbox.open();
            inbox.clear();
            inbox.set_measure(MEASURE);
            sender.per_open = 0;
            inbox.prepared();
            let mut seen = Vec::new();
            for position in 1..=100 {
                sender.send(position);
                seen.extend(std::iter::from_fn(|| inbox.take()).map(|taken| taken.position.0));
            }
            // One position under two numbers may come twice.
            seen.dedup();
            inbox.freeing();
            inbox.clear();
            inbox.close();
            assert!(seen.is_sorted());
            seen.len()
        };
        (0..5).map(one_open).collect()
    }

    #[test]
    fn only_doubled_ids_are_accepted_by_all_kernels() {
        use Kernel::{Since2026, Until2026};
        let (all, first) = (vec![100; 5], vec![100, 0, 0, 0, 0]);
        assert_eq!(accepted(Until2026, Numbering::Running), all);
        assert_eq!(accepted(Until2026, Numbering::PerOpen), first);
        assert_eq!(accepted(Until2026, Numbering::Both), all);
        assert_eq!(accepted(Since2026, Numbering::Running), first);
        assert_eq!(accepted(Since2026, Numbering::PerOpen), all);
        assert_eq!(accepted(Since2026, Numbering::Both), all);
    }

    fn accepted_after_a_pause(burn_ids: bool) -> usize {
        let (mut inbox, mut sender) = setup(Kernel::Until2026, Numbering::Running);
        inbox.open();
        inbox.set_measure(MEASURE);
        let mut burnt = 0u16;
        let mut send = |position: u64| {
            if burn_ids {
                sender.page.push(&Event { id: burnt, position: Octets(position) });
                burnt = burnt.wrapping_add(1);
            } else {
                sender.send(position);
            }
        };
        (0..200).for_each(&mut send);
        while inbox.take().is_some() {}
        let mut seen = 0;
        for position in 200..300 {
            send(position);
            seen += std::iter::from_fn(|| inbox.take()).filter(|taken| taken.position.0 >= 200).count();
        }
        seen
    }

    #[test]
    fn an_id_lost_on_a_full_page_mutes_all_later_events() {
        assert_eq!(accepted_after_a_pause(true), 0);
        assert_eq!(accepted_after_a_pause(false), 100);
    }

    #[test]
    fn an_event_before_hw_params_kills_the_older_kernels_only() {
        for (kernel, harm) in [(Kernel::Until2026, vec![Harm::DivisionByZero]), (Kernel::Since2026, vec![])] {
            let (mut inbox, mut sender) = setup(kernel, Numbering::Running);
            inbox.open();
            sender.send(1);
            inbox.prepared();
            assert_eq!(inbox.take(), None);
            assert_eq!(inbox.harm(), harm);
        }
    }

    #[test]
    fn events_left_after_close_reach_the_next_open_of_the_older_kernels() {
        for (kernel, left) in [(Kernel::Until2026, Some(7)), (Kernel::Since2026, None)] {
            let (mut inbox, mut sender) = setup(kernel, Numbering::Running);
            inbox.open();
            inbox.close();
            sender.send(7);
            assert_eq!(inbox.take(), None, "closed");
            inbox.open();
            inbox.set_measure(MEASURE);
            inbox.prepared();
            assert_eq!(inbox.take().map(|taken| taken.position.0), left);
        }
    }
}
