//! Perf's side band: each exec, mapping, fork and exit of the machine, in order.

use std::{collections::BTreeMap, io, ops::Range};

use elf::BuildId;
use perf_event::{
    Builder, Clock, SampleFlag, Sampler,
    data::{KSymbol, KSymbolFlags, KSymbolType, Record},
    events::Software,
};
use thiserror::Error;

use super::FileIdentity;

/// Bytes of each processor's buffer of events.
///
/// - An exec of a program with 10 libraries writes about 15 records of 120 bytes: fork, exec, exit, and each executable mapping.
///   At 300 such programs a second on one processor and a drain each 100 ms that is 54 kB.
/// - Each function that the kernel loads writes a record of 80 bytes (32, and a name such as `bpf_prog_TAG_NAME`), and another
///   one before it is unloaded. Modules write none. An agent that ends with 200 BPF programs of 10 functions each unloads all of
///   them at once: 160 kB.
///
/// Both together are 214 kB of 262 kB. Without BPF programs there is room for a burst of execs almost five times as large. A lost
/// record has all processes read again, and the kernel's symbols.
const EVENT_BYTES: usize = 256 << 10;

/// Bytes of each processor's buffer of claimed build ids: 12 records of 120 bytes an exec, 43 kB.
///
/// Both buffers with their heads are 392 KiB, within the 516 KiB that the kernel allows all of root
/// on each processor (`kernel.perf_event_mlock_kb`).
const CLAIM_BYTES: usize = 128 << 10;

/// Bytes before each buffer: its head, one page.
const HEAD_BYTES: usize = 4096;

/// The kernel writes both records of a mapping one after the other, without being preempted.
const PAIR_NS: u64 = 1_000_000;

/// Records handled in one drain, so that a flood of execs cannot keep the thread
/// here for ever: 2 CPUs × 256 KiB / 40 bytes (the shortest record) is 13,000.
const RECORDS_PER_DRAIN_MAX: usize = 200_000;

/// An event and when it happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timed {
    /// Nanoseconds of CLOCK_MONOTONIC.
    pub time_ns: u64,
    /// The event.
    pub event: SideBandEvent,
}

/// An event of a process.
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
        /// The file's identity.
        identity: FileIdentity,
    },
    /// A process's main thread ended.
    Exit {
        /// The process.
        pid: u32,
    },
    /// The kernel loaded code: a BPF program, a trampoline.
    KernelLoad {
        /// Its addresses.
        addresses: Range<u64>,
        /// Its name, as `/proc/kallsyms` has it.
        name: String,
    },
    /// The kernel is about to unload code.
    KernelUnload {
        /// Its addresses.
        addresses: Range<u64>,
        /// Its name.
        name: String,
    },
    /// Events were lost: the buffer was full.
    Lost {
        /// Number of lost records.
        count: u64,
    },
}

impl SideBandEvent {
    /// The process that it is about; `None` for a loss, and for the kernel's own code.
    pub fn pid(&self) -> Option<u32> {
        match self {
            Self::Fork { pid, .. }
            | Self::Exec { pid, .. }
            | Self::Rename { pid, .. }
            | Self::Map { pid, .. }
            | Self::Exit { pid } => Some(*pid),
            Self::KernelLoad { .. } | Self::KernelUnload { .. } | Self::Lost { .. } => None,
        }
    }
}

/// Why the buffers of a processor could not be opened.
#[derive(Debug, Error)]
pub enum SideBandError {
    /// The kernel refused an event.
    #[error("failed to open the process events of processor {cpu}")]
    Open {
        /// The processor.
        cpu: u32,
        /// The kernel's error.
        source: io::Error,
    },
    /// The kernel refused to map a buffer: it is locked memory.
    #[error("failed to map the buffer for process events of processor {cpu}")]
    Map {
        /// The processor.
        cpu: u32,
        /// The kernel's error.
        source: io::Error,
    },
}

/// The open buffers of each processor.
///
/// A mapping's record has its inode or its build id, not both. The inode identifies the file, and no process
/// can choose it. The build id leads to symbols of a file that is gone before it was opened. So there are
/// two events, each with a buffer of its own.
pub struct SideBand {
    buffers: BTreeMap<u32, Buffers>,
    with_claims: bool,
}

struct Buffers {
    events: Sampler,
    claims: Option<Sampler>,
    /// Claims whose mappings' records were not there yet in the last drain.
    early: Vec<Claim>,
}

/// The build id that a mapped file claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Claim {
    time_ns: u64,
    pid: u32,
    start: u64,
    end: u64,
    file_offset: u64,
    build_id: BuildId,
}

impl SideBand {
    /// No buffers yet.
    pub fn new() -> Self {
        Self {
            buffers: BTreeMap::new(),
            with_claims: true,
        }
    }

    /// Opens buffers on processors that came online, and closes those of processors that went offline.
    ///
    /// # Errors
    /// A buffer cannot be opened.
    pub fn follow(&mut self, online: &[u32]) -> Result<(), SideBandError> {
        self.buffers.retain(|cpu, _| online.contains(cpu));
        for &cpu in online {
            if self.buffers.contains_key(&cpu) {
                continue;
            }
            let buffer = self.open(cpu)?;
            self.buffers.insert(cpu, buffer);
        }
        Ok(())
    }

    fn open(&mut self, cpu: u32) -> Result<Buffers, SideBandError> {
        let events = open_events(cpu)?;
        let claims = match self.with_claims.then(|| open_claims(cpu)).transpose() {
            // Kernels before 5.12 do not know build ids in mapping events.
            Err(SideBandError::Open { source, .. }) if is_unsupported(&source) => {
                self.with_claims = false;
                None
            }
            opened => opened?,
        };
        Ok(Buffers {
            events,
            claims,
            early: Vec::new(),
        })
    }

    /// Whether the kernel gives the build ids of mapped files, as far as that was tried.
    pub fn has_build_ids(&self) -> bool {
        self.with_claims
    }

    /// Locked memory of the buffers on each processor.
    pub fn locked_bytes_per_cpu(&self) -> u64 {
        let claims = if self.with_claims {
            CLAIM_BYTES + HEAD_BYTES
        } else {
            0
        };
        (EVENT_BYTES + HEAD_BYTES + claims) as u64
    }

    /// Moves all events into `events`, in no order. Returns how many records could not be read.
    pub fn drain(&mut self, events: &mut Vec<Timed>) -> u64 {
        self.buffers
            .values_mut()
            .map(|buffers| buffers.drain(events))
            .sum()
    }
}

impl Default for SideBand {
    fn default() -> Self {
        Self::new()
    }
}

impl Buffers {
    /// Moves all events into `events`, each mapping with what its file claims.
    fn drain(&mut self, events: &mut Vec<Timed>) -> u64 {
        let first = events.len();
        let mut malformed = read_records(&mut self.events, |record| {
            let event = if record.ty() == RECORD_MMAP2 {
                decode_mapping(&record.to_contiguous()).map(Some)
            } else {
                let parsed = record.parse_record().ok();
                parsed.map(|parsed| convert_record(parsed, record.misc()))
            };
            let time_ns = read_time(&record.to_contiguous());
            let event = event?.filter(|event| event.pid().is_none_or(is_visible));
            events.extend(event.map(|event| Timed { time_ns, event }));
            Some(())
        });
        if let Some(claims) = &mut self.claims {
            // After the events: nearly every claim of theirs is there by now.
            malformed += read_records(claims, |record| {
                let time_ns = read_time(&record.to_contiguous());
                let parsed = record.parse_record().ok()?;
                self.early.extend(convert_claim(parsed, time_ns));
                Some(())
            });
            pair_claims(&mut events[first..], &mut self.early);
            let newest_ns = events[first..].last().map_or(0, |event| event.time_ns);
            self.early
                .retain(|claim| claim.time_ns + PAIR_NS > newest_ns);
        }
        malformed
    }
}

/// Hands the records of a buffer to `take`, which gives `None` for one that cannot be read. Returns how many these are.
fn read_records(
    buffer: &mut Sampler,
    mut take: impl FnMut(&perf_event::Record<'_>) -> Option<()>,
) -> u64 {
    let mut malformed = 0;
    for _ in 0..RECORDS_PER_DRAIN_MAX {
        let Some(record) = buffer.next_record() else {
            break;
        };
        if take(&record).is_none() {
            malformed += 1;
            tracing::debug!(kind = record.ty(), "failed to parse a side-band record");
        }
    }
    malformed
}

/// `PERF_RECORD_MMAP2` in `linux/perf_event.h`.
const RECORD_MMAP2: u32 = 10;

/// A mapping in a record of an event that asks for inodes.
///
/// The record's flag for a build id is not looked at: the kernel sets it for whatever event comes behind one that
/// asks for build ids, though the record has an inode. (`perf_event_mmap_output` restores the header's type and size
/// for the next event, not its flags.)
///
/// Format: perf_event_open(2). `None` when it is too short.
fn decode_mapping(bytes: &[u8]) -> Option<SideBandEvent> {
    let u32_at = |at: usize| Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
    let u64_at = |at: usize| Some(u64::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
    let (start, length) = (u64_at(8)?, u64_at(16)?);
    let (major, minor, inode, generation) = (u32_at(32)?, u32_at(36)?, u64_at(40)?, u64_at(48)?);
    let path = bytes.get(64..)?.split(|byte| *byte == 0).next()?;
    let identity = match inode {
        0 => FileIdentity::Path,
        _ => FileIdentity::Inode {
            device: rustix::fs::makedev(major, minor),
            inode,
            generation,
            claimed_build_id: None,
        },
    };
    Some(SideBandEvent::Map {
        pid: u32_at(0)?,
        start,
        end: start.saturating_add(length),
        file_offset: u64_at(24)?,
        path: path.to_vec(),
        identity,
    })
}

/// An event of one processor for which nothing is counted, whose records `choose` selects.
fn open(
    cpu: u32,
    bytes: usize,
    choose: impl FnOnce(&mut Builder<'_>),
) -> Result<Sampler, SideBandError> {
    let refused = |source| SideBandError::Open { cpu, source };
    let mut builder = Builder::new(Software::DUMMY);
    builder
        .any_pid()
        .one_cpu(cpu as usize)
        .include_kernel()
        .include_hv()
        // The wake-up never comes: the buffer is drained by the clock.
        .wakeup_watermark(bytes)
        .mmap(true)
        .mmap2(true)
        .sample_id_all(true)
        .sample(SampleFlag::TIME)
        .clockid(Clock::MONOTONIC);
    choose(&mut builder);
    let counter = builder.build().map_err(refused)?;
    let mut counter = counter
        .sampled(bytes)
        .map_err(|source| SideBandError::Map { cpu, source })?;
    counter.enable().map_err(refused)?;
    Ok(counter)
}

fn open_events(cpu: u32) -> Result<Sampler, SideBandError> {
    open(cpu, EVENT_BYTES, |builder| {
        // `ksymbol` is since 5.1; of ftrace's and kprobes' copies of code since 5.9.
        builder.comm(true).comm_exec(true).task(true).ksymbol(true);
    })
}

fn open_claims(cpu: u32) -> Result<Sampler, SideBandError> {
    open(cpu, CLAIM_BYTES, |builder| {
        builder.build_id(true);
    })
}

/// Gives each mapping the build id that its file claims. Both are in the order in which one processor
/// wrote them, and either may have lost some. Claims behind the last mapping stay in `claims`.
fn pair_claims(events: &mut [Timed], claims: &mut Vec<Claim>) {
    let mut next = 0;
    for timed in events {
        let SideBandEvent::Map {
            pid,
            start,
            end,
            file_offset,
            identity: FileIdentity::Inode {
                claimed_build_id, ..
            },
            ..
        } = &mut timed.event
        else {
            continue;
        };
        let place = (*pid, *start, *end, *file_offset);
        let is_its = |claim: &Claim| {
            (claim.pid, claim.start, claim.end, claim.file_offset) == place
                && claim.time_ns.abs_diff(timed.time_ns) < PAIR_NS
        };
        let behind_ns = timed.time_ns.saturating_add(PAIR_NS);
        let candidates = claims[next..].iter();
        let mut candidates = candidates.take_while(|claim| claim.time_ns < behind_ns);
        if let Some(found) = candidates.position(is_its) {
            *claimed_build_id = Some(claims[next + found].build_id);
            next += found + 1;
        }
    }
    claims.drain(..next);
}

fn is_unsupported(err: &io::Error) -> bool {
    err.kind() == io::ErrorKind::Unsupported || err.raw_os_error() == Some(libc::EINVAL)
}

/// Whether a process is in this one's PID namespace, or one below. Records have the ids of that namespace: 0 for a process outside
/// of it, and -1 for one outside that has ended (`perf_event_pid_type` in kernel/events/core.c).
fn is_visible(pid: u32) -> bool {
    !matches!(pid, 0 | u32::MAX)
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
        Record::KSymbol(symbol) => convert_symbol(&symbol),
        Record::Lost(lost) => SideBandEvent::Lost { count: lost.lost },
        _ => return None,
    })
}

fn convert_symbol(symbol: &KSymbol<'_>) -> SideBandEvent {
    // The field is padded to 8 bytes, and perf-event2 does not cut it there.
    let name = symbol.name.split(|byte| *byte == 0).next();
    let name = String::from_utf8_lossy(name.unwrap_or_default());
    // As in `/proc/kallsyms`, where the parts of the kernel that make code stand for modules.
    let module = match symbol.ksym_type {
        KSymbolType::BPF => "bpf",
        _ if name.starts_with("ftrace") => "__builtin__ftrace",
        _ => "__builtin__kprobes",
    };
    let name = format!("{name} [{module}]");
    let addresses = symbol.addr..symbol.addr.saturating_add(symbol.len.into());
    if symbol.flags.contains(KSymbolFlags::UNREGISTER) {
        SideBandEvent::KernelUnload { addresses, name }
    } else {
        SideBandEvent::KernelLoad { addresses, name }
    }
}

/// The claim in a mapping's record; `None` for one of a file without a build id, which has an inode.
fn convert_claim(record: Record<'_>, time_ns: u64) -> Option<Claim> {
    let Record::Mmap2(map) = record else {
        return None;
    };
    Some(Claim {
        time_ns,
        pid: map.pid,
        start: map.addr,
        end: map.addr.saturating_add(map.len),
        file_offset: map.pgoff,
        build_id: map.build_id().and_then(BuildId::new)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(time_ns: u64, start: u64) -> Timed {
        Timed {
            time_ns,
            event: SideBandEvent::Map {
                pid: 1,
                start,
                end: start + 0x1000,
                file_offset: 0,
                path: b"/a".to_vec(),
                identity: FileIdentity::Inode {
                    device: 1,
                    inode: 2,
                    generation: 3,
                    claimed_build_id: None,
                },
            },
        }
    }

    fn claim(time_ns: u64, start: u64, byte: u8) -> Claim {
        Claim {
            time_ns,
            pid: 1,
            start,
            end: start + 0x1000,
            file_offset: 0,
            build_id: BuildId::new(&[byte]).unwrap(),
        }
    }

    /// Check that a mapping is read by its inode, and that a record which is cut anywhere before its path is refused.
    #[test]
    fn mappings_have_inodes() {
        let mut bytes = Vec::new();
        bytes.extend([7u32, 8].map(u32::to_ne_bytes).as_flattened());
        let numbers = [0x1000u64, 0x2000, 0x3000].map(u64::to_ne_bytes);
        bytes.extend(numbers.as_flattened());
        bytes.extend([254u32, 1].map(u32::to_ne_bytes).as_flattened());
        bytes.extend([55u64, 66, 0].map(u64::to_ne_bytes).as_flattened());
        bytes.extend(b"/lib/a\0\0");
        let identity = FileIdentity::Inode {
            device: rustix::fs::makedev(254, 1),
            inode: 55,
            generation: 66,
            claimed_build_id: None,
        };
        let expected = SideBandEvent::Map {
            pid: 7,
            start: 0x1000,
            end: 0x3000,
            file_offset: 0x3000,
            path: b"/lib/a".to_vec(),
            identity,
        };
        assert_eq!(decode_mapping(&bytes), Some(expected));
        for len in 0..64 {
            assert_eq!(decode_mapping(&bytes[..len]), None, "{len}");
        }
    }

    /// The claims that events have after pairing, 0 for none, and how many claims are left.
    fn pair(events: &[(u64, u64)], claims: &[(u64, u64, u8)]) -> (Vec<u8>, usize) {
        let mut events: Vec<Timed> = events.iter().map(|(time, at)| map(*time, *at)).collect();
        let claims = claims.iter().map(|(time, at, id)| claim(*time, *at, *id));
        let mut claims: Vec<Claim> = claims.collect();
        pair_claims(&mut events, &mut claims);
        let claimed = events.iter().map(|timed| match &timed.event {
            SideBandEvent::Map { identity, .. } => {
                identity.claimed_build_id().map_or(0, |id| id.as_bytes()[0])
            }
            _ => 0,
        });
        (claimed.collect(), claims.len())
    }

    /// Check that a mapping gets the claim of its own record, also where a plug-in takes another's place,
    /// and that lost records of either kind move no claim to another mapping.
    #[test]
    fn claims_follow_their_mappings() {
        const MS: u64 = 1_000_000;
        let events = [(MS, 0x1000), (3 * MS, 0x1000), (5 * MS, 0x2000)];
        let claims = [
            (MS + 5, 0x1000, 1),
            (3 * MS + 5, 0x1000, 2),
            (5 * MS - 5, 0x2000, 3),
        ];
        assert_eq!(pair(&events, &claims), (vec![1, 2, 3], 0));
        assert_eq!(pair(&events, &claims[1..]), (vec![0, 2, 3], 0));
        assert_eq!(pair(&events[1..], &claims), (vec![2, 3], 0));
        assert_eq!(pair(&events[..1], &claims), (vec![1], 2));
        assert_eq!(pair(&events, &[]), (vec![0, 0, 0], 0));
        assert_eq!(pair(&[], &claims), (vec![], 3));
    }
}
