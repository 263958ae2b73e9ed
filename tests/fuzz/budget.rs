//! The targets on any toolchain: replays the kept inputs, then tries a fixed number of mutants of them.
//!
//! `cargo test -p vsnd-fuzz` runs all of them; names after `--` choose some. With VSND_FUZZ_INPUT set to a file, that input alone
//! is run.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that can't go on ends

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fastrand::Rng;
use libtest_mimic::{Arguments, Failed, Trial};
use vsnd_fuzz::{TARGETS, Target};

/// The mutants are the same on each run.
const SEED: u64 = 6;

/// The longest input.
const LONGEST: usize = 4096;

fn main() {
    // One after the other: an input's processor time is that of the whole process.
    let arguments = Arguments { test_threads: Some(1), ..Arguments::from_args() };
    let trials = TARGETS.iter().map(|target| Trial::test(target.name, || run(target))).collect();
    libtest_mimic::run(&arguments, trials).exit();
}

fn run(target: &'static Target) -> Result<(), Failed> {
    if let Some(input) = std::env::var_os("VSND_FUZZ_INPUT") {
        target.run(&fs::read(input)?);
        return Ok(());
    }
    let began = Instant::now();
    let corpus = corpus(target)?;
    let (files, threads) = (open_files(), threads());
    let mut slowest = Duration::ZERO;
    for input in &corpus {
        slowest = slowest.max(try_one(target, input)?);
    }
    let mut random = Rng::with_seed(SEED);
    for _ in 0..target.budget {
        slowest = slowest.max(try_one(target, &mutant(&mut random, &corpus))?);
    }
    let runs = corpus.len() as u64 + target.budget;
    println!(
        "{}: {runs} executions in {:.1} s, the slowest {:.2} ms of processor time",
        target.name,
        began.elapsed().as_secs_f64(),
        slowest.as_secs_f64() * 1e3
    );
    // What is made once stays: a machine, its pacer, an honest guest.
    if open_files() > files + 8 || self::threads() > threads + 4 {
        return Err(format!("{} descriptors and {} threads are left", open_files(), self::threads()).into());
    }
    Ok(())
}

fn try_one(target: &Target, input: &[u8]) -> Result<Duration, Failed> {
    catch_unwind(AssertUnwindSafe(|| target.run(input))).map_err(|_| {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("failed-{}", target.name));
        let kept =
            fs::write(&path, input).map_or_else(|error| error.to_string(), |()| path.display().to_string());
        format!(
            "see above; again with: VSND_FUZZ_INPUT={kept} cargo test -p vsnd-fuzz -- --exact {}",
            target.name
        )
        .into()
    })
}

fn corpus(target: &Target) -> Result<Vec<Vec<u8>>, Failed> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name);
    let mut files: Vec<_> =
        fs::read_dir(&directory)?.map(|entry| Ok(entry?.path())).collect::<Result<_, Failed>>()?;
    files.sort();
    let inputs = files.iter().map(fs::read).collect::<Result<Vec<_>, _>>()?;
    if inputs.is_empty() {
        Err(format!("{} holds no inputs", directory.display()).into())
    } else {
        Ok(inputs)
    }
}

/// One of the kept inputs with a few changes, or the beginning of one and the end of another.
fn mutant(random: &mut Rng, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut input = random.choice(corpus).cloned().unwrap_or_default();
    for _ in 0..=random.usize(..6) {
        let at = random.usize(..=input.len());
        match random.u8(..6) {
            0 => input
                .splice(at.., random.choice(corpus).into_iter().flatten().skip(at).copied())
                .for_each(drop),
            1 => input.truncate(at),
            2 => {
                let more: Vec<u8> = (0..random.usize(..32)).map(|_| random.u8(..)).collect();
                input.splice(at..at, more).for_each(drop);
            }
            3 => {
                let end = (at + random.usize(..32)).min(input.len());
                input.drain(at..end);
            }
            _ => {
                if let Some(octet) = input.get_mut(at) {
                    *octet = if random.bool() { random.u8(..) } else { *octet ^ (1 << random.u8(..8)) };
                }
            }
        }
    }
    input.truncate(LONGEST);
    input
}

fn open_files() -> usize {
    fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

fn threads() -> usize {
    fs::read_dir("/proc/self/task").map_or(0, Iterator::count)
}
