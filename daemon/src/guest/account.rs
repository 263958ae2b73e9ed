//! What one guest has had of what it may have. All its cards share one account.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tracing::warn;
use vsnd_pw_module::{Access, Nanos, Pages, monotonic_now};

use super::budget::{Bucket, Rate};
use crate::config::{GuestLimits, TotalLimits};
use crate::stream::lock;
use crate::xen::{DomId, GrantError, GrantRef, Grants};

/// Pages of a MiB.
const PAGES_A_MIB: u64 = 256;
/// A guest that stays over a bound is named again after so long.
const NAMED_AGAIN: Nanos = Nanos::from_millis(60_000);

/// What a guest can have too much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// Cards.
    Cards,
    /// Streams.
    Streams,
    /// Memory mapped.
    Memory,
    /// Memory mapped, with all other guests.
    TotalMemory,
    /// Requests and notifications.
    Requests,
    /// Looks at its streams.
    Events,
    /// OPEN requests.
    Opens,
    /// Changes of its cards' states.
    StateChanges,
}

impl Bound {
    /// The key of the policy file that raises it.
    const fn key(self) -> &'static str {
        match self {
            Self::Cards => "limits.cards",
            Self::Streams => "limits.streams",
            Self::Memory => "limits.memory",
            Self::TotalMemory => "total.memory",
            Self::Requests => "limits.requests-per-second",
            Self::Events => "limits.events-per-second",
            Self::Opens => "limits.opens-per-minute",
            Self::StateChanges => "limits.state-changes-per-minute",
        }
    }

    const fn unit(self) -> &'static str {
        match self {
            Self::Cards => "cards",
            Self::Streams => "streams",
            Self::Memory => "MiB of memory",
            Self::TotalMemory => "MiB of memory of all guests",
            Self::Requests => "requests a second",
            Self::Events => "looks at its streams a second",
            Self::Opens => "OPENs a minute",
            Self::StateChanges => "state changes a minute",
        }
    }
}

/// More than a guest may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub struct OverBound {
    bound: Bound,
    limit: NonZeroU32,
}

impl fmt::Display for OverBound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bound, limit } = self;
        write!(f, "more than {limit} {} ({} in the policy file raises it)", bound.unit(), bound.key())
    }
}

/// A bound on how often something is done.
#[derive(Debug)]
pub struct Meter {
    over: OverBound,
    state: Mutex<MeterState>,
}

#[derive(Debug)]
struct MeterState {
    bucket: Bucket,
    /// When the guest was last named for it.
    named: Option<Nanos>,
}

/// What a guest that did something too often has to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delay {
    /// The instant.
    pub until: Nanos,
    /// Whether the log is to say so; see [`Account::name_for`].
    pub is_news: bool,
}

impl Meter {
    fn new(bound: Bound, limit: NonZeroU32, rate: fn(NonZeroU32) -> Rate) -> Self {
        let state = MeterState { bucket: Bucket::new(rate(limit)), named: None };
        Self { over: OverBound { bound, limit }, state: Mutex::new(state) }
    }

    /// It was done `times` times, the last at `now`. Returns how long the guest has to be kept from doing it again.
    pub fn take(&self, now: Nanos, times: u32) -> Option<Delay> {
        let mut state = lock(&self.state);
        let until = state.bucket.take(now, times)?;
        let is_news = state.named.is_none_or(|named| now - named >= NAMED_AGAIN);
        if is_news {
            state.named = Some(now);
        }
        Some(Delay { until, is_news })
    }
}

/// Pages mapped of all guests.
#[derive(Debug)]
pub struct Total {
    limits: TotalLimits,
    pages: Mutex<u64>,
}

impl Total {
    /// Nothing mapped yet.
    pub fn new(limits: TotalLimits) -> Arc<Self> {
        Arc::new(Self { limits, pages: Mutex::new(0) })
    }
}

/// What a guest has at present.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Holdings {
    cards: u32,
    streams: u32,
    pages: u64,
}

/// One guest's account.
#[derive(Debug)]
pub struct Account {
    /// The guest, as it is shown.
    guest: String,
    limits: GuestLimits,
    /// Requests, and notifications that bring none.
    pub requests: Meter,
    /// OPEN requests.
    pub opens: Meter,
    /// The pacer's looks at its streams.
    pub events: Meter,
    /// Looks at its cards for a change of theirs.
    pub state_changes: Meter,
    /// Whether the guest is to be named for its events, by a thread that may wait for the log.
    noted: AtomicBool,
    faults: Mutex<Bucket>,
    holdings: Mutex<Holdings>,
    total: Arc<Total>,
}

impl Account {
    /// The account of `guest`, as it is shown.
    pub fn new(guest: impl fmt::Display, limits: GuestLimits, total: &Arc<Total>) -> Arc<Self> {
        Arc::new(Self {
            guest: guest.to_string(),
            limits,
            requests: Meter::new(Bound::Requests, limits.requests_per_second, Rate::per_second),
            opens: Meter::new(Bound::Opens, limits.opens_per_minute, Rate::per_minute),
            events: Meter::new(Bound::Events, limits.events_per_second, Rate::per_second),
            state_changes: Meter::new(Bound::StateChanges, limits.state_changes_per_minute, Rate::per_minute),
            noted: AtomicBool::new(false),
            faults: Mutex::new(Bucket::new(Rate::per_minute(limits.log_lines_per_minute))),
            holdings: Mutex::default(),
            total: Arc::clone(total),
        })
    }

    /// Names the guest in the log for what it does too often.
    pub fn name_for(&self, meter: &Meter) {
        warn!(domain = %self.guest, "the guest is slowed: {}", meter.over);
    }

    /// Notes that the guest is to be named for its events: the pacer never waits for the log.
    pub fn note(&self) {
        self.noted.store(true, Ordering::Relaxed);
    }

    /// Names the guest for what was noted.
    pub fn name_noted(&self) {
        if self.noted.swap(false, Ordering::Relaxed) {
            self.name_for(&self.events);
        }
    }

    /// Whether the log takes one more line about a fault of this guest; if so, what is to stand at the line's end.
    pub fn may_tell(&self) -> Option<&'static str> {
        let now = monotonic_now();
        let mut faults = lock(&self.faults);
        let before = *faults;
        if faults.take(now, 1).is_some() {
            // What is not told costs nothing, or a guest could keep its own faults out of the log for ever.
            *faults = before;
            return None;
        }
        let mut next = *faults;
        Some(if next.take(now, 1).is_some() {
            " (more of this guest's faults are not told for a while)"
        } else {
            ""
        })
    }

    /// A card with so many streams.
    ///
    /// # Errors
    /// `OverBound`: the guest would have too many of either.
    pub fn add_card(self: &Arc<Self>, streams: u32) -> Result<CardHeld, OverBound> {
        let GuestLimits { cards: most_cards, streams: most_streams, .. } = self.limits;
        let mut holdings = lock(&self.holdings);
        let (cards, all) = (holdings.cards.saturating_add(1), holdings.streams.saturating_add(streams));
        if cards > most_cards.get() {
            return Err(OverBound { bound: Bound::Cards, limit: most_cards });
        }
        if all > most_streams.get() {
            return Err(OverBound { bound: Bound::Streams, limit: most_streams });
        }
        (holdings.cards, holdings.streams) = (cards, all);
        Ok(CardHeld { account: Arc::clone(self), streams })
    }

    fn add_pages(self: &Arc<Self>, pages: u64) -> Result<PagesHeld, OverBound> {
        let mut holdings = lock(&self.holdings);
        let mut total = lock(&self.total.pages);
        let bounds = [
            (holdings.pages, Bound::Memory, self.limits.memory),
            (*total, Bound::TotalMemory, self.total.limits.memory),
        ];
        for (held, bound, limit) in bounds {
            if held.saturating_add(pages) > u64::from(limit.get()) * PAGES_A_MIB {
                return Err(OverBound { bound, limit });
            }
        }
        holdings.pages += pages;
        *total += pages;
        Ok(PagesHeld { account: Arc::clone(self), pages })
    }
}

/// A card that counts as long as this lives.
pub struct CardHeld {
    account: Arc<Account>,
    streams: u32,
}

impl Drop for CardHeld {
    fn drop(&mut self) {
        let mut holdings = lock(&self.account.holdings);
        holdings.cards -= 1;
        holdings.streams -= self.streams;
    }
}

/// Pages that count as long as this lives.
struct PagesHeld {
    account: Arc<Account>,
    pages: u64,
}

impl Drop for PagesHeld {
    fn drop(&mut self) {
        lock(&self.account.holdings).pages -= self.pages;
        *lock(&self.account.total.pages) -= self.pages;
    }
}

/// A guest's grants, mapped as far as its account goes.
pub struct Metered {
    grants: Arc<dyn Grants>,
    account: Arc<Account>,
}

impl Metered {
    /// `grants`, on `account`.
    pub fn new(grants: &Arc<dyn Grants>, account: &Arc<Account>) -> Arc<Self> {
        Arc::new(Self { grants: Arc::clone(grants), account: Arc::clone(account) })
    }
}

impl Grants for Metered {
    fn map(&self, domain: DomId, references: &[GrantRef], access: Access) -> Result<Pages, GrantError> {
        let held = self.account.add_pages(references.len() as u64);
        let held = held.map_err(|over| GrantError::OverBound(over.to_string()))?;
        Ok(self.grants.map(domain, references, access)?.with_owner(Box::new(held)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(count: u32) -> NonZeroU32 {
        NonZeroU32::new(count).unwrap()
    }

    fn account(limits: GuestLimits, total: &Arc<Total>) -> Arc<Account> {
        Account::new("work", limits, total)
    }

    /// Grants that can always be had.
    struct Granted;

    impl Grants for Granted {
        fn map(&self, _: DomId, references: &[GrantRef], _: Access) -> Result<Pages, GrantError> {
            Ok(Pages::anonymous(references.len() * 4096).unwrap())
        }
    }

    #[test]
    fn memory_is_bounded_for_each_guest_and_for_all() {
        let total = Total::new(TotalLimits { memory: count(3) });
        let limits = GuestLimits { memory: count(2), ..GuestLimits::DEFAULT };
        let grants: Arc<dyn Grants> = Arc::new(Granted);
        let [one, other] = [(); 2].map(|()| Metered::new(&grants, &account(limits, &total)));
        let mib = vec![GrantRef(8); 256];
        let map = |guest: &Metered| guest.map(DomId(1), &mib, Access::ReadWrite);
        let mut held = vec![map(&one).unwrap(), map(&one).unwrap()];
        let refused = |guest| map(guest).err().unwrap().to_string();
        assert_eq!(
            refused(&one),
            "the guest has more than 2 MiB of memory (limits.memory in the policy file raises it)"
        );
        held.push(map(&other).unwrap());
        assert!(refused(&other).contains("more than 3 MiB of memory of all guests (total.memory "));
        held.remove(0);
        map(&other).unwrap();
        drop(held);
        assert_eq!(*lock(&total.pages), 0);
        assert_eq!(*lock(&one.account.holdings), Holdings::default());
    }

    #[test]
    fn cards_and_streams_count_until_they_go() {
        let limits = GuestLimits { cards: count(2), streams: count(5), ..GuestLimits::DEFAULT };
        let account = account(limits, &Total::new(TotalLimits::default()));
        let first = account.add_card(4).unwrap();
        let over = account.add_card(2).err().unwrap();
        assert_eq!(over.to_string(), "more than 5 streams (limits.streams in the policy file raises it)");
        let second = account.add_card(1).unwrap();
        assert!(account.add_card(0).err().unwrap().to_string().contains("limits.cards"));
        drop((first, second));
        account.add_card(5).unwrap();
    }

    #[test]
    fn a_guest_that_stays_over_a_bound_is_named_once_a_minute() {
        let meter = Meter::new(Bound::Opens, count(1), Rate::per_second);
        let at = Nanos::from_millis;
        assert_eq!(meter.take(at(0), 1), None);
        assert_eq!(meter.take(at(0), 1), Some(Delay { until: at(1_000), is_news: true }));
        assert_eq!(meter.take(at(1_500), 1), Some(Delay { until: at(2_000), is_news: false }));
        assert_eq!(meter.take(at(60_000), 3).map(|delay| delay.is_news), Some(true));
    }

    #[test]
    fn faults_are_told_as_often_as_allowed_and_the_last_line_says_so() {
        let limits = GuestLimits { log_lines_per_minute: count(3), ..GuestLimits::DEFAULT };
        let account = account(limits, &Total::new(TotalLimits::default()));
        let told: Vec<_> = (0..100).filter_map(|_| account.may_tell()).collect();
        assert!(told[..2] == ["", ""] && told[2].contains("not told"), "{told:?}");
        assert_eq!(told.len(), 3);
    }
}
