//! Perf's side band: each exec, mapping, fork and exit of the machine, in order.

use std::{collections::BTreeMap, io};

use anyhow::{Context as _, Result};
use perf_event::{
    Builder, Clock, SampleFlag, Sampler,
    data::{Mmap2, Record},
    events::Software,
};

use super::{BuildId, FileIdentity};

/// Bytes of each processor's buffer.
///
/// An exec of a program with 10 libraries writes about 30 records of 120 bytes:
/// 3.6 kB. At 300 such programs a second on one processor and a drain each 100 ms
/// that is 108 kB; 512 KiB leave room for a burst five times as large.
const BUFFER_BYTES: usize = 512 << 10;

/// Records handled in one drain, so that a flood of execs cannot keep the thread
/// here for ever: 2 CPUs × 512 KiB / 40 bytes (the shortest record) is 26,000.
const RECORDS_PER_DRAIN_MAX: usize = 200_000;

/// An event and when it happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timed {
    /// Nanoseconds of CLOCK_MONOTONIC.
    pub time_ns: u64,
    /// What happened.
    pub event: SideBandEvent,
}

/// What happened to a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SideBandEvent {
    /// A process was made from another, with its memory.
    Fork {
        /// The new process.
        pid: u32,
        /// The process that it was made from.
        parent: u32,
    },
    /// A process began to run another program: all its mappings are gone.
    Exec {
        /// The process.
        pid: u32,
        /// Its new name.
        comm: Vec<u8>,
    },
    /// A process changed the name of its main thread.
    Rename {
        /// The process.
        pid: u32,
        /// Its new name.
        comm: Vec<u8>,
    },
    /// A process mapped something executable.
    Map {
        /// The process.
        pid: u32,
        /// First address.
        start: u64,
        /// First address behind it.
        end: u64,
        /// Offset in the file.
        file_offset: u64,
        /// Path in the process's view, or a name like `[vdso]` or `//anon`.
        path: Vec<u8>,
        /// How the file is told from others.
        identity: FileIdentity,
    },
    /// A process's main thread ended.
    Exit {
        /// The process.
        pid: u32,
    },
    /// Events were lost: the buffer was full.
    Lost {
        /// How many.
        count: u64,
    },
}

/// The open buffers, one a processor.
pub struct SideBand {
    buffers: BTreeMap<u32, Sampler>,
    with_build_ids: bool,
}

impl SideBand {
    /// No buffers yet.
    pub fn new() -> Self {
        Self {
            buffers: BTreeMap::new(),
            with_build_ids: true,
        }
    }

    /// Opens buffers on processors that came, closes those of processors that went.
    ///
    /// # Errors
    /// A buffer cannot be opened.
    pub fn follow(&mut self, online: &[u32]) -> Result<()> {
        self.buffers.retain(|cpu, _| online.contains(cpu));
        for &cpu in online {
            if self.buffers.contains_key(&cpu) {
                continue;
            }
            let buffer = self.open(cpu).with_context(|| {
                format!("failed to open the process events of processor {cpu}: is CAP_PERFMON (or root) there?")
            })?;
            self.buffers.insert(cpu, buffer);
        }
        Ok(())
    }

    fn open(&mut self, cpu: u32) -> io::Result<Sampler> {
        match open_buffer(cpu, self.with_build_ids) {
            // Kernels before 5.12 do not know build ids in mapping events.
            Err(err) if self.with_build_ids && is_unsupported(&err) => {
                tracing::info!(
                    "this kernel gives no build ids with mappings: reading them from the files"
                );
                self.with_build_ids = false;
                open_buffer(cpu, false)
            }
            result => result,
        }
    }

    /// Moves all events into `events`, in no order. Gives how many records could not be read.
    pub fn drain(&mut self, events: &mut Vec<Timed>) -> u64 {
        let mut malformed = 0;
        for buffer in self.buffers.values_mut() {
            for _ in 0..RECORDS_PER_DRAIN_MAX {
                let Some(record) = buffer.next_record() else {
                    break;
                };
                let time_ns = read_time(&record.to_contiguous());
                let misc = record.misc();
                match record.parse_record() {
                    Ok(parsed) => {
                        let event = convert_record(parsed, misc);
                        events.extend(event.map(|event| Timed { time_ns, event }));
                    }
                    Err(err) => {
                        malformed += 1;
                        tracing::debug!(%err, "failed to parse a side-band record");
                    }
                }
            }
        }
        malformed
    }
}

impl Default for SideBand {
    fn default() -> Self {
        Self::new()
    }
}

fn open_buffer(cpu: u32, with_build_ids: bool) -> io::Result<Sampler> {
    let mut counter = Builder::new(Software::DUMMY)
        .any_pid()
        .one_cpu(cpu as usize)
        .include_kernel()
        .include_hv()
        // The wake-up never comes: the buffer is drained by the clock.
        .wakeup_watermark(BUFFER_BYTES)
        .mmap(true)
        .mmap2(true)
        .build_id(with_build_ids)
        .comm(true)
        .comm_exec(true)
        .task(true)
        .sample_id_all(true)
        .sample(SampleFlag::TIME)
        .clockid(Clock::MONOTONIC)
        .build()?
        .sampled(BUFFER_BYTES)?;
    counter.enable()?;
    Ok(counter)
}

fn is_unsupported(err: &io::Error) -> bool {
    err.kind() == io::ErrorKind::Unsupported || err.raw_os_error() == Some(libc::EINVAL)
}

/// The record's time: with `sample_id_all` and only TIME asked for, its last eight bytes.
/// Source: perf_event_open(2), `struct sample_id`.
fn read_time(record: &[u8]) -> u64 {
    record
        .last_chunk()
        .map_or(0, |bytes| u64::from_ne_bytes(*bytes))
}

fn convert_record(record: Record<'_>, misc: u16) -> Option<SideBandEvent> {
    /// Set on a COMM record that comes from an exec.
    const MISC_COMM_EXEC: u16 = 1 << 13;
    Some(match record {
        Record::Mmap2(map) => SideBandEvent::Map {
            pid: map.pid,
            start: map.addr,
            end: map.addr.saturating_add(map.len),
            file_offset: map.pgoff,
            identity: map_identity(&map),
            path: map.filename.into_owned(),
        },
        Record::Comm(comm) if misc & MISC_COMM_EXEC != 0 => SideBandEvent::Exec {
            pid: comm.pid,
            comm: comm.comm.into_owned(),
        },
        Record::Comm(comm) if comm.pid == comm.tid => SideBandEvent::Rename {
            pid: comm.pid,
            comm: comm.comm.into_owned(),
        },
        Record::Fork(fork) if fork.pid != fork.ppid => SideBandEvent::Fork {
            pid: fork.pid,
            parent: fork.ppid,
        },
        Record::Exit(exit) if exit.pid == exit.tid => SideBandEvent::Exit { pid: exit.pid },
        Record::Lost(lost) => SideBandEvent::Lost { count: lost.lost },
        _ => return None,
    })
}

fn map_identity(map: &Mmap2<'_>) -> FileIdentity {
    if let Some(id) = map.build_id().and_then(BuildId::new) {
        return FileIdentity::BuildId(id);
    }
    match (map.maj(), map.min(), map.ino()) {
        (Some(major), Some(minor), Some(inode)) if inode != 0 => FileIdentity::Inode {
            device: rustix::fs::makedev(major, minor),
            inode,
            generation: map.ino_generation().unwrap_or(0),
        },
        _ => FileIdentity::Path,
    }
}
