//! The guest's kernel around its cards: finds them, follows the backends' states, as front.c and xenbus do.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::card::{CardState, SimCard};
use super::config;
use super::lock;
use super::position::{Kernel, Word};
use crate::sim::Guest;
use crate::sndif::BusState;
use crate::xen::{DomId, Nodes, Store, StoreError, Watch};

/// How long the driver waits for the backend's InitWait when it is removed.
const REMOVAL: Duration = Duration::from_millis(1000);

enum Change {
    /// Devices may have come or gone.
    Devices,
    /// The backend of this card may have another state.
    Backend(u32),
    /// `rmmod`, and `modprobe` again.
    Reload,
    /// The simulation ends.
    End,
}

/// Cards that applications can open, by number.
#[derive(Default)]
struct Cards {
    present: Mutex<BTreeMap<u32, SimCard>>,
    changed: Condvar,
}

impl Cards {
    fn set(&self, device: u32, card: Option<SimCard>) {
        let mut present = lock(&self.present);
        match card {
            Some(card) => present.insert(device, card),
            None => present.remove(&device),
        };
        self.changed.notify_all();
    }
}

/// A guest that runs Linux with the sound driver. Dropping it stops its threads and changes nothing in XenStore, as if
/// the guest had been paused for good.
pub struct SimGuest {
    guest: Guest,
    cards: Arc<Cards>,
    changes: Sender<Change>,
    ended: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl SimGuest {
    /// Boots a 64-bit guest.
    ///
    /// # Errors
    /// XenStore, or no thread.
    pub fn boot(guest: &Guest, kernel: Kernel) -> io::Result<Self> {
        Self::boot_with(guest, kernel, Word::Bits64)
    }

    /// Boots a guest of this word width.
    ///
    /// # Errors
    /// XenStore, or no thread.
    pub fn boot_with(guest: &Guest, kernel: Kernel, word: Word) -> io::Result<Self> {
        let (changes, receiver) = channel();
        let cards = Arc::<Cards>::default();
        let ended = Arc::<AtomicBool>::default();
        let sender = changes.clone();
        let devices = format!("/local/domain/{}/device/vsnd", guest.id());
        let sink = Box::new(move |_: &str| drop(sender.send(Change::Devices)));
        let watch = guest.store().watch(&devices, sink).map_err(io::Error::other)?;
        let xenwatch = Xenwatch {
            guest: guest.clone(),
            kernel,
            word,
            devices,
            cards: Arc::clone(&cards),
            changes: changes.clone(),
            known: BTreeMap::new(),
            ended: Arc::clone(&ended),
            _watch: watch,
        };
        let thread = std::thread::Builder::new()
            .name("sim-xenwatch".to_owned())
            .spawn(move || xenwatch.run(&receiver))?;
        Ok(Self { guest: guest.clone(), cards, changes, ended, thread: Some(thread) })
    }

    /// The domain.
    pub fn domain(&self) -> &Guest {
        &self.guest
    }

    /// Card `device`, once applications can open it.
    pub fn card(&self, device: u32, timeout: Duration) -> Option<SimCard> {
        let deadline = Instant::now() + timeout;
        let mut present = lock(&self.cards.present);
        loop {
            if let Some(card) = present.get(&device) {
                return Some(card.clone());
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            let waited = self.cards.changed.wait_timeout(present, left);
            present = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Removes the driver and loads it again: all cards go away and come anew.
    pub fn reload_driver(&self) {
        let _ = self.changes.send(Change::Reload);
    }
}

impl Drop for SimGuest {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        let _ = self.changes.send(Change::End);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// One card as the bus knows it.
struct Known {
    path: String,
    backend_path: String,
    backend: DomId,
    /// As last written by us.
    state: BusState,
    card: Option<Arc<CardState>>,
    _watch: Box<dyn Watch>,
}

/// The one thread that handles all changes in XenStore: while a card is being removed, nothing else is.
struct Xenwatch {
    guest: Guest,
    kernel: Kernel,
    word: Word,
    devices: String,
    cards: Arc<Cards>,
    changes: Sender<Change>,
    known: BTreeMap<u32, Known>,
    ended: Arc<AtomicBool>,
    _watch: Box<dyn Watch>,
}

impl Xenwatch {
    fn run(mut self, changes: &Receiver<Change>) {
        while let Ok(change) = changes.recv() {
            match change {
                Change::Devices => self.find_devices(),
                Change::Backend(device) => self.backend_changed(device),
                Change::Reload => {
                    for device in self.known.keys().copied().collect::<Vec<_>>() {
                        self.remove(device);
                    }
                    self.find_devices();
                }
                Change::End => break,
            }
        }
        for known in self.known.values() {
            known.card.iter().for_each(|card| card.end());
        }
    }

    fn find_devices(&mut self) {
        let store = Arc::clone(self.guest.store());
        let listed = store.directory(&self.devices).unwrap_or_default();
        let listed: Vec<u32> = listed.iter().filter_map(|name| name.parse().ok()).collect();
        let gone: Vec<u32> = self.known.keys().copied().filter(|device| !listed.contains(device)).collect();
        for device in gone {
            self.remove(device);
        }
        for device in listed {
            if !self.known.contains_key(&device)
                && let Some(known) = self.probe(device)
            {
                self.known.insert(device, known);
            }
        }
    }

    fn probe(&self, device: u32) -> Option<Known> {
        let store = self.guest.store();
        let path = format!("{}/{device}", self.devices);
        let text = |key: &str| String::from_utf8(store.read(&format!("{path}/{key}")).ok()?).ok();
        let backend_path = text("backend")?;
        let backend = DomId(text("backend-id")?.parse().ok()?);
        let state = BusState::from_value(text("state")?.as_bytes())?;
        let changes = self.changes.clone();
        let sink = Box::new(move |_: &str| drop(changes.send(Change::Backend(device))));
        let watch = store.watch(&format!("{backend_path}/state"), sink).ok()?;
        let mut known = Known { path, backend_path, backend, state, card: None, _watch: watch };
        self.switch(&mut known, BusState::Initialising);
        Some(known)
    }

    /// Writes our state, if the device is still there.
    fn switch(&self, known: &mut Known, state: BusState) {
        if known.state == state {
            return;
        }
        known.state = state;
        let path = format!("{}/state", known.path);
        let written = self.guest.store().transaction(&mut |nodes| {
            nodes.read(&path)?;
            nodes.write(&path, state.value().as_bytes())
        });
        // A device that the toolstack removed has no state any more.
        drop(written);
    }

    fn backend_state(&self, known: &Known) -> BusState {
        let value = self.guest.store().read(&format!("{}/state", known.backend_path));
        value.ok().and_then(|value| BusState::from_value(&value)).unwrap_or(BusState::Unknown)
    }

    fn backend_changed(&mut self, device: u32) {
        let Some(mut known) = self.known.remove(&device) else { return };
        match self.backend_state(&known) {
            BusState::Initialising => {
                self.disconnect(device, &mut known);
                self.switch(&mut known, BusState::Initialising);
            }
            BusState::InitWait => {
                self.disconnect(device, &mut known);
                self.switch(&mut known, BusState::Initialising);
                match self.connect(&mut known) {
                    Ok(()) => self.switch(&mut known, BusState::Initialised),
                    // xenbus_dev_fatal
                    Err(_) => self.switch(&mut known, BusState::Closing),
                }
            }
            BusState::Connected if known.state == BusState::Initialised => {
                let card = known.card.as_ref().map(SimCard::new);
                self.switch(&mut known, BusState::Connected);
                self.cards.set(device, card);
            }
            BusState::Closed | BusState::Unknown if known.state != BusState::Closed => {
                self.disconnect(device, &mut known);
                self.switch(&mut known, BusState::Initialising);
            }
            _ => (),
        }
        self.known.insert(device, known);
    }

    fn disconnect(&self, device: u32, known: &mut Known) {
        self.cards.set(device, None);
        if let Some(card) = known.card.take() {
            card.disconnect(|| self.guest.is_alive() && !self.ended.load(Ordering::Acquire));
        }
    }

    /// Reads the configuration, allocates, publishes all in one transaction.
    fn connect(&self, known: &mut Known) -> Result<(), StoreError> {
        let store = self.guest.store();
        let other = |error: &dyn std::error::Error| StoreError::Other(error.to_string());
        let configs = config::read(&**store, &known.path).map_err(|error| other(&error))?;
        let card = CardState::allocate(&self.guest, known.backend, self.kernel, self.word, configs)
            .map_err(|error| other(&error))?;
        let card = Arc::new(card);
        known.card = Some(Arc::clone(&card));
        store.transaction(&mut |nodes| card.publish(nodes, &known.path))
    }

    /// The driver's removal: tells the backend and gives it a second to come back to InitWait.
    fn remove(&mut self, device: u32) {
        let Some(mut known) = self.known.remove(&device) else { return };
        self.switch(&mut known, BusState::Closing);
        let deadline = Instant::now() + REMOVAL;
        while self.backend_state(&known) != BusState::InitWait && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        self.disconnect(device, &mut known);
    }
}

#[cfg(test)]
#[path = "guest_tests.rs"]
mod tests;
