//! A file with a policy: read again when it changes.

use std::{
    io::{self, ErrorKind, Read as _},
    path::PathBuf,
    sync::mpsc,
    time::Duration,
};

use anyhow::Result;

use super::reader::{Failure, PolicyReader};
use crate::{file::FileStamp, procfs::open_unleased, threads::spawn};

/// Time between two looks at the file. A look is three system calls. The file is read when two looks have found it the same, so that one
/// that is being written is not taken for the whole: a change is in force after 2 s at most.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Bytes to read: one more than a policy may have, 64 KiB, is refused by its size.
const READ_BYTES_MAX: u64 = 64 * 1024 + 1;

/// Follows the file.
#[derive(Debug)]
pub(super) struct PolicyFile {
    path: PathBuf,
    reader: PolicyReader,
    /// The last look, and whether it was taken.
    seen: Result<FileStamp, ErrorKind>,
    is_taken: bool,
}

impl PolicyFile {
    /// Reads the file for the first time, as it is.
    pub(super) fn new(path: PathBuf, reader: PolicyReader) -> Self {
        let mut file = Self {
            path,
            reader,
            seen: Err(ErrorKind::NotFound),
            is_taken: false,
        };
        file.seen = file.look();
        file.read();
        file
    }

    /// Starts the thread `policy`. It ends when the result is dropped.
    pub(super) fn follow(mut self) -> Result<mpsc::Sender<()>> {
        let (stop, stopped) = mpsc::channel();
        spawn("policy", move || {
            while stopped.recv_timeout(LOOK_INTERVAL) == Err(mpsc::RecvTimeoutError::Timeout) {
                self.follow_once();
            }
        })?;
        Ok(stop)
    }

    fn follow_once(&mut self) {
        let found = self.look();
        if found != self.seen {
            self.seen = found;
            self.is_taken = false;
        } else if !self.is_taken {
            self.read();
        }
    }

    fn look(&self) -> Result<FileStamp, ErrorKind> {
        let file = open_unleased(&self.path).map_err(|err| err.kind())?;
        FileStamp::of(file).ok_or(ErrorKind::Unsupported)
    }

    fn read(&mut self) {
        self.is_taken = true;
        let path = self.path.display();
        match self.read_text() {
            Ok(text) => self.reader.take(&text),
            Err(err) if err.kind() == ErrorKind::NotFound => self.reader.fail(
                Failure::Missing,
                &format!("there is no file `{path}` (--policy-file); a file with `default: allow` profiles everything"),
            ),
            Err(err) => self.reader.fail(
                Failure::Unreadable,
                &format!("failed to read `{path}` (--policy-file): {err}"),
            ),
        }
    }

    fn read_text(&self) -> io::Result<String> {
        let file = open_unleased(&self.path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("it is no regular file"));
        }
        let mut text = String::new();
        file.take(READ_BYTES_MAX).read_to_string(&mut text)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;
    use crate::{
        metrics::Stats,
        policy::{PolicyNow, PolicyState, SourceState},
        readiness::Readiness,
    };

    /// Check that a changed file is read once it stays the same, also a file in its place, and that one that is gone, is no file or
    /// is too large leaves the last policy in force.
    #[test]
    fn changes_are_followed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("policy.yaml");
        fs::write(&path, "host: deny").unwrap();
        let reader = PolicyReader {
            source: "file".into(),
            state: PolicyState::unread(),
            readiness: Readiness::default(),
            stats: Stats::default(),
            last: None,
        };
        let state = reader.state.clone();
        let mut file = PolicyFile::new(path.clone(), reader);
        let denies = || match state.now() {
            PolicyNow::Known(known) => (known.policy.denies_host(), known.policy.denies_pods()),
            PolicyNow::None | PolicyNow::Unread => panic!("no policy"),
        };
        let failing = || match state.source() {
            SourceState::Failing(text) => text,
            SourceState::Current => String::new(),
        };
        assert_eq!(denies(), (true, false));
        fs::write(&path, "default: deny").unwrap();
        file.follow_once();
        assert_eq!(denies(), (true, false));
        file.follow_once();
        assert_eq!(denies(), (false, true));

        fs::remove_file(&path).unwrap();
        file.follow_once();
        file.follow_once();
        assert!(failing().starts_with("there is no file"), "{}", failing());
        assert_eq!(denies(), (false, true));
        let owner = Mode::RUSR | Mode::WUSR;
        mknodat(CWD, &path, FileType::Fifo, owner, 0).unwrap();
        file.follow_once();
        file.follow_once();
        assert!(failing().contains("it is no regular file"), "{}", failing());
        fs::remove_file(&path).unwrap();
        fs::write(&path, "#".repeat(70_000)).unwrap();
        file.follow_once();
        file.follow_once();
        assert!(failing().contains("65537 bytes"), "{}", failing());

        let new = directory.path().join("new");
        fs::write(&new, "host: deny").unwrap();
        fs::rename(&new, &path).unwrap();
        file.follow_once();
        file.follow_once();
        assert_eq!((denies(), failing()), ((true, false), String::new()));
    }
}
