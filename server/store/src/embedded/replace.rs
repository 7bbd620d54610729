//! Replaces files by others, all or none, also when the server is killed at any moment.
//!
//! New files are written under a name that ends in `.tmp`, and synced. A *replacement* (JSON) that lists the new and the old files is
//! synced next: from then on the new ones count. They get their names, the old ones are removed, and then the replacement is. A start
//! finishes the replacements that it finds, and removes other `.tmp` files.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tracing::error;
use ulid::Ulid;

/// End of the names of files that do not count yet.
const UNFINISHED: &str = "tmp";

/// Folder of replacements.
const FOLDER: &str = "replacements";

/// Files that take the place of others. Paths are relative to the directory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replacement {
    /// The new files, by their final names.
    pub new: Vec<PathBuf>,
    /// The files that they replace.
    pub old: Vec<PathBuf>,
}

/// The name of a new file until it counts.
pub fn unfinished(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(UNFINISHED);
    name.into()
}

impl Replacement {
    /// Carries it out. The new files were synced under their [unfinished] names. When this returns, they have their names, durably.
    ///
    /// # Errors
    /// The disk failed. It is not known whether the replacement counts: the next start finishes it, or removes the new files.
    pub fn run(&self, directory: &Path) -> io::Result<()> {
        let folder = directory.join(FOLDER);
        let path = folder.join(format!("{}.json", Ulid::new()));
        let written = unfinished(&path);
        let mut file = File::create(&written)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.sync_all()?;
        fs::rename(&written, &path)?;
        sync_folder(&folder)?;
        self.finish(directory)?;
        fs::remove_file(&path)
    }

    /// Does what is not done yet.
    fn finish(&self, directory: &Path) -> io::Result<()> {
        for path in &self.new {
            let path = directory.join(path);
            ignore_missing(fs::rename(unfinished(&path), &path))?;
        }
        self.sync_folders(directory)?;
        for path in &self.old {
            ignore_missing(fs::remove_file(directory.join(path)))?;
        }
        self.sync_folders(directory)
    }

    fn sync_folders(&self, directory: &Path) -> io::Result<()> {
        let paths = self.new.iter().chain(&self.old);
        let mut folders: Vec<&Path> = paths.filter_map(|path| path.parent()).collect();
        folders.sort_unstable();
        folders.dedup();
        folders
            .iter()
            .try_for_each(|folder| sync_folder(&directory.join(folder)))
    }
}

/// End of the names of files that are kept since they are damaged.
pub const DAMAGED: &str = ".damaged";

/// The name under which a damaged file is kept.
pub fn keep_damaged(path: &Path) -> PathBuf {
    path.with_extension(&DAMAGED[1..])
}

/// Finishes the replacements of an earlier run, and removes files that do not count, from these folders. Returns the replacements, and the
/// number of files.
///
/// # Errors
/// The disk failed, or a replacement cannot be read.
pub fn finish_all(directory: &Path, folders: &[&str]) -> io::Result<(Vec<Replacement>, usize)> {
    let folder = directory.join(FOLDER);
    fs::create_dir_all(&folder)?;
    let mut unfinished = 0;
    let mut finished = Vec::new();
    for path in list(&folder)? {
        if is_unfinished(&path) {
            fs::remove_file(&path)?;
            continue;
        }
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        match serde_json::from_slice::<Replacement>(&fs::read(&path)?) {
            Ok(replacement) => {
                replacement.finish(directory)?;
                fs::remove_file(&path)?;
                finished.push(replacement);
            }
            Err(err) => {
                error!(%err, path = %path.display(), "a list of replaced files is damaged; both the new and the old files may be there");
                fs::rename(&path, keep_damaged(&path))?;
            }
        }
    }
    for folder in folders {
        for path in list(&directory.join(folder))? {
            if is_unfinished(&path) {
                fs::remove_file(&path)?;
                unfinished += 1;
            }
        }
    }
    Ok((finished, unfinished))
}

fn is_unfinished(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension == UNFINISHED)
}

fn list(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder)?;
    entries.map(|entry| Ok(entry?.path())).collect()
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Makes the names in a folder durable.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, text: &str) {
        fs::write(path, text).unwrap();
    }

    fn files(directory: &Path) -> Vec<String> {
        let mut files: Vec<String> = list(&directory.join("segments"))
            .unwrap()
            .iter()
            .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
            .collect();
        files.sort();
        files
    }

    /// The numbers of finished replacements and of removed files.
    fn finish(directory: &Path) -> (usize, usize) {
        let (finished, removed) = finish_all(directory, &["segments"]).unwrap();
        (finished.len(), removed)
    }

    /// A directory before a replacement of `a` and `b` by `c`.
    fn prepare() -> (tempfile::TempDir, Replacement) {
        let directory = tempfile::tempdir().unwrap();
        let segments = directory.path().join("segments");
        fs::create_dir(&segments).unwrap();
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
        replacement.run(directory.path()).unwrap();
        assert_eq!(files(directory.path()), ["c"]);
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
            write(&path, &serde_json::to_string(&replacement).unwrap());
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
