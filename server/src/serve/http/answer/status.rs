//! State of the server now.

use model::Unread;
use serde::Serialize;
use store::{BeyondDefaults, DiskSpace, Kept, RollUp, StoreState};

use super::UnreadEntry;

/// `/api/v1/status`
#[derive(Serialize)]
pub struct StatusAnswer {
    ingest: IngestEntry,
    disk: Option<DiskEntry>,
    kept: KeptEntry,
    damage: Vec<UnreadEntry>,
}

#[derive(Serialize)]
struct IngestEntry {
    ready: bool,
    reason: Option<String>,
}

#[derive(Serialize)]
struct DiskEntry {
    free_bytes: u64,
    size_bytes: u64,
    reserve_bytes: u64,
}

#[derive(Serialize)]
struct KeptEntry {
    bytes: u64,
    oldest_ms: Option<i64>,
    age_ms: Option<i64>,
    bytes_max: Option<u64>,
    roll_ups: Vec<RollUpEntry>,
    beyond_defaults: Option<BeyondDefaultsEntry>,
}

#[derive(Serialize)]
struct RollUpEntry {
    after_ms: i64,
    resolution_ms: u64,
}

#[derive(Serialize)]
struct BeyondDefaultsEntry {
    age_ms: i64,
    files: usize,
    bytes: u64,
}

impl StatusAnswer {
    /// The answer for a state, what the store has, and what of it is damaged.
    pub fn new(state: &StoreState, kept: Kept, damage: Vec<Unread>) -> Self {
        let disk = |space: &DiskSpace| DiskEntry {
            free_bytes: space.free_bytes,
            size_bytes: space.size_bytes,
            reserve_bytes: space.reserve_bytes,
        };
        Self {
            ingest: IngestEntry {
                ready: state.writable.is_ok(),
                reason: state.writable.as_ref().err().map(ToString::to_string),
            },
            disk: state.space.as_ref().ok().map(disk),
            kept: KeptEntry::from(kept),
            damage: damage.into_iter().map(UnreadEntry::new).collect(),
        }
    }
}

impl From<Kept> for KeptEntry {
    fn from(kept: Kept) -> Self {
        let Kept {
            bytes,
            oldest_ms,
            age_ms,
            bytes_max,
            roll_ups,
            beyond_defaults,
        } = kept;
        let roll_up = |rule: RollUp| RollUpEntry {
            after_ms: rule.after_ms,
            resolution_ms: rule.resolution_ms,
        };
        let beyond = |beyond: BeyondDefaults| BeyondDefaultsEntry {
            age_ms: beyond.age_ms,
            files: beyond.files,
            bytes: beyond.bytes,
        };
        Self {
            bytes,
            oldest_ms,
            age_ms,
            bytes_max,
            roll_ups: roll_ups.into_iter().map(roll_up).collect(),
            beyond_defaults: beyond_defaults.map(beyond),
        }
    }
}
