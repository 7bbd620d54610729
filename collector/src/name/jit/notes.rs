//! The files that compilers write of their code, as far as they were read; the child's side.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::Instant;

use super::super::answers::{Answers, Found};
use super::super::confine::FileRoot;
use super::super::naming::UnnamedReason;
use super::super::protocol::JitFormat;
use super::code::CodeName;
use super::growing::GrowingFile;
use super::v8::split_script_name;

/// Files held. A node has a few processes with a compiler; each file takes up to 26 MB (see `code`), most 2 to 10, and
/// the child forgets all when it holds too much.
const OPEN_FILES_MAX: usize = 16;
/// A question about the code of one process.
pub(in super::super) struct JitRequest<'a> {
    /// The collector's number of the process and format; never used for another.
    pub(in super::super) file: u64,
    pub(in super::super) format: JitFormat,
    /// The file, unless it is gone.
    pub(in super::super) opened: Option<OwnedFd>,
    /// Addresses in the process.
    pub(in super::super) addresses: &'a [u64],
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
        let addresses = request.addresses;
        let Some(open) = self.open(request) else {
            let reason = UnnamedReason::FileGone;
            addresses.iter().for_each(|_| answers.push_unnamed(reason));
            return;
        };
        open.used = Instant::now();
        let is_read = open.read_new();
        let code = open.contents.code();
        for address in addresses {
            match code.find(*address) {
                Some(name) => push_named(&name, answers),
                None if code.is_full() || !is_read => answers.push_unnamed(UnnamedReason::Limit),
                None => answers.push_unnamed(UnnamedReason::Anonymous),
            }
        }
    }

    /// Forgets all files; they are read again when they come again.
    pub(in super::super) fn forget(&mut self) {
        self.open.clear();
    }

    fn open(&mut self, request: JitRequest<'_>) -> Option<&mut OpenFile> {
        let known = self.open.iter().position(|it| it.number == request.file);
        let Some(descriptor) = request.opened else {
            return self.open.get_mut(known?);
        };
        // The descriptor is not one to read from.
        let file = File::open(self.root.path_of(descriptor.as_raw_fd())).ok()?;
        let metadata = file.metadata().ok()?;
        let identity = (metadata.dev(), metadata.ino());
        if let Some(index) = known {
            if self.open[index].identity == identity {
                return self.open.get_mut(index);
            }
            self.open.swap_remove(index);
        }
        if self.open.len() >= OPEN_FILES_MAX {
            let oldest = self
                .open
                .iter()
                .enumerate()
                .min_by_key(|(_, open)| open.used);
            let index = oldest.map(|(index, _)| index)?;
            self.open.swap_remove(index);
        }
        self.open.push(OpenFile {
            number: request.file,
            identity,
            file,
            contents: GrowingFile::new(request.format),
            used: Instant::now(),
        });
        self.open.last_mut()
    }
}

impl OpenFile {
    /// Reads what was added. `false`: there is more.
    fn read_new(&mut self) -> bool {
        let size = self.file.metadata().map_or(0, |metadata| metadata.len());
        let file = &self.file;
        self.contents
            .read_new(size, |out, at| file.read_at(out, at))
    }
}

fn push_named(code: &CodeName<'_>, answers: &mut Answers) {
    let name = String::from_utf8_lossy(code.name);
    let mut found = Found {
        file: String::from_utf8_lossy(code.file).into_owned(),
        line: code.line,
        ..Found::bare(name.clone().into_owned())
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
