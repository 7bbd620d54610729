//! Contents: the rows that files have, each kept once however many files have them.
//!
//! In: the rows of an evaluated file under the [`Digest`] of all that the evaluation read. Out: one content for
//! all files with that digest. So 200 containers of one image, each with an overlay and thus device numbers of
//! its own, have their rows once; and a file that only claims another's build id has its own.

use std::{collections::BTreeSet, sync::Arc};

use parking_lot::Mutex;
use profiler_bpf::arch::x86_64::rule::Rule;
use rustc_hash::{FxHashMap, FxHashSet};

use super::{
    TableKey,
    resident::{Placed, ResidentRows, Rows},
};
use crate::unwind::Digest;

/// Number of a content, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct ContentId(u64);

/// The rows of one or more files.
#[derive(Debug)]
pub(super) struct Content {
    digest: Digest,
    /// Files with these rows. A content without files stays until others need its room.
    pub(super) files: FxHashSet<TableKey>,
    pub(super) place: ContentPlace,
    /// Time at which it began to wait, or became resident.
    pub(super) since_ns: u64,
    /// Time at which a file was last added or removed.
    pub(super) touched_ns: u64,
}

/// Location of rows.
#[derive(Debug)]
pub(super) enum ContentPlace {
    /// In user space: there is no room in the kernel.
    Waiting(Rows),
    /// In the kernel.
    Resident(Placed),
}

/// Digests of rows that need no further evaluation. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct KnownDigests(Arc<Mutex<FxHashSet<Digest>>>);

impl KnownDigests {
    /// Whether there are rows with this digest.
    pub fn contains(&self, digest: Digest) -> bool {
        self.0.lock().contains(&digest)
    }
}

/// All contents.
#[derive(Debug, Default)]
pub(super) struct Contents {
    known: FxHashMap<ContentId, Content>,
    by_digest: FxHashMap<Digest, ContentId>,
    digests: KnownDigests,
    waiting: BTreeSet<ContentId>,
    next: u64,
}

impl Content {
    pub(super) fn placed(&self) -> Option<&Placed> {
        match &self.place {
            ContentPlace::Resident(placed) => Some(placed),
            ContentPlace::Waiting(_) => None,
        }
    }

    pub(super) fn waiting(&self) -> Option<&Rows> {
        match &self.place {
            ContentPlace::Waiting(rows) => Some(rows),
            ContentPlace::Resident(_) => None,
        }
    }

    pub(super) fn into_placed(self) -> Option<Placed> {
        match self.place {
            ContentPlace::Resident(placed) => Some(placed),
            ContentPlace::Waiting(_) => None,
        }
    }

    /// The rule at an offset in a file.
    pub(super) fn find(&self, resident: &ResidentRows, offset: u64) -> Rule {
        match &self.place {
            ContentPlace::Waiting(rows) => rows.find(offset),
            ContentPlace::Resident(placed) => resident.find(placed, offset),
        }
    }
}

impl Contents {
    pub(super) fn digests(&self) -> KnownDigests {
        self.digests.clone()
    }

    pub(super) fn find(&self, digest: Digest) -> Option<ContentId> {
        self.by_digest.get(&digest).copied()
    }

    pub(super) fn get(&self, id: ContentId) -> Option<&Content> {
        self.known.get(&id)
    }

    /// Adds rows that wait for room in the kernel.
    pub(super) fn insert(&mut self, digest: Digest, rows: Rows, now_ns: u64) -> ContentId {
        let id = ContentId(self.next);
        self.next += 1;
        let content = Content {
            digest,
            files: FxHashSet::default(),
            place: ContentPlace::Waiting(rows),
            since_ns: now_ns,
            touched_ns: now_ns,
        };
        self.known.insert(id, content);
        self.by_digest.insert(digest, id);
        self.digests.0.lock().insert(digest);
        self.waiting.insert(id);
        id
    }

    pub(super) fn add_file(&mut self, id: ContentId, key: &TableKey, now_ns: u64) {
        if let Some(content) = self.known.get_mut(&id) {
            content.touched_ns = now_ns;
            content.files.insert(key.clone());
        }
    }

    pub(super) fn remove_file(&mut self, id: ContentId, key: &TableKey, now_ns: u64) {
        if let Some(content) = self.known.get_mut(&id) {
            content.touched_ns = now_ns;
            content.files.remove(key);
        }
    }

    /// Marks the rows as resident in the kernel.
    pub(super) fn set_resident(&mut self, id: ContentId, placed: Placed, now_ns: u64) {
        if let Some(content) = self.known.get_mut(&id) {
            content.place = ContentPlace::Resident(placed);
            content.since_ns = now_ns;
            self.waiting.remove(&id);
        }
    }

    pub(super) fn remove(&mut self, id: ContentId) -> Option<Content> {
        let content = self.known.remove(&id)?;
        self.by_digest.remove(&content.digest);
        self.digests.0.lock().remove(&content.digest);
        self.waiting.remove(&id);
        Some(content)
    }

    /// The waiting contents, the oldest first.
    pub(super) fn waiting(&self) -> impl Iterator<Item = ContentId> {
        self.waiting.iter().copied()
    }

    /// The resident contents.
    pub(super) fn resident(&self) -> impl Iterator<Item = (ContentId, &Content, &Placed)> {
        let known = self.known.iter();
        known.filter_map(|(id, content)| Some((*id, content, content.placed()?)))
    }

    pub(super) fn waiting_count(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn resident_count(&self) -> usize {
        self.known.len() - self.waiting.len()
    }
}
