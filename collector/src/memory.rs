//! Memory of the collector, its naming child and its eBPF maps, and the limit of their cgroup.
//!
//! In: the number of processors, flags, and the cgroup's limit. Out: the sum of what the parts may
//! take, and the naming child's share.
//!
//! With cgroup v2, kubelet sets `memory.oom.group`: if one process of a container is out of memory,
//! the kernel ends them all. So the child gets what the other parts leave of the limit, as its
//! RLIMIT_DATA. The kernel then refuses it memory, and it aborts, before the cgroup is full.

use cgroupfs::MemoryLimit;

use crate::{name::ChildLimits, process::SideBand, sample::map_bytes};

/// The collector without rows and waiting windows, on a machine that compiles all the time: 57 MB.
const COLLECTOR_BYTES: u64 = 64 << 20;

/// Kernel memory, whatever the processors: the walk's tables without rows take 7 MB, page tables and
/// the threads' stacks 2 MB, the verifier while it checks the program 4 MB.
const KERNEL_BYTES: u64 = 14 << 20;

/// The least that the naming child needs: see [`ChildLimits::resident_bytes_max`].
const CHILD_BYTES_MIN: u64 = 40 << 20;

/// The child's memory that RLIMIT_DATA does not limit: its program's and libraries' pages 8 MB, most of
/// which the kernel can take back.
const CHILD_FILE_BYTES: u64 = 8 << 20;

/// Bytes of memory that each part may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryNeeds {
    /// The collector's own process.
    pub collector: u64,
    /// The naming child, at least.
    pub child: u64,
    /// eBPF maps without unwind rows, and perf's buffers.
    pub kernel: u64,
    /// Unwind rows.
    pub unwind: u64,
    /// Windows that wait for the server.
    pub queue: u64,
}

impl MemoryNeeds {
    /// The needs on this many processors, with `--unwind-bytes` and `--buffer-bytes`.
    pub fn new(cpus: usize, unwind: u64, queue: u64) -> Self {
        let buffers = SideBand::new().locked_bytes_per_cpu() * cpus as u64;
        Self {
            collector: COLLECTOR_BYTES,
            child: CHILD_BYTES_MIN,
            kernel: KERNEL_BYTES + (map_bytes(cpus) + buffers).next_multiple_of(1 << 20),
            unwind,
            queue,
        }
    }

    /// All together.
    pub fn bytes(&self) -> u64 {
        let Self {
            collector,
            child,
            kernel,
            unwind,
            queue,
        } = *self;
        collector + child + kernel + unwind + queue
    }

    /// The naming child's share of a limit: what the other parts leave, and at least what it needs.
    pub fn child_share(&self, limit: u64) -> u64 {
        self.child + limit.saturating_sub(self.bytes())
    }

    /// The naming child's limits, of which its share allows less private memory.
    pub fn limit_child(&self, limit: MemoryLimit, child: ChildLimits) -> ChildLimits {
        let MemoryLimit::Bytes(limit) = limit else {
            return child;
        };
        let private = self.child_share(limit) - CHILD_FILE_BYTES;
        ChildLimits {
            data_bytes_max: child.data_bytes_max.min(private),
            ..child
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHILD: ChildLimits = ChildLimits {
        data_bytes_max: 256 << 20,
        resident_bytes_max: 40 << 20,
    };

    fn needs(cpus: usize) -> MemoryNeeds {
        MemoryNeeds::new(cpus, 24 << 20, 64 << 20)
    }

    /// Check that the chart's default of 256 MiB is enough for 64 processors, and not for 128.
    #[test]
    fn needs_grow_with_the_processors() {
        let mib = [2, 64, 128].map(|cpus| needs(cpus).bytes() >> 20);
        assert_eq!(mib, [209, 252, 281]);
    }

    /// Check that all parts and the child's private memory stay within a limit that is large enough, and that the child keeps
    /// its least below one that is not.
    #[test]
    fn the_child_gets_the_rest() {
        let private = |mib: u64| {
            let limited = needs(2).limit_child(MemoryLimit::Bytes(mib << 20), CHILD);
            assert_eq!(limited.resident_bytes_max, CHILD.resident_bytes_max);
            limited.data_bytes_max >> 20
        };
        assert_eq!([100, 209, 256].map(private), [32, 32, 79]);
        // Much memory does not raise the limit.
        assert_eq!(private(4096), 256);
        for limit in [MemoryLimit::Unknown, MemoryLimit::Unlimited] {
            assert_eq!(needs(2).limit_child(limit, CHILD), CHILD);
        }
    }
}
