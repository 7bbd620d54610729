//! Tests of [`ProcessTable`].

mod events;
mod reads;

use super::{entry::ENDED_KEPT_NS, *};

fn exec(pid: u32, comm: &str) -> SideBandEvent {
    SideBandEvent::Exec {
        pid,
        comm: comm.into(),
    }
}

fn map(pid: u32, start: u64, path: &str) -> SideBandEvent {
    SideBandEvent::Map {
        pid,
        start,
        end: start + 0x1000,
        file_offset: 0,
        path: path.into(),
        identity: FileIdentity::Path,
    }
}

/// A process id that no machine has, so that /proc is never asked with success.
const PID: u32 = 0x7fff_0000;

/// The process at a time, if it is known.
fn find(table: &mut ProcessTable, pid: u32, time_ns: u64) -> Option<Process> {
    match table.find(pid, time_ns) {
        Found::Known(process) => Some(process.clone()),
        Found::Pending | Found::Unknown => None,
    }
}

const SECOND: u64 = 1_000_000_000;
