//! A sound card as `xl.cfg` describes it.

use vsnd_pw_module::Direction;

/// Settings that a card, a PCM or a stream may have; the lower level overrides the upper.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Rates in frames a second, as written.
    pub sample_rates: Vec<String>,
    /// Formats by their XenStore names.
    pub sample_formats: Vec<String>,
    /// The fewest channels.
    pub channels_min: Option<u32>,
    /// The most channels.
    pub channels_max: Option<u32>,
    /// The longest ring, in octets.
    pub buffer_size: Option<u32>,
}

impl Settings {
    /// Key and value of each setting made, as they stand in XenStore.
    pub(super) fn nodes(&self) -> Vec<(&'static str, String)> {
        let list = |values: &Vec<String>| (!values.is_empty()).then(|| values.join(","));
        let number = |value: Option<u32>| value.map(|value| value.to_string());
        let all = [
            ("sample-rates", list(&self.sample_rates)),
            ("sample-formats", list(&self.sample_formats)),
            ("channels-min", number(self.channels_min)),
            ("channels-max", number(self.channels_max)),
            ("buffer-size", number(self.buffer_size)),
        ];
        all.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
    }

    fn set(&mut self, key: &str, value: &str) -> Result<bool, BadCard> {
        let list = || value.split(';').map(|item| item.trim().to_owned()).collect();
        let number = || value.parse().map(Some).map_err(|_| BadCard(format!("{key}={value}")));
        match key {
            "sample-rates" => self.sample_rates = list(),
            "sample-formats" => self.sample_formats = list(),
            "channels-min" => self.channels_min = number()?,
            "channels-max" => self.channels_max = number()?,
            "buffer-size" => self.buffer_size = number()?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// One direction of a PCM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    /// Playback or capture, as the guest sees it.
    pub direction: Direction,
    /// A name for the backend; need not be unique.
    pub unique_id: Option<String>,
    /// Overrides of the PCM's settings.
    pub settings: Settings,
}

/// A PCM device of a card.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pcm {
    /// Its name.
    pub name: Option<String>,
    /// Overrides of the card's settings.
    pub settings: Settings,
    /// Its streams.
    pub streams: Vec<Stream>,
}

/// A card.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Card {
    /// At most 32 octets.
    pub short_name: Option<String>,
    /// At most 80 octets.
    pub long_name: Option<String>,
    /// What PCMs and streams inherit.
    pub settings: Settings,
    /// Its PCMs.
    pub pcms: Vec<Pcm>,
}

/// A description that `xl` would refuse.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a card description: {0}")]
pub struct BadCard(String);

impl Card {
    /// Reads the list that stands in `xl.cfg`: items such as `CARD, short-name=VM`, children after their parent.
    ///
    /// # Errors
    /// [`BadCard`] with the part that isn't understood.
    pub fn parse(items: &[&str]) -> Result<Self, BadCard> {
        let mut card = Self::default();
        for item in items {
            let bad = || BadCard((*item).to_owned());
            let mut parts = item.split(',').map(str::trim);
            let kind = parts.next().unwrap_or_default().to_ascii_uppercase();
            let pairs: Vec<(&str, &str)> =
                parts.map(|part| part.split_once('=').ok_or_else(bad)).collect::<Result<_, _>>()?;
            match kind.as_str() {
                "CARD" => card.read_card(&pairs)?,
                "PCM" => card.pcms.push(Pcm::read(&pairs)?),
                "STREAM" => card.pcms.last_mut().ok_or_else(bad)?.streams.push(Stream::read(&pairs)?),
                _ => return Err(bad()),
            }
        }
        Ok(card)
    }

    /// One PCM with a playback and a capture stream: 44.1 and 48 kHz, 16 bits, one or two channels, 256 KiB rings.
    pub fn simple() -> Self {
        let stream = |direction, id: &str| Stream {
            direction,
            unique_id: Some(id.to_owned()),
            settings: Settings::default(),
        };
        let streams = vec![stream(Direction::Playback, "out"), stream(Direction::Capture, "in")];
        Self {
            short_name: Some("VM".to_owned()),
            settings: Settings {
                sample_rates: vec!["44100".to_owned(), "48000".to_owned()],
                sample_formats: vec!["s16_le".to_owned()],
                channels_max: Some(2),
                buffer_size: Some(262_144),
                ..Settings::default()
            },
            pcms: vec![Pcm { name: Some("Main".to_owned()), settings: Settings::default(), streams }],
            ..Self::default()
        }
    }

    fn read_card(&mut self, pairs: &[(&str, &str)]) -> Result<(), BadCard> {
        for (key, value) in pairs {
            match *key {
                "short-name" => self.short_name = Some((*value).to_owned()),
                "long-name" => self.long_name = Some((*value).to_owned()),
                "backend" => (),
                _ if self.settings.set(key, value)? => (),
                _ => return Err(BadCard((*key).to_owned())),
            }
        }
        Ok(())
    }
}

impl Pcm {
    fn read(pairs: &[(&str, &str)]) -> Result<Self, BadCard> {
        let mut pcm = Self::default();
        for (key, value) in pairs {
            match *key {
                "name" => pcm.name = Some((*value).to_owned()),
                _ if pcm.settings.set(key, value)? => (),
                _ => return Err(BadCard((*key).to_owned())),
            }
        }
        Ok(pcm)
    }
}

impl Stream {
    fn read(pairs: &[(&str, &str)]) -> Result<Self, BadCard> {
        let mut stream =
            Self { direction: Direction::Playback, unique_id: None, settings: Settings::default() };
        for (key, value) in pairs {
            match (*key, *value) {
                ("type", "p" | "P") => stream.direction = Direction::Playback,
                ("type", "c" | "C") => stream.direction = Direction::Capture,
                ("unique-id", id) => stream.unique_id = Some(id.to_owned()),
                (key, value) if stream.settings.set(key, value)? => (),
                _ => return Err(BadCard(format!("{key}={value}"))),
            }
        }
        Ok(stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_reads_as_xl_reads_it() {
        let card = Card::parse(&[
            "CARD, short-name=VM, sample-rates=44100;48000, sample-formats=s16_le, channels-max=2, buffer-size=262144",
            "PCM, name=Main",
            "STREAM, unique-id=out, type=p",
            "stream, unique-id=in, type=c",
        ]);
        assert_eq!(card.unwrap(), Card::simple());
        assert!(Card::parse(&["STREAM, type=p"]).is_err(), "no PCM to belong to");
        assert!(Card::parse(&["PCM", "STREAM, id=x"]).is_err(), "the man page's key is none");
        assert!(Card::parse(&["CARD, buffer-size=big"]).is_err());
    }
}
