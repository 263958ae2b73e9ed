//! From facts to findings. Pure.

use std::io::ErrorKind;

use super::facts::{Device, DeviceState, Facts, Store};
use crate::cli::Server;

/// What was found of one requirement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// As it should be.
    Ok,
    /// It works without, but could be better.
    Advice,
    /// `run` can't serve guests without it.
    Missing,
}

/// One requirement, what was found, and the command that mends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) what: String,
    pub(super) verdict: Verdict,
    pub(super) found: String,
    pub(super) remedy: Option<String>,
}

impl Finding {
    fn ok(what: impl Into<String>, found: impl Into<String>) -> Self {
        Self { what: what.into(), verdict: Verdict::Ok, found: found.into(), remedy: None }
    }

    fn missing(what: impl Into<String>, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        let remedy = Some(remedy.into());
        Self { what: what.into(), verdict: Verdict::Missing, found: found.into(), remedy }
    }

    fn advice(what: impl Into<String>, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { verdict: Verdict::Advice, ..Self::missing(what, found, remedy) }
    }

    /// The finding as it is printed.
    pub(super) fn line(&self) -> String {
        let verdict = match self.verdict {
            Verdict::Ok => "ok     ",
            Verdict::Advice => "advice ",
            Verdict::Missing => "MISSING",
        };
        let remedy = self.remedy.as_ref().map_or(String::new(), |remedy| format!("; to do: {remedy}"));
        let line = format!("{verdict}  {}: {}{remedy}", self.what, self.found);
        line.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).chain(['\n']).collect()
    }
}

/// Everything that `run` needs, in the order in which it needs it.
pub(super) fn of(facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![xen(facts)];
    findings.extend(facts.devices.iter().map(|device| self::device(device, facts)));
    findings.extend(store(facts));
    findings.push(sound_server(facts));
    findings.push(real_time(facts));
    findings.push(config(facts));
    findings
}

fn xen(facts: &Facts) -> Finding {
    if facts.on_xen {
        Finding::ok("Xen", "this machine is a Xen domain")
    } else {
        Finding::missing(
            "Xen",
            "this machine is no Xen domain",
            "sudo apt-get install xen-system-amd64, then start \"with Xen hypervisor\" from the boot menu \
             (without Xen: vsnd-bridge demo)",
        )
    }
}

fn device(device: &Device, facts: &Facts) -> Finding {
    let path = device.path.display().to_string();
    match &device.state {
        DeviceState::Opened(mode) => Finding::ok(path, mode.clone()),
        DeviceState::Failed(ErrorKind::NotFound, _) if !facts.on_xen => {
            Finding::missing(path, "no such file", "only a Xen domain has it, see Xen above")
        }
        DeviceState::Failed(ErrorKind::NotFound, _) => {
            Finding::missing(path, "no such file", format!("sudo modprobe {}", device.module))
        }
        DeviceState::Failed(ErrorKind::PermissionDenied, mode) => Finding::missing(
            path,
            format!("{mode}, and {} may not open it", facts.user),
            format!(
                "install the project's udev rule and group (make install), \
                 sudo udevadm trigger --subsystem-match=misc, sudo usermod -aG vsnd {}, and log in anew",
                facts.user
            ),
        ),
        DeviceState::Failed(kind, mode) => {
            Finding::missing(path, format!("{mode}, can't be opened: {kind}"), "see sudo dmesg")
        }
    }
}

fn store(facts: &Facts) -> Vec<Finding> {
    let store = match &facts.store {
        Ok(store) => store,
        Err(why) => {
            let remedy = if facts.on_xen { "sudo systemctl start xenstored" } else { "see Xen above" };
            return vec![Finding::missing("XenStore", why.clone(), remedy)];
        }
    };
    vec![Finding::ok("XenStore", "answers"), domid(store), backend_directory(store)]
}

fn domid(store: &Store) -> Finding {
    match &store.domid {
        Ok(domid) => Finding::ok("own domid", domid.to_string()),
        Err(why) => {
            let remedy = "sudo systemctl restart xen-init-dom0 (in a driver domain, have the toolstack give it XenStore)";
            Finding::missing("own domid", why.clone(), remedy)
        }
    }
}

fn backend_directory(store: &Store) -> Finding {
    let what = "sound cards of guests";
    match &store.cards {
        Ok(0) => Finding::advice(
            what,
            "none yet",
            "give a guest one: the vsnd= line of its xl.cfg (an example is in contrib/xl), then xl create",
        ),
        Ok(cards) => Finding::ok(what, cards.to_string()),
        Err(why) => {
            Finding::missing(what, why.clone(), "sudo xenstore-ls -p on the path, for who may read it")
        }
    }
}

fn sound_server(facts: &Facts) -> Finding {
    let what = "sound server";
    match (&facts.server, facts.server_choice) {
        (_, Server::Null) => Finding::ok(what, "none wanted; guests run on the clock and nothing is heard"),
        (Ok(server), Server::PipeWire) => Finding::ok(what, server.trim().to_owned()),
        (Err(why), Server::PipeWire) if !facts.runtime_directory => Finding::missing(
            what,
            format!("{why}, and XDG_RUNTIME_DIR is not set, so this is no desktop session"),
            "run it as the user whose desktop plays: export XDG_RUNTIME_DIR=/run/user/$(id -u)",
        ),
        (Err(why), Server::PipeWire) => Finding::missing(
            what,
            why.clone(),
            "systemctl --user start pipewire wireplumber (not installed: sudo apt-get install pipewire wireplumber)",
        ),
    }
}

fn real_time(facts: &Facts) -> Finding {
    let what = "real-time priority";
    match (facts.rtprio, facts.rtkit) {
        (0, false) => Finding::advice(what, "neither by limits nor by rtkit", "sudo apt-get install rtkit"),
        (0, true) => Finding::ok(what, "by rtkit"),
        (priority, _) => Finding::ok(what, format!("up to {priority} without help")),
    }
}

fn config(facts: &Facts) -> Finding {
    match &facts.config {
        Ok(found) => Finding::ok("policy file", found.clone()),
        Err(why) => {
            Finding::missing("policy file", why.clone(), "mend that line; vsnd-bridge run --help shows one")
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn device(name: &str, state: DeviceState) -> Device {
        Device { path: PathBuf::from(format!("/dev/xen/{name}")), module: format!("xen-{name}"), state }
    }

    fn dom0() -> Facts {
        let mode = || DeviceState::Opened("mode 0660, root:vsnd".into());
        Facts {
            user: "anna".into(),
            on_xen: true,
            devices: vec![device("xenbus", mode()), device("gntdev", mode()), device("evtchn", mode())],
            store: Ok(Store { domid: Ok(0), cards: Ok(2) }),
            server_choice: Server::PipeWire,
            server: Ok("PipeWire 0.3.65".into()),
            runtime_directory: true,
            rtprio: 0,
            rtkit: true,
            config: Ok("none; everything at its default".into()),
        }
    }

    fn verdicts(facts: &Facts) -> Vec<(String, Verdict)> {
        of(facts).into_iter().map(|finding| (finding.what, finding.verdict)).collect()
    }

    fn found(facts: &Facts, what: &str) -> Finding {
        of(facts).into_iter().find(|finding| finding.what == what).unwrap()
    }

    #[test]
    fn nothing_is_missing_in_a_dom0_that_is_set_up() {
        assert!(verdicts(&dom0()).iter().all(|(_, verdict)| *verdict == Verdict::Ok), "{:?}", of(&dom0()));
    }

    #[test]
    fn without_xen_every_requirement_still_has_its_line() {
        let mut facts = dom0();
        facts.on_xen = false;
        for device in &mut facts.devices {
            device.state = DeviceState::Failed(ErrorKind::NotFound, String::new());
        }
        facts.store = Err("no /dev/xen/xenbus".into());
        let missing: Vec<_> =
            verdicts(&facts).into_iter().filter(|(_, verdict)| *verdict == Verdict::Missing).collect();
        assert_eq!(missing.len(), 5, "{missing:?}");
        let line = found(&facts, "Xen").line();
        assert!(line.starts_with("MISSING  Xen: ") && line.contains("apt-get install"), "{line}");
        assert_eq!(found(&facts, "sound server").line(), "ok       sound server: PipeWire 0.3.65\n");
    }

    #[test]
    fn each_fault_of_a_device_file_has_its_command() {
        let mut facts = dom0();
        facts.devices[1].state = DeviceState::Failed(ErrorKind::NotFound, String::new());
        assert_eq!(found(&facts, "/dev/xen/gntdev").remedy.unwrap(), "sudo modprobe xen-gntdev");
        facts.devices[1].state =
            DeviceState::Failed(ErrorKind::PermissionDenied, "mode 0600, root:root".into());
        let line = found(&facts, "/dev/xen/gntdev").line();
        assert!(line.contains("mode 0600, root:root") && line.contains("usermod -aG vsnd anna"), "{line}");
    }

    #[test]
    fn what_only_could_be_better_is_not_missing() {
        let mut facts = dom0();
        facts.rtkit = false;
        facts.store = Ok(Store { domid: Ok(0), cards: Ok(0) });
        assert_eq!(found(&facts, "real-time priority").verdict, Verdict::Advice);
        assert_eq!(found(&facts, "sound cards of guests").verdict, Verdict::Advice);
        facts.rtprio = 88;
        assert_eq!(found(&facts, "real-time priority").verdict, Verdict::Ok);
    }

    #[test]
    fn the_null_server_needs_no_server() {
        let mut facts = dom0();
        facts.server = Err("PipeWire doesn't answer".into());
        assert_eq!(found(&facts, "sound server").verdict, Verdict::Missing);
        facts.runtime_directory = false;
        assert!(found(&facts, "sound server").line().contains("XDG_RUNTIME_DIR"));
        facts.server_choice = Server::Null;
        assert_eq!(found(&facts, "sound server").verdict, Verdict::Ok);
    }

    #[test]
    fn a_bad_policy_file_is_missing_and_stays_on_one_line() {
        let mut facts = dom0();
        facts.config = Err("config.toml:3:1: unknown\n\x1b[31m".into());
        let line = found(&facts, "policy file").line();
        assert!(line.starts_with("MISSING  policy file: config.toml:3:1") && !line.contains('\x1b'));
        assert_eq!(line.matches('\n').count(), 1);
    }
}
