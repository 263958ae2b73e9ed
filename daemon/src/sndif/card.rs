//! A card as its frontend's directory describes it.
//!
//! The toolstack writes it, but into a directory that the guest owns: every value is checked, and read once, before the
//! guest runs.

use vsnd_pw_module::Direction;

use super::keys;
use super::node::{ConfigError, Problem, Quote, cut, fault, numbered_children, plain, text};
use super::settings::{MOST_WARNINGS, Oddity, Settings, Warning};
use super::{Limits, keys::stream_directory};
use crate::xen::Nodes;

/// PCMs of a card, as many as ALSA can count.
pub const MOST_PCMS: u8 = 32;
/// Streams of a PCM, as many as the Linux driver reads.
pub const MOST_STREAMS: u8 = 8;

const NAME_OCTETS: usize = 80;

/// A guest's sound card. Its own names and those of its streams are for the guest alone, and not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CardConfig {
    /// Its PCMs, at least one; the place is the index.
    pub pcms: Vec<Pcm>,
}

/// A PCM of a card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pcm {
    /// Its index, from 0.
    pub index: u8,
    /// Its name, up to 80 octets; never empty and without control characters.
    pub name: Option<String>,
    /// Its streams; the place is the index.
    pub streams: Vec<Stream>,
}

/// A stream of a PCM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    /// Its index, from 0.
    pub index: u8,
    /// Which way it goes.
    pub direction: Direction,
    /// What it may be opened with.
    pub limits: Limits,
}

impl CardConfig {
    /// Reads the card of the directory `frontend`, with what is odd about it.
    ///
    /// # Errors
    /// [`ConfigError`] for the first node that says what can't be.
    pub fn read(nodes: &dyn Nodes, frontend: &str) -> Result<(Self, Vec<Warning>), ConfigError> {
        let mut reader = Reader { nodes, frontend, warnings: Vec::new() };
        let card = reader.card()?;
        reader.warnings.truncate(MOST_WARNINGS);
        Ok((card, reader.warnings))
    }
}

struct Reader<'a> {
    nodes: &'a dyn Nodes,
    frontend: &'a str,
    warnings: Vec<Warning>,
}

impl Reader<'_> {
    fn card(&mut self) -> Result<CardConfig, ConfigError> {
        let count = numbered_children(self.nodes, self.frontend, "PCMs", MOST_PCMS)?;
        if count == 0 {
            return Err(fault(self.frontend, Problem::NoPcm));
        }
        let settings = self.level(&Settings::default(), self.frontend)?;
        Ok(CardConfig { pcms: (0..count).map(|index| self.pcm(index, &settings)).collect::<Result<_, _>>()? })
    }

    fn pcm(&mut self, index: u8, above: &Settings) -> Result<Pcm, ConfigError> {
        let directory = format!("{}/{index}", self.frontend);
        let count = numbered_children(self.nodes, &directory, "streams", MOST_STREAMS)?;
        let settings = self.level(above, &directory)?;
        Ok(Pcm {
            index,
            name: self.name(&directory)?,
            streams: (0..count)
                .map(|stream| self.stream(index, stream, &settings))
                .collect::<Result<_, _>>()?,
        })
    }

    fn stream(&mut self, pcm: u8, index: u8, above: &Settings) -> Result<Stream, ConfigError> {
        let directory = stream_directory(self.frontend, pcm, index);
        let settings = self.level(above, &directory)?;
        Ok(Stream { index, direction: self.direction(&directory)?, limits: settings.limits(&directory)? })
    }

    fn level(&mut self, above: &Settings, directory: &str) -> Result<Settings, ConfigError> {
        above.with_level(self.nodes, directory, &mut self.warnings)
    }

    fn direction(&self, directory: &str) -> Result<Direction, ConfigError> {
        let node = format!("{directory}/{}", keys::TYPE);
        match text(self.nodes, &node)?.as_deref() {
            Some(keys::TYPE_PLAYBACK) => Ok(Direction::Playback),
            Some(keys::TYPE_CAPTURE) => Ok(Direction::Capture),
            Some(other) => Err(fault(&node, Problem::StreamType(Quote::new(other)))),
            None => Err(fault(&node, Problem::Missing("\"p\" for playback or \"c\" for capture"))),
        }
    }

    /// A PCM's name; `None` if there is none, or nothing that could be shown.
    fn name(&mut self, directory: &str) -> Result<Option<String>, ConfigError> {
        let node = format!("{directory}/{}", keys::NAME);
        let Some(text) = text(self.nodes, &node)? else { return Ok(None) };
        let mut name = plain(&text);
        if cut(&mut name, NAME_OCTETS) {
            self.warnings.push(Warning { node, oddity: Oddity::LongName(NAME_OCTETS) });
        }
        Ok(if name.is_empty() { None } else { Some(name) })
    }
}

#[cfg(test)]
#[path = "card_tests.rs"]
mod tests;
