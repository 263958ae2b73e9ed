//! The commands that print or set one thing of a guest.

use std::io::{self, Write};

use anyhow::Context as _;
use vsnd_dbus::StreamId;
use vsnd_dbus::client::{Client, ClientError, Domain, DomainProxy};

use crate::cli::{CaptureChoice, DEFAULT_TARGET, MuteChange, Target};
use crate::domains::{find, title};
use crate::text::safe;
use crate::volume::{VolumeChange, percent};

/// The guest that is meant, as it is and as it can be set.
struct Meant {
    domain: Domain,
    proxy: DomainProxy<'static>,
}

impl Meant {
    async fn by(client: &Client, wanted: &str) -> anyhow::Result<Self> {
        let bridge = client.snapshot().await?;
        let domain = find(&bridge, wanted)?.clone();
        let proxy = client.domain(domain.id).await?;
        Ok(Self { domain, proxy })
    }
}

pub async fn volume(client: &Client, wanted: &str, change: Option<VolumeChange>) -> anyhow::Result<()> {
    let Meant { domain, proxy } = Meant::by(client, wanted).await?;
    match change {
        None => print(&percent(domain.volume)),
        Some(change) => refusable(proxy.set_volume(change.of(domain.volume).get()).await, || {
            format!("the volume of {} is not set", title(&domain))
        }),
    }
}

pub async fn mute(client: &Client, wanted: &str, change: Option<MuteChange>) -> anyhow::Result<()> {
    let Meant { domain, proxy } = Meant::by(client, wanted).await?;
    let muted = match change {
        None => return print(if domain.muted { "on" } else { "off" }),
        Some(MuteChange::On) => true,
        Some(MuteChange::Off) => false,
        Some(MuteChange::Toggle) => !domain.muted,
    };
    refusable(proxy.set_muted(muted).await, || format!("{} is not muted or unmuted", title(&domain)))
}

pub async fn capture(client: &Client, wanted: &str, choice: Option<CaptureChoice>) -> anyhow::Result<()> {
    let Meant { domain, proxy } = Meant::by(client, wanted).await?;
    match choice {
        None => print(domain.capture.as_str()),
        Some(choice) => {
            let capture = vsnd_dbus::Capture::from(choice).as_str();
            refusable(proxy.set_capture(capture).await, || {
                format!("the permission of {} is not set", title(&domain))
            })
        }
    }
}

pub async fn route(
    client: &Client,
    wanted: &str,
    id: StreamId,
    target: Option<Target>,
) -> anyhow::Result<()> {
    let Meant { domain, .. } = Meant::by(client, wanted).await?;
    let Some(stream) = domain.streams.iter().find(|stream| stream.id == id) else {
        let known: Vec<_> = domain.streams.iter().map(|stream| stream.id.to_string()).collect();
        anyhow::bail!("{} has no stream {id}; it has {}", title(&domain), known.join(", "));
    };
    let name = match &target {
        None => {
            let routed = if stream.target.is_empty() { DEFAULT_TARGET } else { &stream.target };
            return print(&safe(routed));
        }
        Some(Target::Default) => "",
        Some(Target::Node(name)) => name.as_str(),
    };
    let proxy = client.stream(domain.id, id).await?;
    refusable(proxy.set_target(name).await, || format!("stream {id} of {} is not routed", title(&domain)))
}

fn print(text: &str) -> anyhow::Result<()> {
    Ok(writeln!(io::stdout().lock(), "{text}")?)
}

/// What became of an attempt, with what was attempted.
fn refusable(outcome: zbus::Result<()>, what: impl FnOnce() -> String) -> anyhow::Result<()> {
    outcome.map_err(ClientError::from).with_context(what)
}
