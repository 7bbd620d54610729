//! Free space of the disk.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::directory::Directory;
use crate::{DiskSpace, StoreError};

/// Watches the free space of the store's disk.
///
/// Segments stop before the disk is full: the catalog must still be able to flush, and sled does not recover from a
/// failed write before it is opened again.
pub struct Space {
    directory: Arc<Directory>,
    reserve_bytes: u64,
    /// Bytes of the last write if it was refused; 0 otherwise.
    refused_bytes: AtomicU64,
}

impl Space {
    /// Watches the disk of a directory, with some bytes reserved for the catalog.
    pub fn new(directory: Arc<Directory>, reserve_bytes: u64) -> Self {
        Self {
            directory,
            reserve_bytes,
            refused_bytes: AtomicU64::new(0),
        }
    }

    /// Checks that some bytes may be written.
    ///
    /// # Errors
    /// There is no room for them.
    pub fn take(&self, bytes: u64) -> Result<(), StoreError> {
        let room = self
            .read()
            .and_then(|space| self.check_room(space.has_room(bytes), space));
        self.note_refused(if room.is_err() { bytes } else { 0 });
        room
    }

    /// Checks that the catalog may grow without a window: by half of the reserve, so that windows can still follow.
    ///
    /// # Errors
    /// There is no room.
    pub fn check_catalog(&self) -> Result<(), StoreError> {
        let space = self.read()?;
        self.check_room(space.free_bytes >= space.reserve_bytes / 2, space)
    }

    /// Remembers that a write of some bytes found no room.
    pub fn note_refused(&self, bytes: u64) {
        self.refused_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Checks that a write like the last one would find room.
    ///
    /// # Errors
    /// It would not.
    pub fn check(&self, space: DiskSpace) -> Result<(), StoreError> {
        let bytes = self.refused_bytes.load(Ordering::Relaxed);
        self.check_room(space.has_room(bytes), space)
    }

    /// Asks the file system.
    ///
    /// # Errors
    /// It does not say.
    pub fn read(&self) -> Result<DiskSpace, StoreError> {
        let (free_bytes, size_bytes) = self
            .directory
            .free_and_size_bytes()
            .map_err(|err| StoreError::Failed(format!("failed to ask for free space: {err}")))?;
        Ok(DiskSpace {
            free_bytes,
            size_bytes,
            reserve_bytes: self.reserve_bytes,
        })
    }

    fn check_room(&self, has_room: bool, space: DiskSpace) -> Result<(), StoreError> {
        if has_room {
            return Ok(());
        }
        let path = self.directory.path().display();
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        Err(StoreError::DiskFull(format!(
            "`{path}` has {:.1} MiB free, and --reserve-bytes keeps {:.1} MiB for the catalog",
            mib(space.free_bytes),
            mib(space.reserve_bytes)
        )))
    }
}
