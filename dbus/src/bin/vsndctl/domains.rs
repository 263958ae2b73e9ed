//! Which domain somebody means.

use vsnd_dbus::client::{Bridge, Domain};

use crate::text::safe;

/// A word that doesn't mean one domain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotOne {
    /// It means none.
    #[error("there is no guest {wanted}; {}", known(.names))]
    None {
        /// The word.
        wanted: String,
        /// The guests that there are.
        names: Vec<String>,
    },
    /// It means several.
    #[error("{wanted} may be {}; take a name or number that only one of them has", .candidates.join(" or "))]
    Several {
        /// The word.
        wanted: String,
        /// The guests that it may mean.
        candidates: Vec<String>,
    },
}

fn known(names: &[String]) -> String {
    if names.is_empty() {
        "none has a sound card".to_owned()
    } else {
        format!("there is {}", names.join(", "))
    }
}

/// A domain's name and number.
pub fn title(domain: &Domain) -> String {
    format!("{} ({})", safe(&domain.name), domain.id)
}

/// The domain with this name or number.
pub fn find<'a>(bridge: &'a Bridge, wanted: &str) -> Result<&'a Domain, NotOne> {
    let meant: Vec<&Domain> = bridge
        .domains
        .iter()
        .filter(|domain| domain.name == wanted || domain.id.to_string() == wanted)
        .collect();
    let wanted = wanted.to_owned();
    match meant[..] {
        [domain] => Ok(domain),
        [] => Err(NotOne::None { wanted, names: bridge.domains.iter().map(title).collect() }),
        _ => Err(NotOne::Several { wanted, candidates: meant.into_iter().map(title).collect() }),
    }
}

#[cfg(test)]
mod tests {
    use vsnd_dbus::{Capture, DomainId};

    use super::*;

    fn bridge_of(domains: &[(u32, &str)]) -> Bridge {
        let domain = |&(id, name): &(u32, &str)| Domain {
            id: DomainId(id),
            name: name.to_owned(),
            uuid: String::new(),
            volume: 1.0,
            muted: false,
            capture: Capture::Ask,
            capture_active: false,
            streams: Vec::new(),
        };
        Bridge {
            version: String::new(),
            server: String::new(),
            sinks: Vec::new(),
            sources: Vec::new(),
            domains: domains.iter().map(domain).collect(),
        }
    }

    #[test]
    fn a_domain_is_found_by_its_name_and_by_its_number() {
        let bridge = bridge_of(&[(5, "work"), (7, "12")]);
        for (wanted, id) in [("work", 5), ("5", 5), ("12", 7), ("7", 7)] {
            assert_eq!(find(&bridge, wanted).unwrap().id, DomainId(id), "{wanted}");
        }
        let error = find(&bridge, "wor").unwrap_err();
        assert_eq!(error.to_string(), "there is no guest wor; there is work (5), 12 (7)");
        assert_eq!(
            find(&bridge_of(&[]), "work").unwrap_err().to_string(),
            "there is no guest work; none has a sound card"
        );
    }

    #[test]
    fn what_may_mean_two_domains_means_none() {
        let bridge = bridge_of(&[(5, "work"), (7, "5"), (8, "twin"), (9, "twin")]);
        let error = find(&bridge, "5").unwrap_err().to_string();
        assert_eq!(error, "5 may be work (5) or 5 (7); take a name or number that only one of them has");
        assert!(
            matches!(find(&bridge, "twin"), Err(NotOne::Several { candidates, .. }) if candidates.len() == 2)
        );
        assert_eq!(find(&bridge, "work").unwrap().id, DomainId(5));
    }
}
