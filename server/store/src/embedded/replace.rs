//! Replaces files by others, all or none, also when the server is killed at any moment.
//!
//! New files are written under a name that ends in `.tmp`, and synced. A *list* (JSON) of the new and the old files is synced next: from
//! then on the new ones count. They get their names, the old ones are removed, and then the list is. A start finishes what the lists
//! say that it finds, and removes other `.tmp` files.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tracing::{error, warn};
use ulid::Ulid;

use super::disk::Disk;
use super::files::{
    self, decode_checked, encode_checked, ignore_missing, is_unfinished, keep_damaged, unfinished,
    write_whole,
};

/// Folder of the lists, below the folder of profiles.
pub const FOLDER: &str = "replacements";

/// Files that take the place of others. Paths are relative to the directory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replacement {
    /// The new files, by their final names.
    pub new: Vec<PathBuf>,
    /// The files that they replace.
    pub old: Vec<PathBuf>,
}

/// A replacement that counts. Its new files may still have their [unfinished] names, and its old ones may be there.
#[must_use = "it is to be finished"]
pub struct Committed {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    replacement: Replacement,
    list: PathBuf,
    /// Whether a start after a crash finds the list.
    is_durable: bool,
}

impl Replacement {
    /// Makes it count. The new files were synced under their [unfinished] names.
    ///
    /// # Errors
    /// The disk failed. Nothing counts, also after a crash.
    pub fn commit(self, disk: &Arc<dyn Disk>, directory: &Path) -> io::Result<Committed> {
        // A list that is found must find the files.
        sync_folders(&**disk, directory, &self.new)?;
        let mut committed = self.without_list(disk, directory);
        committed.is_durable = false;
        let Err(err) = committed.write_list() else {
            return Ok(committed);
        };
        match disk.remove(&committed.list) {
            Err(removing) if removing.kind() == io::ErrorKind::NotFound => Err(err),
            removed => match removed.and_then(|()| disk.sync_folder(&directory.join(FOLDER))) {
                Ok(()) => Err(err),
                // A crash may bring it back, so it counts.
                Err(_) => Ok(committed),
            },
        }
    }

    /// Makes it count without a list, for files that are removed on a disk that has no room for one. A crash may leave some of them.
    pub fn without_list(self, disk: &Arc<dyn Disk>, directory: &Path) -> Committed {
        Committed {
            disk: Arc::clone(disk),
            directory: directory.to_owned(),
            list: directory.join(FOLDER).join(format!("{}.json", Ulid::new())),
            replacement: self,
            is_durable: true,
        }
    }
}

impl Committed {
    fn write_list(&mut self) -> io::Result<()> {
        write_whole(&self.disk, &self.list, &encode_checked(&self.replacement)?)?;
        self.is_durable = true;
        Ok(())
    }

    /// Does what is not done yet. When this returns, the new files have their names, durably.
    ///
    /// # Errors
    /// The disk failed. It can be called again; if it is not, the next start does the rest.
    pub fn finish(&mut self) -> io::Result<()> {
        if !self.is_durable {
            self.write_list()?;
        }
        let Self {
            disk, directory, ..
        } = self;
        let Replacement { new, old } = &self.replacement;
        for path in new {
            let path = directory.join(path);
            ignore_missing(disk.rename(&unfinished(&path), &path))?;
        }
        sync_folders(&**disk, directory, new)?;
        for path in old {
            ignore_missing(disk.remove(&directory.join(path)))?;
        }
        sync_folders(&**disk, directory, old)?;
        ignore_missing(disk.remove(&self.list))
    }
}

fn sync_folders(disk: &dyn Disk, directory: &Path, paths: &[PathBuf]) -> io::Result<()> {
    let mut folders: Vec<&Path> = paths.iter().filter_map(|path| path.parent()).collect();
    folders.sort_unstable();
    folders.dedup();
    folders
        .iter()
        .try_for_each(|folder| disk.sync_folder(&directory.join(folder)))
}

/// Result of finishing the replacements of an earlier run.
#[derive(Default)]
pub struct Finished {
    /// Replacements that were finished.
    pub replacements: Vec<Replacement>,
    /// Lists that could not be read: both the new and the old files may be there.
    pub damaged_lists: u64,
    /// Files that did not count, and were removed.
    pub removed: u64,
}

/// Finishes the replacements of an earlier run, and removes files that do not count, from these folders.
///
/// # Errors
/// The disk failed.
pub fn finish_all(
    disk: &Arc<dyn Disk>,
    directory: &Path,
    folders: &[&str],
) -> io::Result<Finished> {
    let folder = directory.join(FOLDER);
    let mut finished = Finished::default();
    // Sorted by their time.
    for list in disk.list(&folder)? {
        if is_unfinished(&list) {
            disk.remove(&list)?;
            continue;
        }
        if list.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        match decode_checked::<Replacement>(&files::read(&**disk, &list)?) {
            Ok(replacement) => {
                let mut committed = replacement.clone().without_list(disk, directory);
                committed.list = list;
                committed.finish()?;
                finished.replacements.push(replacement);
            }
            Err(err) => {
                error!(%err, path = %list.display(), "a list of replaced files is damaged, keeping it");
                disk.rename(&list, &keep_damaged(&list))?;
                finished.damaged_lists += 1;
            }
        }
    }
    for folder in folders {
        for path in disk.list(&directory.join(folder))? {
            if is_unfinished(&path) {
                warn!(path = %path.display(), "removing an unfinished file");
                disk.remove(&path)?;
                finished.removed += 1;
            }
        }
    }
    Ok(finished)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::embedded::disk::RealDisk;

    fn disk() -> Arc<dyn Disk> {
        Arc::new(RealDisk)
    }

    fn write(path: &Path, text: &str) {
        fs::write(path, text).unwrap();
    }

    fn files(directory: &Path) -> Vec<String> {
        let files = disk().list(&directory.join("segments")).unwrap();
        let names = files.iter().filter_map(|path| path.file_name());
        names
            .map(|name| name.to_string_lossy().into_owned())
            .collect()
    }

    /// The numbers of finished replacements and of removed files.
    fn finish(directory: &Path) -> (usize, u64) {
        let finished = finish_all(&disk(), directory, &["segments"]).unwrap();
        (finished.replacements.len(), finished.removed)
    }

    /// A directory before a replacement of `a` and `b` by `c`.
    fn prepare() -> (tempfile::TempDir, Replacement) {
        let directory = tempfile::tempdir().unwrap();
        let segments = directory.path().join("segments");
        fs::create_dir(&segments).unwrap();
        fs::create_dir(directory.path().join(FOLDER)).unwrap();
        assert_eq!(finish(directory.path()), (0, 0));
        for name in ["a", "b"] {
            write(&segments.join(name), name);
        }
        write(&unfinished(&segments.join("c")), "c");
        let paths = |names: &[&str]| {
            let paths = names.iter().map(|name| Path::new("segments").join(name));
            paths.collect()
        };
        let replacement = Replacement {
            new: paths(&["c"]),
            old: paths(&["a", "b"]),
        };
        (directory, replacement)
    }

    #[test]
    fn files_are_replaced() {
        let (directory, replacement) = prepare();
        let mut committed = replacement.commit(&disk(), directory.path()).unwrap();
        assert_eq!(files(directory.path()), ["a", "b", "c.tmp"]);
        for _ in 0..2 {
            committed.finish().unwrap();
            assert_eq!(files(directory.path()), ["c"]);
        }
        assert_eq!(finish(directory.path()), (0, 0));
    }

    /// Check that a replacement that was stopped before it counted leaves the old files, and is finished from any point after.
    #[test]
    fn replacements_are_finished_or_undone() {
        let (directory, _) = prepare();
        assert_eq!(finish(directory.path()), (0, 1));
        assert_eq!(files(directory.path()), ["a", "b"]);

        for step in 0..4 {
            let (directory, replacement) = prepare();
            let (root, segments) = (directory.path(), directory.path().join("segments"));
            let path = root.join(FOLDER).join("1.json");
            fs::write(&path, encode_checked(&replacement).unwrap()).unwrap();
            if step > 0 {
                fs::rename(unfinished(&segments.join("c")), segments.join("c")).unwrap();
            }
            for name in ["a", "b"].iter().take(usize::max(step, 1) - 1) {
                fs::remove_file(segments.join(name)).unwrap();
            }
            assert_eq!(finish(root), (1, 0), "{step}");
            assert_eq!(files(root), ["c"]);
            assert!(!path.exists());
        }
    }
}
