//! The files that compilers write of their code, as far as they were read; the child's side.

use std::fs::File;
use std::iter;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::{Duration, Instant};

use sandbox::FileRoot;
use symbolize::Frame;
use symbolize::jit::{CodeAt, CodeName, GrowingFile, JitFormat, split_script_name};

use super::super::answers::Answers;
use super::super::confine::open_descriptor;
use crate::clock::monotonic_ns;
use crate::file::UnnamedReason;

/// Files held. A node has a few processes with a compiler; each file takes up to 26 MB (see `code`), most 2 to 10, and
/// the child forgets all when it holds too much.
const OPEN_FILES_MAX: usize = 16;
/// An open file keeps its file system busy, so one that is not asked about is closed, and read again when it is.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// A question about the code of one process.
pub(in super::super) struct JitRequest<'a> {
    /// The collector's number of the process and format; never used for another.
    pub(in super::super) file: u64,
    pub(in super::super) format: JitFormat,
    /// The file, unless it is gone.
    pub(in super::super) opened: Option<OwnedFd>,
    /// Addresses in the process.
    pub(in super::super) addresses: &'a [u64],
    /// When each was sampled first and last; without, the newest code counts.
    pub(in super::super) times: &'a [(u64, u64)],
}

/// The files of all processes.
pub(in super::super) struct JitFiles {
    root: FileRoot,
    open: Vec<OpenFile>,
}

struct OpenFile {
    number: u64,
    /// Device and inode: another file is read from its start.
    identity: (u64, u64),
    file: File,
    contents: GrowingFile,
    used: Instant,
}

impl JitFiles {
    pub(in super::super) fn new(root: FileRoot) -> Self {
        let open = Vec::new();
        Self { root, open }
    }

    /// Names `request.addresses` into `answers`, one answer for each.
    pub(in super::super) fn name(&mut self, request: JitRequest<'_>, answers: &mut Answers) {
        let JitRequest {
            addresses, times, ..
        } = request;
        let open = match self.open(request) {
            Ok(open) => open,
            Err(reason) => {
                addresses.iter().for_each(|_| answers.push_unnamed(reason));
                return;
            }
        };
        open.used = Instant::now();
        let is_read = open.read_new();
        let is_whole = is_read && !open.contents.code().is_full();
        let times = times
            .iter()
            .copied()
            .chain(iter::repeat((u64::MAX, u64::MAX)));
        for (address, (first_ns, last_ns)) in addresses.iter().zip(times) {
            match open.contents.find_between(*address, first_ns, last_ns) {
                CodeAt::Same(name) => push_named(&name, answers),
                CodeAt::Changed => answers.push_unnamed(UnnamedReason::Replaced),
                CodeAt::None if is_whole => answers.push_unnamed(UnnamedReason::Anonymous),
                CodeAt::None => answers.push_unnamed(UnnamedReason::Limit),
            }
        }
    }

    /// Closes those that nobody has asked about for a while.
    pub(in super::super) fn close_idle(&mut self) {
        self.open.retain(|file| file.used.elapsed() <= IDLE_MAX);
    }

    /// Forgets all files; they are read again when they come again.
    pub(in super::super) fn forget(&mut self) {
        self.open.clear();
    }

    fn open(&mut self, request: JitRequest<'_>) -> Result<&mut OpenFile, UnnamedReason> {
        let known = self
            .open
            .iter()
            .position(|open| open.number == request.file);
        let Some(descriptor) = request.opened else {
            return known
                .map(|place| &mut self.open[place])
                .ok_or(UnnamedReason::FileGone);
        };
        // The descriptor is not one to read from.
        let file = open_descriptor(self.root, &descriptor)?;
        let metadata = file.metadata().map_err(|_| UnnamedReason::FileGone)?;
        let identity = (metadata.dev(), metadata.ino());
        if let Some(index) = known {
            if self.open[index].identity == identity {
                return Ok(&mut self.open[index]);
            }
            self.open.swap_remove(index);
        }
        if self.open.len() >= OPEN_FILES_MAX {
            let used = |(_, open): &(usize, &OpenFile)| open.used;
            let oldest = self.open.iter().enumerate().min_by_key(used);
            if let Some((index, _)) = oldest {
                self.open.swap_remove(index);
            }
        }
        Ok(self.open.push_mut(OpenFile {
            number: request.file,
            identity,
            file,
            contents: GrowingFile::new(request.format),
            used: Instant::now(),
        }))
    }
}

impl OpenFile {
    /// Reads what was added. `false`: there is more.
    fn read_new(&mut self) -> bool {
        let size = self.file.metadata().map_or(0, |metadata| metadata.len());
        let file = &self.file;
        self.contents.set_time(monotonic_ns());
        self.contents
            .read_new(size, |out, at| file.read_at(out, at))
    }
}

fn push_named(code: &CodeName<'_>, answers: &mut Answers) {
    let name = String::from_utf8_lossy(code.name);
    let mut found = Frame {
        file: String::from_utf8_lossy(code.file).into_owned(),
        line: code.line,
        ..Frame::bare(name.clone().into_owned())
    };
    if let Some((function, file, line)) = split_script_name(&name) {
        found.symbol = function.to_owned();
        found.start_line = line;
        if code.file.is_empty() {
            found.file = file.to_owned();
            found.line = line;
        }
    }
    answers.push_named(&[found]);
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Check that files which nobody asks about are closed, and read again when somebody does; the others stay.
    #[test]
    fn idle_files_are_closed() {
        let mut files = JitFiles::new(FileRoot::Everything);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("map");
        fs::write(&path, "1000 100 name\n").unwrap();
        let ask = |files: &mut JitFiles, file, opened: Option<OwnedFd>| {
            let request = JitRequest {
                file,
                format: JitFormat::PerfMap,
                opened,
                addresses: &[0x1000],
                times: &[],
            };
            let mut answers = Answers::default();
            files.name(request, &mut answers);
            answers.strings.iter().any(|string| string == "name")
        };
        let open = || Some(File::open(&path).unwrap().into());
        assert!(ask(&mut files, 1, open()) && ask(&mut files, 2, open()));
        files.close_idle();
        files.open[0].used -= IDLE_MAX;
        files.close_idle();
        assert!(!ask(&mut files, 1, None) && ask(&mut files, 2, None));
        assert_eq!(files.open.len(), 1);
        assert!(ask(&mut files, 1, open()));
    }
}
