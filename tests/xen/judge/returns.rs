//! The sound server or the bridge was gone, or stood still, and is back: what a guest's programs noticed of it.

use anyhow::Result;
use vsnd_bridge::sim::signal::{PlayReport, compare};

use super::{Case, verdict};
use crate::signals::{self, RATE};

/// A sound server that was killed and started again: everything is heard but the gap, and aplay did not notice. Once the server
/// can be recorded again, the sound is there within a second.
pub fn restart(case: &Case) -> Result<String> {
    let heard = |name| Ok(compare(&case.recording(name)?, &[signals::of_guest("long")]).remove(0));
    let (before, after): (Result<PlayReport>, Result<PlayReport>) = (heard("before"), heard("after"));
    let (before, after) = (before?, after?);
    let underruns = case.underruns("aplay-long.log")?;
    let whole = before.is_unbroken() && before.head_cut == 0 && after.is_unbroken() && after.tail_cut == 0;
    let at_once = after.begins_at.is_some_and(|at| at <= RATE);
    let gap = after.head_cut.saturating_sub(before.heard) as f64 / RATE as f64;
    let lines = vec![
        format!("before: {before}"),
        format!("after: {after}"),
        format!("a gap of {gap:.1} s, {underruns} underruns"),
    ];
    verdict(case, [(lines, whole && at_once && underruns == 0)])
}

/// The bridge is killed and started again under two players and a recorder, which do not notice: everything is heard but for one
/// gap. After a stop of 20 s a new player is heard as ever.
pub fn reattach(case: &Case) -> Result<String> {
    let mut figures = Vec::new();
    // "left" is cut off by the stop.
    let names = ["long", "play-1", "left", "play-2"];
    for (name, report) in names.iter().zip(case.heard(&names)?).filter(|(name, _)| **name != "left") {
        let underruns = case.underruns(&format!("aplay-{name}.log"))?;
        let good = if *name == "play-2" { report.is_exact() } else { is_whole_but_for_a_gap(&report) };
        figures.push((vec![format!("{name} {report}, {underruns} underruns")], good && underruns == 0));
    }
    let recording = case.recording("mic")?;
    let report = compare(&recording, &[signals::microphone().all()]).remove(0);
    let overruns = case.underruns("arecord-mic.log")?;
    let unbroken = report.gaps == 1 && report.corrupt == 0 && report.repeated == 0;
    figures.push((
        vec![format!("mic {} frames, {report}, {overruns} overruns", recording.len())],
        unbroken && recording.len() as u64 == 5 * RATE && overruns == 0,
    ));
    let (status, log) = (case.text("stopped-status")?, case.text("stopped.log")?);
    let stop: u32 = case.text("stop-ms")?.trim().parse()?;
    figures.push((
        vec![format!("stopped within {stop} ms; who played ended with {}: {}", status.trim(), log.trim())],
        stop < 1000 && status.trim() == "1" && log.contains("write error"),
    ));
    verdict(case, figures)
}

/// The bridge stood still for less than the ring lasts: nobody notices but for a gap. And for longer than the guest waits for an answer:
/// who played then is told so, and who plays next is heard as ever.
pub fn stopped(case: &Case) -> Result<String> {
    // "left" is cut off by the longer stop.
    let reports = case.heard(&["play-1", "left", "play-2"])?;
    let [through, after] = [&reports[0], &reports[2]];
    let underruns = case.underruns("aplay-play-1.log")?;
    let status = case.text("stopped-status")?;
    let freed: u32 = case.text("freed-ms")?.trim().parse()?;
    let figures = [
        (
            vec![format!("0.3 s: play-1 {through}, {underruns} underruns")],
            is_whole_but_for_a_gap(through) && underruns == 0,
        ),
        (
            vec![format!("5 s: who played ended with {} after another {freed} ms", status.trim())],
            status.trim() == "1" && freed < 1000,
        ),
        (vec![format!("then play-2 {after}")], after.is_exact()),
    ];
    verdict(case, figures)
}

/// The bridge in the sandbox of its unit: plays are whole, but for a gap where it was killed and its manager started it again.
pub fn unit(case: &Case) -> Result<String> {
    let reports = case.heard(&["play-1", "long", "play-2"])?;
    let [first, killed, last] = [&reports[0], &reports[1], &reports[2]];
    let underruns = case.underruns("aplay-long.log")?;
    let sandbox = case.text("sandbox")?;
    let confined = ["NoNewPrivs:\t1", "Seccomp:\t2", "CapEff:\t0000000000000000"]
        .iter()
        .all(|line| sandbox.contains(line));
    let result = case.text("result")?;
    let figures = [
        (vec![format!("sandbox: {}", sandbox.trim().replace('\n', ", "))], confined),
        (vec![format!("play-1 {first}")], first.is_exact()),
        (
            vec![format!("killed: long {killed}, {underruns} underruns")],
            is_whole_but_for_a_gap(killed) && underruns == 0,
        ),
        (vec![format!("stopped with: {}", result.trim())], result.trim() == "success"),
        (vec![format!("play-2 {last}")], last.is_exact()),
    ];
    verdict(case, figures)
}

/// One gap, in which no more is lost than it lasts, but for the cycle that the server had taken and never played; and all the rest.
fn is_whole_but_for_a_gap(report: &PlayReport) -> bool {
    const CYCLE: u64 = 1024;
    let heard = report.head_cut == 0 && report.tail_cut == 0 && report.corrupt == 0;
    heard && report.gaps == 1 && report.repeated <= CYCLE && report.lost <= report.silence + CYCLE
}
