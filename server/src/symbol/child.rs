//! The converting child: the server's own program, started to make one index, that ends after it.
//!
//! In: the file as standard input, the index's file as standard output. Out: the index, and one line on standard error if
//! there is none. It may die of the file; the server then says so, and goes on.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::process::ExitCode;

use rustix::process::{
    DumpableBehavior, Resource, Rlimit, Signal, chdir, chroot, nice, set_dumpable_behavior,
    set_parent_process_death_signal, setrlimit,
};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities, set_no_new_privs};
use symbolic_common::ByteView;

use super::build_id::BuildId;
use super::convert::{ConvertError, FileRefusal, RefusalKind, convert};

/// First argument of the server's program that makes it a converting child; the others are the build id, where the file came
/// from, and [`ChildLimits`]. Not for people.
pub const CHILD_ARGUMENT: &str = "convert-child";

/// Descriptors: the three that it is given, and the few that the runtime opens.
const OPEN_FILES_MAX: u64 = 16;

/// What serves requests goes before what prepares names.
const NICE: i32 = 10;

/// What the child may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChildLimits {
    /// Private memory in bytes; the file itself is mapped and does not count. The kernel refuses more, and the child dies of it.
    pub data_bytes_max: u64,
    /// Seconds of processor time.
    pub cpu_seconds_max: u64,
    /// Bytes of the index.
    pub index_bytes_max: u64,
}

impl Default for ChildLimits {
    /// - 2 GiB of memory: 55 MiB of a Rust program with line tables take 74 MiB. Files with sections that are compressed
    ///   unfold in memory, and some GB of debug information make some hundred million rows. One child runs at a time.
    /// - 300 s: that file takes 10 s without optimization.
    /// - 1 GiB of index: that file has 32 MiB of it.
    fn default() -> Self {
        Self {
            data_bytes_max: 2 << 30,
            cpu_seconds_max: 300,
            index_bytes_max: 1 << 30,
        }
    }
}

/// Runs the child. `arguments` are those after [`CHILD_ARGUMENT`].
pub fn run_child(arguments: impl Iterator<Item = String>) -> ExitCode {
    // It was started as `/proc/self/exe`, and would be `exe` in profiles and in `ps`.
    let _ = rustix::thread::set_name(c"pilotlight-conv");
    let refusal = match serve(arguments) {
        Ok(()) => return ExitCode::SUCCESS,
        Err(ConvertError::Refused(refusal)) => refusal,
        Err(ConvertError::Io(err)) => FileRefusal::new(
            RefusalKind::Limit,
            format!("the index of this file could not be written: {err}"),
        ),
    };
    match serde_json::to_string(&refusal) {
        Ok(line) => eprintln!("{line}"),
        Err(err) => eprintln!("{err}"),
    }
    ExitCode::FAILURE
}

fn serve(mut arguments: impl Iterator<Item = String>) -> Result<(), ConvertError> {
    let usage = || io::Error::new(io::ErrorKind::InvalidInput, "is started by the server");
    let build_id: BuildId = arguments
        .next()
        .and_then(|text| text.parse().ok())
        .ok_or_else(usage)?;
    let origin = arguments.next().ok_or_else(usage)?;
    let mut number = || arguments.next()?.parse().ok();
    let (Some(data_bytes_max), Some(cpu_seconds_max), Some(index_bytes_max)) =
        (number(), number(), number())
    else {
        return Err(usage().into());
    };
    let limits = ChildLimits {
        data_bytes_max,
        cpu_seconds_max,
        index_bytes_max,
    };
    let source = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut index = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    confine(limits)?;
    let bytes = ByteView::map_file(source)?;
    convert(&bytes, &build_id, &origin, &mut index)?;
    index.sync_all()?;
    Ok(())
}

/// Gives up what is not needed: it has all of its files open.
fn confine(limits: ChildLimits) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // Best effort: a lower priority is a courtesy, and the others are a second wall.
    let _ = nice(NICE);
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    limit(Resource::Data, limits.data_bytes_max)?;
    // A little below the limit at which the kernel kills, so that the end says what it was of.
    let cpu_max = limits.cpu_seconds_max;
    setrlimit(
        Resource::Cpu,
        Rlimit {
            current: Some(cpu_max),
            maximum: Some(cpu_max.saturating_add(5)),
        },
    )?;
    limit(Resource::Fsize, limits.index_bytes_max)?;
    limit(Resource::Core, 0)?;
    limit(Resource::Nofile, OPEN_FILES_MAX)?;
    // `self` is resolved once, to this process: there are no files but the open ones.
    let _ = chroot("/proc/self/fd").and_then(|()| chdir("/"));
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, none)?;
    set_no_new_privs(true)?;
    Ok(())
}

fn limit(resource: Resource, max: u64) -> io::Result<()> {
    let limit = Rlimit {
        current: Some(max),
        maximum: Some(max),
    };
    Ok(setrlimit(resource, limit)?)
}
