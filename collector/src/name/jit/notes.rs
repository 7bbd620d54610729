//! The files that compilers write of their code, as far as they were read; the child's side.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::Instant;

use super::super::answers::{Answers, Found};
use super::super::confine::FileRoot;
use super::super::naming::UnnamedReason;
use super::super::protocol::JitFormat;
use super::code::{Code, CodeName};
use super::dump::JitDump;
use super::map::PerfMap;

/// Files held. A node has a few processes with a compiler; each file takes up to 26 MB (see `code`), most 2 to 10, and
/// the child forgets all when it holds too much.
const OPEN_FILES_MAX: usize = 16;
/// Bytes read at once: those of the longest record.
const CHUNK_BYTES: usize = 1 << 20;
/// Bytes read for one request: half a second. What is behind them is read for the next.
const READ_BYTES_MAX: u64 = 64 << 20;

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
    size: u64,
    position: u64,
    contents: Contents,
    used: Instant,
}

enum Contents {
    Map(PerfMap),
    Dump(JitDump),
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
        let code = open.code();
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
            size: 0,
            position: 0,
            contents: Contents::new(request.format),
            used: Instant::now(),
        });
        self.open.last_mut()
    }
}

impl OpenFile {
    /// Reads what was added; from the start if the file became shorter. `false`: there is more.
    fn read_new(&mut self) -> bool {
        let size = self.file.metadata().map_or(0, |metadata| metadata.len());
        if size < self.size {
            self.position = 0;
            self.contents.clear();
        }
        self.size = size;
        let end = self.position.saturating_add(READ_BYTES_MAX);
        let mut chunk =
            vec![0; usize::try_from(size).map_or(CHUNK_BYTES, |it| it.min(CHUNK_BYTES))];
        while self.position < size {
            if self.position >= end {
                return false;
            }
            let Ok(read) = self.file.read_at(&mut chunk, self.position) else {
                break;
            };
            let taken = self.contents.read(&chunk[..read]);
            if taken == 0 {
                break;
            }
            self.position = self.position.saturating_add(taken);
        }
        true
    }

    fn code(&self) -> &Code {
        match &self.contents {
            Contents::Map(map) => &map.code,
            Contents::Dump(dump) => &dump.code,
        }
    }
}

impl Contents {
    fn new(format: JitFormat) -> Self {
        match format {
            JitFormat::PerfMap => Self::Map(PerfMap::default()),
            JitFormat::Dump => Self::Dump(JitDump::default()),
        }
    }

    fn clear(&mut self) {
        *self = match self {
            Self::Map(_) => Self::new(JitFormat::PerfMap),
            Self::Dump(_) => Self::new(JitFormat::Dump),
        };
    }

    fn read(&mut self, bytes: &[u8]) -> u64 {
        match self {
            Self::Map(map) => map.read(bytes) as u64,
            Self::Dump(dump) => dump.read(bytes),
        }
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

/// Splits the names that V8 gives to functions of scripts, `JS:*name file:///a/b.js:12:34`, into function, file and line.
/// `None` where it is not certain which part is which.
fn split_script_name(name: &str) -> Option<(&str, &str, u32)> {
    const KINDS: [&str; 5] = ["JS:", "LazyCompile:", "Function:", "Script:", "Eval:"];
    if !KINDS.iter().any(|kind| name.starts_with(kind)) {
        return None;
    }
    let (function, place) = name.rsplit_once(' ')?;
    let (place, number) = split_number(place)?;
    let (file, line) = match split_number(place) {
        Some((file, line)) => (file, line),
        None => (place, number),
    };
    let is_whole = ["/", "file:", "node:"]
        .iter()
        .any(|start| file.starts_with(start));
    // With a slash before it, the path may have a space in it.
    (is_whole && !function.contains('/')).then_some((function, file, line))
}

fn split_number(text: &str) -> Option<(&str, u32)> {
    let (before, number) = text.rsplit_once(':')?;
    let is_number = number.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then_some((before, number.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check the names that Node 20 and older ones write, and such as could be read in two ways.
    #[test]
    fn script_names_are_split_where_that_is_certain() {
        for (name, expected) in [
            (
                "JS:*work file:///a/b.mjs:12:34",
                Some(("JS:*work", "file:///a/b.mjs", 12)),
            ),
            (
                "LazyCompile:~f /a/b.js:7",
                Some(("LazyCompile:~f", "/a/b.js", 7)),
            ),
            (
                "JS:~ node:internal/x:3:5",
                Some(("JS:~", "node:internal/x", 3)),
            ),
            ("JS:*get size /a.js:1:2", Some(("JS:*get size", "/a.js", 1))),
            ("JS:*f /a b/c.js:1:2", None),
            ("JS:*f /a /c.js:1:2", None),
            ("JS:*f", None),
            ("JS:*f /a.js", None),
            ("JS:*f /a.js:99999999999", None),
            ("Builtin:X /a.js:1", None),
            ("void f(int) /a.c:1", None),
        ] {
            assert_eq!(split_script_name(name), expected, "{name}");
        }
    }
}
