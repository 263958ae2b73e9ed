//! The connection that watches the server while no guest plays: whether it answers, and what there is to play on and to record from.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use libpulse_binding::callbacks::ListResult;
use libpulse_binding::context::subscribe::{Facility, InterestMaskSet, Operation};
use libpulse_binding::mainloop::standard::Mainloop;

use super::connection::{ConnectError, Connection, Progress};
use super::properties;
use crate::{ServerInfo, Targets};

/// A watching connection.
pub(super) struct Watch {
    connection: Connection,
    /// Whether the server was asked to tell when sinks and sources come and go.
    subscribed: bool,
    /// Something came or went since the lists were asked for last.
    stale: Rc<Cell<bool>>,
    /// The lists that were asked for.
    listing: Option<Rc<RefCell<Listing>>>,
    /// The lists as they came last.
    targets: Option<Targets>,
}

#[derive(Default)]
struct Listing {
    targets: Targets,
    is_complete: bool,
}

impl Watch {
    /// Connects to `server`, or to the one that libpulse finds. Whether it answers shows later.
    pub(super) fn new(mainloop: &Mainloop, server: Option<&str>) -> Result<Self, ConnectError> {
        Ok(Self {
            connection: Connection::new(mainloop, properties::watch(), server)?,
            subscribed: false,
            stale: Rc::new(Cell::new(true)),
            listing: None,
            targets: None,
        })
    }

    pub(super) fn progress(&self) -> Progress {
        self.connection.progress()
    }

    /// What the server told of itself, and what it has; `None` until it told both.
    pub(super) fn answer(&mut self) -> Option<(ServerInfo, &Targets)> {
        Some((self.connection.server_info()?, self.targets.as_ref()?))
    }

    /// Takes what came, and asks for what is due. Whether the server has other sinks or sources than before.
    pub(super) fn turn(&mut self) -> bool {
        self.subscribe();
        let came = self.listing.take_if(|listing| listing.borrow().is_complete);
        let targets = came.map(|listing| listing.take().targets);
        let changed = targets.is_some() && targets != self.targets;
        if changed {
            self.targets = targets;
        }
        if self.listing.is_none() && self.stale.get() {
            self.ask();
        }
        changed
    }

    fn subscribe(&mut self) {
        let Some(context) = self.connection.ready().filter(|_| !self.subscribed) else { return };
        self.subscribed = true;
        let stale = Rc::clone(&self.stale);
        // Only stores: a callback must not reach the objects whose methods may be on the stack.
        context.set_subscribe_callback(Some(Box::new(move |facility, operation, _| {
            let is_target = matches!(facility, Some(Facility::Sink | Facility::Source));
            // A name never changes.
            if is_target && operation != Some(Operation::Changed) {
                stale.set(true);
            }
        })));
        drop(context.subscribe(InterestMaskSet::SINK | InterestMaskSet::SOURCE, |_| ()));
    }

    fn ask(&mut self) {
        let Some(server) = self.connection.introspector() else { return };
        self.stale.set(false);
        let listing = Rc::<RefCell<Listing>>::default();
        let (sinks, sources) = (Rc::clone(&listing), Rc::clone(&listing));
        drop(server.get_sink_info_list(move |item| {
            if let ListResult::Item(sink) = item {
                sinks.borrow_mut().targets.sinks.extend(sink.name.as_deref().map(str::to_owned));
            }
        }));
        // Questions are answered in order: when this one is, so is the one before.
        drop(server.get_source_info_list(move |item| {
            let mut listing = sources.borrow_mut();
            match item {
                ListResult::Item(source) => {
                    listing.targets.sources.extend(source.name.as_deref().map(str::to_owned));
                }
                ListResult::End | ListResult::Error => listing.is_complete = true,
            }
        }));
        self.listing = Some(listing);
    }
}
