//! The files of a store: names, lock, free space, and the few operations on segments.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock, statvfs};
use ulid::Ulid;

use super::block::Block;
use super::segment;

/// The directory of a store, locked against a second server.
pub struct Directory {
    path: PathBuf,
    _lock: File,
}

impl Directory {
    /// Makes the directory if it is not there, and locks it.
    ///
    /// # Errors
    /// It cannot be made or written, or another server has it.
    pub fn lock(path: &Path) -> Result<Self> {
        let segments = path.join("segments");
        fs::create_dir_all(&segments)
            .with_context(|| format!("failed to create `{}`", segments.display()))?;
        let lock_path = path.join("lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path);
        let lock = lock.with_context(|| format!("failed to open `{}`", lock_path.display()))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self {
                path: path.to_owned(),
                _lock: lock,
            }),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let path = path.display();
                bail!(
                    "another server uses the data directory `{path}`: stop it, or choose another with --data-dir"
                )
            }
            Err(err) => {
                Err(err).with_context(|| format!("failed to lock `{}`", lock_path.display()))
            }
        }
    }

    /// Where the catalog is.
    pub fn catalog_path(&self) -> PathBuf {
        self.path.join("catalog")
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file of a segment.
    pub fn segment_path(&self, block: Block, id: Ulid) -> PathBuf {
        self.path
            .join("segments")
            .join(block.to_string())
            .join(format!("{id}.seg"))
    }

    /// All segment files, the oldest first; ULIDs sort by time.
    ///
    /// # Errors
    /// A folder cannot be read.
    pub fn list_segments(&self) -> Result<Vec<(Ulid, PathBuf)>> {
        let root = self.path.join("segments");
        let mut found = Vec::new();
        let read = |path: &Path| {
            fs::read_dir(path).with_context(|| format!("failed to read `{}`", path.display()))
        };
        for block in read(&root)? {
            let block = block
                .with_context(|| format!("failed to read `{}`", root.display()))?
                .path();
            if !block.is_dir() {
                continue;
            }
            for file in read(&block)? {
                let path = file
                    .with_context(|| format!("failed to read `{}`", block.display()))?
                    .path();
                let is_segment = path.extension().is_some_and(|extension| extension == "seg");
                let id = path
                    .file_stem()
                    .and_then(|stem| Ulid::from_string(stem.to_str()?).ok());
                if let (true, Some(id)) = (is_segment, id) {
                    found.push((id, path));
                }
            }
        }
        found.sort();
        Ok(found)
    }

    /// Makes a segment file with its header; its name is durable when this returns.
    ///
    /// # Errors
    /// The disk failed or is full; no file is left then.
    pub fn create_segment(&self, block: Block, id: Ulid) -> io::Result<File> {
        let path = self.segment_path(block, id);
        let folder = path.parent().unwrap_or(&self.path);
        if !folder.exists() {
            fs::create_dir_all(folder)?;
            sync_folder(&self.path.join("segments"))?;
        }
        let file = OpenOptions::new()
            .create_new(true)
            .read(true)
            .write(true)
            .open(&path)?;
        let written = file
            .write_all_at(&segment::encode_header(block), 0)
            .and_then(|()| file.sync_all());
        if let Err(err) = written.and_then(|()| sync_folder(folder)) {
            // The header may be half there: a segment without one would be called damaged at the next start.
            let _ = fs::remove_file(&path);
            return Err(err);
        }
        Ok(file)
    }

    /// Bytes that are free for the server's user.
    ///
    /// # Errors
    /// The file system does not say.
    pub fn free_bytes(&self) -> io::Result<u64> {
        let stat = statvfs(&self.path)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}
