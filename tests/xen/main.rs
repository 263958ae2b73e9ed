//! Real Xen with real Linux guests: builds the lab, boots it for each of the two kernels, and judges what each case recorded.
//!
//! `cargo test -p vsnd-tests --test xen` runs all cases; names after `--` choose some. `build.sh` and `run.sh` beside this file
//! do the work; `cases/` is what happens in Dom0; here is only what must have been heard. With XENLAB_RUN set to the name of a run
//! that `run.sh` made, that one is judged and nothing is booted.

mod driver;
mod judge;
mod signals;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow, bail, ensure};
use libtest_mimic::{Arguments, Failed, Trial};
use vsnd_bridge::sim::signal::write_wav;

use judge::{Case, control, returns};
use signals::{RATE, Signal};

/// What a case is called and how its recordings are judged. The name is that of a script in `cases/`, with the guest's kernel.
type Judge = fn(&Case) -> Result<String>;
const CASES: [(&str, Judge); 35] = [
    ("native", judge::native),
    ("play-old", judge::plays),
    ("play-new", judge::plays),
    ("record-old", judge::records),
    ("record-new", judge::records),
    ("duplex-old", judge::duplex),
    ("duplex-new", judge::duplex),
    ("two-guests", judge::two_guests),
    ("standstill-old", judge::standstill),
    ("standstill-new", judge::standstill),
    ("reopen-old", judge::reopen),
    ("reopen-new", judge::reopen),
    ("states-old", judge::states),
    ("states-new", judge::states),
    ("servers-old", judge::servers),
    ("servers-new", judge::servers),
    ("restart-old", returns::restart),
    ("restart-new", returns::restart),
    ("bad-config", judge::bad_config),
    ("hotplug-old", judge::hotplug),
    ("hotplug-new", judge::hotplug),
    ("destroy-old", judge::destroy),
    ("destroy-new", judge::destroy),
    ("reattach-old", returns::reattach),
    ("reattach-new", returns::reattach),
    ("stopped-old", returns::stopped),
    ("stopped-new", returns::stopped),
    ("unit", returns::unit),
    ("volume-old", control::volume),
    ("volume-new", control::volume),
    ("capture-old", control::capture),
    ("capture-new", control::capture),
    ("hostile-old", judge::hostile),
    ("hostile-new", judge::hostile),
    ("pulseaudio", judge::pulseaudio),
];

fn main() {
    let arguments = Arguments::from_args();
    let selected: Vec<String> = CASES
        .iter()
        .map(|(name, _)| (*name).to_owned())
        .filter(|name| is_selected(&arguments, name))
        .collect();
    static BOOT: OnceLock<Result<Boot, String>> = OnceLock::new();
    let trials = CASES
        .iter()
        .map(|&(name, judge)| {
            let selected = selected.clone();
            Trial::test(name, move || {
                match BOOT.get_or_init(|| boot(&selected).map_err(|error| format!("{error:#}"))) {
                    Err(error) => return Err(Failed::from(error)),
                    Ok(Boot::Skipped(why)) => println!("{name}: skipped: {why}"),
                    Ok(Boot::Done { runs }) => {
                        let out = runs.join(run_of(name)).join("out");
                        let figures = judge(&Case::new(&out, name)).map_err(|error| format!("{error:#}"))?;
                        println!("{name}: {figures}");
                    }
                }
                Ok(())
            })
        })
        .collect();
    libtest_mimic::run(&arguments, trials).exit();
}

/// The run that a case belongs to: one has the guests with the old kernel, the other those with the new one and all others.
fn run_of(case: &str) -> String {
    let kernel = if case.ends_with("-old") { "old" } else { "new" };
    std::env::var("XENLAB_RUN").unwrap_or_else(|_| format!("test-{kernel}"))
}

/// Whether the arguments choose the case, by the rules of `cargo test`.
fn is_selected(arguments: &Arguments, name: &str) -> bool {
    let matches =
        |pattern: &String| if arguments.exact { name == pattern } else { name.contains(pattern.as_str()) };
    !arguments.list && arguments.filter.as_ref().is_none_or(matches) && !arguments.skip.iter().any(matches)
}

enum Boot {
    /// The directory of the runs.
    Done {
        runs: PathBuf,
    },
    Skipped(String),
}

/// Builds what is missing and runs the cases. Where the lab can't be built, that is a failure under CI and a remark elsewhere.
fn boot(cases: &[String]) -> Result<Boot> {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("xen");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().context("no target directory")?;
    let directory = target.join("xenlab");
    let runs = directory.join("runs");
    if std::env::var_os("XENLAB_RUN").is_some() {
        return Ok(Boot::Done { runs });
    }
    let prepared = run(Command::new("qemu-system-x86_64").arg("--version").stdout(Stdio::null()))
        .and_then(|()| run(Command::new(scripts.join("build.sh")).env("XENLAB_DIR", &directory)));
    if let Err(error) = prepared {
        if std::env::var_os("CI").is_some() {
            bail!("the lab can't be built: {error:#}");
        }
        return Ok(Boot::Skipped(format!(
            "the lab can't be built here: {error:#}; `make deps` installs what it needs"
        )));
    }
    println!("{}", std::fs::read_to_string(directory.join("parts/versions"))?.trim().replace('\n', ", "));
    let program = |variable: &str, subcommand, of: &[&str], file: &str| -> Result<PathBuf> {
        if let Some(path) = std::env::var_os(variable) {
            return Ok(path.into());
        }
        let mut build = Command::new(env!("CARGO"));
        build.args([subcommand, "--release", "--target-dir"]).arg(target).args(of);
        run(&mut build)?;
        Ok(target.join("release").join(file))
    };
    let both = ["-p", "vsnd-bridge", "-p", "vsnd-dbus", "--bins"];
    let bridge = program("VSND_BRIDGE", "build", &both, "vsnd-bridge")?;
    // Static, as a guest's image has not what a program's libraries need, and stripped, as it lies in each guest's memory.
    let as_guests_run_it = [
        "-p",
        "vsnd-hostile",
        "--bin",
        "vsnd-hostile",
        "--",
        "-C",
        "target-feature=+crt-static",
        "-C",
        "strip=symbols",
    ];
    let hostile = program("VSND_HOSTILE", "rustc", &as_guests_run_it, "vsnd-hostile")?;
    write_signals(&directory.join("signals"), &signals::of_guests())?;
    write_signals(&directory.join("signals-of-servers"), &signals::of_servers())?;
    write_signals(&directory.join("signals-of-host"), &[signals::microphone()])?;
    // Each emulator is one thread, and a machine to itself.
    std::thread::scope(|scope| {
        let labs = ["test-old", "test-new"].map(|name| {
            let cases: Vec<&String> = cases.iter().filter(|case| run_of(case) == name).collect();
            let mut lab = Command::new(scripts.join("run.sh"));
            lab.arg(name)
                .args(&cases)
                .env("XENLAB_DIR", &directory)
                .env("VSND_BRIDGE", &bridge)
                .env("VSND_HOSTILE", &hostile);
            scope.spawn(move || if cases.is_empty() { Ok(()) } else { run(&mut lab) })
        });
        labs.into_iter().try_for_each(|lab| lab.join().map_err(|_| anyhow!("a lab's thread panicked"))?)
    })?;
    Ok(Boot::Done { runs })
}

fn write_signals(directory: &Path, signals: &[Signal]) -> Result<()> {
    std::fs::create_dir_all(directory)?;
    for signal in signals {
        // replaced, not overwritten: runs before have links to it
        let path = directory.join(format!("{}.wav", signal.name));
        let _ = std::fs::remove_file(&path);
        let file = std::fs::File::create_new(path)?;
        write_wav(std::io::BufWriter::new(file), RATE as u32, &signal.file())?;
    }
    Ok(())
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("{:?} does not start", command.get_program()))?;
    ensure!(status.success(), "{:?} failed: {status}", command.get_program());
    Ok(())
}
