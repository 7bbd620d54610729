//! How much is kept: by flags, or by limits that were chosen when the directory was new.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use super::content::Content;
use super::directory::Directory;
use super::plan::{Retention, RollUp, plan_eviction};
use super::replace::unfinished;
use super::shared::now_ms;
use super::span::DAY_MS;

/// File of the chosen limits, below the folder of profiles.
const FILE: &str = "limits.json";

/// Age that a new directory keeps, in milliseconds.
const AGE_MS: i64 = 30 * DAY_MS;

/// A new directory may take so much of what is free at its first start.
const FREE_SHARE: u64 = 2;

/// What flags say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RetentionFlags {
    /// Milliseconds that windows are kept.
    pub age_ms: Option<i64>,
    /// Bytes of all files.
    pub bytes_max: Option<u64>,
    /// By age, the youngest first.
    pub roll_ups: Vec<RollUp>,
}

/// Limits that hold where no flag says another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct ChosenLimits {
    age_ms: Option<i64>,
    bytes_max: Option<u64>,
}

/// The limits of a store: the flags', else those that were chosen at the first start. A directory with profiles of an earlier version,
/// or whose file of limits is gone, has none: nothing is evicted from it before somebody says so.
///
/// # Errors
/// The disk failed.
pub fn choose(
    directory: &Directory,
    content: &Content,
    flags: &RetentionFlags,
) -> Result<Retention> {
    let path = directory.path().join(FILE);
    let known = fs::read(&path)
        .ok()
        .and_then(|json| serde_json::from_slice(&json).ok());
    let is_new = content.segments.is_empty()
        && content.unreadable.is_empty()
        && content.blocks.is_empty()
        && content.old.is_empty();
    let (free_bytes, _) = directory.free_and_size_bytes()?;
    let defaults = ChosenLimits {
        age_ms: Some(AGE_MS),
        bytes_max: Some(free_bytes / FREE_SHARE),
    };
    let chosen = known.unwrap_or(if is_new {
        defaults
    } else {
        ChosenLimits::default()
    });
    if known.is_none()
        && let Err(err) = write(&path, &chosen)
    {
        // On a full disk profiles can still be shown; the next start chooses again.
        warn!(%err, path = %path.display(), "failed to write the limits that were chosen");
    }
    let retention = Retention {
        age_ms: flags.age_ms.or(chosen.age_ms),
        bytes_max: flags.bytes_max.or(chosen.bytes_max),
        roll_ups: flags.roll_ups.clone(),
    };
    match (retention.age_ms, retention.bytes_max) {
        (None, None) => {
            let by_default = Retention {
                age_ms: defaults.age_ms,
                ..retention.clone()
            };
            let old = plan_eviction(content.evictable(), 0, &by_default, now_ms()).len();
            warn!(
                days = AGE_MS / DAY_MS,
                files_older = old,
                "nothing is evicted from this directory, which an earlier version filled, before --retention or --retention-bytes is given"
            );
        }
        (age_ms, bytes_max) => info!(
            days = age_ms.map(|age_ms| age_ms / DAY_MS),
            bytes_max, "the limits of the store"
        ),
    }
    Ok(retention)
}

fn write(path: &Path, chosen: &ChosenLimits) -> io::Result<()> {
    let written = unfinished(path);
    let mut file = fs::File::create(&written)?;
    file.write_all(&serde_json::to_vec(chosen)?)?;
    file.sync_all()?;
    fs::rename(&written, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_chosen_once() {
        let folder = tempfile::tempdir().unwrap();
        let directory = Directory::lock(folder.path()).unwrap();
        let content = Content::default();
        let first = choose(&directory, &content, &RetentionFlags::default()).unwrap();
        assert_eq!(first.age_ms, Some(30 * DAY_MS));
        assert!(first.bytes_max.is_some_and(|bytes| bytes > 0));
        let again = choose(&directory, &content, &RetentionFlags::default()).unwrap();
        assert_eq!(again, first);
        let flags = RetentionFlags {
            bytes_max: Some(7),
            ..RetentionFlags::default()
        };
        let by_flag = choose(&directory, &content, &flags).unwrap();
        assert_eq!((by_flag.age_ms, by_flag.bytes_max), (first.age_ms, Some(7)));
    }
}
