//! The files of a store: names, lock, and free space.
//!
//! ```text
//! lock, ballast          of the server
//! catalog/               a catalog of a newer schema, so that servers of earlier versions refuse the directory
//! default/segments/      columnar segments
//! default/log/           the logs of blocks that are no segments yet
//! default/replacements/  of files by others, see `replace`
//! default/catalog/       sled
//! default/old/           files of earlier versions, until they are converted
//! default/old-catalog/   of an earlier version, until its reports of nodes were taken
//! ```

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Error, Result, bail};
use rustix::fs::{FallocateFlags, FlockOperation, fallocate, flock};
use rustix::process::geteuid;
use tracing::{info, warn};

use super::catalog::Catalog;
use super::disk::{Disk, RealDisk};
use super::replace;

/// Size of a file that is removed when the server starts on a full disk, since another program may have filled it. The catalog is
/// opened only if sled can write half a MiB; this is enough for some starts.
const BALLAST_BYTES: u64 = 4 << 20;

/// Folder of the profiles.
pub const FOLDER: &str = "default";

/// Folder of segments, below that.
pub const SEGMENTS: &str = "segments";

/// Folder of logs.
pub const LOGS: &str = "log";

/// Folder of files of earlier versions.
pub const OLD: &str = "old";

/// Catalog of an earlier version.
const OLD_CATALOG: &str = "old-catalog";

/// The directory of a store, locked against a second server.
pub struct Directory {
    root: PathBuf,
    path: PathBuf,
    lock: File,
    disk: Arc<dyn Disk>,
}

impl Drop for Directory {
    /// Unlocks the file itself: a child process that has not executed its program yet still has the descriptor open.
    fn drop(&mut self) {
        if let Err(err) = flock(&self.lock, FlockOperation::Unlock) {
            warn!(path = %self.root.display(), %err, "failed to unlock the data directory");
        }
    }
}

impl Directory {
    /// Creates the directory if needed, and locks it. Files of earlier versions get their new place.
    ///
    /// # Errors
    /// It cannot be created or written, or another server has it.
    pub fn lock(root: &Path) -> Result<Self> {
        Self::lock_on(Arc::new(RealDisk), root)
    }

    /// As [`Self::lock`], with the files of profiles on another disk.
    ///
    /// # Errors
    /// As [`Self::lock`].
    pub fn lock_on(disk: Arc<dyn Disk>, root: &Path) -> Result<Self> {
        let user = geteuid().as_raw();
        fs::create_dir_all(root).map_err(|err| {
            let reason = explain_denied(root, &err, user);
            Error::new(err).context(format!("failed to create `{}`{reason}", root.display()))
        })?;
        let lock_path = root.join("lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path);
        let lock = lock.map_err(|err| {
            let reason = explain_denied(root, &err, user);
            Error::new(err).context(format!("failed to open `{}`{reason}", lock_path.display()))
        })?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let root = root.display();
                bail!(
                    "another server uses the data directory `{root}`: stop it, or choose another with --data-dir"
                )
            }
            Err(err) => {
                return Err(err)
                    .with_context(|| format!("failed to lock `{}`", lock_path.display()));
            }
        }
        let directory = Self {
            root: root.to_owned(),
            path: root.join(FOLDER),
            lock,
            disk,
        };
        directory.free_ballast();
        directory.make_folders().map_err(|err| {
            let reason = err
                .downcast_ref()
                .map(|err| explain_denied(root, err, user));
            let reason = reason.unwrap_or_default();
            err.context(format!("failed to prepare `{}`{reason}", root.display()))
        })?;
        Ok(directory)
    }

    fn make_folders(&self) -> Result<()> {
        if !self.path.exists() {
            self.make_first()
                .context("failed to make the folder of profiles")?;
        }
        for name in [SEGMENTS, LOGS, OLD, replace::FOLDER] {
            self.disk.create_folder(&self.path.join(name))?;
        }
        self.move_old()?;
        self.disk.sync_folder(&self.path)?;
        Ok(RealDisk.sync_folder(&self.root)?)
    }

    /// Makes the folder of profiles, with the place of the catalog taken: a server of an earlier version would begin a new one there.
    /// Each step is done once, also if the server is killed between them.
    fn make_first(&self) -> Result<()> {
        let new = self.root.join(format!("{FOLDER}.new"));
        let (taken, old) = (new.join("taken"), new.join(OLD_CATALOG));
        let catalog = self.root.join("catalog");
        fs::create_dir_all(&new)?;
        if !taken.exists() {
            Catalog::open(&taken)?.flush()?;
        }
        if catalog.exists() && !old.exists() {
            fs::rename(&catalog, &old)?;
        }
        if !catalog.exists() {
            fs::rename(&taken, &catalog)?;
        }
        RealDisk.sync_folder(&self.root)?;
        Ok(fs::rename(&new, &self.path)?)
    }

    /// Moves the segments of earlier versions to their place.
    fn move_old(&self) -> io::Result<()> {
        let before = self.root.join("segments");
        if !before.exists() {
            return Ok(());
        }
        for hour in RealDisk.list(&before)? {
            let (Some(name), true) = (hour.file_name(), hour.is_dir()) else {
                continue;
            };
            let place = self.path.join(OLD).join(name);
            fs::create_dir_all(&place)?;
            for file in RealDisk.list(&hour)? {
                if let Some(name) = file.file_name() {
                    fs::rename(&file, place.join(name))?;
                }
            }
            RealDisk.sync_folder(&place)?;
            fs::remove_dir(&hour)?;
        }
        // Other files are not ours.
        drop(fs::remove_dir(&before));
        Ok(())
    }

    /// Path of the catalog of an earlier version, until its content was taken.
    pub fn old_catalog_path(&self) -> PathBuf {
        self.path.join(OLD_CATALOG)
    }

    /// Path of the catalog.
    pub fn catalog_path(&self) -> PathBuf {
        self.path.join("catalog")
    }

    /// The disk with the files of profiles.
    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// The folder of the profiles.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory that was configured.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The names of the files in a folder of the profiles.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn list_names(&self, folder: &str) -> Result<Vec<String>> {
        let path = self.path.join(folder);
        let files = self.disk.list(&path);
        let files = files.with_context(|| format!("failed to read `{}`", path.display()))?;
        let names = files.iter().filter_map(|file| file.file_name()?.to_str());
        Ok(names.map(str::to_owned).collect())
    }

    /// Files of earlier versions whose names end like this.
    ///
    /// # Errors
    /// A folder cannot be read.
    pub fn list_old(&self, end: &str) -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for hour in self.disk.list(&self.path.join(OLD))? {
            let files = match self.disk.list(&hour) {
                // It is not ours.
                Err(err) if err.kind() == io::ErrorKind::NotADirectory => continue,
                files => files?.into_iter(),
            };
            found.extend(files.filter(|file| file.to_string_lossy().ends_with(end)));
        }
        found.sort();
        Ok(found)
    }

    /// Removes the folder of an hour of an earlier version, if it is empty now.
    pub fn tidy_old(&self, file: &Path) {
        let hour = file.parent();
        let hour = hour.filter(|hour| hour.parent() == Some(&self.path.join(OLD)));
        if let Some(hour) = hour {
            let _other_files = self.disk.remove_folder(hour);
        }
    }

    /// Frees the ballast if the disk is full, so that the stored profiles can be shown.
    fn free_ballast(&self) {
        let free = self.free_and_size_bytes();
        if free.is_ok_and(|(free_bytes, _)| free_bytes < BALLAST_BYTES)
            && fs::remove_file(self.ballast_path()).is_ok()
        {
            warn!(path = %self.ballast_path().display(), "the disk is full: removed a file that was kept for this start");
        }
    }

    /// Makes the ballast for the next start, if the disk has room for it above the reserve.
    pub fn make_ballast(&self, reserve_bytes: u64) {
        let free = self.free_and_size_bytes();
        let has_room = free.is_ok_and(|(free_bytes, _)| {
            free_bytes >= reserve_bytes.saturating_add(2 * BALLAST_BYTES)
        });
        let path = self.ballast_path();
        if !has_room || path.exists() {
            return;
        }
        let made = File::create(&path)
            .and_then(|file| Ok(fallocate(&file, FallocateFlags::empty(), 0, BALLAST_BYTES)?));
        if let Err(err) = made {
            // Some file systems cannot reserve blocks.
            info!(path = %path.display(), %err, "failed to make the file that a start on a full disk removes");
            drop(fs::remove_file(&path));
        }
    }

    fn ballast_path(&self) -> PathBuf {
        self.root.join("ballast")
    }

    /// Bytes of the file system: free for the server's user, and in all.
    ///
    /// # Errors
    /// The file system does not say.
    pub fn free_and_size_bytes(&self) -> io::Result<(u64, u64)> {
        self.disk.space(&self.root)
    }
}

/// The reason for a denied access to the data directory, if it belongs to another user than the server's, and its remedy. Empty
/// otherwise.
fn explain_denied(path: &Path, err: &io::Error, user: u32) -> String {
    if err.kind() != io::ErrorKind::PermissionDenied {
        return String::new();
    }
    let owner = fs::metadata(path).ok().map(|found| found.uid());
    let other = owner.filter(|owner| *owner != user);
    other.map_or_else(String::new, |owner| {
        format!(
            ", since `{}` belongs to user {owner} and the server runs as user {user}; give it to that user with chown (in Kubernetes, \
             volumes that ignore fsGroup, such as hostPath and some NFS, need `server.initChown` of the chart)",
            path.display()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that a denied access to another user's directory has the reason, and that other errors are left alone.
    #[test]
    fn a_denied_access_is_explained() {
        let folder = tempfile::tempdir().unwrap();
        let owner = fs::metadata(folder.path()).unwrap().uid();
        let explain = |kind: io::ErrorKind, user| explain_denied(folder.path(), &kind.into(), user);
        let denied = explain(io::ErrorKind::PermissionDenied, owner + 1);
        let reason = format!(
            "belongs to user {owner} and the server runs as user {}",
            owner + 1
        );
        assert!(denied.contains(&reason), "{denied}");
        assert_eq!(explain(io::ErrorKind::PermissionDenied, owner), "");
        assert_eq!(explain(io::ErrorKind::NotFound, owner + 1), "");
    }

    /// Check that a directory can be locked again while a child process has a copy of the descriptor.
    #[test]
    fn a_dropped_directory_is_unlocked() {
        let folder = tempfile::tempdir().unwrap();
        let directory = Directory::lock(folder.path()).unwrap();
        assert!(Directory::lock(folder.path()).is_err());
        let _of_a_child = directory.lock.try_clone().unwrap();
        drop(directory);
        Directory::lock(folder.path()).unwrap();
    }

    /// Check that the files of an earlier version get their place, from each step at which a server may have been killed.
    #[test]
    fn files_of_earlier_versions_are_moved() {
        for step in 0..5 {
            let root = tempfile::tempdir().unwrap();
            let path = |name: &str| root.path().join(name);
            let hour = path("segments/2026-11-22T02");
            fs::create_dir_all(&hour).unwrap();
            fs::write(hour.join("01ARZ3NDEKTSV4RRFFQ69G5FAV.seg"), "old").unwrap();
            fs::create_dir(path("catalog")).unwrap();
            fs::write(path("catalog/db"), "old").unwrap();
            if step >= 1 {
                fs::create_dir_all(path("default.new/taken")).unwrap();
                fs::write(path("default.new/taken/db"), "new").unwrap();
            }
            if step >= 2 {
                fs::rename(path("catalog"), path("default.new/old-catalog")).unwrap();
            }
            if step >= 3 {
                fs::rename(path("default.new/taken"), path("catalog")).unwrap();
            }
            if step >= 4 {
                fs::rename(path("default.new"), path("default")).unwrap();
            }
            let directory = Directory::lock(root.path()).unwrap();
            let old = directory.list_old(".seg").unwrap();
            assert_eq!(old.len(), 1);
            assert_eq!(fs::read(&old[0]).unwrap(), b"old");
            assert_eq!(fs::read(path("default/old-catalog/db")).unwrap(), b"old");
            assert!(!path("segments").exists() && !path("default.new").exists());
            assert!(path("catalog").is_dir());
        }
    }
}
