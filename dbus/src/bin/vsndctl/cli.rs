//! The command line.

use clap::{Parser, Subcommand, ValueEnum};
use clap_complete::engine::ArgValueCompleter;
use vsnd_dbus::{Capture, NodeName, StreamId};

use crate::complete;
use crate::volume::VolumeChange;

const EXAMPLES: &str = "\
Examples:
  vsndctl list                        guests and their streams
  vsndctl volume work +5%             a little louder
  vsndctl mute work toggle
  vsndctl capture work allow          let it hear the microphone
  vsndctl route work 0_0_0 alsa_output.pci-0000_00_1f.3.hdmi-stereo
                                      play on another sink

DOMAIN is a guest's name, or its number.

Exit status: 0 done, 1 refused or failed, 2 wrong usage, 3 no bridge runs in this session,
or there is no session bus.";

/// See and set the guests of vsnd-bridge: their volumes, their streams, and who may hear the microphone.
#[derive(Debug, Parser)]
#[command(name = "vsndctl", version, after_help = EXAMPLES, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List guests and their streams
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print or set the volume of a guest
    Volume {
        /// The guest's name or number
        #[arg(add = ArgValueCompleter::new(complete::domains))]
        domain: String,
        /// 50% sets it, +5% and -5% move it; 0% to 150%, as mixers show it
        #[arg(value_name = "VOLUME", allow_hyphen_values = true)]
        change: Option<VolumeChange>,
    },
    /// Print or set whether a guest is muted
    Mute {
        /// The guest's name or number
        #[arg(add = ArgValueCompleter::new(complete::domains))]
        domain: String,
        /// What to do
        #[arg(value_name = "MUTE", value_enum)]
        change: Option<MuteChange>,
    },
    /// Print or set whether a guest may record
    Capture {
        /// The guest's name or number
        #[arg(add = ArgValueCompleter::new(complete::domains))]
        domain: String,
        /// What it may do
        #[arg(value_name = "PERMISSION", value_enum)]
        capture: Option<CaptureChoice>,
    },
    /// Print or set where a stream of a guest plays to or records from
    Route {
        /// The guest's name or number
        #[arg(add = ArgValueCompleter::new(complete::domains))]
        domain: String,
        /// The stream, as `vsndctl list` names it
        #[arg(value_name = "STREAM", add = ArgValueCompleter::new(complete::streams))]
        stream: StreamId,
        /// The name of a sink (a source where it records), or "default" to leave it to the session manager
        #[arg(value_name = "SINK", value_parser = target, add = ArgValueCompleter::new(complete::targets))]
        target: Option<Target>,
    },
    /// Print changes as they happen, until interrupted
    Monitor {
        /// Print a line of JSON for each
        #[arg(long)]
        json: bool,
    },
    /// Show guests and streams live, with their levels; q ends it
    Top {
        /// Print a line of JSON each second instead
        #[arg(long)]
        json: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MuteChange {
    /// Silence it
    On,
    /// Let it be heard
    Off,
    /// The one or the other
    Toggle,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CaptureChoice {
    /// It records
    Allow,
    /// It records silence until you allow it, and you are asked
    Ask,
    /// It records silence
    Deny,
}

impl From<CaptureChoice> for Capture {
    fn from(choice: CaptureChoice) -> Self {
        match choice {
            CaptureChoice::Allow => Self::Allow,
            CaptureChoice::Ask => Self::Ask,
            CaptureChoice::Deny => Self::Deny,
        }
    }
}

/// Where a stream is routed to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Where the session manager wants it.
    Default,
    /// This sink or source.
    Node(NodeName),
}

/// The word for [`Target::Default`].
pub const DEFAULT_TARGET: &str = "default";

fn target(text: &str) -> Result<Target, vsnd_dbus::InvalidNodeName> {
    if text == DEFAULT_TARGET { Ok(Target::Default) } else { NodeName::new(text).map(Target::Node) }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(words: &[&str]) -> Result<Command, String> {
        let words = ["vsndctl"].into_iter().chain(words.iter().copied());
        Cli::try_parse_from(words).map(|cli| cli.command).map_err(|error| error.to_string())
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_volume_may_begin_with_a_minus() {
        let Ok(Command::Volume { change: Some(change), .. }) = parse(&["volume", "work", "-5%"]) else {
            panic!()
        };
        assert_eq!(change, "-5%".parse().unwrap());
        assert!(parse(&["volume", "work", "200%"]).unwrap_err().contains("150%"));
        assert!(parse(&["volume", "work", "--json"]).is_err());
    }

    #[test]
    fn a_route_is_a_stream_and_a_node_or_the_default() {
        let Ok(Command::Route { target, .. }) = parse(&["route", "work", "0_0_0", "default"]) else {
            panic!()
        };
        assert_eq!(target, Some(Target::Default));
        assert!(matches!(parse(&["route", "5", "0_0_0", "hdmi"]), Ok(Command::Route { .. })));
        assert!(parse(&["route", "work", "0_0"]).unwrap_err().contains("CARD_PCM_STREAM"));
        assert!(parse(&["route", "work", "0_0_0", ""]).is_err());
    }

    /// The page is written by hand; what it forgets is found here.
    #[test]
    fn the_manual_page_speaks_of_every_command_option_and_value() {
        let page = include_str!("../../../../contrib/man/vsndctl.1").replace("\\-", "-");
        for command in Cli::command().get_subcommands() {
            let heading = format!(".SS {}\n", command.get_name());
            let after = page.split(&heading).nth(1).unwrap_or_else(|| panic!("no {heading}"));
            let section = after.split("\n.S").next().unwrap_or(after);
            let arguments = command.get_arguments();
            for argument in arguments.filter(|argument| argument.get_id() != "help") {
                let values = argument.get_possible_values();
                let words = match (argument.get_long(), &values[..]) {
                    (Some(long), _) => vec![format!("--{long}")],
                    (None, []) => vec![argument.get_value_names().unwrap()[0].to_string()],
                    (None, values) => values.iter().map(|value| value.get_name().to_owned()).collect(),
                };
                for word in words {
                    assert!(section.contains(&word), "{} {word}", command.get_name());
                }
            }
        }
    }
}
