//! Names of the kernel, its modules and BPF programs, from `/proc/kallsyms`.
//!
//! In: addresses relative to `_text`. Out: functions without files. Reads again
//! when something new may have been loaded.
//!
//! Reading `/proc/kallsyms` takes 60 to 90 ms. It is read again when an address outside of the core
//! is unknown, after 5 s at first, each time twice as long, up to a minute while that helps and an
//! hour while it does not. The module's name behind a symbol makes it a binary, `[kernel] xfs`,
//! when the profile is built. BPF programs and trampolines have the names of perf's `ksymbol`
//! records, as of the time of the sample (`process/kernel_code.rs`). With `kernel.kptr_restrict`
//! the kernel gives zeros, and all its frames have the reason `permission`.

use std::fs::File;
use std::io::{self, BufReader, Seek};
use std::time::{Duration, Instant};

use symbolize::Frame;
use symbolize::kallsyms::{KernelSymbols, Lookup};

use super::answers::Answers;
use super::object::Readings;
use crate::clock::monotonic_ns;
use crate::file::UnnamedReason;

/// Reading takes 60 to 90 ms of CPU, most of it the kernel's. Half a window, since the kernel's turn comes sooner in one window
/// and later in the next: what was loaded is named when the first window with it is over.
const REREAD_FIRST: Duration = Duration::from_secs(5);
/// Each reading makes the next wait twice as long, up to this: on a node that loads BPF programs all the time they take 0.15 %
/// of a core ...
const REREAD_USEFUL_MAX: Duration = Duration::from_secs(60);
/// ... and longer while it does not help: once an hour is 0.002 %.
const REREAD_MAX: Duration = Duration::from_secs(3600);
/// After so many times what the next one had to wait for, things are quiet, and it begins anew.
const QUIET_WAITS: u32 = 10;
/// `/proc/kallsyms` gives at most a page for each read of less.
const READ_BYTES: usize = 64 << 10;

/// The kernel's symbols, read when first asked for.
pub(super) struct Kernel {
    /// Opened while it was still permitted: the kernel decides at the opening
    /// whether the addresses are shown.
    kallsyms: Option<File>,
    symbols: Option<Read>,
    /// Interval between two readings.
    reread_after: Duration,
}

struct Read {
    symbols: KernelSymbols,
    at: Instant,
    /// When it began and when it ended, nanoseconds of CLOCK_MONOTONIC.
    began_ns: u64,
    ended_ns: u64,
}

impl Kernel {
    /// `kallsyms` is `/proc/kallsyms`, or `None` if it could not be opened.
    pub(super) fn new(kallsyms: Option<File>) -> Self {
        Self {
            kallsyms,
            symbols: None,
            reread_after: REREAD_FIRST,
        }
    }

    /// Names `offsets` into `answers`, one answer for each: what lies outside of the core kernel only by such a reading.
    pub(super) fn name(&mut self, offsets: &[u64], readings: Readings, answers: &mut Answers) {
        if self.is_due(offsets, readings) {
            self.read_again(offsets);
        }
        let read = self
            .symbols
            .as_ref()
            .filter(|read| !read.symbols.is_hidden());
        let Some(read) = read else {
            let denied = UnnamedReason::Permission;
            return offsets.iter().for_each(|_| answers.push_unnamed(denied));
        };
        let symbols = &read.symbols;
        for offset in offsets {
            if !symbols.is_core(*offset) && read.began_ns < readings.since_ns {
                // It is too early for the next reading.
                answers.push_unnamed(UnnamedReason::Limit);
                continue;
            }
            if !symbols.is_core(*offset) && read.ended_ns > readings.until_ns {
                answers.push_unnamed(UnnamedReason::Replaced);
                continue;
            }
            match symbols.find(*offset) {
                Lookup::Function(symbol) => answers.push_named(&[Frame::bare(symbol.to_owned())]),
                Lookup::UnknownCore | Lookup::UnknownOutside => {
                    answers.push_unnamed(UnnamedReason::NoSymbol);
                }
            }
        }
    }

    fn is_due(&self, offsets: &[u64], readings: Readings) -> bool {
        let Some(read) = &self.symbols else {
            return true;
        };
        // Code that was loaded since is worth a reading, as a rule one of a window.
        let is_old = read.began_ns < readings.since_ns
            && offsets.iter().any(|offset| !read.symbols.is_core(*offset));
        (is_old && read.at.elapsed() >= REREAD_FIRST)
            || (read.at.elapsed() >= self.reread_after && is_lacking(&read.symbols, offsets))
    }

    fn read_again(&mut self, offsets: &[u64]) {
        let began_ns = monotonic_ns();
        // Freed before the next ones are read.
        let read_at = self.symbols.take().map(|before| before.at);
        let symbols = match self.read() {
            Ok(symbols) => symbols,
            Err(err) => {
                eprintln!("failed to read /proc/kallsyms: {err}");
                KernelSymbols::default()
            }
        };
        if let Some(read_at) = read_at {
            let longest = if is_lacking(&symbols, offsets) {
                REREAD_MAX
            } else {
                REREAD_USEFUL_MAX
            };
            self.reread_after = if read_at.elapsed() >= self.reread_after * QUIET_WAITS {
                REREAD_FIRST
            } else {
                (self.reread_after * 2).min(longest)
            };
        }
        self.symbols = Some(Read {
            symbols,
            at: Instant::now(),
            began_ns,
            ended_ns: monotonic_ns(),
        });
    }

    fn read(&mut self) -> io::Result<KernelSymbols> {
        let mut file = self
            .kallsyms
            .as_ref()
            .ok_or(io::ErrorKind::PermissionDenied)?;
        file.rewind()?;
        KernelSymbols::read(BufReader::with_capacity(READ_BYTES, file))
    }
}

/// Whether a reading later may name more of these addresses.
fn is_lacking(symbols: &KernelSymbols, offsets: &[u64]) -> bool {
    let is_unknown = |offset: &u64| symbols.find(*offset) == Lookup::UnknownOutside;
    symbols.is_hidden() || offsets.iter().any(is_unknown)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::naming::Naming;

    /// Check that a symbol which appears later is found, that it is not looked
    /// for too early, and less and less often while it does not appear.
    #[test]
    fn later_symbols_are_found() -> io::Result<()> {
        let path = std::env::temp_dir().join(format!("kallsyms-{}", std::process::id()));
        let core = "1000 T _text\n1000 T start\n2000 T _etext\n";
        std::fs::write(&path, core)?;
        let mut kernel = Kernel::new(Some(File::open(&path)?));
        let is_named = |kernel: &mut Kernel| {
            let mut answers = Answers::default();
            kernel.name(&[0x8000], Readings::ALL, &mut answers);
            let naming = answers.answers[0].to_naming(&answers.strings, |name| name.into());
            matches!(naming, Naming::Named(_))
        };
        assert!(!is_named(&mut kernel));
        let long_ago = |kernel: &mut Kernel, ago: Duration| {
            let read = kernel.symbols.as_mut().expect("it was read");
            read.at -= ago;
        };
        long_ago(&mut kernel, REREAD_FIRST);
        assert!(!is_named(&mut kernel));
        std::fs::write(&path, format!("{core}9000 t loaded [module]\n"))?;
        long_ago(&mut kernel, REREAD_FIRST);
        assert!(
            !is_named(&mut kernel),
            "it was looked for in vain just before"
        );
        long_ago(&mut kernel, REREAD_FIRST);
        assert!(is_named(&mut kernel));
        assert_eq!(kernel.reread_after, 4 * REREAD_FIRST);
        // Readings that help come each minute at most; those that do not, less and less often.
        let unknown = |kernel: &mut Kernel| {
            long_ago(kernel, kernel.reread_after);
            kernel.name(&[0x4_0000], Readings::ALL, &mut Answers::default());
            kernel.reread_after
        };
        let waits: Vec<u64> = (0..8).map(|_| unknown(&mut kernel).as_secs()).collect();
        assert_eq!(waits, [40, 80, 160, 320, 640, 1280, 2560, 3600]);
        std::fs::write(
            &path,
            format!("{core}9000 t loaded [module]\n40f00 t more [module]\n"),
        )?;
        assert_eq!(unknown(&mut kernel), REREAD_USEFUL_MAX);
        long_ago(&mut kernel, QUIET_WAITS * REREAD_USEFUL_MAX);
        kernel.name(&[0xf_0000], Readings::ALL, &mut Answers::default());
        assert_eq!(kernel.reread_after, REREAD_FIRST);
        std::fs::remove_file(&path)
    }

    /// Check that what lies outside of the core kernel is named by a reading of its time only, for which a new one is made,
    /// and the core by any.
    #[test]
    fn names_are_of_their_time() -> io::Result<()> {
        let path = std::env::temp_dir().join(format!("kallsyms-of-a-time-{}", std::process::id()));
        let text = |module: &str| {
            format!("1000 T _text\n1000 T start\n2000 T _etext\n9000 t f [{module}]\n")
        };
        std::fs::write(&path, text("old"))?;
        let mut kernel = Kernel::new(Some(File::open(&path)?));
        let name = |kernel: &mut Kernel, since_ns, until_ns| {
            let mut answers = Answers::default();
            let readings = Readings { since_ns, until_ns };
            kernel.name(&[0x10, 0x8000], readings, &mut answers);
            let named = answers.answers.iter().map(|answer| {
                match answer.to_naming(&answers.strings, |name| name.into()) {
                    Naming::Named(frames) => frames[0].function.to_string(),
                    naming => naming.unnamed().map_or("", UnnamedReason::as_str).into(),
                }
            });
            named.collect::<Vec<String>>()
        };
        assert_eq!(name(&mut kernel, 0, u64::MAX), ["start", "f [old]"]);
        std::fs::write(&path, text("new"))?;
        let loaded_ns = monotonic_ns();
        assert_eq!(name(&mut kernel, 0, u64::MAX), ["start", "f [old]"]);
        assert_eq!(name(&mut kernel, loaded_ns, u64::MAX), ["start", "limit"]);
        kernel.symbols.as_mut().expect("it was read").at -= REREAD_FIRST;
        assert_eq!(name(&mut kernel, 0, loaded_ns), ["start", "f [old]"]);
        assert_eq!(name(&mut kernel, loaded_ns, u64::MAX), ["start", "f [new]"]);
        assert_eq!(name(&mut kernel, 0, loaded_ns), ["start", "replaced"]);
        std::fs::remove_file(&path)
    }
}
