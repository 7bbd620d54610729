//! The last policy that was read, in the cache directory.
//!
//! | line | contents |
//! | --- | --- |
//! | 1 | `# Pilotlight's last policy, revision REVISION of SOURCE` |
//! | others | its text |
//!
//! The revision is a hash of the text: one that was damaged by a crash, or is of another source, is not used.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use super::state::revision_of;
use crate::private_folder::make_private_folder;

/// Bytes to read: a policy has 64 KiB at most.
const FILE_BYTES_MAX: u64 = 128 * 1024;

/// The file.
#[derive(Clone, Debug)]
pub(super) struct LastPolicy {
    path: PathBuf,
    /// For people, and to tell policies of different sources apart.
    source: String,
}

impl LastPolicy {
    pub(super) fn new(cache_dir: &Path, source: &str) -> Self {
        Self {
            path: cache_dir.join("policy.yaml"),
            source: source.to_owned(),
        }
    }

    fn first_line(&self, revision: &str) -> String {
        let source = self.source.replace('\n', " ");
        format!("# Pilotlight's last policy, revision {revision} of {source}\n")
    }

    /// The text that was written last; `None` if there is none, or it is of another source or damaged.
    pub(super) fn read(&self) -> io::Result<Option<String>> {
        let mut text = String::new();
        match File::open(&self.path) {
            Ok(file) => file.take(FILE_BYTES_MAX).read_to_string(&mut text)?,
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(err) => return Err(err),
        };
        let end = text.find('\n').map_or(text.len(), |end| end + 1);
        let (first, text) = text.split_at(end);
        let is_whole = first == self.first_line(&revision_of(text));
        Ok(is_whole.then(|| text.to_owned()))
    }

    /// Writes a policy in the place of the one before.
    pub(super) fn write(&self, revision: &str, text: &str) -> io::Result<()> {
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        make_private_folder(folder).map_err(io::Error::other)?;
        let unfinished = self.path.with_extension("new");
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(&unfinished)?;
        file.write_all(self.first_line(revision).as_bytes())?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&unfinished, &self.path)?;
        File::open(folder)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that what was written is read, and neither what is damaged nor what another source had.
    #[test]
    fn the_last_policy_of_its_source() {
        let directory = tempfile::tempdir().unwrap();
        let cache = directory.path().join("cache");
        let last = LastPolicy::new(&cache, "file /a");
        assert_eq!(last.read().unwrap(), None);
        let text = "rules: []\n# end\n";
        last.write(&revision_of("before"), "before").unwrap();
        last.write(&revision_of(text), text).unwrap();
        assert_eq!(last.read().unwrap().as_deref(), Some(text));
        assert_eq!(LastPolicy::new(&cache, "file /b").read().unwrap(), None);
        let whole = fs::read_to_string(&last.path).unwrap();
        fs::write(&last.path, &whole[..whole.len() - 1]).unwrap();
        assert_eq!(last.read().unwrap(), None);
        fs::write(&last.path, "").unwrap();
        assert_eq!(last.read().unwrap(), None);
    }
}
