//! The eBPF program in the kernel: loading, its ring, its counters.

use std::{
    mem::MaybeUninit,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd, RawFd},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use aya::{
    Ebpf, EbpfLoader,
    maps::{MapData, PerCpuArray, ProgramArray, RingBuf},
    programs::{PerfEvent, ProgramType},
    sys::{BpfHelper, is_helper_supported},
};
use profiler_bpf::{
    outcome::Outcome,
    per_cpu::{FOUND_PARTS, Found, PerCpu},
    policy::VERDICTS_MAX,
    settings::{
        PROGRAM_WALK, cgroup_source,
        counter::{self, Counters},
        task_source,
    },
    uncopied::Uncopied,
};

use rustix::event::{Timespec, epoll};

use super::maps::take_map;
use super::{Batch, CgroupHierarchy, KernelOffsets, KernelTables, KernelVerdicts, PidNamespace};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/profiler"));

/// Bytes of the ring for each processor.
///
/// At 100 Hz and a drain each 100 ms, a processor makes at most 10 records of
/// `RECORD_BYTES_MAX` (9,288 bytes + 8 of the ring) between two drains: 93 kB.
/// 256 KiB take almost three such drains of nothing but deepest stacks, and 6 s
/// of stacks of 40 frames (100 × 400 bytes a second). Copies of stacks take what is left of the
/// first half, and have the ring drained when it is a quarter full.
const RING_BYTES_PER_CPU: u32 = 256 << 10;

/// The smallest ring: on small machines there is room for longer stalls, and for copies of 192 KiB.
const RING_BYTES_MIN: u32 = 2 << 20;

/// The largest ring: 64 processors and more share 16 MiB, half of what the maps
/// may take in all.
const RING_BYTES_MAX: u32 = 16 << 20;

/// The loaded program. It is unloaded when this is dropped.
pub struct Program {
    ring: RingBuf<MapData>,
    wakeups: OwnedFd,
    counters: PerCpuArray<MapData, Counters>,
    /// Held, since the kernel empties a program array when its last user goes.
    _programs: ProgramArray<MapData>,
    ebpf: Ebpf,
    map_bytes: u64,
    tables: Option<KernelTables>,
    verdicts: Option<KernelVerdicts>,
    /// Copies of stacks that were dropped since their samples did not come.
    unpaired: u64,
}

/// Options of the program.
pub struct ProgramOptions<'a> {
    /// Processors that it will run on.
    pub cpus: usize,
    /// The hierarchy of the cgroup ids.
    pub hierarchy: &'a CgroupHierarchy,
    /// The namespace of the process ids.
    pub namespace: PidNamespace,
    /// See [`Config::walk_budget_ppm`](crate::config::Config::walk_budget_ppm).
    pub walk_budget_ppm: u32,
    /// See [`Config::prove_one_in`](crate::config::Config::prove_one_in).
    pub prove_one_in: u32,
    /// Whether there is a policy. Without one the program looks nothing up.
    pub has_policy: bool,
}

/// Counters of the program since it was loaded, summed over all processors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CounterTotals {
    /// Entries of the program.
    pub entries: u64,
    /// Time spent in it, nanoseconds.
    pub time_ns: u64,
    /// Entries by outcome, in the order of [`Outcome::ALL`].
    pub outcomes: [u64; Outcome::ALL.len()],
    /// Stacks that were to be copied and were not, in the order of [`Uncopied::ALL`].
    pub uncopied: [u64; Uncopied::ALL.len()],
    /// Copies of stacks that were dropped since their samples did not come.
    pub unpaired: u64,
}

impl Program {
    /// Loads the program into the kernel.
    ///
    /// # Errors
    /// The kernel refuses it, with the verifier's words; or this binary was built without it.
    pub fn load(options: &ProgramOptions<'_>) -> Result<Self> {
        let ProgramOptions {
            cpus,
            hierarchy,
            namespace,
            walk_budget_ppm,
            prove_one_in,
            has_policy,
        } = *options;
        if OBJECT.is_empty() {
            bail!("this collector was built without its eBPF program (AYA_BUILD_SKIP=1)");
        }
        let offsets = KernelOffsets::read(hierarchy.v1_controller(), namespace)?;
        let cgroup_source = match hierarchy {
            CgroupHierarchy::V2 { .. } => cgroup_source::V2,
            CgroupHierarchy::V1 { .. } => cgroup_source::V1,
            CgroupHierarchy::None => cgroup_source::NONE,
        };
        let ring_bytes = ring_bytes(cpus);
        let verdicts_max = if has_policy { VERDICTS_MAX } else { 1 };
        let has_policy = u32::from(has_policy);
        let task_source = task_source()?;
        let pid_namespace = namespace.nested().unwrap_or_default();
        let mut loader = EbpfLoader::new();
        // No CO-RE relocations in the object: the kernel's BTF need not be parsed again.
        loader
            .btf(None)
            .map_max_entries("RING", ring_bytes)
            .map_max_entries("VERDICTS", verdicts_max)
            .override_global("TASK_SOURCE", &task_source, true)
            .override_global("CGROUP_SOURCE", &cgroup_source, true)
            .override_global("HAS_POLICY", &has_policy, true)
            .override_global("PID_NAMESPACE", &pid_namespace, true)
            .override_global("BUDGET_PPM", &walk_budget_ppm, true)
            .override_global("PROOF_ONE_IN", &prove_one_in, true);
        for (name, offset) in offsets.settings() {
            loader.override_global(name, offset, true);
        }
        let mut ebpf = loader
            .load(OBJECT)
            .context("failed to load the eBPF object")?;
        for name in ["sample", "walk"] {
            let program: &mut PerfEvent = ebpf
                .program_mut(name)
                .with_context(|| format!("failed to find the program `{name}` in the object"))?
                .try_into()?;
            program
                .load()
                .with_context(|| format!("the kernel refused the eBPF program `{name}`"))?;
        }
        let mut programs = ProgramArray::try_from(take_map(&mut ebpf, "PROGRAMS")?)
            .context("failed to open the map `PROGRAMS`")?;
        programs
            .set(PROGRAM_WALK, program(&ebpf, "walk")?.fd()?, 0)
            .context("failed to put the program `walk` into its place")?;
        let counters = take_map(&mut ebpf, "COUNTERS")?;
        let tables = KernelTables::take(&mut ebpf).context("failed to open the walk's tables")?;
        let verdicts =
            KernelVerdicts::take(&mut ebpf).context("failed to open the policy's verdicts")?;
        let ring = RingBuf::try_from(take_map(&mut ebpf, "RING")?)
            .context("failed to map the ring buffer")?;
        let wakeups = follow_wakeups(&ring).context("failed to watch the ring buffer")?;
        Ok(Self {
            ring,
            wakeups,
            counters: PerCpuArray::try_from(counters).context("failed to open the counters")?,
            _programs: programs,
            ebpf,
            tables: Some(tables),
            verdicts: Some(verdicts),
            unpaired: 0,
            map_bytes: map_bytes(cpus) + KernelVerdicts::bytes(verdicts_max),
        })
    }

    /// The program's descriptor, to attach to events.
    ///
    /// # Errors
    /// The program is not loaded.
    pub fn descriptor(&self) -> Result<RawFd> {
        Ok(program(&self.ebpf, "sample")?.fd()?.as_fd().as_raw_fd())
    }

    /// Waits until it is time to drain, or the program asks for it because the ring fills or a process
    /// has no rows. Returns whether it asked.
    pub fn wait(&self, timeout: Duration) -> bool {
        let mut events = [MaybeUninit::uninit()];
        // A signal ends the wait early, which does no harm: it is a drain more.
        let woken = epoll::wait(
            &self.wakeups,
            &mut events,
            Some(&Timespec::try_from(timeout).unwrap_or_default()),
        );
        woken.is_ok_and(|(events, _)| !events.is_empty())
    }

    /// Moves all records from the ring into `batch`; gives how many could not be decoded.
    pub fn drain(&mut self, batch: &mut Batch) -> u64 {
        let mut malformed = 0;
        while let Some(record) = self.ring.next() {
            if let Err(err) = batch.push_record(&record) {
                malformed += 1;
                tracing::error!(%err, "failed to decode a record of the eBPF program");
            }
        }
        self.unpaired += batch.take_evicted_stacks();
        malformed
    }

    /// Reads the counters.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn read_counters(&self) -> Result<CounterTotals> {
        let per_cpu = self
            .counters
            .get(&0, 0)
            .context("failed to read the eBPF program's counters")?;
        let sum = |place: usize| per_cpu.iter().map(|counters| counters[place]).sum();
        Ok(CounterTotals {
            entries: sum(counter::ENTRIES),
            time_ns: sum(counter::TIME_NS),
            outcomes: std::array::from_fn(|place| sum(counter::OUTCOMES + place)),
            uncopied: std::array::from_fn(|place| sum(counter::UNCOPIED + place)),
            unpaired: self.unpaired,
        })
    }

    /// The tables that the walk searches; they are there once.
    pub fn take_tables(&mut self) -> Option<KernelTables> {
        self.tables.take()
    }

    /// The verdicts of the policy; they are there once.
    pub fn take_verdicts(&mut self) -> Option<KernelVerdicts> {
        self.verdicts.take()
    }

    /// Bytes of kernel memory of the program's maps, without the tables.
    pub fn map_bytes(&self) -> u64 {
        self.map_bytes
    }
}

fn program<'a>(ebpf: &'a Ebpf, name: &str) -> Result<&'a PerfEvent> {
    let program = ebpf
        .program(name)
        .with_context(|| format!("failed to find the program `{name}` in the object"))?;
    Ok(program.try_into()?)
}

/// A descriptor that becomes readable at wake-ups and not with data: the program wakes no thread for a sample, and
/// edge-triggered the ring's descriptor is ready after a wake-up only.
fn follow_wakeups(ring: &RingBuf<MapData>) -> Result<OwnedFd> {
    let wakeups = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(
        &wakeups,
        ring,
        epoll::EventData::new_u64(0),
        epoll::EventFlags::IN | epoll::EventFlags::ET,
    )?;
    Ok(wakeups)
}

/// The way in which the program reads a task on this kernel.
fn task_source() -> Result<u32> {
    let typed = is_helper_supported(ProgramType::PerfEvent, BpfHelper::BPF_FUNC_task_pt_regs)
        .context("failed to ask the kernel for its BPF helpers")?;
    Ok(if typed {
        task_source::TYPED
    } else {
        task_source::COPIED
    })
}

/// Bytes of kernel memory of the program's maps on this many processors, without the walk's tables.
pub fn map_bytes(cpus: usize) -> u64 {
    let bytes_of_cpu =
        size_of::<PerCpu>() + size_of::<Counters>() + size_of::<Found>() * FOUND_PARTS as usize;
    u64::from(ring_bytes(cpus)) + (cpus * bytes_of_cpu) as u64
}

/// Bytes of the ring for this many processors: a power of two, as the kernel wants.
fn ring_bytes(cpus: usize) -> u32 {
    u32::try_from(cpus)
        .unwrap_or(u32::MAX)
        .saturating_mul(RING_BYTES_PER_CPU)
        .clamp(RING_BYTES_MIN, RING_BYTES_MAX)
        .next_power_of_two()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check the ring's size on small, middling and huge machines.
    #[test]
    fn ring_sizes() {
        assert_eq!(ring_bytes(1), 2 << 20);
        assert_eq!(ring_bytes(2), 2 << 20);
        assert_eq!(ring_bytes(12), 4 << 20);
        assert_eq!(ring_bytes(5000), 16 << 20);
    }
}
