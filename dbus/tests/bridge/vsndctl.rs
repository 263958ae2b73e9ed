//! Every command of vsndctl against a bridge on a bus, as a person at a shell has it.

use std::process::{Output, Stdio};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;
use vsnd_dbus::{Capture, CubicVolume, DomainId};

use crate::bus::Bus;
use crate::fake::{Fake, NO_SUCH_SINK, PLAYBACK, WORK, domain, names};
use crate::peer::PATIENCE;

/// A name that a terminal would obey, hide and reorder.
const HOSTILE: &str = "evil\x1b]0;owned\x07\u{9b}2J\u{202e}";

/// A bus, a bridge on it, and a shell.
struct Desk {
    bus: Bus,
    fake: Fake,
}

impl Desk {
    async fn new() -> Self {
        let bus = Bus::start();
        let fake = Fake::on(bus.connect().await).await;
        Self { bus, fake }
    }

    async fn run(&self, arguments: &[&str]) -> Output {
        run(&self.bus, arguments).await
    }

    /// What a command prints that works.
    async fn prints(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments).await;
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        assert!(output.stderr.is_empty(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The status and the line of a command that doesn't work.
    async fn fails(&self, arguments: &[&str]) -> (i32, String) {
        failure(self.run(arguments).await)
    }

    fn add(&self, id: u32, name: &str) {
        self.fake.service.update(|state| {
            state.domains.insert(DomainId(id), domain(name, []));
        });
    }

    fn work<T>(&self, read: impl FnOnce(&vsnd_dbus::DomainState) -> T) -> T {
        let mut found = None;
        self.fake.service.update(|state| found = Some(read(&state.domains[&WORK])));
        found.unwrap()
    }
}

fn vsndctl(bus: &Bus) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vsndctl"));
    bus.environment(&mut command);
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

async fn run(bus: &Bus, arguments: &[&str]) -> Output {
    let output = vsndctl(bus).args(arguments).output();
    timeout(PATIENCE, output).await.expect("an end in time").unwrap()
}

fn failure(output: Output) -> (i32, String) {
    assert!(output.stdout.is_empty(), "{output:?}");
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

#[tokio::test]
async fn list_shows_every_guest_and_stream() {
    let desk = Desk::new().await;
    desk.fake.update_work(|work| work.muted = true);
    let expected = format!(
        "vsnd-bridge {} on PipeWire 1.4.2\n\n\
         work (5): volume 100%, muted, capture ask\n  \
         0_0_0  playback  running  s16_le 48000 Hz 2 ch  21.3 ms  0 xruns  vsnd.work.0.0.0\n  \
         0_0_1  capture   closed                                           vsnd.work.0.0.1\n",
        env!("CARGO_PKG_VERSION")
    );
    assert_eq!(desk.prints(&["list"]).await, expected);
    let json: Value = serde_json::from_str(&desk.prints(&["list", "--json"]).await).unwrap();
    let stream = &json["domains"][0]["streams"][0];
    assert_eq!(json["domains"][0]["capture"], "ask");
    assert_eq!((&stream["id"], &stream["position"]), (&"0_0_0".into(), &48_000.into()));
}

#[tokio::test]
async fn volume_is_printed_set_and_moved() {
    let desk = Desk::new().await;
    let volume = || desk.work(|work| work.volume.get());
    assert_eq!(desk.prints(&["volume", "work"]).await, "100%\n");
    assert_eq!(desk.prints(&["volume", "work", "50%"]).await, "");
    assert_eq!(volume(), 0.5);
    desk.prints(&["volume", "5", "+5%"]).await;
    assert_eq!(volume(), 0.55);
    desk.prints(&["volume", "work", "-15%"]).await;
    assert_eq!(volume(), 0.4);
    assert_eq!(desk.prints(&["volume", "work"]).await, "40%\n");
    let (status, line) = desk.fails(&["volume", "work", "50"]).await;
    assert!(status == 2 && line.contains("write a volume as 50%"), "{line}");
}

#[tokio::test]
async fn mute_is_printed_set_and_toggled() {
    let desk = Desk::new().await;
    let muted = || desk.work(|work| work.muted);
    assert_eq!(desk.prints(&["mute", "work"]).await, "off\n");
    for (word, expected) in [("on", true), ("on", true), ("off", false), ("toggle", true), ("toggle", false)]
    {
        assert_eq!(desk.prints(&["mute", "work", word]).await, "");
        assert_eq!(muted(), expected, "{word}");
    }
    desk.prints(&["mute", "work", "on"]).await;
    assert_eq!(desk.prints(&["mute", "work"]).await, "on\n");
}

#[tokio::test]
async fn capture_is_printed_and_set() {
    let desk = Desk::new().await;
    assert_eq!(desk.prints(&["capture", "work"]).await, "ask\n");
    for (word, expected) in [("allow", Capture::Allow), ("deny", Capture::Deny), ("ask", Capture::Ask)] {
        assert_eq!(desk.prints(&["capture", "work", word]).await, "");
        assert_eq!(desk.work(|work| work.capture), expected);
    }
}

#[tokio::test]
async fn route_is_printed_and_set_and_refused_in_the_bridges_words() {
    let desk = Desk::new().await;
    assert_eq!(desk.prints(&["route", "work", "0_0_0"]).await, "default\n");
    desk.prints(&["route", "work", "0_0_0", "hdmi"]).await;
    assert_eq!(desk.prints(&["route", "work", "0_0_0"]).await, "hdmi\n");
    assert!(desk.prints(&["list"]).await.contains("vsnd.work.0.0.0  -> hdmi\n"));
    desk.prints(&["route", "work", "0_0_0", "default"]).await;
    assert_eq!(desk.work(|work| work.streams[&PLAYBACK].target.clone()), None);
    assert_eq!(desk.prints(&["route", "work", "0_0_0"]).await, "default\n");
    let refused = "vsndctl: stream 0_0_0 of work (5) is not routed: there is no sink no-such-sink\n";
    assert_eq!(desk.fails(&["route", "work", "0_0_0", NO_SUCH_SINK]).await, (1, refused.to_owned()));
    let unknown = "vsndctl: work (5) has no stream 0_0_7; it has 0_0_0, 0_0_1\n";
    assert_eq!(desk.fails(&["route", "work", "0_0_7", "hdmi"]).await, (1, unknown.to_owned()));
}

#[tokio::test]
async fn a_guest_that_is_not_there_or_not_alone_is_told() {
    let desk = Desk::new().await;
    let none = "vsndctl: there is no guest wrok; there is work (5)\n";
    assert_eq!(desk.fails(&["mute", "wrok", "on"]).await, (1, none.to_owned()));
    desk.add(6, "5");
    let several = "vsndctl: 5 may be work (5) or 5 (6); take a name or number that only one of them has\n";
    assert_eq!(desk.fails(&["mute", "5", "on"]).await, (1, several.to_owned()));
    assert!(!desk.work(|work| work.muted));
}

#[tokio::test]
async fn without_a_bridge_or_a_bus_it_says_so_with_a_status_of_its_own() {
    let bus = Bus::start();
    let (status, line) = failure(run(&bus, &["list"]).await);
    assert_eq!(status, 3);
    assert_eq!(
        line,
        "vsndctl: no bridge runs in this session; start it: systemctl --user start vsnd-bridge\n"
    );
    let mut command = vsndctl(&bus);
    command.env("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nonexistent/bus").arg("list");
    let (status, line) = failure(command.output().await.unwrap());
    assert_eq!(status, 3);
    assert!(line.starts_with("vsndctl: there is no session bus here: "), "{line}");
    assert_eq!(line.matches("No such file").count(), 1, "{line}");
    assert_eq!(run(&bus, &["lsit"]).await.status.code(), Some(2));
}

#[tokio::test]
async fn a_bridge_that_does_not_answer_is_not_waited_for_without_end() {
    let bus = Bus::start();
    // No object server: what is asked is left lying.
    let connection = bus.connect().await;
    connection.request_name("org.vsnd.Bridge1").await.unwrap();
    let silent = "vsndctl: the bridge doesn't answer; start it again: systemctl --user restart vsnd-bridge\n";
    assert_eq!(failure(run(&bus, &["list"]).await), (1, silent.to_owned()));
}

#[tokio::test]
async fn nothing_that_a_guest_wrote_reaches_the_terminal_as_it_is() {
    let desk = Desk::new().await;
    desk.add(6, HOSTILE);
    desk.fake.update_work(|work| {
        for stream in work.streams.values_mut() {
            stream.node_name = HOSTILE.to_owned();
            if let Some(open) = &mut stream.open {
                open.format = HOSTILE.to_owned();
            }
        }
    });
    desk.fake.service.update(|state| {
        state.server = HOSTILE.to_owned();
        state.sinks = names(["\u{202e}live"]);
    });
    for arguments in [&["list"][..], &["list", "--json"], &["mute", "nobody"], &["route", "6", "0_0_0"]] {
        let output = desk.run(arguments).await;
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(said.contains("evil"), "{arguments:?}: {said:?}");
        let obeyed = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(!said.contains(obeyed), "{arguments:?}: {said:?}");
    }
}

/// A vsndctl that prints line by line.
struct Watcher {
    lines: Lines<BufReader<ChildStdout>>,
    _child: Child,
}

impl Watcher {
    fn start(bus: &Bus, arguments: &[&str]) -> Self {
        let mut child = vsndctl(bus).args(arguments).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { lines, _child: child }
    }

    async fn line(&mut self) -> String {
        timeout(PATIENCE, self.lines.next_line()).await.expect("a line in time").unwrap().expect("a line")
    }

    async fn json(&mut self) -> Value {
        serde_json::from_str(&self.line().await).unwrap()
    }
}

#[tokio::test]
async fn monitor_prints_each_change_as_it_happens() {
    let desk = Desk::new().await;
    let mut words = Watcher::start(&desk.bus, &["monitor"]);
    let mut json = Watcher::start(&desk.bus, &["monitor", "--json"]);
    let head = format!("vsnd-bridge {} on PipeWire 1.4.2: 1 guest", env!("CARGO_PKG_VERSION"));
    assert_eq!(words.line().await, head);
    assert_eq!(json.json().await["bridge"]["domains"][0]["name"], "work");
    desk.fake.update_work(|work| {
        work.volume = CubicVolume::new(0.5).unwrap();
        work.muted = true;
    });
    assert_eq!(words.line().await, "work (5): Muted = true, Volume = 50%");
    let change = json.json().await;
    assert_eq!((&change["event"], &change["name"]), (&"changed".into(), &"work".into()));
    assert_eq!(change["properties"], serde_json::json!({ "Muted": true, "Volume": 0.5 }));
    desk.fake.service.capture_requested(WORK);
    assert_eq!(words.line().await, "work (5): asks for the microphone");
    assert_eq!(json.json().await["event"], "capture-requested");
    desk.add(6, HOSTILE);
    let came = r"evil\u{1b}]0;owned\u{7}\u{9b}2J\u{202e} (6): came";
    assert_eq!(words.line().await, came);
    assert_eq!(json.json().await["properties"]["Name"], HOSTILE);
    desk.fake.service.update(|state| {
        state.domains.remove(&DomainId(6));
    });
    assert_eq!(words.line().await, came.replace("came", "went"));
}

#[tokio::test]
async fn monitor_sees_the_bridge_go_and_come_back() {
    let bus = Bus::start();
    let connection = bus.connect().await;
    let fake = Fake::on(connection.clone()).await;
    let mut words = Watcher::start(&bus, &["monitor"]);
    let head = words.line().await;
    drop(fake);
    connection.close().await.unwrap();
    assert_eq!(words.line().await, "bridge: went");
    let fake = Fake::on(bus.connect().await).await;
    assert_eq!(words.line().await, head);
    fake.update_work(|work| work.muted = true);
    assert_eq!(words.line().await, "work (5): Muted = true");
}

#[tokio::test]
async fn top_draws_on_a_terminal_and_ends_by_a_key() {
    let desk = Desk::new().await;
    desk.add(6, HOSTILE);
    // script gives it a terminal.
    let mut command = Command::new("script");
    desk.bus.environment(&mut command);
    let program = format!("stty rows 20 cols 100; {} top", env!("CARGO_BIN_EXE_vsndctl"));
    command.args(["--quiet", "--return", "--command", &program, "/dev/null"]).env("TERM", "xterm");
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn();
    let mut child = child.expect("script, of bsdutils");
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut seen = Vec::new();
    // The last row of the first drawing.
    while !String::from_utf8_lossy(&seen).contains(r"evil\u{1b}]0") {
        let more = timeout(PATIENCE, output.fill_buf()).await.expect("a drawing in time").unwrap().to_vec();
        assert!(!more.is_empty(), "{}", String::from_utf8_lossy(&seen));
        output.consume(more.len());
        seen.extend(more);
    }
    let seen = String::from_utf8_lossy(&seen);
    assert!(seen.contains("work (5)") && seen.contains("s16_le"), "{seen}");
    assert!(!seen.contains("]0;owned\x07") && !seen.contains('\u{202e}'), "{seen:?}");
    child.stdin.take().unwrap().write_all(b"q").await.unwrap();
    let status = timeout(PATIENCE, child.wait()).await.expect("an end in time").unwrap();
    assert!(status.success());
}

#[tokio::test]
async fn top_without_a_terminal_prints_json_or_says_why_not() {
    let desk = Desk::new().await;
    let (status, line) = desk.fails(&["top"]).await;
    assert!(status == 1 && line.contains("--json prints lines"), "{line}");
    let mut lines = Watcher::start(&desk.bus, &["top", "--json"]);
    assert_eq!(lines.json().await["domains"][0]["streams"][0]["levels"], serde_json::json!([0.5, 0.25]));
    desk.fake.update_work(|work| work.muted = true);
    assert_eq!(lines.json().await["domains"][0]["muted"], true);
}

/// What bash offers for a command line whose last word is being typed.
async fn completions(bus: &Bus, words: &[&str]) -> Vec<String> {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../contrib/completions/vsndctl.bash");
    let script = format!(
        "PATH={}:$PATH; source {file}; COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); \
         _clap_complete_vsndctl vsndctl \"${{COMP_WORDS[COMP_CWORD]}}\"; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        std::path::Path::new(env!("CARGO_BIN_EXE_vsndctl")).parent().unwrap().display()
    );
    let mut command = Command::new("bash");
    bus.environment(&mut command);
    let output = command.args(["-c", &script, "bash", "vsndctl"]).args(words).output().await.unwrap();
    assert!(output.stderr.is_empty(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn bash_completes_what_is_live() {
    let desk = Desk::new().await;
    desk.add(6, "vault");
    assert!(completions(&desk.bus, &["cap"]).await.contains(&"capture".to_owned()));
    assert_eq!(completions(&desk.bus, &["volume", "w"]).await, ["work"]);
    assert_eq!(completions(&desk.bus, &["capture", "work", "a"]).await, ["allow", "ask"]);
    assert_eq!(completions(&desk.bus, &["route", "work", "0_0"]).await, ["0_0_0", "0_0_1"]);
    // A name that would end up in a command line is no command.
    desk.add(7, "work; $(reboot)");
    desk.fake.service.update(|state| state.sinks.extend(names(["usb;$(reboot)"])));
    let targets = ["default", "hdmi", "usb", "webcam"];
    assert_eq!(completions(&desk.bus, &["route", "work", "0_0_0", ""]).await[..4], targets);
    assert_eq!(completions(&desk.bus, &["route", "work", "0_0_0", "u"]).await, ["usb"]);
    assert_eq!(completions(&desk.bus, &["mute", ""]).await[..3], ["7", "vault", "work"]);
}

#[tokio::test]
async fn completion_is_empty_where_no_bridge_runs() {
    let bus = Bus::start();
    let offered = completions(&bus, &["mute", "w"]).await;
    assert!(offered.iter().all(String::is_empty), "{offered:?}");
}

#[test]
fn zsh_and_fish_get_theirs() {
    for (shell, file, token) in [("zsh", "_vsndctl", "compdef"), ("fish", "vsndctl.fish", "complete ")] {
        let output =
            std::process::Command::new(env!("CARGO_BIN_EXE_vsndctl")).env("COMPLETE", shell).output();
        assert!(String::from_utf8(output.unwrap().stdout).unwrap().contains(token), "{shell}");
        let file = format!("{}/../contrib/completions/{file}", env!("CARGO_MANIFEST_DIR"));
        assert!(
            std::fs::read_to_string(file).unwrap().contains(&format!("COMPLETE={shell} vsndctl")),
            "{shell}"
        );
    }
}
