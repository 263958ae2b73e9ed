//! xenstore-rs on the same xenstored: another's understanding of the protocol.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use vsnd_bridge::xen::{Nodes, Store};
use vsnd_tests::xenstored::Xenstored;

/// xenstore-rs in a process of its own: it takes its socket from the environment.
struct Peer {
    process: Child,
    commands: ChildStdin,
    answers: Receiver<String>,
}

/// What its lines start with, among those of the test harness.
const MARK: &str = "peer: ";

impl Peer {
    fn start(xenstored: &Xenstored) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["peer::independent_peer", "--exact", "--ignored", "--nocapture"])
            .env("XENSTORED_PATH", xenstored.socket())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let commands = process.stdin.take().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let (to, answers) = mpsc::channel();
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if let Some((_, answer)) = line.split_once(MARK) {
                    let _ = to.send(answer.to_owned());
                }
            }
        });
        Self { process, commands, answers }
    }

    fn ask(&mut self, command: &str) -> String {
        writeln!(self.commands, "{command}").unwrap();
        self.next()
    }

    fn next(&self) -> String {
        self.answers.recv_timeout(Duration::from_secs(10)).expect("an answer of the peer")
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
#[ignore = "the other process of the tests with a peer"]
fn independent_peer() {
    use futures::StreamExt;
    use xenstore_rs::{AsyncWatch, AsyncXs, tokio::XsTokio};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        // It connects without waiting, and xenstored lets a single connection wait to be accepted.
        let mut peer = XsTokio::new().await;
        for _ in 0..100 {
            if peer.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
                peer = XsTokio::new().await;
            }
        }
        let peer = peer.unwrap();
        for line in std::io::stdin().lines() {
            let line = line.unwrap();
            let mut words = line.splitn(3, ' ');
            let (command, path, value) = (words.next().unwrap(), words.next().unwrap(), words.next());
            match command {
                "read" => println!("{MARK}{}", peer.read(path).await.unwrap()),
                "list" => println!("{MARK}{}", peer.directory(path).await.unwrap().join(" ")),
                "remove" => println!("{MARK}{:?}", peer.rm(path).await),
                "write" => println!("{MARK}{:?}", peer.write(path, value.unwrap()).await),
                "watch" => {
                    let mut events = peer.watch(path).await.unwrap();
                    println!("{MARK}watching");
                    for _ in 0..3 {
                        println!("{MARK}{}", events.next().await.unwrap());
                    }
                }
                other => panic!("{other}?"),
            }
        }
    });
}

#[test]
fn xenstore_rs_reads_what_we_write_and_we_read_what_it_writes() {
    let xenstored = Xenstored::start().unwrap();
    let store = xenstored.store().unwrap();
    let mut peer = Peer::start(&xenstored);
    store.write("/ours/name", "Küche & Bad".as_bytes()).unwrap();
    store.transaction(&mut |nodes| nodes.write("/ours/state", b"4")).unwrap();
    assert_eq!(peer.ask("read /ours/name"), "Küche & Bad");
    assert_eq!(peer.ask("read /ours/state"), "4");
    assert_eq!(peer.ask("list /ours"), "name state");
    let (to, paths) = mpsc::channel();
    let _watch = store.watch("/theirs", Box::new(move |path| to.send(path.to_owned()).unwrap())).unwrap();
    assert_eq!(paths.recv().unwrap(), "/theirs");
    assert_eq!(peer.ask("write /theirs/a value of theirs"), "Ok(())");
    assert_eq!(paths.recv_timeout(Duration::from_secs(5)).unwrap(), "/theirs/a");
    assert_eq!(store.read("/theirs/a").unwrap(), b"value of theirs");
    assert_eq!(peer.ask("remove /theirs/a"), "Ok(())");
    assert_eq!(paths.recv_timeout(Duration::from_secs(5)).unwrap(), "/theirs/a");
    assert_eq!(store.directory("/theirs").unwrap(), [""; 0]);
}

#[test]
fn xenstore_rs_sees_our_changes_by_its_watches() {
    let xenstored = Xenstored::start().unwrap();
    let store = xenstored.store().unwrap();
    let mut peer = Peer::start(&xenstored);
    assert_eq!(peer.ask("watch /ours"), "watching");
    assert_eq!(peer.next(), "/ours");
    store.write("/ours/plain", b"").unwrap();
    assert_eq!(peer.next(), "/ours/plain");
    store.transaction(&mut |nodes| nodes.write("/ours/in-a-transaction", b"")).unwrap();
    assert_eq!(peer.next(), "/ours/in-a-transaction");
}
