//! `hostile SECONDS`: for so long a guest does to its sound card what no driver does. The driver must be unbound from it. Prints how
//! often it did what, as lines of a name and a count.

mod card;
mod xen;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use card::{Card, Stream};
use xen::{Grants, Ports};

/// How long the card is asked before its counters are broken and it is connected anew.
const ROUND: Duration = Duration::from_secs(3);
/// How long a connection may take; a bridge that is asked too often makes a guest wait.
const PATIENCE: Duration = Duration::from_secs(5);

/// Counts what was done, by all threads.
#[derive(Default)]
struct Done {
    notifications: AtomicU64,
    scribbles: AtomicU64,
    answers: AtomicU64,
    connections: AtomicU64,
    states: AtomicU64,
    nodes: AtomicU64,
}

fn count(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

fn main() -> Result<()> {
    let seconds = std::env::args().nth(1).context("hostile SECONDS")?.parse()?;
    let duration = Duration::from_secs(seconds);
    let (grants, ports) = (Grants::open()?, Ports::open()?);
    let card = Card::open(&grants, &ports)?;
    let (done, ended) = (Done::default(), AtomicBool::new(false));
    let began = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| notify(&ports, &card, &done, &ended));
        let scribbler = scope.spawn(|| scribble(&card, &done, &ended));
        // Two thirds of the time against the rings, the last against XenStore: who breaks what it publishes is made to wait
        // ever longer for the next connection.
        let asked = ask(&card, &done, began + duration * 2 / 3);
        storm(&card, &done, began + duration);
        ended.store(true, Ordering::Relaxed);
        asked.and(scribbler.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })?;
    let Done { notifications, scribbles, answers, connections, states, nodes } = done;
    for (name, counter) in [
        ("notifications", notifications),
        ("scribbles", scribbles),
        ("answers", answers),
        ("connections", connections),
        ("states", states),
        ("nodes", nodes),
    ] {
        println!("{name} {}", counter.into_inner());
    }
    Ok(())
}

/// Notifies on all ports without end.
fn notify(ports: &Ports, card: &Card, done: &Done, ended: &AtomicBool) {
    while !ended.load(Ordering::Relaxed) {
        for stream in &card.streams {
            ports.notify(stream.requests);
            ports.notify(stream.positions);
        }
        count(&done.notifications, 2 * card.streams.len() as u64);
    }
}

/// Writes into everything that Dom0 reads, while it reads: requests, the event page's counters and slots, the directories and the
/// sound.
fn scribble(card: &Card, done: &Done, ended: &AtomicBool) -> Result<()> {
    while !ended.load(Ordering::Relaxed) {
        for stream in &card.streams {
            // Behind the counters, which [`Stream::lie`] breaks: a stream whose counters lie is served no more.
            stream.ring.pages.store(64 + 4 * fastrand::usize(..512), fastrand::u32(..))?;
            stream.events.pages.store(4 * fastrand::usize(..1024), fastrand::u32(..))?;
            stream.directory.pages.store(4 * fastrand::usize(..20), any_reference(stream))?;
            let page = &stream.buffer[fastrand::usize(..stream.buffer.len())];
            page.pages.store(4 * fastrand::usize(..1024), fastrand::u32(..))?;
        }
        count(&done.scribbles, 4 * card.streams.len() as u64);
    }
    Ok(())
}

/// A page of the buffer mostly, the directory itself, or any number.
fn any_reference(stream: &Stream) -> u32 {
    match fastrand::u8(..64) {
        0 => fastrand::u32(..),
        1 => stream.directory.reference.0,
        _ => stream.buffer[fastrand::usize(..stream.buffer.len())].reference.0,
    }
}

/// Connects, keeps all rings full of requests, breaks their counters, and connects anew.
fn ask(card: &Card, done: &Done, until: Instant) -> Result<()> {
    while Instant::now() < until {
        if !card.connect(PATIENCE)? {
            continue;
        }
        count(&done.connections, 1);
        let round = Instant::now();
        let mut answered = vec![0; card.streams.len()];
        while round.elapsed() < ROUND && Instant::now() < until {
            for (stream, answered) in card.streams.iter().zip(&mut answered) {
                count(&done.answers, stream.ask(answered, Stream::any_request)?.into());
            }
            std::thread::yield_now();
        }
        for stream in &card.streams {
            stream.lie()?;
        }
    }
    Ok(())
}

/// Writes any states and nodes of the card, and removes what it wrote.
fn storm(card: &Card, done: &Done, until: Instant) {
    const STATES: [&[u8]; 8] = [b"1", b"3", b"4", b"5", b"6", b"", b"99999999999999999999", b"\xff\xfe"];
    const NODES: [&str; 8] = [
        "0/0/ring-ref",
        "0/0/type",
        "1/1/event-channel",
        "sample-rates",
        "short-name",
        "backend",
        "0/0",
        "1",
    ];
    while Instant::now() < until {
        card.write("state", STATES[fastrand::usize(..STATES.len())]);
        count(&done.states, 1);
        let node = NODES[fastrand::usize(..NODES.len())];
        let value = [fastrand::u8(..); 2_000];
        let changed = match fastrand::u8(..4) {
            0 => card.remove(node),
            1 => card.write(&format!("{}/0/type", fastrand::u16(..)), b"p"),
            _ => card.write(node, &value[..fastrand::usize(..=value.len())]),
        };
        count(&done.nodes, changed.into());
    }
}
