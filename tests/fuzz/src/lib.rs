//! Hostile guests: each [`Target`] plays one part of what a guest can reach, by the octets of an input.
//!
//! The same targets run in two ways. `make test` replays the kept inputs and then a fixed number of mutants of them, on any
//! toolchain (`budget.rs`). `make fuzz` lets libFuzzer search by coverage, without end (`main.rs`). A target panics where
//! the bridge broke a rule; [`Target::run`] adds what holds for all of them: no thread panics, nothing stays held, and an
//! input costs no more than [`LONGEST`] of processor time.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a target that can't go on has found something

mod log;
pub mod memory;
pub mod raw;
mod targets;
mod xen;

use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use arbitrary::{Arbitrary, Unstructured};
use rustix::time::{ClockId, clock_gettime};

pub use targets::TARGETS;

/// The processor time that one input may cost. Without the compiler's optimisation, as in `make test`, everything takes several
/// times as long.
pub const LONGEST: Duration = Duration::from_millis(if cfg!(feature = "libfuzzer") { 10 } else { 40 });

/// How often an input that took longer is tried again: what a busy machine did once it doesn't do each time.
const TRIES: u32 = 5;

/// Steps of one input at most: an input is a moment of a guest's life, and has to cost less than [`LONGEST`].
const MOST_STEPS: usize = 64;

/// One part of what a guest can reach.
pub struct Target {
    /// Its name, and that of its corpus.
    pub name: &'static str,
    /// What a guest does there.
    pub about: &'static str,
    /// Inputs that `make test` tries.
    pub budget: u64,
    body: fn(&mut Unstructured<'_>) -> arbitrary::Result<()>,
}

static PANICS: AtomicU32 = AtomicU32::new(0);

impl Target {
    /// The target of that name.
    pub fn named(name: &str) -> Option<&'static Self> {
        TARGETS.iter().find(|target| target.name == name)
    }

    /// Runs one input. Returns the processor time that it took, of all threads.
    ///
    /// # Panics
    /// Where the bridge broke a rule.
    pub fn run(&self, input: &[u8]) -> Duration {
        count_panics();
        let mut took = Duration::MAX;
        for _ in 0..TRIES {
            took = took.min(self.run_once(input));
            if took <= LONGEST {
                return took;
            }
        }
        panic!("the input took {took:?} of processor time, each of {TRIES} times");
    }

    fn run_once(&self, input: &[u8]) -> Duration {
        let panics = PANICS.load(Ordering::Acquire);
        let began = processor_time();
        // An input that ends early is a short one.
        let _ = (self.body)(&mut Unstructured::new(input));
        let took = processor_time().saturating_sub(began);
        assert_eq!(PANICS.load(Ordering::Acquire), panics, "a thread of the bridge panicked");
        log::check();
        took
    }
}

/// Panics of threads that nobody joins count, too.
fn count_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let tell = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            PANICS.fetch_add(1, Ordering::AcqRel);
            tell(panic);
        }));
        log::keep();
    });
}

/// The processor time that this process has taken: a busy machine doesn't make it longer.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

/// The steps that an input tells.
fn steps<'a, T: Arbitrary<'a>>(input: &mut Unstructured<'a>) -> impl Iterator<Item = T> {
    let mut left = MOST_STEPS;
    std::iter::from_fn(move || {
        left = left.checked_sub(1)?;
        if input.is_empty() { None } else { input.arbitrary().ok() }
    })
}
