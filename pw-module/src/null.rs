//! No sound server, or none that serves a ring just now: CLOCK_MONOTONIC takes the converter's place.

use std::sync::Arc;

use crate::server::{Bounds, Node, NodeSpec, SoundServer};
use crate::units::{Frames, Nanos};
use crate::{Direction, PcmRing, SampleFormat, Timing};

/// How long a node may take to its first cycle after START before the clock takes the ring over: links and permissions
/// take the session manager some time, and a sound that waits is better than one whose beginning is lost. A guest waits
/// for the answer to its START meanwhile, and gives up after 3 s.
const FIRST_CYCLE: Nanos = Nanos::from_millis(1_500);
/// How long a running node may miss its cycles. A guest's kernel fails an application's write that waits for 100 ms or
/// little more, if its ring is short. PipeWire's cycles are longer than half of this only where somebody asked for that; of
/// those two may pass.
const MISSED_CYCLES: Nanos = Nanos::from_millis(60);
/// A clock that nobody called for so long was not running.
const STOOD_STILL: Nanos = Nanos::from_millis(200);
/// A clock that was called so late was held up, and mostly the server with it: that no cycle came meanwhile says nothing of
/// the node.
const HELD_UP: Nanos = Nanos::from_millis(30);

/// The reader of a ring that no node serves: playback is consumed unheard, capture is silence, the position runs on.
#[derive(Debug, Default)]
pub struct NullClock {
    started: Nanos,
    /// How long after the start the first cycle is waited for.
    patience: Nanos,
    /// A run's first cycle was waited for in vain, and none has come since: the server doesn't answer any more, or has
    /// nothing to play on, so the next run isn't made to wait.
    in_vain: bool,
    /// The run goes on after a bridge before.
    goes_on: bool,
    /// When it was last called.
    called: Nanos,
    /// Since when it was called in time.
    watching_since: Nanos,
    driving: Option<Driving>,
}

#[derive(Clone, Copy, Debug)]
struct Driving {
    /// Since when, and from which position, this clock drives the ring.
    since: Nanos,
    from: Frames,
    /// By how many frames what is given is ahead of what is heard: as it was when the node fell silent, so that the position
    /// which the guest is told neither jumps nor waits.
    ahead: i64,
}

impl NullClock {
    /// A run of `ring` starts at `now`. Returns whether a node's first cycle is to be waited for; if not, this clock drives
    /// the ring from its first frame.
    pub fn start(&mut self, ring: &PcmRing, now: Nanos) -> bool {
        let waits = self.waits_for_node(ring);
        let patience = if waits { FIRST_CYCLE } else { Nanos(0) };
        *self = Self { in_vain: self.in_vain, ..Self::begun(now, patience) };
        waits
    }

    /// A run goes on at `now`, and waits for a node no longer than `patience`, nor than at a start: also for one whose server
    /// isn't known yet.
    pub fn go_on(&mut self, now: Nanos, patience: Nanos) {
        let patience = patience.clamp(Nanos(0), FIRST_CYCLE);
        *self = Self { goes_on: true, ..Self::begun(now, patience) };
    }

    fn begun(now: Nanos, patience: Nanos) -> Self {
        Self { started: now, patience, called: now, watching_since: now, ..Self::default() }
    }

    /// Whether a start is to wait for a node.
    pub fn waits_for_node(&self, ring: &PcmRing) -> bool {
        ring.is_attached() && !self.in_vain
    }

    /// Moves the ring to where it should be at `now` if no node does. Called for every running stream at least every 10 ms.
    /// Returns whether this clock drives the ring.
    pub fn drive(&mut self, ring: &PcmRing, now: Nanos) -> bool {
        let away = now - std::mem::replace(&mut self.called, now);
        if away > HELD_UP {
            self.watching_since = now;
        }
        if self.is_served(ring, now) {
            self.driving = None;
            return false;
        }
        let cursor = ring.cursor();
        if !cursor.running {
            return false;
        }
        // A machine that stood still, or slept, plays nothing meanwhile: a guest can't follow a jump of a whole ring.
        let driving = self.driving.filter(|_| away < STOOD_STILL);
        let driving = driving.unwrap_or_else(|| self.take_over(ring, cursor.position, now));
        self.driving = Some(driving);
        let target = driving.from + (now - driving.since).frames(ring.format().rate());
        if target > cursor.position {
            ring.pass_unheard(target - cursor.position);
        }
        let heard = signed(target).saturating_sub(driving.ahead);
        ring.publish(Timing { at: now, heard, given: target, cycle: Frames(0) });
        true
    }

    fn is_served(&mut self, ring: &PcmRing, now: Nanos) -> bool {
        let served = ring.last_cycle();
        if served >= self.started {
            self.in_vain = false;
            let cycle = ring.timing().map_or(Frames(0), |timing| timing.cycle);
            let missed = MISSED_CYCLES.max(Nanos(2 * cycle.duration(ring.format().rate()).0));
            // Once it was replaced, nothing but a cycle tells that it is back.
            let silent_since = if self.driving.is_some() { served } else { served.max(self.watching_since) };
            return ring.is_attached() && now < silent_since + missed;
        }
        if self.driving.is_some() || !(ring.is_attached() || self.goes_on) {
            return false;
        }
        let waits = now < self.started + self.patience;
        self.in_vain |= !waits && !self.goes_on;
        waits
    }

    /// The beginning of a drive at `position`.
    fn take_over(&self, ring: &PcmRing, position: Frames, now: Nanos) -> Driving {
        if ring.last_cycle() >= self.started && self.driving.is_none() {
            // The node was to serve the ring and did not.
            ring.missed_cycle();
        }
        let ahead = ring.timing().map_or(0, |timing| {
            let Timing { at, heard, given, cycle } = timing;
            let ahead = signed(given).saturating_sub(heard);
            let since = signed((now - at).frames(ring.format().rate()));
            // Only as far as time moves it until the next cycle is due.
            match ring.direction() {
                Direction::Playback => ahead.saturating_sub(since).max(0),
                Direction::Capture => ahead.saturating_sub(since.min(signed(cycle))),
            }
        });
        Driving { since: now, from: position, ahead }
    }
}

fn signed(frames: Frames) -> i64 {
    i64::try_from(frames.0).unwrap_or(i64::MAX)
}

/// A server without nodes: every stream runs on its [`NullClock`].
#[derive(Clone, Copy, Debug, Default)]
pub struct NullServer;

impl SoundServer for NullServer {
    fn open(&self, _spec: NodeSpec, _ring: Arc<PcmRing>) -> Option<Box<dyn Node>> {
        None
    }

    fn carries(&self, _format: SampleFormat) -> bool {
        true
    }

    fn bounds(&self) -> Bounds {
        Bounds::NONE
    }
}

#[cfg(test)]
#[path = "null_tests.rs"]
mod tests;
