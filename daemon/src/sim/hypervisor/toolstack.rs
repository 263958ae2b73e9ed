//! What `xl` and libxl do around a sound card: nodes, permissions, waits.

use std::time::{Duration, Instant};

use vsnd_pw_module::Direction;

use super::card::Card;
use super::domain::Guest;
use super::{Hypervisor, lock, tree};
use crate::xen::{DomId, Nodes, Permission, Rights, Store, StoreError};

/// How long libxl waits for a backend.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the toolstack says instead of attaching a card.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ToolstackError {
    /// XenStore refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The backend didn't come to InitWait within ten seconds; the card is removed again.
    #[error("the backend didn't take the card at {0}")]
    NoBackend(String),
}

/// A card that is attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The guest.
    pub frontend_domain: DomId,
    /// Where the backend runs.
    pub backend_domain: DomId,
    /// The card's number in the guest.
    pub device: u32,
}

impl Attached {
    /// The backend's directory.
    pub fn backend(&self) -> String {
        let Self { frontend_domain, backend_domain, device } = self;
        format!("/local/domain/{backend_domain}/backend/vsnd/{frontend_domain}/{device}")
    }

    /// The frontend's directory.
    pub fn frontend(&self) -> String {
        format!("/local/domain/{}/device/vsnd/{}", self.frontend_domain, self.device)
    }

    /// The toolstack's own.
    fn library(&self) -> String {
        format!("/libxl/{}/device/vsnd/{}", self.frontend_domain, self.device)
    }
}

fn put(nodes: &dyn Nodes, directory: &str, key: &str, value: &str) -> Result<(), StoreError> {
    nodes.write(&format!("{directory}/{key}"), value.as_bytes())
}

fn owned_by(owner: DomId, reader: DomId) -> [Permission; 2] {
    [Permission { domain: owner, rights: Rights::None }, Permission { domain: reader, rights: Rights::Read }]
}

fn write_card(nodes: &dyn Nodes, directory: &str, card: &Card) -> Result<(), StoreError> {
    let optional = |directory: &str, key: &str, value: &Option<String>| {
        value.as_ref().map_or(Ok(()), |value| put(nodes, directory, key, value))
    };
    let all = |directory: &str, settings: &super::Settings| {
        settings.nodes().iter().try_for_each(|(key, value)| put(nodes, directory, key, value))
    };
    optional(directory, "short-name", &card.short_name)?;
    optional(directory, "long-name", &card.long_name)?;
    all(directory, &card.settings)?;
    for (number, pcm) in card.pcms.iter().enumerate() {
        let directory = format!("{directory}/{number}");
        nodes.write(&directory, b"")?;
        optional(&directory, "name", &pcm.name)?;
        all(&directory, &pcm.settings)?;
        for (number, stream) in pcm.streams.iter().enumerate() {
            let directory = format!("{directory}/{number}");
            let kind = if stream.direction == Direction::Playback { "p" } else { "c" };
            put(nodes, &directory, "type", kind)?;
            optional(&directory, "unique-id", &stream.unique_id)?;
            all(&directory, &stream.settings)?;
        }
    }
    Ok(())
}

impl Hypervisor {
    /// The nodes of a new domain: it reads them, it owns none of them.
    pub(super) fn introduce(&self, id: DomId, name: &str, uuid: &str) {
        let home = format!("/local/domain/{id}");
        let vm = format!("/vm/{uuid}");
        let made = self.store().transaction(&mut |nodes| {
            for directory in [&home, &vm] {
                nodes.write(directory, b"")?;
                nodes.set_permissions(directory, &owned_by(tree::DOM0, id))?;
            }
            put(nodes, &vm, "name", name)?;
            put(nodes, &vm, "uuid", uuid)?;
            put(nodes, &home, "vm", &vm)?;
            put(nodes, &home, "name", name)?;
            put(nodes, &home, "domid", &id.to_string())?;
            nodes.write(&format!("{home}/device"), b"")
        });
        debug_assert_eq!(made, Ok(()), "Dom0 may write everywhere");
        self.machine.store.announce("@introduceDomain");
    }

    /// Writes a card's nodes and waits for nothing: for tests of what comes between.
    ///
    /// # Errors
    /// What XenStore says.
    pub fn announce_card(
        &self,
        guest: &Guest,
        backend_domain: DomId,
        card: &Card,
    ) -> Result<Attached, StoreError> {
        let mut attached = Attached { frontend_domain: guest.id(), backend_domain, device: 0 };
        self.store().transaction(&mut |nodes| {
            attached.device = 0;
            while nodes.read(&attached.library()).is_ok() {
                attached.device += 1;
            }
            let (frontend, backend, library) = (attached.frontend(), attached.backend(), attached.library());
            for (own, other) in [("frontend", &frontend), ("backend", &backend)] {
                put(nodes, &library, own, other)?;
            }
            nodes.remove(&frontend)?;
            nodes.remove(&backend)?;
            nodes.write(&frontend, b"")?;
            nodes.set_permissions(&frontend, &owned_by(guest.id(), backend_domain))?;
            put(nodes, &frontend, "backend", &backend)?;
            put(nodes, &frontend, "backend-id", &backend_domain.to_string())?;
            put(nodes, &frontend, "state", "1")?;
            write_card(nodes, &frontend, card)?;
            nodes.write(&backend, b"")?;
            nodes.set_permissions(&backend, &owned_by(backend_domain, guest.id()))?;
            put(nodes, &backend, "frontend", &frontend)?;
            put(nodes, &backend, "frontend-id", &guest.id().to_string())?;
            put(nodes, &backend, "online", "1")?;
            put(nodes, &backend, "state", "1")
        })?;
        Ok(attached)
    }

    /// `xl vsnd-attach`, or a card of `xl create`: writes the nodes and waits until the backend is at InitWait, exactly.
    ///
    /// # Errors
    /// [`ToolstackError`]
    pub fn attach(
        &self,
        guest: &Guest,
        backend_domain: DomId,
        card: &Card,
    ) -> Result<Attached, ToolstackError> {
        let attached = self.announce_card(guest, backend_domain, card)?;
        if self.wait_backend(&attached, "2", PATIENCE) {
            return Ok(attached);
        }
        self.remove_card(&attached)?;
        Err(ToolstackError::NoBackend(attached.backend()))
    }

    /// Waits until the backend's state is `state`.
    pub fn wait_backend(&self, card: &Attached, state: &str, timeout: Duration) -> bool {
        self.wait_node(&format!("{}/state", card.backend()), timeout, |value| value == Some(state.as_bytes()))
    }

    /// Waits until the frontend's state is `state`.
    pub fn wait_frontend(&self, card: &Attached, state: &str, timeout: Duration) -> bool {
        self.wait_node(&format!("{}/state", card.frontend()), timeout, |value| {
            value == Some(state.as_bytes())
        })
    }

    /// Waits until the node at `path` is as `wanted`, which sees `None` where there is none.
    pub fn wait_node(&self, path: &str, timeout: Duration, wanted: impl Fn(Option<&[u8]>) -> bool) -> bool {
        self.machine.store.wait(path, timeout, wanted)
    }

    /// `xl vsnd-detach`: asks the backend to close, waits for it, removes the nodes whether it did or not. Returns
    /// whether it did.
    ///
    /// # Errors
    /// What XenStore says.
    pub fn detach(&self, card: &Attached) -> Result<bool, StoreError> {
        let closed = self.close_backend(card)?;
        self.remove_card(card)?;
        Ok(closed)
    }

    fn close_backend(&self, card: &Attached) -> Result<bool, StoreError> {
        self.ask_to_close(card)?;
        let state = format!("{}/state", card.backend());
        Ok(self.wait_node(&state, PATIENCE, |value| value.is_none_or(|value| value == b"6")))
    }

    /// Tells the backend that the card is to go, and waits for nothing.
    ///
    /// # Errors
    /// What XenStore says.
    pub fn ask_to_close(&self, card: &Attached) -> Result<(), StoreError> {
        let backend = card.backend();
        self.store().transaction(&mut |nodes| match nodes.read(&format!("{backend}/state")) {
            // Closed or gone already: libxl leaves it as it is.
            Ok(state) if state == b"6" => put(nodes, &backend, "online", "0"),
            Err(StoreError::NotFound) => Ok(()),
            _ => {
                put(nodes, &backend, "online", "0")?;
                put(nodes, &backend, "state", "5")
            }
        })
    }

    /// Removes a card's nodes, whatever the backend has come to.
    ///
    /// # Errors
    /// What XenStore says.
    pub fn remove_card(&self, card: &Attached) -> Result<(), StoreError> {
        self.store().transaction(&mut |nodes| {
            for path in [card.frontend(), card.backend(), card.library()] {
                nodes.remove(&path)?;
                self.remove_empty(nodes, &path)?;
            }
            Ok(())
        })
    }

    /// Directories that a removal left empty go too, as libxl does, up to the domain's own.
    fn remove_empty(&self, nodes: &dyn Nodes, path: &str) -> Result<(), StoreError> {
        let mut at = path;
        while let Some((up, _)) = at.rsplit_once('/') {
            if up.matches('/').count() < 4 || nodes.directory(up).is_ok_and(|children| !children.is_empty()) {
                break;
            }
            nodes.remove(up)?;
            at = up;
        }
        Ok(())
    }

    /// The cards of a guest, as the toolstack remembers them.
    pub fn cards(&self, guest: &Guest) -> Vec<Attached> {
        let library = format!("/libxl/{}/device/vsnd", guest.id());
        let devices = self.store().directory(&library).unwrap_or_default();
        let card = |device: &String| {
            let backend = self.store().read(&format!("{library}/{device}/backend")).ok()?;
            let backend = String::from_utf8(backend).ok()?;
            let backend_domain = DomId(backend.split('/').nth(3)?.parse().ok()?);
            Some(Attached { frontend_domain: guest.id(), backend_domain, device: device.parse().ok()? })
        };
        devices.iter().filter_map(card).collect()
    }

    /// `xl destroy`: pauses the guest, takes its frontend nodes, closes the backends, removes all its nodes, ends it.
    /// Returns how long the backends took.
    ///
    /// # Errors
    /// What XenStore says.
    pub fn destroy(&self, guest: &Guest) -> Result<Duration, StoreError> {
        guest.pause();
        let began = Instant::now();
        let cards = self.cards(guest);
        for card in &cards {
            // libxl removes the frontend of a device that it forces away before anything else.
            self.store().remove(&card.frontend())?;
            self.close_backend(card)?;
            self.remove_card(card)?;
        }
        let took = began.elapsed();
        let id = guest.id();
        for path in [format!("/local/domain/{id}"), format!("/vm/{}", guest.uuid()), format!("/libxl/{id}")] {
            self.store().remove(&path)?;
        }
        self.crash(guest);
        Ok(took)
    }

    /// Whether a domain runs.
    pub fn is_alive(&self, domain: DomId) -> bool {
        lock(&self.machine.alive).contains(&domain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::Hypervisor;

    const UUID: &str = "6e1c5f3a-0000-4000-8000-000000000001";

    #[test]
    fn nodes_and_permissions_are_as_libxl_makes_them() {
        let xen = Hypervisor::new();
        let guest = xen.create_domain("work", UUID).unwrap();
        let card = xen.announce_card(&guest, DomId(0), &Card::simple()).unwrap();
        let dom0 = xen.dom0().store;
        let read = |path: &str| String::from_utf8(dom0.read(path).unwrap()).unwrap();
        assert_eq!(dom0.directory(&card.backend()).unwrap(), ["frontend", "frontend-id", "online", "state"]);
        assert_eq!(read("/local/domain/1/device/vsnd/0/0/1/type"), "c");
        assert_eq!(read("/local/domain/1/device/vsnd/0/sample-rates"), "44100,48000");
        assert_eq!(read("/local/domain/1/vm"), format!("/vm/{UUID}"));
        let own = guest.store();
        own.write(&format!("{}/state", card.frontend()), b"3").unwrap();
        assert_eq!(own.write("/local/domain/1/name", b"Domain-0"), Err(StoreError::Denied));
        assert_eq!(own.read("/local/domain/1/name").unwrap(), b"work");
        assert_eq!(own.read(&format!("{}/state", card.backend())).unwrap(), b"1");
        assert_eq!(own.write(&format!("{}/state", card.backend()), b"4"), Err(StoreError::Denied));
        let second = xen.announce_card(&guest, DomId(0), &Card::simple()).unwrap();
        assert_eq!((second.device, xen.cards(&guest).len()), (1, 2));
    }

    #[test]
    fn a_driver_domain_owns_its_backend_and_reads_the_frontend() {
        let xen = Hypervisor::new();
        let driver = xen.create_domain("sound", UUID).unwrap();
        let guest = xen.create_domain("work", "6e1c5f3a-0000-4000-8000-000000000002").unwrap();
        let card = xen.announce_card(&guest, driver.id(), &Card::simple()).unwrap();
        let store = xen.backend(driver.id()).store;
        assert_eq!(store.directory("/local/domain/1/backend/vsnd").unwrap(), ["2"]);
        store.write(&format!("{}/state", card.backend()), b"2").unwrap();
        assert_eq!(store.read(&format!("{}/state", card.frontend())).unwrap(), b"1");
        assert_eq!(store.write(&format!("{}/state", card.frontend()), b"6"), Err(StoreError::Denied));
    }

    #[test]
    fn attach_waits_for_initwait_and_detach_for_closed() {
        let xen = Hypervisor::new();
        let guest = xen.create_domain("work", UUID).unwrap();
        std::thread::scope(|scope| {
            let backend = scope.spawn(|| {
                let state = "/local/domain/0/backend/vsnd/1/0/state";
                let soon = Duration::from_secs(5);
                assert!(xen.wait_node(state, soon, |value| value == Some(b"1")));
                xen.dom0().store.write(state, b"2").unwrap();
                assert!(xen.wait_node(state, soon, |value| value == Some(b"5")));
                xen.dom0().store.write(state, b"6").unwrap();
            });
            let card = xen.attach(&guest, DomId(0), &Card::simple()).unwrap();
            assert!(xen.detach(&card).unwrap());
            backend.join().unwrap();
            assert_eq!(xen.store().read(&card.backend()), Err(StoreError::NotFound));
        });
        assert_eq!(xen.store().directory("/local/domain/0").unwrap(), ["device", "domid", "name", "vm"]);
        xen.destroy(&guest).unwrap();
        assert!(!guest.is_alive());
        assert!(!xen.dump().contains("work"));
    }
}
