//! Memory that no question needs at the moment, lent to a cache.

use std::fmt;
use std::sync::{Arc, Weak};

use parking_lot::MutexGuard;

use crate::question::{MemoryState, QuestionMemory};

/// A cache that gives memory back when a question needs it.
pub trait Evict: Send + Sync {
    /// Evicts entries of so many bytes, or all.
    fn evict(&self, bytes: usize);
}

/// Part of the memory of questions that a cache uses.
#[derive(Default)]
pub(crate) struct Spare {
    pub(crate) bytes: usize,
    cache: Option<Weak<dyn Evict>>,
}

impl fmt::Debug for Spare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spare")
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

/// Memory of a cache's entry, given back when this is dropped.
#[derive(Debug)]
pub struct SpareCharge {
    memory: Arc<QuestionMemory>,
    bytes: usize,
}

impl SpareCharge {
    /// Takes memory for the only cache that has some of it. None if questions leave too little; no question waits for that.
    pub fn take(
        memory: &Arc<QuestionMemory>,
        bytes: usize,
        cache: Weak<dyn Evict>,
    ) -> Option<Self> {
        let mut state = memory.state();
        if !state.has_room(bytes, memory.bytes_max()) {
            return None;
        }
        state.spare.bytes += bytes;
        state.spare.cache = Some(cache);
        drop(state);
        let memory = Arc::clone(memory);
        Some(Self { memory, bytes })
    }

    /// Its size.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for SpareCharge {
    fn drop(&mut self) {
        self.memory.state().spare.bytes -= self.bytes;
        self.memory.notify();
    }
}

/// Lets the cache evict so many bytes. False if that gave nothing back: what a question still reads stays until then.
pub(crate) fn reclaim(state: &mut MutexGuard<'_, MemoryState>, bytes: usize) -> bool {
    let before = state.spare.bytes;
    let Some(cache) = state.spare.cache.clone().filter(|_| before > 0) else {
        return false;
    };
    // Entries lock the state when they are dropped.
    MutexGuard::unlocked(state, || {
        if let Some(cache) = cache.upgrade() {
            cache.evict(bytes);
        }
    });
    state.spare.bytes < before
}
