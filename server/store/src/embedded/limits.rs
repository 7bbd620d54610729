//! How much is kept: by flags, or by limits that were chosen when the directory was new.

use std::io;
use std::path::Path;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use tracing::{error, info, warn};

use super::content::Content;
use super::directory::Directory;
use super::files::{self, decode_checked, encode_checked, keep_damaged, write_whole};
use super::plan::{Retention, plan_eviction};
use super::report::RecoveryReport;
use super::shared::now_ms;
use super::span::DAY_MS;
use crate::{BeyondDefaults, Kept, RollUp, RollUpAddresses};

/// File of the chosen limits, below the folder of profiles.
const FILE: &str = "limits.json";

/// Age that a new directory keeps, in milliseconds.
const AGE_MS: i64 = 30 * DAY_MS;

/// A new directory may take so much of what is free at its first start.
const FREE_SHARE: u64 = 2;

/// Limits by flags.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RetentionFlags {
    /// Milliseconds that windows are kept.
    pub age_ms: Option<i64>,
    /// Bytes of all files.
    pub bytes_max: Option<u64>,
    /// By age, the youngest first.
    pub roll_ups: Vec<RollUp>,
    /// Of windows that are rolled up.
    pub roll_up_addresses: RollUpAddresses,
}

impl RetentionFlags {
    /// Nothing is evicted or rolled up.
    pub fn keep_all() -> Self {
        Self {
            age_ms: Some(i64::MAX),
            bytes_max: Some(u64::MAX),
            ..Self::default()
        }
    }
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
    report: &mut RecoveryReport,
) -> Result<Retention> {
    let path = directory.path().join(FILE);
    let known = read_chosen(directory, &path, report);
    let is_new = content.segments.is_empty()
        && content.unreadable.is_empty()
        && content.blocks.is_empty()
        && content.old.is_empty();
    let (free_bytes, _) = directory.free_and_size_bytes()?;
    let defaults = ChosenLimits {
        age_ms: Some(AGE_MS),
        bytes_max: Some(free_bytes / FREE_SHARE),
    };
    let chosen = match known {
        Known::Chosen(chosen) => chosen,
        Known::Missing if is_new => defaults,
        Known::Missing | Known::Unreadable => ChosenLimits::default(),
    };
    if known == Known::Missing
        && let Err(err) = write_whole(directory.disk(), &path, &encode_checked(&chosen)?)
    {
        // On a full disk profiles can still be shown; the next start chooses again.
        warn!(%err, path = %path.display(), "failed to write the limits that were chosen");
    }
    let retention = Retention {
        age_ms: flags.age_ms.or(chosen.age_ms),
        bytes_max: flags.bytes_max.or(chosen.bytes_max),
        roll_ups: flags.roll_ups.clone(),
        roll_up_addresses: flags.roll_up_addresses,
    };
    match (retention.age_ms, retention.bytes_max) {
        (None, None) => {
            let old = find_beyond_defaults(content);
            warn!(
                days = AGE_MS / DAY_MS,
                files_older = old.files,
                bytes = old.bytes,
                "nothing is evicted from this directory, which an earlier version filled or whose limits cannot be read, before --retention or --retention-bytes is given"
            );
        }
        (age_ms, bytes_max) => info!(
            days = age_ms.map(|age_ms| age_ms / DAY_MS),
            bytes_max, "the limits of the store"
        ),
    }
    Ok(retention)
}

/// Size of the store, and its limits.
pub fn describe_kept(content: &Content, retention: &Retention) -> Kept {
    let Retention {
        age_ms,
        bytes_max,
        roll_ups,
        roll_up_addresses: _,
    } = retention.clone();
    let has_limit = age_ms.is_some() || bytes_max.is_some();
    let bytes = content.evictable().iter().map(|files| files.bytes).sum();
    Kept {
        bytes: content.log_bytes().saturating_add(bytes),
        oldest_ms: content.oldest_ms(),
        age_ms,
        bytes_max,
        roll_ups,
        beyond_defaults: (!has_limit).then(|| find_beyond_defaults(content)),
    }
}

/// The files that are older than a new directory would keep them.
fn find_beyond_defaults(content: &Content) -> BeyondDefaults {
    let by_default = Retention {
        age_ms: Some(AGE_MS),
        bytes_max: None,
        roll_ups: Vec::new(),
        roll_up_addresses: RollUpAddresses::Keep,
    };
    let files = content.evictable();
    let evicted = plan_eviction(files.clone(), 0, &by_default, now_ms());
    let old = files
        .iter()
        .filter(|files| files.paths.iter().any(|path| evicted.contains(path)));
    BeyondDefaults {
        age_ms: AGE_MS,
        files: evicted.len(),
        bytes: old.map(|files| files.bytes).sum(),
    }
}

/// Result of reading the chosen limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    Chosen(ChosenLimits),
    Missing,
    /// They stay as they are, and a later start may read them.
    Unreadable,
}

/// Reads the limits that were chosen. A damaged file is kept under another name.
fn read_chosen(directory: &Directory, path: &Path, report: &mut RecoveryReport) -> Known {
    let read = files::read(&**directory.disk(), path);
    let err = match read.and_then(|bytes| decode_checked(&bytes)) {
        Ok(chosen) => return Known::Chosen(chosen),
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Known::Missing,
        Err(err) => err,
    };
    error!(%err, path = %path.display(), "the limits that were chosen cannot be read: give --retention and --retention-bytes");
    report.limits_damaged = true;
    if err.kind() != io::ErrorKind::InvalidData {
        return Known::Unreadable;
    }
    match directory.disk().rename(path, &keep_damaged(path)) {
        Ok(()) => Known::Missing,
        Err(_) => Known::Unreadable,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::embedded::content::Unreadable;
    use crate::embedded::span::Level;

    #[test]
    fn limits_are_chosen_once() {
        let folder = tempfile::tempdir().unwrap();
        let directory = Directory::lock(folder.path()).unwrap();
        let content = Content::default();
        let mut report = RecoveryReport::default();
        let mut choose = |content: &Content, flags: &RetentionFlags| {
            let chosen = choose(&directory, content, flags, &mut report).unwrap();
            (chosen, std::mem::take(&mut report).limits_damaged)
        };
        let first = choose(&content, &RetentionFlags::default()).0;
        assert_eq!(first.age_ms, Some(30 * DAY_MS));
        assert!(first.bytes_max.is_some_and(|bytes| bytes > 0));
        let again = choose(&content, &RetentionFlags::default());
        assert_eq!(again, (first.clone(), false));
        let flags = RetentionFlags {
            bytes_max: Some(7),
            ..RetentionFlags::default()
        };
        let by_flag = choose(&content, &flags).0;
        assert_eq!((by_flag.age_ms, by_flag.bytes_max), (first.age_ms, Some(7)));

        // Not even one digit of a damaged file is believed, and nothing is evicted by defaults.
        let mut filled = Content::default();
        let span = Level::Hour.span_of(0);
        filled.note_unreadable(&directory, "x".into(), span, 1, "for the test");
        let path = folder.path().join("default").join(FILE);
        let damaged = fs::read_to_string(&path).unwrap().replacen('9', "8", 1);
        fs::write(&path, damaged.replacen('2', "1", 1)).unwrap();
        let none = choose(&filled, &RetentionFlags::default());
        assert_eq!(
            (none.0.age_ms, none.0.bytes_max, none.1),
            (None, None, true)
        );
        assert!(keep_damaged(&path).exists());
    }

    /// Check that a directory of an earlier version has no limit, and tells what a new one would evict.
    #[test]
    fn what_a_new_directory_would_evict_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let directory = Directory::lock(folder.path()).unwrap();
        let mut content = Content::default();
        let now_ms = now_ms();
        for (name, age_ms, bytes) in [("a", 40 * DAY_MS, 5), ("b", 31 * DAY_MS, 7), ("c", 0, 11)] {
            let found = Unreadable {
                span: Level::Hour.span_of(now_ms - age_ms),
                bytes,
                windows: 1,
                reason: "damaged".to_owned(),
            };
            content.unreadable.insert(name.into(), found);
        }
        let mut report = RecoveryReport::default();
        let flags = RetentionFlags::default();
        let retention = choose(&directory, &content, &flags, &mut report).unwrap();
        let kept = describe_kept(&content, &retention);
        let beyond = BeyondDefaults {
            age_ms: 30 * DAY_MS,
            files: 2,
            bytes: 12,
        };
        assert_eq!((kept.bytes, kept.beyond_defaults), (23, Some(beyond)));
        let flags = RetentionFlags {
            age_ms: Some(DAY_MS),
            ..RetentionFlags::default()
        };
        let retention = choose(&directory, &content, &flags, &mut report).unwrap();
        let kept = describe_kept(&content, &retention);
        assert_eq!((kept.age_ms, kept.beyond_defaults), (Some(DAY_MS), None));
    }
}
