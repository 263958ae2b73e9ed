//! The policy file: what each domain may do, and how its streams show themselves.
//!
//! ```toml
//! [default]              # for every domain; all keys are optional
//! capture = "ask"        # "allow" | "ask" | "deny": may the domain record? "ask" and "deny" give it silence
//! role = "stream"        # "stream": an application's stream | "device": a virtual sink or source
//!
//! [default.limits]       # what a domain may cost before it is slowed or refused
//! cards = 8
//! streams = 64           # of all its cards together
//! memory = 64            # MiB of its own memory that the bridge maps
//! requests-per-second = 50000
//! events-per-second = 50000
//! opens-per-minute = 600
//! state-changes-per-minute = 600
//! log-lines-per-minute = 10
//!
//! [total]                # what all domains together may cost
//! memory = 512           # MiB
//!
//! [[domain]]             # rules, read from top to bottom
//! match = "work-*"       # the domain's name, or its UUID; * and ? are wildcards
//! capture = "allow"
//!
//! [[domain]]
//! match = "ab8a8e6e-3d4c-4d6f-9f6e-2f9c8b1d7a55"
//! role = "device"
//! limits.memory = 256
//! ```
//!
//! Every rule that matches applies, in the order of the file; where two set the same key, the later one counts. So
//! broad rules come first and exceptions after them.

mod limits;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;
pub use vsnd_dbus::Capture;
use vsnd_pw_module::Role;
use wildmatch::WildMatch;

use crate::guess::probably_meant;
use crate::xdg::directory_or;
use limits::LimitKeys;
pub use limits::{GuestLimits, TotalLimits};

/// What the policy says of one domain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DomainPolicy {
    /// Whether it may record.
    pub capture: Capture,
    /// How its streams show themselves.
    pub role: Role,
    /// What it may cost.
    pub limits: GuestLimits,
}

/// The policy for all domains.
#[derive(Clone, Debug, Default)]
pub struct Config {
    default: DomainPolicy,
    rules: Vec<Rule>,
    total: TotalLimits,
}

#[derive(Clone, Debug)]
struct Rule {
    name: WildMatch,
    uuid: WildMatch,
    keys: Keys,
}

/// A policy file that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It can't be read.
    #[error("{}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It can be read, but not understood.
    #[error("{}:{line}:{column}: {message}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// The line of the fault, from 1.
        line: usize,
        /// The column of the fault in characters, from 1.
        column: usize,
        /// What is wrong, and what was probably meant.
        message: String,
    },
}

impl ConfigError {
    /// What mends it, for people.
    pub fn remedy(&self) -> String {
        match self {
            Self::Read { path, source } => match source.kind() {
                io::ErrorKind::NotFound => "name a file that is there, or leave --config out".to_owned(),
                io::ErrorKind::IsADirectory => "name a file, not a directory".to_owned(),
                io::ErrorKind::InvalidData => "write it as text in UTF-8".to_owned(),
                _ => format!("let this user read it; namei -l {} shows who may", path.display()),
            },
            Self::Parse { .. } => "mend that line; vsnd-bridge run --help shows one".to_owned(),
        }
    }
}

impl Config {
    /// The file that is read when the command line names none: `$XDG_CONFIG_HOME/vsnd-bridge/config.toml`.
    /// `None` when the environment names no home.
    pub fn default_path() -> Option<PathBuf> {
        Some(directory_or("XDG_CONFIG_HOME", ".config")?.join("vsnd-bridge").join("config.toml"))
    }

    /// Reads the file that the command line names, which must exist, or else the default one, which need not.
    ///
    /// # Errors
    /// A file that can't be read or understood.
    pub fn load(named: Option<&Path>) -> Result<Self, ConfigError> {
        match named {
            Some(path) => Self::read(path),
            None => match Self::default_path().map(|path| Self::read(&path)) {
                Some(Err(ConfigError::Read { source, .. })) if source.kind() == io::ErrorKind::NotFound => {
                    Ok(Self::default())
                }
                Some(read) => read,
                None => Ok(Self::default()),
            },
        }
    }

    fn read(path: &Path) -> Result<Self, ConfigError> {
        let text =
            fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(&text, path)
    }

    /// Reads a policy from its text; `path` is named in errors.
    ///
    /// # Errors
    /// [`ConfigError::Parse`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let file: File = toml::from_str(text).map_err(|error| explain(&error, text, path))?;
        let rules = file.domain.into_iter().map(|rule| Rule {
            name: WildMatch::new(&rule.pattern.0),
            uuid: WildMatch::new_case_insensitive(&rule.pattern.0),
            keys: Keys { capture: rule.capture, role: rule.role, limits: rule.limits },
        });
        let default = file.default.over(DomainPolicy::default());
        Ok(Self { default, rules: rules.collect(), total: file.total })
    }

    /// Sets what holds for a domain that no rule speaks of; the command line's `--capture`.
    pub fn set_default_capture(&mut self, capture: Capture) {
        self.default.capture = capture;
    }

    /// What all domains together may cost.
    pub fn total(&self) -> TotalLimits {
        self.total
    }

    /// What holds for the domain with this name and UUID, as far as they are known.
    pub fn for_domain(&self, name: Option<&str>, uuid: Option<&str>) -> DomainPolicy {
        self.rules
            .iter()
            .filter(|rule| rule.matches(name, uuid))
            .fold(self.default, |policy, rule| rule.keys.over(policy))
    }
}

impl Rule {
    fn matches(&self, name: Option<&str>, uuid: Option<&str>) -> bool {
        name.is_some_and(|name| self.name.matches(name)) || uuid.is_some_and(|uuid| self.uuid.matches(uuid))
    }
}

/// The file as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    default: Keys,
    #[serde(default)]
    domain: Vec<RuleInFile>,
    #[serde(default)]
    total: TotalLimits,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    capture: Option<Capture>,
    role: Option<RoleInFile>,
    #[serde(default)]
    limits: LimitKeys,
}

impl Keys {
    fn over(self, policy: DomainPolicy) -> DomainPolicy {
        DomainPolicy {
            capture: self.capture.unwrap_or(policy.capture),
            role: self.role.map_or(policy.role, Role::from),
            limits: self.limits.over(policy.limits),
        }
    }
}

/// [`Keys`] and `match`; written out because serde can't flatten and refuse unknown keys at once.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleInFile {
    #[serde(rename = "match")]
    pattern: Pattern,
    capture: Option<Capture>,
    role: Option<RoleInFile>,
    #[serde(default)]
    limits: LimitKeys,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RoleInFile {
    Stream,
    Device,
}

impl From<RoleInFile> for Role {
    fn from(role: RoleInFile) -> Self {
        match role {
            RoleInFile::Stream => Self::Stream,
            RoleInFile::Device => Self::Device,
        }
    }
}

#[derive(Deserialize)]
#[serde(try_from = "String")]
struct Pattern(String);

impl TryFrom<String> for Pattern {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if text.is_empty() {
            Err("an empty pattern matches no domain; \"*\" matches all")
        } else {
            Ok(Self(text))
        }
    }
}

/// Every word that may stand in the file, to guess what a misspelt one was meant to be.
const WORDS: [&str; 20] = [
    "default",
    "domain",
    "total",
    "limits",
    "match",
    "capture",
    "role",
    "allow",
    "ask",
    "deny",
    "stream",
    "device",
    "cards",
    "streams",
    "memory",
    "requests-per-second",
    "events-per-second",
    "opens-per-minute",
    "state-changes-per-minute",
    "log-lines-per-minute",
];

fn explain(error: &toml::de::Error, text: &str, path: &Path) -> ConfigError {
    let span = error.span().unwrap_or(0..0);
    let before = text.get(..span.start).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    // Serde names the type of a limit as Rust does.
    let number = format!("a whole number from 1 to {}", u32::MAX);
    let mut message = error.message().trim_end().replace('\n', ", ").replace("a nonzero u32", &number);
    let written = text.get(span).unwrap_or_default().trim_matches(['"', '\'']);
    if let Some(meant) = probably_meant(written, WORDS) {
        message.push_str(&format!("; did you mean `{meant}`?"));
    }
    ConfigError::Parse {
        path: path.to_owned(),
        line: before.matches('\n').count() + 1,
        column: before[line_start..].chars().count() + 1,
        message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Config {
        Config::parse(text, Path::new("config.toml")).unwrap()
    }

    fn fault(text: &str) -> String {
        Config::parse(text, Path::new("config.toml")).unwrap_err().to_string()
    }

    #[test]
    fn without_a_file_nobody_records_and_everything_is_a_stream() {
        let policy = Config::default().for_domain(Some("work"), None);
        assert_eq!((policy.capture, policy.role), (Capture::Ask, Role::Stream));
        assert_eq!(policy, DomainPolicy::default());
        assert_eq!(parse("").for_domain(None, None), policy);
    }

    #[test]
    fn later_rules_override_earlier_ones_key_by_key() {
        let config = parse(
            r#"
            [default]
            capture = "deny"
            [[domain]]
            match = "work-*"
            capture = "allow"
            role = "device"
            [[domain]]
            match = "work-mail"
            capture = "ask"
            "#,
        );
        let policy = |name| {
            let policy = config.for_domain(Some(name), None);
            (policy.capture, policy.role)
        };
        assert_eq!(policy("home"), (Capture::Deny, Role::Stream));
        assert_eq!(policy("work-calls"), (Capture::Allow, Role::Device));
        assert_eq!(policy("work-mail"), (Capture::Ask, Role::Device));
    }

    #[test]
    fn limits_are_set_key_by_key_and_none_is_no_limit() {
        let config = parse(
            r#"
            [default.limits]
            memory = 16
            [[domain]]
            match = "studio"
            limits = { memory = 256, requests-per-second = 100_000 }
            [total]
            memory = 1024
            "#,
        );
        let limits = |name| config.for_domain(Some(name), None).limits;
        let count = |count| std::num::NonZeroU32::new(count).unwrap();
        let everyone = GuestLimits { memory: count(16), ..GuestLimits::DEFAULT };
        assert_eq!(limits("home"), everyone);
        let studio = GuestLimits { memory: count(256), requests_per_second: count(100_000), ..everyone };
        assert_eq!((limits("studio"), config.total().memory), (studio, count(1024)));
        assert_eq!(parse("").total(), TotalLimits::default());
        let zero = fault("[default.limits]\ncards = 0\n");
        assert!(
            zero.starts_with("config.toml:2:9: ") && zero.contains("a whole number from 1 to "),
            "{zero}"
        );
        assert!(fault("[default.limits]\nmemori = 1\n").contains("did you mean `memory`?"));
    }

    #[test]
    fn names_are_case_sensitive_and_uuids_are_not() {
        let config = parse("[[domain]]\nmatch = \"AB8A*\"\ncapture = \"allow\"");
        let capture = |name, uuid| config.for_domain(name, uuid).capture;
        assert_eq!(capture(None, Some("ab8a8e6e-3d4c-4d6f-9f6e-2f9c8b1d7a55")), Capture::Allow);
        assert_eq!(capture(Some("ab8a"), None), Capture::Ask);
        assert_eq!(capture(Some("AB8A"), Some("00000000-0000-0000-0000-000000000000")), Capture::Allow);
    }

    #[test]
    fn the_command_line_overrides_the_default_but_no_rule() {
        let mut config = parse("[[domain]]\nmatch = \"untrusted\"\ncapture = \"deny\"");
        config.set_default_capture(Capture::Allow);
        assert_eq!(config.for_domain(Some("work"), None).capture, Capture::Allow);
        assert_eq!(config.for_domain(Some("untrusted"), None).capture, Capture::Deny);
    }

    #[test]
    fn faults_name_the_place_and_what_was_meant() {
        let unknown = fault("# policy\n[default]\n  captur = \"allow\"\n");
        assert!(unknown.starts_with("config.toml:3:3: "), "{unknown}");
        assert!(unknown.contains("`captur`") && unknown.ends_with("did you mean `capture`?"), "{unknown}");

        let value = fault("[default]\ncapture = \"alow\"\n");
        assert!(value.starts_with("config.toml:2:11: "), "{value}");
        assert!(value.contains("`ask`") && value.ends_with("did you mean `allow`?"), "{value}");

        let table = fault("[domains]\nmatch = \"a\"\n");
        assert!(table.contains("did you mean `domain`?"), "{table}");

        let nothing_alike = fault("[default]\nvolume = 1\n");
        assert!(
            nothing_alike.contains("`volume`") && !nothing_alike.contains("did you mean"),
            "{nothing_alike}"
        );
    }

    #[test]
    fn rules_without_a_pattern_are_refused() {
        assert!(fault("[[domain]]\ncapture = \"allow\"\n").contains("`match`"));
        assert!(fault("[[domain]]\nmatch = \"\"\n").contains("\"*\" matches all"));
        assert!(fault("[domain]\nmatch = \"a\"\n").contains("config.toml:1:"));
    }

    #[test]
    fn faults_in_the_syntax_are_one_line() {
        let fault = fault("[default]\ncapture = allow\n");
        assert!(fault.starts_with("config.toml:2:11: ") && !fault.contains('\n'), "{fault}");
    }

    #[test]
    fn a_file_that_can_not_be_read_has_another_remedy_than_one_with_a_fault() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| Config::load(Some(&folder.path().join(name))).unwrap_err().remedy();
        fs::write(folder.path().join("fault.toml"), "[default").unwrap();
        fs::write(folder.path().join("octets.toml"), [0xff]).unwrap();
        assert!(at("fault.toml").starts_with("mend that line"));
        assert!(at("none.toml").contains("leave --config out"));
        assert!(at("").contains("not a directory"));
        assert!(at("octets.toml").contains("UTF-8"));
        let denied = ConfigError::Read { path: "/p".into(), source: io::ErrorKind::PermissionDenied.into() };
        assert!(denied.remedy().contains("namei -l /p"));
    }

    #[test]
    fn a_file_that_is_named_must_exist() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("none.toml");
        let error = Config::load(Some(&path)).unwrap_err();
        assert!(matches!(&error, ConfigError::Read { path: named, source }
            if *named == path && source.kind() == io::ErrorKind::NotFound));
    }
}
