//! Room on the disk.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::StoreError;
use super::directory::Directory;

/// Watches the room on the store's disk.
///
/// Segments stop before the disk is full: the catalog must still be able to write what it knows, and sled does not
/// recover from a failed write before it is opened again.
pub struct Space {
    directory: Arc<Directory>,
    reserve_bytes: u64,
    /// What the last write wanted, if it was refused; 0 otherwise.
    refused_bytes: AtomicU64,
}

impl Space {
    /// Watches the disk of a directory, of which some bytes are kept for the catalog.
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
        let room = self.check_room(bytes);
        self.note_refused(if room.is_err() { bytes } else { 0 });
        room
    }

    /// Remembers that a write of some bytes found no room.
    pub fn note_refused(&self, bytes: u64) {
        self.refused_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Checks that a write like the last one would find room.
    ///
    /// # Errors
    /// It would not.
    pub fn check(&self) -> Result<(), StoreError> {
        self.check_room(self.refused_bytes.load(Ordering::Relaxed))
    }

    fn check_room(&self, bytes: u64) -> Result<(), StoreError> {
        let free = self.directory.free_bytes();
        let free =
            free.map_err(|err| StoreError::Failed(format!("failed to ask for free space: {err}")))?;
        if free >= self.reserve_bytes.saturating_add(bytes) {
            return Ok(());
        }
        let path = self.directory.path().display();
        Err(StoreError::DiskFull(format!(
            "`{path}` has {free} bytes left, of which {} are kept for the catalog",
            self.reserve_bytes
        )))
    }
}
