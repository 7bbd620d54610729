//! A lock on an open file, which the kernel releases when the process ends.

use std::{
    fs::{File, TryLockError},
    io,
};

/// A file to lock, and what is said of the process that has it locked.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
    /// The holder, as in "waits for … to stop".
    pub(super) holder: String,
}

impl Lock {
    pub(super) fn new(file: File, holder: String) -> Self {
        Self { file, holder }
    }

    /// Locks the file, unless another process has it locked. Returns whether it is locked now.
    pub(super) fn try_take(&self) -> io::Result<bool> {
        match self.file.try_lock() {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(err)) => Err(err),
        }
    }

    /// Unlocks the file itself, not only this descriptor: a child that has not executed its program yet has a copy.
    pub(super) fn release(&self) {
        if let Err(err) = self.file.unlock() {
            tracing::warn!(%err, "failed to unlock a file of the hand-over; the end of this process does");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that a file is locked once, until it is released or closed.
    #[test]
    fn one_holder() {
        let folder = tempfile::tempdir().unwrap();
        let open = || {
            let file = File::create(folder.path().join("lock")).unwrap();
            Lock::new(file, "another".into())
        };
        let (first, second) = (open(), open());
        assert!(first.try_take().unwrap());
        assert!(!second.try_take().unwrap());
        first.release();
        assert!(second.try_take().unwrap());
        drop(second);
        assert!(first.try_take().unwrap());
    }
}
