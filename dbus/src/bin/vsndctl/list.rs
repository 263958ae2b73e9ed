//! `vsndctl list`.

use std::io::{self, Write};

use vsnd_dbus::client::{Bridge, Client, Domain, StreamView};

use crate::domains::title;
use crate::text::{columns, json, safe};
use crate::volume::percent;

pub async fn list(client: &Client, as_json: bool) -> anyhow::Result<()> {
    let bridge = client.snapshot().await?;
    let mut out = io::stdout().lock();
    if as_json {
        writeln!(out, "{}", json(&bridge)?)?;
    } else {
        out.write_all(render(&bridge).as_bytes())?;
    }
    Ok(())
}

/// What a bridge is, in a line.
pub fn headline(bridge: &Bridge) -> String {
    format!("vsnd-bridge {} on {}", safe(&bridge.version), safe(&bridge.server))
}

fn render(bridge: &Bridge) -> String {
    let mut lines = vec![headline(bridge)];
    if bridge.domains.is_empty() {
        lines.push("no guest has a sound card".to_owned());
    }
    for domain in &bridge.domains {
        lines.push(String::new());
        lines.push(about_domain(domain));
        let rows: Vec<_> = domain.streams.iter().map(about_stream).collect();
        lines.extend(columns(&rows).into_iter().map(|row| format!("  {row}")));
    }
    lines.push(String::new());
    lines.join("\n")
}

fn about_domain(domain: &Domain) -> String {
    let muted = if domain.muted { ", muted" } else { "" };
    let active = if domain.capture_active { ", records" } else { "" };
    format!("{}: volume {}{muted}, capture {}{active}", title(domain), percent(domain.volume), domain.capture)
}

fn about_stream(stream: &StreamView) -> Vec<String> {
    let target =
        if stream.target.is_empty() { String::new() } else { format!("-> {}", safe(&stream.target)) };
    let open = |text: String| if stream.rate == 0 { String::new() } else { text };
    vec![
        stream.id.to_string(),
        stream.direction.to_string(),
        safe(&stream.state),
        format(stream),
        open(latency(stream)),
        open(format!("{} xruns", xruns(stream))),
        safe(&stream.node_name),
        target,
    ]
}

/// Sample format, rate and channels; empty while closed.
pub fn format(stream: &StreamView) -> String {
    let StreamView { format, rate, channels, .. } = stream;
    if *rate == 0 { String::new() } else { format!("{} {rate} Hz {channels} ch", safe(format)) }
}

/// How often it went wrong, in either direction.
pub fn xruns(stream: &StreamView) -> u64 {
    stream.underruns.saturating_add(stream.overruns)
}

/// The latency in milliseconds.
pub fn latency(stream: &StreamView) -> String {
    format!("{}.{} ms", stream.latency_usec / 1000, stream.latency_usec % 1000 / 100)
}
