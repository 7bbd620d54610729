//! What the server can do now.

use serde::Serialize;
use store::{DiskSpace, StoreState};

/// `/api/v1/status`
#[derive(Serialize)]
pub struct StatusAnswer {
    ingest: IngestEntry,
    disk: Option<DiskEntry>,
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

impl From<&StoreState> for StatusAnswer {
    fn from(state: &StoreState) -> Self {
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
        }
    }
}
