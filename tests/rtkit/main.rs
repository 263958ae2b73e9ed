//! The pacer's real-time priority where the user's limits allow none: asked of rtkit, for which a model stands on a bus of its
//! own.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that can't go on ends

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use vsnd_bridge::stream::Pacer;
use vsnd_tests::bus::PrivateBus;
use zbus::connection::Builder;

const PATIENCE: Duration = Duration::from_secs(10);
const MOST_RUN_TIME: i64 = 200_000;
const MOST_PRIORITY: i32 = 7;

/// One call of a program's, and what was true of the program at that moment.
#[derive(Debug, PartialEq, Eq)]
struct Call {
    process: u32,
    /// The thread that is to be in real time, by name.
    thread: String,
    priority: u32,
    /// Soft and hard RLIMIT_RTTIME, in microseconds.
    run_time: [String; 2],
}

/// What rtkit is to its callers.
struct Rtkit {
    calls: mpsc::UnboundedSender<Call>,
    /// Whether it grants what it is asked for.
    grants: bool,
}

#[zbus::interface(name = "org.freedesktop.RealtimeKit1")]
impl Rtkit {
    async fn make_thread_realtime(
        &self,
        #[zbus(connection)] bus: &zbus::Connection,
        #[zbus(header)] header: zbus::message::Header<'_>,
        thread: u64,
        priority: u32,
    ) -> zbus::fdo::Result<()> {
        let caller = header.sender().unwrap().to_owned();
        let fdo = zbus::fdo::DBusProxy::new(bus).await?;
        let process = fdo.get_connection_unix_process_id(caller.into()).await?;
        let limits = std::fs::read_to_string(format!("/proc/{process}/limits")).unwrap();
        let limit = limits.lines().find(|line| line.starts_with("Max realtime timeout")).unwrap();
        let mut numbers = limit.split_whitespace().skip(3).map(str::to_owned);
        let thread = std::fs::read_to_string(format!("/proc/{process}/task/{thread}/comm")).unwrap();
        let call = Call {
            process,
            thread: thread.trim_end().to_owned(),
            priority,
            run_time: [numbers.next().unwrap(), numbers.next().unwrap()],
        };
        self.calls.send(call).unwrap();
        if self.grants { Ok(()) } else { Err(zbus::fdo::Error::AccessDenied("not today".to_owned())) }
    }

    #[zbus(property)]
    fn max_realtime_priority(&self) -> i32 {
        MOST_PRIORITY
    }

    #[zbus(property, name = "RTTimeUSecMax")]
    fn rttime_usec_max(&self) -> i64 {
        MOST_RUN_TIME
    }
}

/// A process with a pacer, which may take no priority itself. Dropping it ends it.
struct Alone {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Alone {
    /// Starts it with this system bus; returns when the pacer runs.
    fn start(bus: &str) -> Self {
        // Root has the right whatever its limits are.
        let mut command = if rustix::process::geteuid().is_root() {
            let mut command = Command::new("setpriv");
            command.args(["--bounding-set=-sys_nice", "--inh-caps=-sys_nice", "prlimit"]);
            command
        } else {
            Command::new("prlimit")
        };
        command.args(["--rtprio=0:0"]).arg(std::env::current_exe().unwrap());
        command.args(["--ignored", "--exact", "--nocapture", "a_pacer_of_its_own"]);
        command.env("DBUS_SYSTEM_BUS_ADDRESS", bus).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("setpriv and prlimit, of util-linux");
        let out = BufReader::new(child.stdout.take().unwrap());
        let mut alone = Self { child, out };
        alone.wait_for(STARTED);
        alone
    }

    fn wait_for(&mut self, text: &str) {
        let mut line = String::new();
        while !line.contains(text) {
            line.clear();
            assert!(self.out.read_line(&mut line).unwrap() > 0, "it ended before it said {text:?}");
        }
    }

    /// Lets it end in an orderly way.
    fn end(mut self) {
        drop(self.child.stdin.take());
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const STARTED: &str = "the pacer runs after";

/// The process of the others.
#[test]
#[ignore = "run by the other tests, in a process of its own"]
fn a_pacer_of_its_own() {
    let began = Instant::now();
    let _pacer = Pacer::start().unwrap();
    let took = began.elapsed();
    assert!(took < Duration::from_secs(1), "the start waited for a bus: {took:?}");
    println!("{STARTED} {took:?}");
    // Until the other process lets go.
    let _ = std::io::stdin().read(&mut [0]);
}

/// Runs a pacer beside a model of rtkit; what rtkit was asked.
fn asked(grants: bool) -> (Call, u32) {
    let bus = PrivateBus::start().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (calls, mut called) = mpsc::unbounded_channel();
        let _rtkit = Builder::address(bus.address())
            .name("org.freedesktop.RealtimeKit1")
            .serve_at("/org/freedesktop/RealtimeKit1", Rtkit { calls, grants })
            .build()
            .await
            .unwrap();
        let address = bus.address().to_owned();
        let alone = tokio::task::spawn_blocking(move || Alone::start(&address)).await.unwrap();
        let call = tokio::time::timeout(PATIENCE, called.recv()).await.expect("rtkit was asked").unwrap();
        let process = alone.child.id();
        tokio::task::spawn_blocking(move || alone.end()).await.unwrap();
        (call, process)
    })
}

#[test]
fn rtkit_is_asked_for_the_pacers_thread_with_the_run_time_that_it_demands() {
    let (call, process) = asked(true);
    let run_time = [MOST_RUN_TIME.to_string(), MOST_RUN_TIME.to_string()];
    // Less than the pacer would like: no more than rtkit gives.
    let priority = MOST_PRIORITY.unsigned_abs();
    assert_eq!(call, Call { process, thread: "pacer".to_owned(), priority, run_time });
}

#[test]
fn a_pacer_runs_on_without_priority_when_rtkit_refuses_or_is_not_there() {
    let (call, _) = asked(false);
    assert_eq!(call.thread, "pacer");
    let nobody = PrivateBus::start().unwrap();
    Alone::start(nobody.address()).end();
    Alone::start("unix:path=/nobody/listens/here").end();
}
