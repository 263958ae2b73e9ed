//! What must have been heard in each case, and the figures that are printed about it.

pub mod control;
pub mod returns;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use vsnd_bridge::sim::signal::{Channels, Frame, PlayReport, compare, frames_of};

use crate::driver::{self, Opened, Run};
use crate::signals::{self, RATE};

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
        let plays: Vec<_> = signals.iter().map(|name| signals::of_guest(name)).collect();
        Ok(compare(&self.recording("speakers")?, &plays))
    }

    /// What the guest's kernel noted of its sound driver.
    fn driver(&self) -> Result<Vec<Opened>> {
        driver::read(&self.text("notes")?)
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
        let report = compare(&recording, &[signals::microphone().all()]).remove(0);
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

/// Plays at five sizes: every frame of each is heard and nothing between, and the guest is woken once in every period.
pub fn plays(case: &Case) -> Result<String> {
    let signals = ["play-1", "play-2", "play-3", "play-4", "play-5"];
    verdict(case, [case.exact_plays(&signals), periods(&case.driver()?)])
}

/// Twenty players, one after the other.
pub fn reopen(case: &Case) -> Result<String> {
    let names: Vec<String> = (1..=20).map(|n| format!("short-{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let (mut lines, mut exact) = (Vec::new(), 0);
    for (name, report) in names.iter().zip(case.heard(&names)?) {
        if report.is_exact() {
            exact += 1;
        } else {
            lines.push(format!("{name} {report}"));
        }
    }
    let (underruns, opened) = (case.underruns("aplay.log")?, case.driver()?);
    lines.push(format!("{exact} of 20 exact, {underruns} underruns, opened {} times", opened.len()));
    verdict(case, [(lines, exact == 20 && underruns == 0 && opened.len() == 20), periods(&opened)])
}

/// One stream in all the states that ALSA knows. Whatever happens, every frame is heard, in order. Where the player stops the
/// stream and goes on at the first frame that it believes unheard, some are heard twice: as many as a period, by which its
/// pointer may be stale, and the server's cycle, which it had been given.
pub fn states(case: &Case) -> Result<String> {
    const STALE: u64 = 480 + 512;
    // the signal, its gaps, frames heard twice, and what the player said
    let expected: [(&str, u64, u64, &[&str]); 6] = [
        ("odd-1", 0, 0, &["drain: ok"]),
        ("odd-2", 0, 0, &["drain: ok"]),
        ("odd-3", 1, 0, &["dry: ok", "underrun at 30011", "drain: ok"]),
        ("odd-4", 1, 0, &["dry: ok", "underrun at 30011", "drain: ok"]),
        ("odd-5", 1, STALE, &["can pause: 0", "pause: ENOSYS", "drop: ok", "drain: ok"]),
        ("odd-6", 2, STALE, &["drain: ok, state 1, written 20011", "drop: ok", "drain: ok"]),
    ];
    let mut figures = Vec::new();
    for ((name, gaps, repeated, said), report) in
        expected.iter().zip(case.heard(&expected.map(|(name, ..)| name))?)
    {
        let log = case.text(&format!("pcm-{name}.log"))?;
        let unsaid: Vec<_> = said.iter().filter(|words| !log.contains(**words)).collect();
        let whole = report.heard == report.expected && report.lost == 0 && report.corrupt == 0;
        let as_it_must = whole && report.gaps == *gaps && report.repeated <= *repeated && unsaid.is_empty();
        figures.push((vec![format!("{name} {report}; the player did not say {unsaid:?}")], as_it_must));
    }
    // the sink's rate is that of who comes first
    let names = ["odd-7", "odd-8"];
    let reports = compare(&case.recording("speakers-44100")?, &names.map(signals::of_guest));
    for (name, report) in names.iter().zip(reports) {
        figures.push((vec![format!("{name} at 44.1 kHz {report}")], report.is_exact()));
    }
    let opened = case.driver()?;
    let reopened = opened.iter().filter(|opened| opened.reopened).count();
    figures.push((vec![format!("opened {reopened} times without a CLOSE before")], reopened == 3));
    figures.push(periods(&opened));
    verdict(case, figures)
}

/// A guest's own PulseAudio and PipeWire, a minute long at the same time: every frame of both is heard, in spite of all that
/// PulseAudio took back and wrote anew; neither runs dry. With PulseAudio's usual settings a sound loses its beginning, as that was
/// written into what the bridge had given away already: no more than a cycle, and 10 ms, by which the guest's pointer may be old.
pub fn servers(case: &Case) -> Result<String> {
    const TAKEN: u64 = 1024 + 480;
    let mut figures = Vec::new();
    let report = compare(&case.recording("usual")?, &[signals::of_guest("short-1")]).remove(0);
    let good = report.is_unbroken() && report.head_cut <= TAKEN && report.tail_cut == 0;
    figures.push((vec![format!("PulseAudio with its usual settings: short-1 {report}")], good));

    let mixed = case.recording("speakers")?;
    for signal in signals::of_servers() {
        let heard: Vec<Frame> = mixed.iter().map(|frame| signal.channels().of(*frame)).collect();
        let report = compare(&heard, &[signal.all()]).remove(0);
        figures.push((vec![format!("{} {report}", signal.name)], report.is_exact()));
    }
    let notes = case.text("notes")?;
    let count = |what: &str| notes.lines().filter(|line| line.contains(what)).count();
    let (rewinds, underruns) = (count(" rewind: "), count(" xrun: "));
    figures.push((
        vec![format!("{rewinds} rewinds, {underruns} underruns in the guest's kernel")],
        rewinds >= 20 && underruns == 0,
    ));
    let complaints =
        [("pulseaudio.log", "Underrun!"), ("pulseaudio.log", "Buffer underrun"), ("pipewire.log", "XRun")];
    for (log, complaint) in complaints {
        let lines = case.text(log)?.lines().filter(|line| line.contains(complaint)).count();
        figures.push((vec![format!("{log}: {lines} times {complaint:?}")], lines == 0));
    }
    verdict(case, figures)
}

/// Two recordings.
pub fn records(case: &Case) -> Result<String> {
    let (short, long) = (case.recorded("short", 4 * RATE), case.recorded("long", 4 * RATE));
    verdict(case, [(vec![short.0], short.1), (vec![long.0], long.1)])
}

/// Dom0 with PulseAudio alone: four plays and two recordings.
pub fn pulseaudio(case: &Case) -> Result<String> {
    let plays = case.exact_plays(&["play-1", "play-2", "play-3", "play-4"]);
    let recordings =
        ["old", "new"].map(|name| case.recorded(name, 4 * RATE)).map(|(line, exact)| (vec![line], exact));
    verdict(case, std::iter::once(plays).chain(recordings))
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
        let report = compare(&heard, &[signals::of_guest(name)]).remove(0);
        let underruns = case.underruns(&format!("aplay-{name}.log"))?;
        figures.push((
            vec![format!("{name} {report}, {underruns} underruns")],
            report.is_exact() && underruns == 0,
        ));
    }
    verdict(case, figures)
}

/// A player that was stopped for a second, and a guest that was paused: every frame is heard once, in order, with one silence there. What a
/// guest was just writing when it was paused, ALSA takes for unwritten, as the stream has run dry since, and the player writes it
/// again: no more than a period.
pub fn standstill(case: &Case) -> Result<String> {
    // With the frames that may be heard again: of a paused guest a period.
    const PLAYS: [(&str, u64); 5] =
        [("play-1", 0), ("play-2", 0), ("play-3", 0), ("play-4", 240), ("play-5", 6_000)];
    let signals = PLAYS.map(|(name, _)| name);
    let mut figures = Vec::new();
    for ((name, again), report) in PLAYS.into_iter().zip(case.heard(&signals)?) {
        let underruns = case.underruns(&format!("aplay-{name}.log"))?;
        let whole = report.heard == report.expected && report.repeated <= again && report.corrupt == 0;
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

/// A guest that keeps to no rule beside one that plays: every frame of that is heard, none comes late; the bridge is no busier and
/// no larger than it may be, names the guest that it slows, and has nothing of it after its death.
pub fn hostile(case: &Case) -> Result<String> {
    /// What `limits.memory` lets a guest have mapped, in MiB.
    const MOST_MEMORY: f64 = 64.0;
    /// What may stay, in MiB: the program's own pages that it had not run before, and what the allocator keeps at hand for threads.
    const KEPT: f64 = 8.0;
    // The fifth plays after the attacker's death.
    let signals = ["play-1", "play-2", "play-3", "play-4", "play-5"];
    let mut figures = vec![case.exact_plays(&signals)];

    let attack = Numbers::of(&case.text("hostile.log")?);
    let least = [
        ("notifications", 10_000.0),
        ("scribbles", 10_000.0),
        ("answers", 500.0),
        ("connections", 3.0),
        ("states", 200.0),
        ("nodes", 200.0),
    ];
    let tried = least.iter().all(|(name, least)| attack.get(name) >= *least);
    figures.push((vec![format!("the attack: {}", attack.line())], tried));

    let (before, after) = (Numbers::of(&case.text("cost-before")?), Numbers::of(&case.text("cost-after")?));
    let seconds = after.get("seconds") - before.get("seconds");
    let share = (after.get("ticks") - before.get("ticks")) / seconds;
    let end = Numbers::of(&case.text("cost-end")?);
    let [at_most, in_the_end] =
        [after.get("hwm"), end.get("rss")].map(|memory| (memory - before.get("rss")) / 1024.0);
    figures.push((
        vec![format!(
            "the bridge took {share:.0} % of the processor over {seconds:.0} s, and grew by {at_most:.1} MiB at most, {in_the_end:.1} in the end"
        )],
        share <= 50.0 && at_most <= MOST_MEMORY && in_the_end <= KEPT,
    ));

    let log = case.bridge_log()?;
    let lines = log.lines().filter(|line| line.contains("hostile"));
    let (slowed, others): (Vec<_>, Vec<_>) = lines.partition(|line| line.contains("the guest is slowed"));
    figures.push((
        vec![format!(
            "the log names it {} times for being slowed, and {} times else",
            slowed.len(),
            others.len()
        )],
        !slowed.is_empty() && slowed.len() + others.len() <= 60,
    ));

    let unrestricted = log.lines().filter(|line| line.contains("event channels are not restricted")).count();
    let privileges = case.text("privileges")?;
    figures.push((
        vec![format!(
            "{unrestricted} cards' event channels are not restricted to their guest, {}",
            privileges.trim().replace('\t', " ")
        )],
        unrestricted == 0 && privileges == "NoNewPrivs:\t1\n",
    ));

    let [before, after] = ["before", "after"].map(|when| case.text(&format!("holdings-{when}")));
    let (before, after) = (before?, after?);
    let line = |text: &str| text.trim().replace('\n', ", ");
    figures.push((vec![format!("held before: {}; after: {}", line(&before), line(&after))], before == after));
    verdict(case, figures)
}

/// Lines of a name and a number.
struct Numbers(Vec<(String, f64)>);

impl Numbers {
    fn of(text: &str) -> Self {
        let pair = |line: &str| {
            let (name, number) = line.trim().split_once(' ')?;
            Some((name.to_owned(), number.trim().parse().ok()?))
        };
        Self(text.lines().filter_map(pair).collect())
    }

    /// The number of that name; what is missing is none.
    fn get(&self, name: &str) -> f64 {
        self.0.iter().find(|(found, _)| found == name).map_or(0.0, |(_, number)| *number)
    }

    fn line(&self) -> String {
        self.0.iter().map(|(name, number)| format!("{number} {name}")).collect::<Vec<_>>().join(", ")
    }
}

/// What the guest was woken for, and whether it was in every period. A position on the very end of each period, which the driver does
/// not count, would skip half of them.
fn periods(opened: &[Opened]) -> (Vec<String>, bool) {
    let mut sizes: Vec<(u64, u64)> = opened.iter().map(|opened| (opened.period, opened.buffer)).collect();
    sizes.sort_unstable();
    sizes.dedup();
    let (mut lines, mut woken) = (Vec::new(), true);
    for (period, buffer) in sizes {
        let runs = opened.iter().filter(|opened| (opened.period, opened.buffer) == (period, buffer));
        let runs: Vec<&Run> = runs.flat_map(|opened| &opened.runs).collect();
        let sum = |of: fn(&Run) -> u64| runs.iter().map(|run| of(run)).sum::<u64>();
        let (elapsed, skipped) = (sum(|run| run.elapsed), sum(|run| run.skipped));
        woken &= skipped == 0;
        lines.push(format!(
            "periods of {period} in {buffer}: {elapsed} elapsed and {skipped} skipped in {} frames, by {} positions in {} runs",
            sum(|run| run.frames),
            sum(|run| run.positions),
            runs.len(),
        ));
    }
    (lines, woken)
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
