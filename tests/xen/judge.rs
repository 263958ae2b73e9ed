//! What must have been heard in each case, and the figures that are printed about it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use vsnd_bridge::sim::signal::{Channels, Frame, PlayReport, compare, frames_of};

use crate::{GUEST_SIGNALS, MIC_SIGNAL};

/// Frames per second of everything that the lab plays.
pub const RATE: u64 = 48000;

/// The results of one case.
pub struct Case {
    directory: PathBuf,
}

impl Case {
    /// The case `name` of the run whose results are in `out`.
    #[must_use]
    pub fn new(out: &Path, name: &str) -> Self {
        Self { directory: out.join(name) }
    }

    /// How long the machine held up Dom0's most urgent thread at most while the case recorded, in microseconds.
    fn longest_stall(&self) -> Option<u64> {
        self.text("latency").ok()?.rsplit("Max:").next()?.trim().parse().ok()
    }

    /// What the machine itself did to the case, as a line of figures.
    pub fn machine(&self) -> String {
        match self.longest_stall() {
            Some(stall) => format!("the machine stalled for {} ms at most", stall.div_ceil(1000)),
            None => "how long the machine stalled is not known".to_owned(),
        }
    }

    /// Whether the machine stalled for longer than a cycle of the sound server takes.
    pub fn was_disturbed(&self) -> bool {
        self.longest_stall().is_some_and(|stall| stall > 20_000)
    }

    fn text(&self, name: &str) -> Result<String> {
        let path = self.directory.join(name);
        let octets = std::fs::read(&path).with_context(|| format!("{} is missing", path.display()))?;
        Ok(String::from_utf8_lossy(&octets).into_owned())
    }

    /// What the bridge said while the case ran.
    fn bridge_log(&self) -> Result<String> {
        let name = self.directory.file_name().unwrap_or_default().to_string_lossy();
        let text = self.text("../bridge.log")?;
        let lines = text.lines().skip_while(|line| **line != format!("--- {name}")).skip(1);
        Ok(lines
            .take_while(|line| !line.starts_with("--- "))
            .fold(String::new(), |log, line| log + line + "\n"))
    }

    fn recording(&self, name: &str) -> Result<Vec<Frame>> {
        let path = self.directory.join(format!("{name}.raw"));
        Ok(frames_of(&std::fs::read(&path).with_context(|| format!("{} is missing", path.display()))?))
    }

    /// The script in Dom0 found nothing wrong.
    fn succeeded(&self) -> Result<()> {
        let status = self.text("status").context("the case did not run to its end")?;
        ensure!(status.trim() == "0", "the script failed: {}", last_lines(&self.text("log")?, 8));
        Ok(())
    }

    /// What the guest's program said of the play or recording: how often it ran dry.
    fn underruns(&self, log: &str) -> Result<usize> {
        let text = self.text(log)?;
        Ok(text.matches("underrun!!!").count() + text.matches("overrun!!!").count())
    }

    /// What became of these signals in what the speakers played.
    fn heard(&self, signals: &[&str]) -> Result<Vec<PlayReport>> {
        let plays: Vec<_> = signals.iter().map(|name| guest_signal(name)).collect();
        Ok(compare(&self.recording("speakers")?, &plays))
    }

    /// The figures of the plays of these signals, and whether all were exact and without an underrun.
    fn exact_plays(&self, signals: &[&str]) -> (Vec<String>, bool) {
        let mut exact = true;
        let reports = match self.heard(signals) {
            Ok(reports) => reports,
            Err(error) => return (vec![format!("{error:#}")], false),
        };
        let lines = signals.iter().zip(reports).map(|(name, report)| {
            let underruns = self.underruns(&format!("aplay-{name}.log"));
            exact &= report.is_exact() && matches!(underruns, Ok(0));
            let underruns =
                underruns.map_or_else(|error| format!("{error:#}"), |count| format!("{count} underruns"));
            format!("{name} {report}, {underruns}")
        });
        (lines.collect(), exact)
    }

    /// Whether a guest's recording is so many frames of the microphone's signal on end; silence may come before.
    fn recorded(&self, name: &str, frames: u64) -> (String, bool) {
        let recording = match self.recording(name) {
            Ok(recording) => recording,
            Err(error) => return (format!("{error:#}"), false),
        };
        let (_, signal, length) = MIC_SIGNAL;
        let report = compare(&recording, &[signal.frames(length)]).remove(0);
        let before = report.begins_at.unwrap_or(0);
        let overruns = self.underruns(&format!("arecord-{name}.log"));
        let exact = report.is_unbroken()
            && before + report.heard == recording.len() as u64
            && recording.len() as u64 == frames
            && matches!(overruns, Ok(0));
        let line = format!(
            "{name}: {} of {frames} frames recorded, {before} of silence before, {} of the signal, {} gaps, {} lost, {} corrupt, overruns: {overruns:?}",
            recording.len(),
            report.heard,
            report.gaps,
            report.lost,
            report.corrupt
        );
        (line, exact)
    }
}

/// Dom0's own sound, without the bridge: without a gap, or the machine is too slow to judge anything else. The player of
/// PipeWire 0.3 drops its last cycle itself.
pub fn native(case: &Case) -> Result<String> {
    let reports = case.heard(&["play-1", "play-2", "play-3"])?;
    let good = |report: &PlayReport| report.is_unbroken() && report.head_cut == 0;
    verdict(case, reports.into_iter().map(|report| (vec![report.to_string()], good(&report))))
}

/// Plays at five sizes: every frame of each is heard and nothing between.
pub fn plays(case: &Case) -> Result<String> {
    verdict(case, [case.exact_plays(&["play-1", "play-2", "play-3", "play-4", "play-5"])])
}

/// Two recordings.
pub fn records(case: &Case) -> Result<String> {
    let (short, long) = (case.recorded("short", 4 * RATE), case.recorded("long", 4 * RATE));
    verdict(case, [(vec![short.0], short.1), (vec![long.0], long.1)])
}

/// A play and a recording at once.
pub fn duplex(case: &Case) -> Result<String> {
    let recorded = case.recorded("mic", 5 * RATE);
    verdict(case, [case.exact_plays(&["play-1"]), (vec![recorded.0], recorded.1)])
}

/// Two guests in one sink, told apart by channel.
pub fn two_guests(case: &Case) -> Result<String> {
    let mixed = case.recording("speakers")?;
    let mut figures = Vec::new();
    for (name, channels) in [("left", Channels::Left), ("right", Channels::Right)] {
        let heard: Vec<Frame> = mixed.iter().map(|frame| channels.of(*frame)).collect();
        let report = compare(&heard, &[guest_signal(name)]).remove(0);
        let underruns = case.underruns(&format!("aplay-{name}.log"))?;
        figures.push((
            vec![format!("{name} {report}, {underruns} underruns")],
            report.is_exact() && underruns == 0,
        ));
    }
    verdict(case, figures)
}

/// A player that was stopped for a second: every frame is heard once, in order, with one silence where the player was stopped.
pub fn sigstop(case: &Case) -> Result<String> {
    let signals = ["play-1", "play-2", "play-3"];
    let mut figures = Vec::new();
    for (name, report) in signals.iter().zip(case.heard(&signals)?) {
        let underruns = case.underruns(&format!("aplay-{name}.log"))?;
        let whole = report.heard == report.expected && report.repeated == 0 && report.corrupt == 0;
        figures.push((
            vec![format!("{name} {report}, {underruns} underruns")],
            whole && report.gaps == 1 && underruns == 1,
        ));
    }
    verdict(case, figures)
}

/// Nonsense for one guest, a play by another: heard whole; each fault is told with its place, and none of the devices connected.
pub fn bad_config(case: &Case) -> Result<String> {
    let log = case.bridge_log()?;
    let told = |device: &u32| {
        let lines = log.lines().filter(|line| line.contains("ERROR"));
        lines.filter(|line| line.contains(&format!("/vsnd/{device}"))).count()
    };
    let untold: Vec<u32> =
        [10, 11, 12, 13, 14, 15, 17].into_iter().filter(|device| told(device) != 1).collect();
    let backend = case.text("backend")?;
    let connected: Vec<&str> = backend
        .lines()
        .filter(|line| (10..=18).any(|device| line.contains(&format!("/{device}/state = \"4\""))))
        .collect();
    let figures = (
        vec![format!("faults not told once: {untold:?}, connected: {connected:?}")],
        untold.is_empty() && connected.is_empty(),
    );
    verdict(case, [case.exact_plays(&["long"]), figures])
}

/// Attached, played, detached, twice over; nothing is left of it in the backend's directory.
pub fn hotplug(case: &Case) -> Result<String> {
    let left = [case.text("left-1")?, case.text("left-2")?].concat();
    let gone = (vec![format!("{} lines left in XenStore", left.lines().count())], left.is_empty());
    verdict(case, [case.exact_plays(&["play-1", "play-2"]), gone])
}

/// After each death as before the first guest, but for files and threads, which the first guest may bring for good.
pub fn destroy(case: &Case) -> Result<String> {
    let before = case.text("holdings-before")?;
    let (first, second) = (case.text("holdings-after-1")?, case.text("holdings-after-2")?);
    let only = |text: &str, names: &[&str]| -> Vec<String> {
        text.lines()
            .filter(|line| names.iter().any(|name| line.starts_with(name)))
            .map(String::from)
            .collect()
    };
    let released = ["mappings", "nodes", "ports"];
    let free = first == second && only(&before, &released) == only(&first, &released);
    let lines = [
        ("before", &before),
        ("playing", &case.text("holdings-playing-1")?),
        ("after the first death", &first),
        ("after the second", &second),
    ]
    .map(|(when, text)| format!("{when}: {}", text.trim().replace('\n', ", ")));
    verdict(case, [(lines.to_vec(), free), case.exact_plays(&["play-1"])])
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
    let (_, microphone, length) = MIC_SIGNAL;
    let recording = case.recording("mic")?;
    let report = compare(&recording, &[microphone.frames(length)]).remove(0);
    let overruns = case.underruns("arecord-mic.log")?;
    let unbroken = report.gaps == 1 && report.corrupt == 0 && report.repeated == 0;
    figures.push((
        vec![format!("mic {} frames, {report}, {overruns} overruns", recording.len())],
        unbroken && recording.len() as u64 == 5 * RATE && overruns == 0,
    ));
    let said = ["stop-ms", "stopped-status", "stopped.log"].map(|name| case.text(name).unwrap_or_default());
    let [milliseconds, status, log] = said.each_ref().map(|text| text.trim());
    figures.push((
        vec![format!("stopped within {milliseconds} ms; who played ended with {status}: {log}")],
        true,
    ));
    verdict(case, figures)
}

/// One gap, in which no more is lost than it lasts, but for the cycle that the server had taken and never played; and all the rest.
fn is_whole_but_for_a_gap(report: &PlayReport) -> bool {
    const CYCLE: u64 = 1024;
    let heard = report.head_cut == 0 && report.tail_cut == 0 && report.corrupt == 0;
    heard && report.gaps == 1 && report.repeated <= CYCLE && report.lost <= report.silence + CYCLE
}

fn guest_signal(name: &str) -> Vec<Frame> {
    GUEST_SIGNALS
        .iter()
        .find(|(known, ..)| *known == name)
        .map(|(_, signal, frames)| signal.frames(*frames))
        .unwrap_or_default()
}

/// All figures as one text; an error with them if one was not as it must be, or the script itself failed.
fn verdict(case: &Case, figures: impl IntoIterator<Item = (Vec<String>, bool)>) -> Result<String> {
    let (mut text, mut good) = (String::new(), true);
    for (lines, as_it_must) in figures {
        good &= as_it_must;
        for line in lines {
            text.push_str("\n    ");
            text.push_str(&line);
        }
    }
    case.succeeded().with_context(|| format!("figures:{text}"))?;
    ensure!(good, "not as it must be:{text}");
    Ok(text)
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join(" | ")
}
