//! `vsnd-bridge check`: what `run` needs, one line each, and the command that mends what is missing.

mod facts;
mod findings;
mod server;
#[cfg(feature = "pulseaudio")]
mod tone;

use std::io::{Write, stdout};
use std::process::ExitCode;

use facts::Facts;
use findings::{Finding, Verdict};

use super::CheckArgs;

/// Looks at this machine and tells what is missing.
pub(super) fn check(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    #[cfg_attr(not(feature = "pulseaudio"), allow(unused_mut))]
    let mut findings = findings::of(&Facts::gather(&args.service)?);
    #[cfg(feature = "pulseaudio")]
    if args.tone {
        findings.push(findings::tone(tone::play(None)));
    }
    let missing = findings.iter().filter(|finding| finding.verdict == Verdict::Missing).count();
    let mut text: String = findings.iter().map(Finding::line).collect();
    text.push_str(&match missing {
        0 => "Nothing is missing: vsnd-bridge run\n".to_owned(),
        1 => "1 thing is missing.\n".to_owned(),
        n => format!("{n} things are missing.\n"),
    });
    // A reader that has seen enough (head) is no failure.
    let _ = stdout().write_all(text.as_bytes());
    Ok(if missing == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
