//! Memory of the server and of the child that makes indexes of symbols, and the limit of their cgroup.
//!
//! In: flags, and the cgroup's limit. Out: the sum of what the parts may take, and the child's share.
//!
//! With cgroup v2, kubelet sets `memory.oom.group`: if one process of a container is out of memory, the kernel ends them all. So
//! the child gets what the server leaves of the limit, as its RLIMIT_DATA. The kernel then refuses it memory, and it aborts,
//! before the cgroup is full.

use cgroupfs::MemoryLimit;
use tracing::warn;

use crate::symbol::child::ChildLimits;

/// The server without windows in memory, profiles in progress and queries. The catalog's cache has 16 MiB, reports of nodes up to
/// 24 MB, windows that are received some 30 MB, tables of symbols some 20 MB; chunks that queries decode have some MB a thread.
const SERVER_BYTES: u64 = 128 << 20;

/// The least that the child needs: 55 MiB of a Rust program with line tables take 74 MiB.
const CHILD_BYTES_MIN: u64 = 128 << 20;

/// The child's memory that RLIMIT_DATA does not limit: its program's pages, 20 MB, and page tables, 2 MB for each GiB that it
/// maps. The kernel can take back the pages of the file and of the index.
const CHILD_FILE_BYTES: u64 = 32 << 20;

/// Bytes of memory that each part may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryNeeds {
    /// Windows that are in no segment yet: `--cache-bytes-max`.
    pub cache: u64,
    /// Decompressed profiles in progress: `--ingest-bytes-max`.
    pub ingest: u64,
    /// Queries, and answers that are not read yet: `--query-bytes-max`.
    pub queries: u64,
    /// The rest of the server's own process.
    pub server: u64,
    /// The child, at least.
    pub child: u64,
}

impl MemoryNeeds {
    /// The needs with `--cache-bytes-max`, `--ingest-bytes-max` and `--query-bytes-max`.
    pub fn new(cache: u64, ingest: u64, queries: u64) -> Self {
        Self {
            cache,
            ingest,
            queries,
            server: SERVER_BYTES,
            child: CHILD_BYTES_MIN,
        }
    }

    /// All together.
    pub fn bytes(&self) -> u64 {
        let Self {
            cache,
            ingest,
            queries,
            server,
            child,
        } = *self;
        let parts = [cache, ingest, queries, server, child];
        parts.into_iter().fold(0, u64::saturating_add)
    }

    /// The child's limits, of which its share of the cgroup's limit allows less private memory: what the server leaves, and at
    /// least what the child needs.
    pub fn limit_child(&self, limit: MemoryLimit, child: ChildLimits) -> ChildLimits {
        let MemoryLimit::Bytes(limit) = limit else {
            return child;
        };
        let share = self.child + limit.saturating_sub(self.bytes());
        ChildLimits {
            data_bytes_max: child.data_bytes_max.min(share - CHILD_FILE_BYTES),
            ..child
        }
    }

    /// Logs a limit that is too low for all parts.
    pub fn report(&self, limit: MemoryLimit) {
        let MemoryLimit::Bytes(limit) = limit else {
            return;
        };
        if limit < self.bytes() {
            warn!(
                limit_mib = limit >> 20,
                needed_mib = self.bytes() >> 20,
                "the memory limit of this container or service is lower than what the server may take, and the kernel may end it: \
                 raise the limit, or lower --cache-bytes-max, --ingest-bytes-max or --query-bytes-max"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that all parts, with the child's mapped files, stay within a limit that is high enough, as the chart's default, and
    /// that the child keeps its least below one that is not.
    #[test]
    fn the_child_gets_the_rest() {
        let needs = MemoryNeeds::new(256 << 20, 512 << 20, 512 << 20);
        assert_eq!(needs.bytes() >> 20, 1536);
        let private = |mib: u64| {
            let limit = MemoryLimit::Bytes(mib << 20);
            let limited = needs.limit_child(limit, ChildLimits::default());
            limited.data_bytes_max >> 20
        };
        assert_eq!([100, 1536, 1920].map(private), [96, 96, 480]);
        assert_eq!(256 + 512 + 512 + 128 + 480 + 32, 1920);
        // Much memory does not raise the limit.
        assert_eq!(private(16 << 10), 2048);
        for limit in [MemoryLimit::Unknown, MemoryLimit::Unlimited] {
            let limited = needs.limit_child(limit, ChildLimits::default());
            assert_eq!(limited, ChildLimits::default());
        }
    }
}
