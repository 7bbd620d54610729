//! Files and processes for tests of naming.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use collector::file::{ElfFile, FileKey, Inode, MappedBy, UnnamedReason};
use collector::name::{CpuBudget, Namer, NamerOptions, Naming, Object};

/// Options for this build's child, without limits on its time.
pub(crate) fn options() -> NamerOptions {
    NamerOptions {
        program: env!("CARGO_BIN_EXE_pilotlight-collector").into(),
        failures_at_once: u32::MAX,
        // The child is not optimized here, and shares the processors with other tests.
        request_time: Duration::from_secs(60),
        window_time: Duration::MAX,
        cpu: CpuBudget::UNLIMITED,
        ..NamerOptions::default()
    }
}

/// A namer with [`options`].
pub(crate) fn namer() -> Namer {
    Namer::new(options())
}

/// A line of a `maps` file.
pub(crate) struct Mapping {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) offset: u64,
    pub(crate) is_code: bool,
    pub(crate) inode: Inode,
    pub(crate) path: String,
}

/// The mappings of a process.
pub(crate) fn mappings(pid: u32) -> Vec<Mapping> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    maps.lines().map(parse_mapping).collect()
}

fn parse_mapping(line: &str) -> Mapping {
    let hex = |text: &str| u64::from_str_radix(text, 16).unwrap();
    let mut words = line.split_ascii_whitespace();
    let mut word = || words.next().unwrap();
    let (start, end) = word().split_once('-').unwrap();
    let permissions = word();
    let offset = word();
    let (major, minor) = word().split_once(':').unwrap();
    Mapping {
        start: hex(start),
        end: hex(end),
        offset: hex(offset),
        is_code: permissions.contains('x'),
        inode: Inode {
            device: rustix::fs::makedev(hex(major) as u32, hex(minor) as u32),
            number: word().parse().unwrap(),
        },
        path: words.collect::<Vec<_>>().join(" "),
    }
}

/// A key that is unique in this test run.
pub(crate) fn new_key() -> FileKey {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    FileKey::Place(u128::from(NEXT.fetch_add(1, Ordering::Relaxed)))
}

/// A file as described by the record of a mapping.
pub(crate) fn mapped_file(pid: u32, mapping: &Mapping) -> ElfFile {
    ElfFile {
        key: new_key(),
        path: mapping.path.clone().into(),
        build_id: None,
        inode: Some(mapping.inode),
        candidates: vec![MappedBy {
            pid,
            parent: 0,
            start: mapping.start,
            end: mapping.end,
        }],
        held: None,
    }
}

/// A file that no process maps.
pub(crate) fn unmapped_file(path: &Path) -> ElfFile {
    let stat = fs::metadata(path).unwrap();
    ElfFile {
        key: new_key(),
        path: path.into(),
        build_id: None,
        inode: Some(Inode {
            device: stat.dev(),
            number: stat.ino(),
        }),
        candidates: Vec::new(),
        held: None,
    }
}

/// The object for naming addresses in a file.
pub(crate) fn object(file: ElfFile) -> Object {
    Object::Elf(Arc::new(file))
}

/// The file and offset of an address in this process.
pub(crate) fn locate(address: u64) -> (ElfFile, u64) {
    let pid = std::process::id();
    let mapping = mappings(pid)
        .into_iter()
        .find(|mapping| (mapping.start..mapping.end).contains(&address))
        .unwrap();
    let offset = address - mapping.start + mapping.offset;
    (mapped_file(pid, &mapping), offset)
}

/// Names of the functions at an address, the innermost first, or the reason.
pub(crate) fn functions(naming: &Naming) -> Vec<String> {
    if let Some(reason) = naming.unnamed() {
        return vec![format!("unnamed: {}", reason.as_str())];
    }
    let Naming::Named(frames) = naming else {
        return Vec::new();
    };
    frames
        .iter()
        .map(|frame| frame.function.to_string())
        .collect()
}

/// The common reason of all of these.
pub(crate) fn reason(namings: &[Naming]) -> UnnamedReason {
    let mut reasons = namings.iter().map(|naming| match naming.unnamed() {
        Some(reason) => reason,
        None => panic!("named: {namings:?}"),
    });
    let first = reasons.next().unwrap();
    assert!(reasons.all(|reason| reason == first), "{namings:?}");
    first
}

/// Time after which a test that waits for a condition fails; no machine needs as long.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Waits for a condition.
pub(crate) fn until(what: &str, mut is_reached: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !is_reached() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A compiled C program.
pub(crate) struct Program {
    pub(crate) path: PathBuf,
}

impl Program {
    /// Compiles a program with debug information, in which `function` waits for
    /// signals, called inline by a function that is called by `main`.
    pub(crate) fn compile(path: PathBuf, function: &str) -> Self {
        let source = format!(
            "#include <unistd.h>\n\
             __attribute__((noinline)) void {function}(void) {{ for (;;) pause(); }}\n\
             static inline __attribute__((always_inline)) void inlined(int n) {{\n\
             \x20 if (n) {function}();\n\
             }}\n\
             __attribute__((noinline)) int caller(int n) {{ inlined(n); return n * 3; }}\n\
             int main(int argc, char **argv) {{ return caller(argc); }}\n"
        );
        let file = path.with_extension("c");
        fs::write(&file, source).unwrap();
        let status = Command::new("cc")
            .args(["-g", "-O2", "-Wl,--build-id=sha1", "-o"])
            .args([&path, &file])
            .status()
            .unwrap();
        assert!(status.success());
        Self { path }
    }

    /// Offset of a symbol in the file, from `nm` and the program headers.
    pub(crate) fn offset_of(&self, symbol: &str) -> u64 {
        let output = Command::new("nm").arg(&self.path).output().unwrap();
        let symbols = String::from_utf8(output.stdout).unwrap();
        let line = symbols
            .lines()
            .find(|line| line.split(' ').nth(2) == Some(symbol));
        let address = line.unwrap().split(' ').next().unwrap();
        let address = u64::from_str_radix(address, 16).unwrap();
        let code = code_segment(&fs::read(&self.path).unwrap());
        address - code.address + code.offset
    }

    /// Starts the program, and waits until it runs.
    pub(crate) fn start(&self) -> Running {
        let child = Command::new(&self.path)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let running = Running(child);
        let path = self.path.to_str().unwrap();
        until("the program runs", || {
            mappings(running.pid())
                .iter()
                .any(|mapping| mapping.path == path)
                && mappings(running.pid()).len() > 5
        });
        running
    }
}

/// A process that is killed when dropped.
pub(crate) struct Running(pub(crate) Child);

impl Running {
    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// The file of the executable mapping with this path.
    pub(crate) fn code_file(&self, path: &Path) -> ElfFile {
        let path = path.to_str().unwrap();
        let mappings = mappings(self.pid());
        let code = mappings
            .iter()
            .find(|mapping| mapping.is_code && mapping.path.starts_with(path));
        mapped_file(self.pid(), code.unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A process that maps a file and holds a write lease on it.
pub(crate) fn lease(path: &Path) -> Running {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("lease");
    fs::write(program.with_extension("c"), LEASE).unwrap();
    let mut compiler = Command::new("cc");
    let compiler = compiler.arg("-o").arg(&program);
    let status = compiler.arg(program.with_extension("c")).status();
    assert!(status.unwrap().success());
    let mut command = Command::new(&program);
    let child = command.arg(path).stdout(Stdio::piped()).spawn();
    let mut running = Running(child.unwrap());
    let mut held = [0; 4];
    let output = running.0.stdout.as_mut().unwrap();
    output.read_exact(&mut held).expect("there is no lease");
    running
}

/// The kernel requests a lease back by a signal.
const LEASE: &str = "
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>
int main(int count, char **arguments) {
    signal(SIGIO, SIG_IGN);
    int file = open(arguments[1], O_RDWR);
    void *code = mmap(0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, file, 0);
    if (code == MAP_FAILED || fcntl(file, F_SETLEASE, F_WRLCK)) return 1;
    if (write(1, \"held\", 4) != 4) return 1;
    for (;;) pause();
}
";

/// The executable segment of a 64-bit ELF file.
pub(crate) struct CodeSegment {
    pub(crate) offset: u64,
    pub(crate) address: u64,
    pub(crate) bytes: u64,
}

/// Reads the program headers.
pub(crate) fn code_segment(file: &[u8]) -> CodeSegment {
    let word = |at: usize| u64::from_le_bytes(file[at..at + 8].try_into().unwrap());
    let header = (0..usize::from(file[56]))
        .map(|index| 64 + index * 56)
        .find(|at| file[*at] == 1 && file[*at + 4] & 1 != 0)
        .unwrap();
    CodeSegment {
        offset: word(header + 8),
        address: word(header + 16),
        bytes: word(header + 32),
    }
}
