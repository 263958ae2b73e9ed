//! The targets, one a file.

mod bus;
mod card;
mod config;
mod daemon;
mod directory;
mod events;
mod nodes;
mod request;
mod ring;
mod stream;

use crate::Target;

/// All of them.
pub const TARGETS: &[Target] = &[
    Target {
        name: "ring",
        about: "writes counters and slots of the request ring, also while they are read",
        budget: 100_000,
        body: ring::run,
    },
    Target {
        name: "events",
        about: "writes counters and slots of the event page while positions are put in",
        budget: 50_000,
        body: events::run,
    },
    Target { name: "directory", about: "lays out page directories", budget: 100_000, body: directory::run },
    Target {
        name: "config",
        about: "writes its XenStore nodes: configuration, transport, version; and asks for what they allow",
        budget: 10_000,
        body: config::run,
    },
    Target {
        name: "bus",
        about: "toggles bus states, while the toolstack does, too",
        budget: 100_000,
        body: bus::run,
    },
    Target {
        name: "stream",
        about: "sends requests to one stream, revokes and rewrites pages, while a server plays it",
        budget: 30_000,
        body: stream::run,
    },
    Target {
        name: "card",
        about: "drives a connected card, its thread and its pacer, beside an honest guest that must be served",
        budget: 3_000,
        body: card::run,
    },
    Target {
        name: "daemon",
        about: "drives the whole daemon by its nodes, states, rings and death, beside an honest guest that must be served",
        budget: 3_000,
        body: daemon::run,
    },
];
