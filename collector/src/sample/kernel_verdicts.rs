//! The map of the policy's verdicts on cgroups: see [`profiler_bpf::policy`].
//!
//! In: entries to write and to remove. Out: kernel memory, and the samples that each entry has excluded.

use std::mem;

use anyhow::{Context as _, Result};
use aya::{
    Ebpf,
    maps::{Array, HashMap, MapData},
};
use profiler_bpf::policy::{EXCLUDE, TAKE, Verdict};
use rustc_hash::FxHashMap;

use super::maps::take_map;

/// A change of the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerdictWrite {
    /// Samples of the cgroup with this id, and of those below it, are excluded.
    Exclude(u64),
    /// Samples of the cgroup with this id, and of those below it, are taken, also if one above is excluded.
    Take(u64),
    /// The cgroup with this id has no verdict of its own any more.
    Remove(u64),
}

/// The map, written by one thread.
pub struct KernelVerdicts {
    verdicts: HashMap<MapData, u64, Verdict>,
    policy: Array<MapData, u64>,
    generation: u64,
    /// Samples that each excluding entry had excluded when it was read last, by cgroup id.
    read: FxHashMap<u64, u64>,
    /// Samples excluded by entries that were removed since then, by cgroup id.
    removed: FxHashMap<u64, u64>,
}

impl KernelVerdicts {
    /// Takes the maps out of the loaded object.
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self> {
        Ok(Self {
            verdicts: HashMap::try_from(take_map(ebpf, "VERDICTS")?)?,
            policy: Array::try_from(take_map(ebpf, "POLICY")?)?,
            generation: 0,
            read: FxHashMap::default(),
            removed: FxHashMap::default(),
        })
    }

    /// Writes an entry. It holds for cgroups that were sampled before from the next [`publish`](Self::publish) on.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn write(&mut self, write: VerdictWrite) -> Result<()> {
        let (VerdictWrite::Exclude(id) | VerdictWrite::Take(id) | VerdictWrite::Remove(id)) = write;
        // The count ends with the entry.
        if let Some(before) = self.read.remove(&id) {
            let more = self.count(id).saturating_sub(before);
            if more > 0 {
                *self.removed.entry(id).or_default() += more;
            }
        }
        match write {
            VerdictWrite::Exclude(id) => {
                self.insert(id, EXCLUDE)?;
                self.read.insert(id, 0);
                Ok(())
            }
            VerdictWrite::Take(id) => self.insert(id, TAKE),
            VerdictWrite::Remove(id) => {
                let removed = self.verdicts.remove(&id);
                removed.context("failed to remove a verdict")
            }
        }
    }

    fn insert(&mut self, id: u64, verdict: u64) -> Result<()> {
        let inserted = self.verdicts.insert(id, [verdict, 0], 0);
        inserted.context("failed to write a verdict")
    }

    /// Lets the program forget the verdicts that it remembers.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn publish(&mut self) -> Result<()> {
        self.generation += 1;
        let set = self.policy.set(0, self.generation, 0);
        set.context("failed to write the generation of the verdicts")
    }

    /// Samples excluded since the last call, by the cgroup id of the entry. One system call of some 0.5 us for each excluding entry.
    pub fn take_excluded(&mut self) -> FxHashMap<u64, u64> {
        let mut excluded = mem::take(&mut self.removed);
        let ids: Vec<u64> = self.read.keys().copied().collect();
        for id in ids {
            let count = self.count(id);
            let before = self.read.insert(id, count).unwrap_or(count);
            if count > before {
                *excluded.entry(id).or_default() += count - before;
            }
        }
        excluded
    }

    fn count(&self, id: u64) -> u64 {
        self.verdicts
            .get(&id, 0)
            .map_or(0, |[_, excluded]| excluded)
    }

    /// Bytes of kernel memory of a map with so many entries.
    pub(super) fn bytes(entries: u32) -> u64 {
        u64::from(entries) * (8 + 16 + 48 + 16)
    }
}
