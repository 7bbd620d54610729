//! Small steps on files, of which the others are made.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tracing::warn;

use super::disk::{Disk, DiskFile};

/// End of the names of files that do not count yet. A start removes them.
const UNFINISHED: &str = "tmp";

/// End of the names of files that are kept since they are damaged.
pub const DAMAGED: &str = ".damaged";

/// The name of a new file until it counts.
pub fn unfinished(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(UNFINISHED);
    name.into()
}

/// Whether a file does not count yet.
pub fn is_unfinished(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension == UNFINISHED)
}

/// The name under which a damaged file is kept.
pub fn keep_damaged(path: &Path) -> PathBuf {
    path.with_extension(&DAMAGED[1..])
}

/// A new file under its [unfinished] name. The file is removed when this is dropped before [`keep`](Self::keep).
pub struct Unfinished {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    is_kept: bool,
}

impl Unfinished {
    /// Makes an empty file for this path.
    ///
    /// # Errors
    /// The disk failed.
    pub fn create(disk: &Arc<dyn Disk>, path: &Path) -> io::Result<(Self, Arc<dyn DiskFile>)> {
        // Before the file: a disk that fails may have made it.
        let guard = Self {
            disk: Arc::clone(disk),
            path: unfinished(path),
            is_kept: false,
        };
        let file = disk.create(&guard.path)?;
        Ok((guard, file))
    }

    /// Leaves the file where it is.
    pub fn keep(mut self) {
        self.is_kept = true;
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if self.is_kept {
            return;
        }
        if let Err(err) = ignore_missing(self.disk.remove(&self.path)) {
            warn!(%err, path = %self.path.display(), "failed to remove an unfinished file; the next start removes it");
        }
    }
}

/// Writes a file that is there whole or not at all, durably.
///
/// # Errors
/// The disk failed. The file may be there all the same if its folder could not be synced.
pub fn write_whole(disk: &Arc<dyn Disk>, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let (guard, file) = Unfinished::create(disk, path)?;
    write_all_at(&*file, bytes, 0)?;
    file.sync()?;
    disk.rename(&guard.path, path)?;
    guard.keep();
    match path.parent() {
        Some(folder) => disk.sync_folder(folder),
        None => Ok(()),
    }
}

/// Reads a whole file.
///
/// # Errors
/// The disk failed, or there is no such file.
pub fn read(disk: &dyn Disk, path: &Path) -> io::Result<Vec<u8>> {
    let file = disk.open(path)?;
    let length = usize::try_from(file.size()?).map_err(io::Error::other)?;
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// A value as JSON, and the CRC-32C of that in a line of its own: a flipped bit may make another valid value.
///
/// # Errors
/// The value cannot be encoded.
pub fn encode_checked<T: Serialize>(value: &T) -> io::Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(value)?;
    let crc = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(format!("\n{crc:08x}\n").as_bytes());
    Ok(bytes)
}

/// Reads what [`encode_checked`] wrote.
///
/// # Errors
/// The bytes are damaged.
pub fn decode_checked<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    let end = bytes.iter().position(|byte| *byte == b'\n');
    let (json, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
    if rest != format!("\n{:08x}\n", crc32c::crc32c(json)).as_bytes() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the checksum differs",
        ));
    }
    Ok(serde_json::from_slice(json)?)
}

/// Length of a file; 0 if it cannot be opened.
pub fn length(disk: &dyn Disk, path: &Path) -> u64 {
    disk.open(path)
        .and_then(|file| file.size())
        .unwrap_or_default()
}

/// Writes all bytes at a position.
///
/// # Errors
/// The disk failed. Some of the bytes may be written.
pub fn write_all_at(file: &dyn DiskFile, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write_at(bytes, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                bytes = &bytes[written..];
                offset += written as u64;
            }
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            Err(err) => return Err(err),
        }
    }
    Ok(())
}

/// Writes a file from its start to its end.
pub struct FileWriter {
    file: Arc<dyn DiskFile>,
    offset: u64,
}

impl FileWriter {
    /// At the start of a file.
    pub fn new(file: Arc<dyn DiskFile>) -> Self {
        Self { file, offset: 0 }
    }
}

impl Write for FileWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write_at(bytes, self.offset)?;
        self.offset += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Takes a missing file for a success.
///
/// # Errors
/// All others.
pub fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    ignore(result, io::ErrorKind::NotFound)
}

/// Takes a file that is there already for a success.
///
/// # Errors
/// All others.
pub fn ignore_existing(result: io::Result<()>) -> io::Result<()> {
    ignore(result, io::ErrorKind::AlreadyExists)
}

fn ignore(result: io::Result<()>, kind: io::ErrorKind) -> io::Result<()> {
    match result {
        Err(err) if err.kind() == kind => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::embedded::disk::RealDisk;

    /// Check that no flipped bit and no cut makes another value.
    #[test]
    fn damaged_values_are_refused() {
        let value = vec![vec!["segments/a", "segments/b"], vec!["segments/c"]];
        let bytes = encode_checked(&value).unwrap();
        let decode = |bytes: &[u8]| decode_checked::<Vec<Vec<String>>>(bytes);
        assert_eq!(decode(&bytes).unwrap(), value);
        for bit in 0..8 * bytes.len() {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&damaged).is_err(), "bit {bit}");
            assert!(decode(&bytes[..bit / 8]).is_err(), "cut at {}", bit / 8);
        }
    }

    /// Check that a file that is not finished leaves nothing, and that one that is written replaces another whole.
    #[test]
    fn files_are_written_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let path = folder.path().join("a.json");
        drop(Unfinished::create(&disk, &path).unwrap());
        assert_eq!(
            disk.list(folder.path()).unwrap(),
            [""; 0].map(PathBuf::from)
        );
        for text in ["long text", "text"] {
            write_whole(&disk, &path, text.as_bytes()).unwrap();
            assert_eq!(read(&*disk, &path).unwrap(), text.as_bytes());
        }
        // In the place of the file there is a folder.
        let taken = folder.path().join("b.json");
        fs::create_dir(&taken).unwrap();
        assert!(write_whole(&disk, &taken, b"text").is_err());
        assert_eq!(disk.list(folder.path()).unwrap(), [path, taken]);
    }
}
