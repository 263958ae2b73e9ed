//! The command line: what was asked for, and how the outcome is told.

mod check;
#[cfg(feature = "pipewire")]
mod demo;
mod log;
mod run;
mod server;
mod signals;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::anyhow;
use clap::{Args, Parser, Subcommand, ValueEnum};
use vsnd_bridge::config::{Capture, Config};

/// The end of every help text.
const ENVIRONMENT: &str = "\
Environment:
  VSND_LOG  what is logged to stderr: error, warn (default), info, debug, trace,
            or by part, such as warn,vsnd_bridge::guest=debug

Exit status: 0 done, 1 failed, 2 wrong usage; 143 or 130 ended at once, by a second SIGTERM or SIGINT.";

const EXAMPLES: &str = "\
Examples:
  vsnd-bridge check          what is missing on this machine, and the commands that mend it
  vsnd-bridge run            serve the sound cards of all guests
  vsnd-bridge demo           without Xen: a simulated guest plays and records";

const RUN_EXAMPLES: &str = "\
Examples:
  vsnd-bridge run                                  as the user unit does
  vsnd-bridge run --capture allow                  every guest may record
  VSND_LOG=info vsnd-bridge run --server null      guests run, nothing is heard

The policy file is $XDG_CONFIG_HOME/vsnd-bridge/config.toml (~/.config when unset):
  [default]
  capture = \"ask\"
  [[domain]]
  match = \"work-*\"
  capture = \"allow\"

What the user changes of a domain while the bridge runs overrides it, and is remembered in
$XDG_STATE_HOME/vsnd-bridge/domains.toml (~/.local/state when unset).";

#[cfg(feature = "pipewire")]
const DEMO_EXAMPLES: &str = "\
Examples:
  vsnd-bridge demo                           a tone of a few seconds
  vsnd-bridge demo --play song.wav           a WAV file
  vsnd-bridge demo --private                 in a sound server of its own, bit-exact or failed";

/// Sound backend for Xen's para-virtual sound card: every guest's stream becomes a node on the desktop's sound server.
#[derive(Debug, Parser)]
#[command(version, after_help = format!("{EXAMPLES}\n\n{ENVIRONMENT}"), max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the sound cards of all guests until SIGTERM or SIGINT
    ///
    /// What guests have open stays so: the next `run` takes it over from $XDG_RUNTIME_DIR/vsnd-bridge, and applications that play go
    /// on. A second signal ends it at once, whatever it does.
    #[command(after_help = format!("{RUN_EXAMPLES}\n\n{ENVIRONMENT}"))]
    Run(RunArgs),
    #[cfg(feature = "pipewire")]
    /// Show the whole path without Xen: a simulated guest plays and records
    ///
    /// The guest is a model of the Linux frontend on a simulated hypervisor; everything else is the code that `run` runs. It
    /// plays into your PipeWire, or into a private one that is started for it when none runs. Exit status 0 means that
    /// everything was heard; a first signal already ends it with 128 and its number.
    #[command(after_help = format!("{DEMO_EXAMPLES}\n\n{ENVIRONMENT}"))]
    Demo(DemoArgs),
    /// Check what `run` needs on this machine, and say how to mend what is missing
    #[command(after_help = ENVIRONMENT)]
    Check(CheckArgs),
}

/// What decides how guests are served.
#[derive(Debug, Args)]
struct ServiceArgs {
    /// The sound server to show guests on
    #[arg(long, value_enum, value_name = "SERVER", default_value_t)]
    server: ServerChoice,
    /// The policy file [default: $XDG_CONFIG_HOME/vsnd-bridge/config.toml, if there is one]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct RunArgs {
    #[command(flatten)]
    service: ServiceArgs,
    /// Whether guests may record when no rule of the policy file speaks of them; overrides its [default]
    #[arg(long, value_enum, value_name = "POLICY")]
    capture: Option<CaptureChoice>,
}

#[derive(Debug, Args)]
struct CheckArgs {
    #[command(flatten)]
    service: ServiceArgs,
    /// Play a second of a tone on the default sink, to hear whether the desktop itself is heard
    #[cfg(feature = "pulseaudio")]
    #[arg(long)]
    tone: bool,
}

#[cfg(feature = "pipewire")]
#[derive(Debug, Args)]
struct DemoArgs {
    /// Play this WAV file instead of a tone
    #[arg(long, value_name = "FILE.wav")]
    play: Option<PathBuf>,
    /// How long to play [default: 4, or the whole file up to 60]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: Option<u32>,
    /// Use a private sound server even if yours runs
    #[arg(long)]
    private: bool,
}

/// The sound server as the command line names it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum ServerChoice {
    /// The one that plays at the time: PipeWire, then PulseAudio; no server while none answers
    #[default]
    Auto,
    /// PipeWire
    Pipewire,
    /// PulseAudio, or what stands in for it
    Pulseaudio,
    /// No server: guests run on the clock, nothing is heard
    Null,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum CaptureChoice {
    /// They record
    Allow,
    /// They record silence until you allow it
    Ask,
    /// They record silence
    Deny,
}

impl RunArgs {
    /// The policy: the file, and the command line over its default.
    fn policy(&self) -> anyhow::Result<Config> {
        let mut config = self.service.policy()?;
        if let Some(choice) = self.capture {
            config.set_default_capture(match choice {
                CaptureChoice::Allow => Capture::Allow,
                CaptureChoice::Ask => Capture::Ask,
                CaptureChoice::Deny => Capture::Deny,
            });
        }
        Ok(config)
    }
}

impl ServiceArgs {
    fn policy(&self) -> anyhow::Result<Config> {
        Config::load(self.config.as_deref()).map_err(|error| {
            let remedy = error.remedy();
            anyhow!("the policy file can't be used: {:#}; to do: {remedy}", anyhow::Error::from(error))
        })
    }
}

/// Runs the command. Errors become one line for a person; clap itself answers wrong usage with status 2.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = log::start().and_then(|()| match cli.command {
        Command::Run(args) => run::run(&args),
        #[cfg(feature = "pipewire")]
        Command::Demo(args) => demo::demo(&args),
        Command::Check(args) => check::check(&args),
    });
    match outcome {
        Ok(code) => code,
        Err(error) => {
            log::tell(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_policy_file_that_is_not_there_is_refused_with_what_to_do() {
        let service = ServiceArgs { server: ServerChoice::Null, config: Some("/no/such/file".into()) };
        let error = service.policy().unwrap_err().to_string();
        assert!(error.starts_with("the policy file can't be used: /no/such/file: No such file"), "{error}");
        assert!(error.ends_with("; to do: name a file that is there, or leave --config out"), "{error}");
    }

    #[test]
    fn run_takes_what_the_unit_and_people_write() {
        let cli =
            Cli::try_parse_from(["vsnd-bridge", "run", "--server", "null", "--capture", "allow"]).unwrap();
        let Command::Run(args) = cli.command else { panic!("{cli:?}") };
        assert_eq!(args.service.server.servers(), [server::Server::Null]);
        assert_eq!(args.capture, Some(CaptureChoice::Allow));
        assert!(Cli::try_parse_from(["vsnd-bridge"]).is_err());
        assert!(Cli::try_parse_from(["vsnd-bridge", "demo", "--seconds", "0"]).is_err());
        assert!(Cli::try_parse_from(["vsnd-bridge", "run", "--server", "pulseaudio"]).is_ok());
    }
}
