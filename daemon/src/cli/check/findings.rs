//! From facts to findings. Pure.

use std::error::Error as _;

use vsnd_bridge::xen::real::Problem;

use super::facts::{Facts, File, Store};
use crate::cli::server::Server;

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
    findings.extend(facts.routes.first().map(|route| store_device(route, facts)));
    findings.extend(facts.devices.iter().map(|file| device(file, facts)));
    findings.extend(store(facts));
    findings.extend(sound_server(facts));
    findings.push(real_time(facts));
    findings.push(config(facts));
    findings.extend([state_file(facts), runtime_directory(facts), session_bus(facts)]);
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

/// The best way to XenStore, which isn't needed where another works.
fn store_device(best: &File, facts: &Facts) -> Finding {
    let finding = device(best, facts);
    let another = facts.routes.iter().skip(1).find(|route| route.problem.is_none());
    match (finding.verdict, another) {
        (Verdict::Missing, Some(another)) => {
            Finding::ok(finding.what, format!("{}, but {} serves as well", finding.found, another.path))
        }
        _ => finding,
    }
}

fn device(file: &File, facts: &Facts) -> Finding {
    let Some(problem) = &file.problem else {
        return Finding::ok(&file.path, file.mode.clone().unwrap_or_default());
    };
    let mode = file.mode.as_ref().map_or(String::new(), |mode| format!("{mode}; "));
    let remedy = match problem {
        Problem::NoXen => "only a Xen domain has it, see Xen above".to_owned(),
        // xenbus is part of the kernel, and opening it fails like this until there is a XenStore.
        Problem::Missing | Problem::NobodyListens
            if !file.path.starts_with("/dev/xen/") || file.path.ends_with("xenbus") =>
        {
            "sudo systemctl start xenstored".to_owned()
        }
        Problem::Missing => {
            format!("sudo modprobe xen-{}", file.path.rsplit('/').next().unwrap_or_default())
        }
        Problem::Denied => format!(
            "sudo make install (udev rule and group), sudo systemd-sysusers, sudo udevadm control --reload, \
             sudo udevadm trigger --subsystem-match=misc, sudo usermod -aG vsnd {}, and log in anew",
            facts.user
        ),
        Problem::NobodyListens | Problem::Other(_) => "sudo dmesg | grep -i xen".to_owned(),
    };
    Finding::missing(&file.path, format!("{mode}{problem}"), remedy)
}

fn store(facts: &Facts) -> Vec<Finding> {
    let what = "XenStore";
    match &facts.store {
        Store::Unreached => {
            let remedy = if facts.on_xen { "see the device files above" } else { "see Xen above" };
            vec![Finding::missing(what, "can't be reached", remedy)]
        }
        Store::WithoutDomain(why) => vec![
            Finding::ok(what, "answers"),
            Finding::missing(
                "own domid",
                why,
                "sudo /usr/lib/xen-*/bin/xen-init-dom0 in Dom0; in a driver domain its toolstack writes the node domid",
            ),
        ],
        Store::Answers { domain, guests } => vec![
            Finding::ok(what, "answers"),
            Finding::ok("own domid", domain.to_string()),
            backend_directory(*domain, guests),
        ],
    }
}

fn backend_directory(domain: u16, guests: &Result<usize, String>) -> Finding {
    let what = format!("/local/domain/{domain}/backend/vsnd");
    match guests {
        Ok(0) => Finding::advice(
            what,
            "no guest has a sound card yet",
            "put a vsnd= line into its xl.cfg (see contrib/xl) and start vsnd-bridge before xl create",
        ),
        Ok(1) => Finding::ok(what, "1 guest has a sound card"),
        Ok(guests) => Finding::ok(what, format!("{guests} guests have sound cards")),
        Err(why) => {
            let remedy = format!("sudo xenstore-ls -p {what}, to see who may read it");
            Finding::missing(what, why, remedy)
        }
    }
}

fn sound_server(facts: &Facts) -> Vec<Finding> {
    let what = "sound server";
    if facts.server_choice == Server::Null {
        return vec![Finding::ok(what, "none wanted; guests run on the clock and nothing is heard")];
    }
    let answer = match &facts.server {
        Ok(answer) => answer,
        Err(why) if facts.runtime_directory.is_none() => {
            let found = format!(
                "{why}, and XDG_RUNTIME_DIR is not set, or is no absolute path, so this is no desktop session"
            );
            let remedy =
                "start it as the user whose desktop plays, or export XDG_RUNTIME_DIR=/run/user/$(id -u)";
            return vec![Finding::missing(what, found, remedy)];
        }
        Err(why) => {
            let remedy = if facts.server_choice == Server::PulseAudio {
                "systemctl --user start pulseaudio (not installed: sudo apt-get install pulseaudio)"
            } else {
                "systemctl --user start pipewire wireplumber \
                 (not installed: sudo apt-get install pipewire wireplumber)"
            };
            return vec![Finding::missing(what, why, remedy)];
        }
    };
    let mut findings = vec![Finding::ok(what, answer.server.to_string())];
    if !answer.session_manager {
        let remedy = "systemctl --user start wireplumber (not installed: sudo apt-get install wireplumber)";
        findings.push(Finding::missing("session manager", "none, so nobody links guests to devices", remedy));
    }
    if answer.sinks == 0 {
        let remedy = if facts.server_choice == Server::PulseAudio {
            "look what the server sees: pactl list short sinks"
        } else {
            "look what the session manager sees: wpctl status"
        };
        findings.push(Finding::advice("sinks", "none; guests run on the clock until there is one", remedy));
    }
    findings
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
        Err(error) => {
            let why = error.source().map_or(String::new(), |source| format!(": {source}"));
            Finding::missing("policy file", format!("{error}{why}"), error.remedy())
        }
    }
}

fn state_file(facts: &Facts) -> Finding {
    let what = "remembered changes";
    match &facts.state_file {
        Some((path, Ok(()))) => Finding::ok(what, path.display().to_string()),
        Some((path, Err(why))) => {
            let path = path.display();
            let found = format!("those of before will be forgotten, {path} can't be used: {why}");
            Finding::advice(what, found, format!("mend {path}, or move it away, while no bridge runs"))
        }
        None => Finding::advice(
            what,
            "neither XDG_STATE_HOME nor HOME is an absolute path, so none when the bridge ends",
            "export HOME",
        ),
    }
}

fn runtime_directory(facts: &Facts) -> Finding {
    let what = "runtime directory";
    let heard = "guests that play will notice when the bridge ends or is started again";
    match &facts.runtime_directory {
        Some((path, Ok(()))) => Finding::ok(what, path.display().to_string()),
        Some((path, Err(why))) => {
            let found = format!("{heard}: {why}");
            Finding::advice(what, found, format!("namei -l {} shows whose it is", path.display()))
        }
        None => Finding::advice(
            what,
            format!("{heard}: XDG_RUNTIME_DIR is not set, or is no absolute path"),
            "export XDG_RUNTIME_DIR=/run/user/$(id -u)",
        ),
    }
}

fn session_bus(facts: &Facts) -> Finding {
    let what = "session bus";
    match &facts.session_bus {
        Ok(()) => Finding::ok(what, "answers"),
        Err(why) => Finding::advice(
            what,
            format!("mixers and vsndctl find no guests: {why}"),
            "sudo apt-get install dbus-user-session, and log in anew",
        ),
    }
}

/// What became of the test tone, which had so much latency.
#[cfg(feature = "pulseaudio")]
pub(super) fn tone(played: anyhow::Result<std::time::Duration>) -> Finding {
    match played {
        Ok(latency) => Finding::ok(
            "tone",
            format!(
                "played to its end, {} ms after it was given; nothing heard: look into the mixer",
                latency.as_millis()
            ),
        ),
        Err(why) => {
            let remedy = if super::tone::nobody_listens(&why) {
                "systemctl --user start pipewire-pulse (not installed: sudo apt-get install pipewire-pulse); \
                 where PulseAudio plays: systemctl --user start pulseaudio"
            } else {
                "look what the desktop plays to: pactl list short sinks"
            };
            Finding::missing("tone", format!("{why:#}"), remedy)
        }
    }
}

#[cfg(test)]
mod tests {

    use vsnd_bridge::config::ConfigError;
    use vsnd_bridge::runtime::RuntimeError;
    use vsnd_bridge::state::ReadError;
    use vsnd_pw_module::ServerInfo;

    use super::super::server::Answer;
    use super::*;

    fn file(path: &str) -> File {
        File { path: path.into(), mode: Some("mode 0660, root:vsnd".into()), problem: None }
    }

    fn info(name: &str, version: &str) -> ServerInfo {
        ServerInfo { name: name.to_owned(), version: version.to_owned(), is_stand_in: false }
    }

    fn dom0() -> Facts {
        Facts {
            user: "anna".into(),
            on_xen: true,
            routes: vec![file("/dev/xen/xenbus"), file("/run/xenstored/socket")],
            devices: vec![file("/dev/xen/gntdev"), file("/dev/xen/evtchn")],
            store: Store::Answers { domain: 0, guests: Ok(2) },
            server_choice: Server::PipeWire,
            server: Ok(Answer { server: info("PipeWire", "0.3.65"), session_manager: true, sinks: 1 }),
            runtime_directory: Some(("/run/user/1/vsnd-bridge".into(), Ok(()))),
            state_file: Some(("/home/anna/domains.toml".into(), Ok(()))),
            session_bus: Ok(()),
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
        for file in facts.routes.iter_mut().chain(&mut facts.devices) {
            (file.mode, file.problem) = (None, Some(Problem::NoXen));
        }
        facts.store = Store::Unreached;
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
        facts.devices[0].problem = Some(Problem::Missing);
        assert_eq!(found(&facts, "/dev/xen/gntdev").remedy.unwrap(), "sudo modprobe xen-gntdev");
        facts.devices[0].problem = Some(Problem::Denied);
        let line = found(&facts, "/dev/xen/gntdev").line();
        assert!(line.contains("mode 0660, root:vsnd") && line.contains("usermod -aG vsnd anna"), "{line}");
        facts.routes[1].problem = Some(Problem::Denied);
        facts.routes[0].problem = Some(Problem::Missing);
        assert_eq!(found(&facts, "/dev/xen/xenbus").remedy.unwrap(), "sudo systemctl start xenstored");
    }

    #[test]
    fn one_way_to_xenstore_is_enough() {
        let mut facts = dom0();
        facts.routes[0].problem = Some(Problem::Denied);
        let line = found(&facts, "/dev/xen/xenbus").line();
        assert!(line.starts_with("ok ") && line.contains("/run/xenstored/socket serves"), "{line}");
    }

    #[test]
    fn a_dom0_that_was_not_initialised_is_told_so() {
        let mut facts = dom0();
        facts.store = Store::WithoutDomain("no such node".into());
        assert!(found(&facts, "own domid").line().contains("xen-init-dom0"));
        facts.store = Store::Answers { domain: 3, guests: Err("permission denied".into()) };
        assert_eq!(found(&facts, "/local/domain/3/backend/vsnd").verdict, Verdict::Missing);
    }

    #[test]
    fn what_only_could_be_better_is_not_missing() {
        let mut facts = dom0();
        facts.rtkit = false;
        facts.store = Store::Answers { domain: 0, guests: Ok(0) };
        assert_eq!(found(&facts, "real-time priority").verdict, Verdict::Advice);
        assert_eq!(found(&facts, "/local/domain/0/backend/vsnd").verdict, Verdict::Advice);
        facts.rtprio = 88;
        assert_eq!(found(&facts, "real-time priority").verdict, Verdict::Ok);
    }

    #[test]
    fn what_run_warns_of_is_advice() {
        let mut facts = dom0();
        let path = std::path::PathBuf::from("/x");
        facts.runtime_directory = Some((path.clone(), Err(RuntimeError::NotPrivate(path.clone()))));
        facts.state_file = Some((path, Err(ReadError::TooLong)));
        facts.session_bus = Err(std::io::Error::other("no bus").into());
        let advice = |facts: &Facts| {
            let findings = of(facts).into_iter().filter(|finding| finding.verdict == Verdict::Advice);
            findings.map(|finding| finding.line()).collect::<String>()
        };
        let text = advice(&facts);
        assert!(text.contains("the runtime directory /x must be this user's alone"), "{text}");
        assert!(text.contains("/x can't be used: it is longer"), "{text}");
        assert!(text.contains("mixers and vsndctl find no guests: "), "{text}");
        (facts.runtime_directory, facts.state_file) = (None, None);
        assert_eq!(advice(&facts).lines().count(), 3);
    }

    #[test]
    fn the_null_server_needs_no_server() {
        let mut facts = dom0();
        facts.server = Err("PipeWire doesn't answer".into());
        assert_eq!(found(&facts, "sound server").verdict, Verdict::Missing);
        facts.runtime_directory = None;
        assert!(found(&facts, "sound server").line().contains("XDG_RUNTIME_DIR"));
        facts.server_choice = Server::Null;
        assert_eq!(found(&facts, "sound server").verdict, Verdict::Ok);
    }

    #[test]
    fn pulseaudio_has_remedies_of_its_own() {
        let mut facts = dom0();
        facts.server_choice = Server::PulseAudio;
        facts.server = Err("PulseAudio can't be reached: Connection refused".into());
        assert!(found(&facts, "sound server").line().contains("start pulseaudio"));
        let server = info("PulseAudio", "16.1");
        facts.server = Ok(Answer { server, session_manager: true, sinks: 0 });
        assert!(found(&facts, "sinks").line().contains("pactl"));
    }

    #[cfg(feature = "pulseaudio")]
    #[test]
    fn a_tone_that_nobody_takes_needs_a_server_and_no_sinks() {
        let nobody = super::super::tone::play(Some("unix:/nobody/listens/here"));
        assert!(tone(nobody).remedy.unwrap().contains("start pipewire-pulse"));
        let other = Err(anyhow::anyhow!("the tone doesn't end"));
        assert!(tone(other).remedy.unwrap().contains("pactl list short sinks"));
    }

    #[test]
    fn a_server_alone_is_not_enough() {
        let mut facts = dom0();
        facts.server = Ok(Answer { server: info("PipeWire", "1.4.2"), session_manager: false, sinks: 0 });
        assert_eq!(found(&facts, "sound server").verdict, Verdict::Ok);
        assert_eq!(found(&facts, "session manager").verdict, Verdict::Missing);
        assert_eq!(found(&facts, "sinks").verdict, Verdict::Advice);
    }

    #[test]
    fn a_bad_policy_file_is_missing_and_stays_on_one_line() {
        let mut facts = dom0();
        let (path, message) = ("config.toml".into(), "unknown\n\x1b[31m".to_owned());
        facts.config = Err(ConfigError::Parse { path, line: 3, column: 1, message });
        let line = found(&facts, "policy file").line();
        assert!(line.starts_with("MISSING  policy file: config.toml:3:1") && !line.contains('\x1b'));
        assert!(line.ends_with("; to do: mend that line; vsnd-bridge run --help shows one\n"), "{line}");
        assert_eq!(line.matches('\n').count(), 1);
        let source = std::io::ErrorKind::PermissionDenied.into();
        facts.config = Err(ConfigError::Read { path: "/p".into(), source });
        let line = found(&facts, "policy file").line();
        assert!(line.contains("/p: permission denied; to do: let this user read it"), "{line}");
    }
}
