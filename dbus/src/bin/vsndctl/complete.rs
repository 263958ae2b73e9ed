//! Completion of names that are live on the bus.
//!
//! A name is completed only where no shell could take a part of it for its own: it goes into a command line as it is.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::time::Duration;

use clap_complete::CompletionCandidate;
use vsnd_dbus::client::{Bridge, Client};

use crate::cli::DEFAULT_TARGET;

/// The longest that a shell waits.
const PATIENCE: Duration = Duration::from_secs(1);

/// Domains by their names, and by their numbers where the name means nothing or too much to a shell.
pub fn domains(typed: &OsStr) -> Vec<CompletionCandidate> {
    bridge().map(|bridge| candidates(domain_words(&bridge), typed)).unwrap_or_default()
}

/// Streams of all domains: which domain was typed isn't told.
pub fn streams(typed: &OsStr) -> Vec<CompletionCandidate> {
    let Some(bridge) = bridge() else { return Vec::new() };
    let streams = bridge.domains.iter().flat_map(|domain| &domain.streams);
    candidates(streams.map(|stream| stream.id.to_string()).collect(), typed)
}

/// The default, and all sinks and sources: which stream was typed isn't told.
pub fn targets(typed: &OsStr) -> Vec<CompletionCandidate> {
    let Some(bridge) = bridge() else { return Vec::new() };
    let names = bridge.sinks.into_iter().chain(bridge.sources).filter(|name| is_plain(name));
    candidates(names.chain([DEFAULT_TARGET.to_owned()]).collect(), typed)
}

fn domain_words(bridge: &Bridge) -> BTreeSet<String> {
    let word = |domain: &vsnd_dbus::client::Domain| {
        if is_plain(&domain.name) && crate::domains::find(bridge, &domain.name).is_ok() {
            domain.name.clone()
        } else {
            domain.id.to_string()
        }
    };
    bridge.domains.iter().map(word).collect()
}

fn is_plain(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '+');
    name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(plain)
}

fn candidates(words: BTreeSet<String>, typed: &OsStr) -> Vec<CompletionCandidate> {
    let typed = typed.to_string_lossy();
    words.into_iter().filter(|word| word.starts_with(&*typed)).map(CompletionCandidate::new).collect()
}

/// What there is, if a bridge answers in time; a shell has no place for an error.
fn bridge() -> Option<Bridge> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    let answer = async {
        let client = Client::session().await.ok()?;
        client.snapshot().await.ok()
    };
    runtime.block_on(async { tokio::time::timeout(PATIENCE, answer).await.ok().flatten() })
}
