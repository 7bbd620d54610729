//! File descriptors: the process's limit, and the connections of collectors that fit into it.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::warn;

/// The limit that the server sets if it may: all connections, and as many for segments, symbols and queries.
const DESCRIPTORS_WANTED: u64 = 8192;

/// Descriptors for other uses: browsers, probes, and 256 segments, indexes of symbols and the catalog.
const OTHERS: u64 = 512 + 64 + 256;

/// Connections of collectors: one each, of 2,048 nodes. An idle one takes some 30 KB, and at most 256 KiB of unread
/// bytes.
const COLLECTORS_MAX: u64 = 2048;

/// Connections of collectors with few descriptors.
const COLLECTORS_MIN: u64 = 64;

/// Raises the limit, which is 1,024 in most shells, and returns it.
pub fn raise_limit() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let Some(before) = current else {
        return DESCRIPTORS_WANTED;
    };
    let wanted = maximum.map_or(DESCRIPTORS_WANTED, |max| max.min(DESCRIPTORS_WANTED));
    if wanted <= before {
        return before;
    }
    let limit = Rlimit {
        current: Some(wanted),
        maximum,
    };
    match setrlimit(Resource::Nofile, limit) {
        Ok(()) => wanted,
        Err(err) => {
            warn!(%err, limit = before, "failed to raise the number of descriptors");
            before
        }
    }
}

/// Connections of collectors that fit into the limit.
pub fn collectors_max(descriptors: u64) -> usize {
    let left = descriptors.saturating_sub(OTHERS);
    left.clamp(COLLECTORS_MIN, COLLECTORS_MAX) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collectors_get_what_others_leave() {
        assert_eq!(collectors_max(DESCRIPTORS_WANTED), 2048);
        assert_eq!(collectors_max(1024), 192);
        assert_eq!(collectors_max(100), 64);
    }
}
