//! The command vsndctl: guests and their streams, seen and set over D-Bus.

mod cli;
mod complete;
mod domains;
mod list;
mod monitor;
mod set;
mod text;
mod top;
mod volume;

use std::io;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use clap_complete::CompleteEnv;
use vsnd_dbus::client::{Client, ClientError};

use cli::{Cli, Command};

/// There is no bridge to talk to.
const NO_BRIDGE: u8 = 3;

fn main() -> ExitCode {
    CompleteEnv::with_factory(Cli::command).complete();
    let cli = Cli::parse();
    let outcome = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(run(cli.command)));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read the output has read enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vsndctl: {}{}", text::safe(&format!("{error:#}")), advice(&error));
            if is_no_bridge(&error) { ExitCode::from(NO_BRIDGE) } else { ExitCode::FAILURE }
        }
    }
}

async fn run(command: Command) -> anyhow::Result<()> {
    let client = Client::session().await?;
    match command {
        Command::List { json } => list::list(&client, json).await,
        Command::Volume { domain, change } => set::volume(&client, &domain, change).await,
        Command::Mute { domain, change } => set::mute(&client, &domain, change).await,
        Command::Capture { domain, capture } => set::capture(&client, &domain, capture).await,
        Command::Route { domain, stream, target } => set::route(&client, &domain, stream, target).await,
        Command::Monitor { json } => monitor::monitor(&client, json).await,
        Command::Top { json } => top::top(&client, json).await,
    }
}

/// What to do about an error, if it is known.
fn advice(error: &anyhow::Error) -> &'static str {
    match error.downcast_ref() {
        Some(ClientError::NotRunning) => "; start it: systemctl --user start vsnd-bridge",
        Some(ClientError::NoAnswer) => "; start it again: systemctl --user restart vsnd-bridge",
        Some(ClientError::NoBus(_)) => "; run vsndctl as the user whose desktop plays, inside that session",
        _ => "",
    }
}

fn is_no_bridge(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(ClientError::NotRunning | ClientError::NoBus(_)))
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref().is_some_and(|error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe)
}
