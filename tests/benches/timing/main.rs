//! `make bench-timing`: how true the bridge's positions are, and how late its sound, on this machine.
//!
//! The daemon's own code runs between a guest's driver as the frontend model has it and a private PipeWire with a null
//! sink, whose clock is exact. Prints tables, writes target/bench/timing.json and plots.

mod ear;
mod latency;
mod loopback;
mod machine;
mod native;
mod params;
mod plot;
mod position;
mod pulse;
mod rig;
mod stats;
mod truth;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use vsnd_bridge::stream::Cadence;
use vsnd_pw_module::Nanos;

use position::{Cell, OWN_ERROR, Sample, ring};
use rig::{RATE, Rig};

const QUANTA: [u32; 3] = [64, 256, 1024];
const PERIODS_MS: [f64; 4] = [1.0, 5.0, 10.0, 21.0];

/// Ring of the long run, in frames: five seconds, which no pause of the machine empties.
const LONG_RING: u64 = 240_000;

/// Length and period of each run of the loop-back.
const LOOP: Duration = Duration::from_millis(1500);
const LOOP_PERIOD: u64 = 480;

/// Frames that PulseAudio's null sink renders at a time where the bridge's streams have periods of [`LOOP_PERIOD`]: a quarter of
/// two periods. Elsewhere the ear finds it.
const PULSE_BLOCK: u32 = 240;
/// Periods of the guest on PulseAudio whose latency is measured, in frames.
const PULSE_PERIODS: [u64; 3] = [240, 480, 1024];
/// Ring of the guest on PulseAudio, in frames: its latency is counted in tens of milliseconds.
const PULSE_RING: u64 = 9_600;

const USAGE: &str = "\
usage: cargo bench -p vsnd-tests --bench timing -- [OPTION]...
  --seconds N    length of each cell of the table (default 5)
  --long N       length of the run whose rate is compared with the sink's (default 600; 0: none)
  --restarts N   restarts of the loop-back (default 10; 0: none)
  --out DIR      where timing.json and the plots go (default target/bench)
  --only PART    positions, cadence, latency, loopback, pulse or long";

struct Options {
    seconds: u64,
    long: u64,
    restarts: usize,
    out: PathBuf,
    only: Option<String>,
}

impl Options {
    fn read() -> Result<Self> {
        let out = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/bench"));
        let mut options = Self { seconds: 5, long: 600, restarts: 10, out, only: None };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            // What cargo adds for every benchmark.
            if argument == "--bench" {
                continue;
            }
            let value = arguments.next().context(USAGE)?;
            match argument.as_str() {
                "--seconds" => options.seconds = value.parse()?,
                "--long" => options.long = value.parse()?,
                "--restarts" => options.restarts = value.parse()?,
                "--out" => options.out = value.into(),
                "--only" => options.only = Some(value),
                _ => bail!(USAGE),
            }
        }
        Ok(options)
    }

    fn wants(&self, part: &str) -> bool {
        self.only.as_deref().is_none_or(|only| only == part)
    }
}

/// Everything measured.
#[derive(Default, Serialize)]
struct Report {
    /// How much later than the sink its monitor gives a frame, at each quantum.
    monitor_delay_frames: Vec<f64>,
    positions: Vec<Cell>,
    cadence: Vec<CadenceRow>,
    pulse: Pulse,
    long: Option<Cell>,
    latency: Vec<latency::Latency>,
    loopback: Vec<loopback::LoopBack>,
    queries: Option<params::Queries>,
}

impl Report {
    fn cells(&self) -> impl Iterator<Item = &Cell> {
        let cadence = self.cadence.iter().map(|row| &row.cell);
        self.positions.iter().chain(cadence).chain(&self.pulse.positions).chain(&self.long)
    }
}

/// The same on PulseAudio.
#[derive(Default, Serialize)]
struct Pulse {
    positions: Vec<Cell>,
    latency: Vec<latency::Latency>,
    loopback: Vec<loopback::LoopBack>,
}

#[derive(Serialize)]
struct CadenceRow {
    fresh_ms: f64,
    cell: Cell,
}

fn main() -> Result<()> {
    let options = Options::read()?;
    std::fs::create_dir_all(&options.out)?;
    plot::prepare()?;
    let mut report = Report::default();
    let span = Duration::from_secs(options.seconds);
    if options.wants("positions") {
        positions(&options, span, &mut report)?;
    }
    if options.wants("cadence") {
        cadence(span, &mut report)?;
    }
    if options.wants("latency") {
        latencies(span, &mut report)?;
    }
    if options.wants("loopback") && options.restarts > 0 {
        loop_back(&options, &mut report)?;
    }
    if options.wants("pulse") {
        pulse(&options, span, &mut report.pulse)?;
    }
    if options.wants("long") && options.long > 0 {
        long(&options, &mut report)?;
    }
    let json = options.out.join("timing.json");
    std::fs::write(&json, serde_json::to_vec_pretty(&report)?)?;
    println!("\n{} and plots beside it", json.display());
    let back: usize = report.cells().map(|cell| cell.backward).sum();
    ensure!(back == 0, "{back} positions went back, which no busy machine excuses");
    Ok(())
}

const HEADER: &str = "quantum  rate   period  positions   off by p50      p99      max ms   most ahead  ahead  back   ppm          wake-ups/s  again   machine p99      max ms";

fn row(cell: &Cell) {
    println!(
        "{:7} {:6} {:5.1} ms {:10}    {:8.3} {:8.3} {:8.3}   {:5.2} frames {:5} {:5} {:+7.2} ±{:5.2} {:7.0}   {:4}     {:8.3} {:8.3}",
        cell.quantum,
        cell.rate,
        cell.period_ms,
        cell.events,
        cell.error_ms.p50,
        cell.error_ms.p99,
        cell.error_ms.max,
        cell.ahead_frames_max,
        cell.ahead,
        cell.backward,
        cell.drift_ppm,
        cell.drift_error_ppm,
        cell.wakeups_s,
        cell.disturbed,
        cell.machine_ms.p99,
        cell.machine_ms.max
    );
}

/// Measures a cell and prints its row. `None` where the machine was too busy for it; the other cells may still be measured.
fn measured(
    rig: &Rig,
    quantum: u32,
    rate: u32,
    period: f64,
    buffer: Option<u64>,
    span: Duration,
) -> Option<(Cell, Vec<Sample>)> {
    match position::measure(rig, quantum, rate, period, buffer, span) {
        Ok(cell) => {
            row(&cell.0);
            Some(cell)
        }
        Err(error) => {
            eprintln!("{quantum:7} {rate:6} {period:5.1} ms   not measured: {error:#}");
            None
        }
    }
}

fn positions(options: &Options, span: Duration, report: &mut Report) -> Result<()> {
    println!(
        "Positions against what the sink played; ahead: by more than {OWN_ERROR} frames; again: runs that the machine spoilt; machine: how \
         late a thread above all others woke meanwhile"
    );
    println!("{HEADER}");
    for quantum in QUANTA {
        let rig = Rig::start(quantum, Cadence::default())?;
        report.monitor_delay_frames.push(rig.monitor_delay() as f64 * f64::from(RATE) / 1e9);
        let mut cells: Vec<(Cell, Vec<Sample>)> = Vec::new();
        for period in PERIODS_MS {
            cells.extend(measured(&rig, quantum, RATE, period, None, span));
        }
        plot::errors(&options.out.join(format!("positions-{quantum}.png")), quantum, &cells)?;
        report.positions.extend(cells.into_iter().map(|(cell, _)| cell));
        let resampled = measured(&rig, quantum, 44_100, 10.0, None, span);
        report.positions.extend(resampled.map(|(cell, _)| cell));
        if report.queries.is_none() {
            report.queries = Some(params::measure(&rig)?);
        }
    }
    if let Some(queries) = &report.queries {
        println!(
            "HW_PARAM_QUERY: narrowed in {:.2} us, answered in {:.0} us on average of {}",
            queries.narrowing_us, queries.round_trip_us, queries.round_trips
        );
    }
    Ok(())
}

fn cadence(span: Duration, report: &mut Report) -> Result<()> {
    println!(
        "\nHow often to tell: a period of 100 ms at quantum 256; stale: the guest's pointer at any instant"
    );
    println!("told every   positions/s  wake-ups/s   stale p50      p99      max ms");
    for fresh_ms in [2, 5, 10, 20, 100] {
        let cadence = Cadence { fresh: Nanos::from_millis(fresh_ms), ..Cadence::default() };
        let rig = Rig::start(256, cadence)?;
        let (cell, _) = position::measure(&rig, 256, RATE, 100.0, None, span)?;
        println!(
            "{fresh_ms:7} ms   {:10.0}  {:10.0}    {:8.3} {:8.3} {:8.3}",
            cell.events_s, cell.wakeups_s, cell.pointer_ms.p50, cell.pointer_ms.p99, cell.pointer_ms.max
        );
        report.cadence.push(CadenceRow { fresh_ms: fresh_ms as f64, cell });
    }
    Ok(())
}

fn latencies(span: Duration, report: &mut Report) -> Result<()> {
    println!("\nFrom WRITE to the sink, beside a native client with a ring of the same length");
    println!("{LATENCY_HEADER}");
    for quantum in QUANTA {
        let rig = Rig::start(quantum, Cadence::default())?;
        let period = u64::from(quantum.max(240));
        let latency = latency::measure(&rig, quantum, period, ring(period, quantum), span)?;
        latency_row(&latency);
        report.latency.push(latency);
    }
    Ok(())
}

const LATENCY_HEADER: &str =
    "quantum  period  ring frames   guest p50      p99    native p50     p99 ms   difference          ratio";

fn latency_row(latency: &latency::Latency) {
    println!(
        "{:7} {:7} {:12}    {:8.3} {:8.3}     {:8.3} {:8.3}   {:+7.3} ms ({:+5.2} quanta) {:5.3}",
        latency.quantum,
        latency.period_frames,
        latency.buffer_frames,
        latency.guest_ms.p50,
        latency.guest_ms.p99,
        latency.native_ms.p50,
        latency.native_ms.p99,
        latency.difference_ms,
        latency.difference_quanta,
        latency.ratio
    );
}

fn loop_back(options: &Options, report: &mut Report) -> Result<()> {
    println!(
        "\nLoop-back: the round trip by the positions, less the one by correlation; {} restarts",
        options.restarts
    );
    println!("{LOOP_HEADER}");
    for quantum in [256, 1024] {
        let rig = Rig::start(quantum, Cadence::default())?;
        let result = loopback::measure(
            &rig,
            quantum,
            LOOP_PERIOD,
            ring(LOOP_PERIOD, quantum),
            options.restarts,
            LOOP,
        )?;
        loop_row(&result);
        report.loopback.push(result);
    }
    Ok(())
}

const LOOP_HEADER: &str = "quantum  period   medians of the restarts, ms: least   greatest    every position: p50      p99      max ms";

fn loop_row(result: &loopback::LoopBack) {
    let least = result.error_ms.iter().copied().fold(f64::MAX, f64::min);
    let greatest = result.error_ms.iter().copied().fold(f64::MIN, f64::max);
    println!(
        "{:7} {:7}                                {least:+8.3}  {greatest:+8.3}                   {:8.3} {:8.3} {:8.3}",
        result.quantum,
        result.period_frames,
        result.single_ms.p50,
        result.single_ms.p99,
        result.single_ms.max
    );
}

fn sink_row(cell: &Cell) {
    if let Some(sink) = &cell.sink {
        println!(
            "        the sink heard it interrupted {} times and ran {:+.1} ppm fast; its clock is known to {:.0} us; blocks came {:.0} us \
             after it at the soonest and {:.0} us mostly",
            cell.breaks, sink.fast_ppm, sink.doubt_us, sink.soonest_us, sink.usual_us
        );
    }
}

fn pulse(options: &Options, span: Duration, report: &mut Pulse) -> Result<()> {
    println!(
        "\nPositions on a real PulseAudio (null sink, norewinds=1); quantum: the blocks that it rendered"
    );
    println!("{HEADER}");
    let rig = Rig::start_pulse()?;
    for period in PERIODS_MS {
        let cell = measured(&rig, PULSE_BLOCK, RATE, period, Some(PULSE_RING), span);
        report.positions.extend(cell.map(|(cell, _)| {
            sink_row(&cell);
            cell
        }));
    }
    println!("\nFrom WRITE to PulseAudio's sink, beside a native client with a ring of the same length");
    println!("{LATENCY_HEADER}");
    for period in PULSE_PERIODS {
        let latency = latency::measure(&rig, PULSE_BLOCK, period, 8 * period, span)?;
        latency_row(&latency);
        report.latency.push(latency);
    }
    if options.restarts > 0 {
        println!("\nLoop-back on PulseAudio; {} restarts", options.restarts);
        println!("{LOOP_HEADER}");
        let result = loopback::measure(&rig, PULSE_BLOCK, LOOP_PERIOD, PULSE_RING, options.restarts, LOOP)?;
        loop_row(&result);
        report.loopback.push(result);
    }
    Ok(())
}

fn long(options: &Options, report: &mut Report) -> Result<()> {
    println!("\nThe guest's clock against the sink's over {} s", options.long);
    println!("{HEADER}");
    let rig = Rig::start(256, Cadence::default())?;
    let (cell, samples) =
        position::measure(&rig, 256, RATE, 10.0, Some(LONG_RING), Duration::from_secs(options.long))?;
    row(&cell);
    plot::long(&options.out.join("long.png"), &cell, &samples)?;
    report.long = Some(cell);
    Ok(())
}
