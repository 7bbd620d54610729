//! Entries by pprof's ids, which most writers number from 1 on.

use hashbrown::HashMap;

use super::super::refusal::{Refusal, RefusalReason};
use super::refuse;

/// Entries whose ids are not numbered from 1 on: a map takes 40 bytes for each.
const SPARSE_IDS_MAX: usize = 64 << 10;

/// Entries by id.
pub(super) struct Ids<T> {
    dense: Vec<T>,
    sparse: HashMap<u64, T>,
}

impl<T> Default for Ids<T> {
    fn default() -> Self {
        Self {
            dense: Vec::new(),
            sparse: HashMap::new(),
        }
    }
}

impl<T: Copy> Ids<T> {
    pub(super) fn get(&self, id: u64) -> Option<T> {
        if !self.sparse.is_empty() {
            return self.sparse.get(&id).copied();
        }
        let at = usize::try_from(id.checked_sub(1)?).ok()?;
        self.dense.get(at).copied()
    }

    pub(super) fn insert(&mut self, id: u64, value: T, what: &str) -> Result<(), Refusal> {
        if id == 0 {
            return Err(refuse(format!("a {what} has the id 0")));
        }
        if self.get(id).is_some() {
            return Err(refuse(format!("{what} {id} comes twice")));
        }
        if self.sparse.is_empty() {
            if id == self.dense.len() as u64 + 1 {
                self.dense.push(value);
                return Ok(());
            }
            self.sparse = (1..)
                .zip(self.dense.drain(..))
                .take(SPARSE_IDS_MAX)
                .collect();
        }
        if self.sparse.len() >= SPARSE_IDS_MAX {
            return Err(Refusal::new(
                RefusalReason::Entries,
                format!(
                    "profile: more than {SPARSE_IDS_MAX} ids of {what}s that are not numbered from 1 on in their order"
                ),
            ));
        }
        self.sparse.insert(id, value);
        Ok(())
    }
}
