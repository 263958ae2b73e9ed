//! XenStore's tree as data: nodes, permissions, quotas. Pure; who watches and who waits is elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::xen::{DomId, Permission, Rights, StoreError};

/// A privileged domain: it may read and write everything and meets no quota.
pub(super) const DOM0: DomId = DomId(0);

/// What xenstored grants an unprivileged domain by default.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Nodes that one domain may own.
    pub nodes: usize,
    /// The longest value, in octets.
    pub value: usize,
    /// Watches that one domain may set.
    pub watches: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { nodes: 1000, value: 2048, watches: 128 }
    }
}

/// The longest absolute path, in octets.
const LONGEST_PATH: usize = 3072;
/// The longest value that fits into a message, for anyone, in octets.
const LONGEST_PAYLOAD: usize = 4096;

#[derive(Clone, Debug)]
pub(super) struct Node {
    value: Vec<u8>,
    /// The owner first; what it says of rights holds for all domains not listed.
    permissions: Vec<Permission>,
    children: BTreeSet<String>,
    /// Set anew at every change of value, permissions or children: what transactions compare.
    generation: u64,
}

/// A node that changed, and who may know.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub path: String,
    /// Before (a removal) or after (anything else).
    pub permissions: Vec<Permission>,
    /// Gone together with a parent: tells only watches of exactly this path, as the parent's own change tells the rest.
    pub exact: bool,
}

/// Whether `domain` has `wanted` by `permissions`.
pub(super) fn allows(permissions: &[Permission], domain: DomId, wanted: Rights) -> bool {
    let Some((owner, listed)) = permissions.split_first() else { return domain == DOM0 };
    if domain == DOM0 || domain == owner.domain {
        return true;
    }
    let entry = listed.iter().find(|entry| entry.domain == domain).unwrap_or(owner);
    entry.rights == Rights::ReadWrite || entry.rights == wanted
}

/// The tree. Cheap to clone: transactions work on a copy.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    /// By absolute path; the root's is "/".
    nodes: BTreeMap<String, Arc<Node>>,
    clock: u64,
    limits: Limits,
}

impl Tree {
    pub fn new(limits: Limits) -> Self {
        let root = Node {
            value: Vec::new(),
            permissions: vec![Permission { domain: DOM0, rights: Rights::None }],
            children: BTreeSet::new(),
            generation: 0,
        };
        Self { nodes: BTreeMap::from([("/".to_owned(), Arc::new(root))]), clock: 0, limits }
    }

    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// The generation of a node, if there is one.
    pub fn generation(&self, path: &str) -> Option<u64> {
        self.nodes.get(path).map(|node| node.generation)
    }

    /// The nearest ancestor that exists.
    pub fn nearest(&self, path: &str) -> String {
        let mut at = parent(path);
        while !self.nodes.contains_key(at) {
            at = parent(at);
        }
        at.to_owned()
    }

    /// A node that `by` may use as `wanted`. A missing node is only admitted to those who may look above it.
    fn node(&self, by: DomId, path: &str, wanted: Rights) -> Result<&Arc<Node>, StoreError> {
        check_path(path)?;
        let Some(node) = self.nodes.get(path) else {
            let above = self.nodes.get(&self.nearest(path));
            let visible = above.is_some_and(|node| allows(&node.permissions, by, wanted));
            return Err(if visible { StoreError::NotFound } else { StoreError::Denied });
        };
        if allows(&node.permissions, by, wanted) { Ok(node) } else { Err(StoreError::Denied) }
    }

    pub fn read(&self, by: DomId, path: &str) -> Result<Vec<u8>, StoreError> {
        Ok(self.node(by, path, Rights::Read)?.value.clone())
    }

    pub fn directory(&self, by: DomId, path: &str) -> Result<Vec<String>, StoreError> {
        Ok(self.node(by, path, Rights::Read)?.children.iter().cloned().collect())
    }

    pub fn permissions(&self, by: DomId, path: &str) -> Result<Vec<Permission>, StoreError> {
        Ok(self.node(by, path, Rights::Read)?.permissions.clone())
    }

    pub fn write(&mut self, by: DomId, path: &str, value: &[u8]) -> Result<Vec<Change>, StoreError> {
        let longest = if by == DOM0 { LONGEST_PAYLOAD } else { self.limits.value };
        if value.len() > LONGEST_PAYLOAD {
            return Err(StoreError::Other("EINVAL".to_owned()));
        }
        if value.len() > longest {
            return Err(StoreError::Other("ENOSPC".to_owned()));
        }
        match self.node(by, path, Rights::Write) {
            Ok(_) => (),
            Err(StoreError::NotFound) => self.create(by, path)?,
            Err(error) => return Err(error),
        }
        Ok(self.change(path, |node| node.value = value.to_vec()).into_iter().collect())
    }

    /// Creates a node and its missing parents. They inherit permissions, but unprivileged domains own what they create.
    fn create(&mut self, by: DomId, path: &str) -> Result<(), StoreError> {
        let above = self.nearest(path);
        let mut missing = vec![path.to_owned()];
        while let Some(up) = missing.last().map(|last| parent(last)).filter(|up| *up != above) {
            missing.push(up.to_owned());
        }
        let mut permissions = self.nodes.get(&above).map(|node| node.permissions.clone()).unwrap_or_default();
        if by != DOM0 {
            if let Some(owner) = permissions.first_mut() {
                owner.domain = by;
            }
            if self.owned(by) + missing.len() > self.limits.nodes {
                return Err(StoreError::Other("ENOSPC".to_owned()));
            }
        }
        for path in missing.into_iter().rev() {
            let name = path.rsplit('/').next().unwrap_or_default().to_owned();
            self.change(parent(&path), |node| {
                node.children.insert(name);
            });
            let node = Node {
                value: Vec::new(),
                permissions: permissions.clone(),
                children: BTreeSet::new(),
                generation: self.clock,
            };
            self.nodes.insert(path, Arc::new(node));
        }
        Ok(())
    }

    /// Nodes that `domain` owns.
    pub fn owned(&self, domain: DomId) -> usize {
        let owner = |node: &&Arc<Node>| node.permissions.first().is_some_and(|first| first.domain == domain);
        self.nodes.values().filter(owner).count()
    }

    fn change(&mut self, path: &str, change: impl FnOnce(&mut Node)) -> Option<Change> {
        self.clock += 1;
        let node = Arc::make_mut(self.nodes.get_mut(path)?);
        change(node);
        node.generation = self.clock;
        Some(Change { path: path.to_owned(), permissions: node.permissions.clone(), exact: false })
    }

    pub fn remove(&mut self, by: DomId, path: &str) -> Result<Vec<Change>, StoreError> {
        if path == "/" {
            return Err(StoreError::Other("EINVAL".to_owned()));
        }
        match self.node(by, path, Rights::Write) {
            Ok(_) => (),
            Err(StoreError::NotFound) => return Ok(Vec::new()),
            Err(error) => return Err(error),
        }
        let name = path.rsplit('/').next().unwrap_or_default().to_owned();
        self.change(parent(path), |node| {
            node.children.remove(&name);
        });
        let below = format!("{path}/");
        let gone: Vec<String> = self
            .nodes
            .range(path.to_owned()..)
            .map(|(at, _)| at.clone())
            .take_while(|at| at.starts_with(path))
            .filter(|at| at == path || at.starts_with(&below))
            .collect();
        let removed = gone.into_iter().filter_map(|at| {
            let node = self.nodes.remove(&at)?;
            let exact = at != path;
            Some(Change { path: at, permissions: node.permissions.clone(), exact })
        });
        Ok(removed.collect())
    }

    pub fn set_permissions(
        &mut self,
        by: DomId,
        path: &str,
        permissions: &[Permission],
    ) -> Result<Vec<Change>, StoreError> {
        let node = self.node(by, path, Rights::Write)?;
        let (Some(new), Some(old)) = (permissions.first(), node.permissions.first()) else {
            return Err(StoreError::Other("EINVAL".to_owned()));
        };
        if by != DOM0 && by != old.domain {
            return Err(StoreError::Denied);
        }
        if by != DOM0 && new.domain != old.domain {
            return Err(StoreError::Other("EPERM".to_owned()));
        }
        Ok(self.change(path, |node| node.permissions = permissions.to_vec()).into_iter().collect())
    }

    /// Every node with its value, for a picture of the tree: `/path = "value"`, one a line.
    pub fn dump(&self) -> String {
        let line = |(path, node): (&String, &Arc<Node>)| {
            format!("{path} = {:?}\n", String::from_utf8_lossy(&node.value))
        };
        self.nodes.iter().map(line).collect()
    }
}

/// The path above; the root's is the root.
fn parent(path: &str) -> &str {
    match path.rfind('/') {
        None | Some(0) => "/",
        Some(at) => &path[..at],
    }
}

/// Whether `path` is `above` or lies below it.
pub(super) fn is_within(path: &str, above: &str) -> bool {
    above == "/" || path.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Absolute, not too long, of the octets that xenstored takes, without empty components.
pub(super) fn check_path(path: &str) -> Result<(), StoreError> {
    let allowed = |octet: u8| octet.is_ascii_alphanumeric() || b"-/_@".contains(&octet);
    let whole = path.starts_with('/') && path.len() <= LONGEST_PATH && path.bytes().all(allowed);
    if path == "/" || whole && !path.ends_with('/') && !path.contains("//") {
        Ok(())
    } else {
        Err(StoreError::Other("EINVAL".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: DomId = DomId(1);
    const TWO: DomId = DomId(2);

    fn tree() -> Tree {
        let mut tree = Tree::new(Limits { nodes: 5, ..Limits::default() });
        tree.write(DOM0, "/local/domain/1/device", b"").unwrap();
        let permissions = [
            Permission { domain: ONE, rights: Rights::None },
            Permission { domain: TWO, rights: Rights::Read },
        ];
        tree.set_permissions(DOM0, "/local/domain/1/device", &permissions).unwrap();
        tree
    }

    #[test]
    fn only_the_owner_dom0_and_those_listed_get_in() {
        let mut tree = tree();
        let state = "/local/domain/1/device/vsnd/0/state";
        tree.write(ONE, state, b"1").unwrap();
        assert_eq!(tree.read(DOM0, state).unwrap(), b"1");
        assert_eq!(tree.read(TWO, state).unwrap(), b"1", "rights are inherited");
        assert_eq!(tree.write(TWO, state, b"4").unwrap_err(), StoreError::Denied);
        assert_eq!(tree.read(DomId(3), state), Err(StoreError::Denied));
        assert_eq!(tree.permissions(TWO, state).unwrap()[0].domain, ONE);
        assert_eq!(tree.directory(TWO, "/local/domain/1/device/vsnd").unwrap(), ["0"]);
    }

    #[test]
    fn a_missing_node_is_admitted_only_to_those_who_may_look() {
        let mut tree = tree();
        assert_eq!(tree.read(TWO, "/local/domain/1/device/a/b"), Err(StoreError::NotFound));
        assert_eq!(tree.read(DomId(3), "/local/domain/1/device/a/b"), Err(StoreError::Denied));
        assert_eq!(tree.write(ONE, "/local/domain/0/x", b"").unwrap_err(), StoreError::Denied);
        assert!(tree.remove(ONE, "/local/domain/1/device/a").unwrap().is_empty());
    }

    #[test]
    fn ownership_and_quota_hold_unprivileged_domains() {
        let mut tree = tree();
        let path = "/local/domain/1/device";
        let given = [Permission { domain: TWO, rights: Rights::None }];
        assert_eq!(tree.set_permissions(ONE, path, &given).unwrap_err(), StoreError::Other("EPERM".into()));
        assert_eq!(tree.set_permissions(TWO, path, &given).unwrap_err(), StoreError::Denied);
        for name in ["a", "b", "c", "d"] {
            tree.write(ONE, &format!("{path}/{name}"), b"").unwrap();
        }
        let full = tree.write(ONE, "/local/domain/1/device/e", b"").unwrap_err();
        assert_eq!(full, StoreError::Other("ENOSPC".into()));
        assert!(tree.write(ONE, "/local/domain/1/device/d", &[0; 2049]).is_err());
        tree.write(DOM0, "/local/domain/0/e", &[0; 2049]).unwrap();
    }

    #[test]
    fn a_removal_takes_everything_below_and_nothing_beside() {
        let mut tree = tree();
        for path in ["/a/b/c", "/a/b-c", "/a/bc"] {
            tree.write(DOM0, path, b"").unwrap();
        }
        let gone = tree.remove(DOM0, "/a/b").unwrap();
        let gone: Vec<_> = gone.iter().map(|change| (change.path.as_str(), change.exact)).collect();
        assert_eq!(gone, [("/a/b", false), ("/a/b/c", true)]);
        assert_eq!(tree.directory(DOM0, "/a").unwrap(), ["b-c", "bc"]);
    }

    #[test]
    fn paths_are_checked() {
        let mut tree = tree();
        for path in ["", "a", "/a/", "//a", "/a//b", "/a b", "/a\0"] {
            assert!(tree.write(DOM0, path, b"").is_err(), "{path:?}");
        }
        assert!(is_within("/a/b", "/a") && is_within("/a", "/a") && !is_within("/ab", "/a"));
    }
}
