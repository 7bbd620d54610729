//! The collectors that started before this one, through `/proc`.
//!
//! In: `/proc`. Out: their open executables, on which a collector that samples has a lock. Every process of this one's user or of root
//! whose executable has this one's file name counts, whatever its version; the naming child and the commands run the same file, and so
//! lead to the same lock. Others are not believed: their users could keep this collector from sampling for ever. Those that are could also
//! kill it.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File},
    io,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use crate::{
    process::ProcessList,
    procfs::{Stat, open_unleased},
};

/// Longest name in `/proc/PID/comm`: TASK_COMM_LEN in include/linux/sched.h, less its end.
const COMM_BYTES_MAX: usize = 15;

/// The user of root in the host's user namespace: in another one it is seen as another user.
const ROOT: u32 = 0;

/// The executable of another collector.
#[derive(Debug)]
pub(super) struct Executable {
    pub(super) pid: u32,
    pub(super) file: File,
}

/// A process, as far as it is compared with others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    /// File name of the executable.
    name: OsString,
    /// Its real user: a program with the setuid bit belongs to the user who started it.
    user: u32,
    /// A process of a container with a PID namespace of its own is no collector, whatever its name.
    pid_namespace: PathBuf,
    /// Start time and process id: the order of all processes.
    age: (u64, u32),
}

/// The executables of earlier collectors, and whether there may be others.
#[derive(Debug, Default)]
pub(super) struct Earlier {
    pub(super) executables: Vec<Executable>,
    /// A process with a collector's name could not be examined.
    pub(super) is_hidden: bool,
}

impl Identity {
    /// This process.
    pub(super) fn of_self() -> io::Result<Self> {
        Self::of(std::process::id())
    }

    fn of(pid: u32) -> io::Result<Self> {
        let folder = folder_of(pid);
        let stat = fs::read(folder.join("stat"))?;
        let stat = Stat::parse(&stat).ok_or(io::ErrorKind::InvalidData)?;
        let status = fs::read_to_string(folder.join("status"))?;
        Ok(Self {
            name: executable_name(&fs::read_link(folder.join("exe"))?),
            user: real_user(&status).ok_or(io::ErrorKind::InvalidData)?,
            pid_namespace: fs::read_link(folder.join("ns/pid"))?,
            age: (stat.start_ticks, pid),
        })
    }

    /// Whether this process is another one of the same kind that is believed, and started first.
    fn precedes(&self, own: &Self) -> bool {
        let is_alike = self.name == own.name && self.pid_namespace == own.pid_namespace;
        let is_believed = self.user == own.user || self.user == ROOT;
        is_alike && is_believed && self.age < own.age
    }
}

/// Finds the collectors that are earlier than `own`. Those that run the same file as this process are left out.
pub(super) fn find_earlier(own: &Identity) -> Earlier {
    let mut earlier = Earlier::default();
    let own_file = fs::metadata("/proc/self/exe").map(|file| (file.dev(), file.ino()));
    for pid in ProcessList::read().living.into_keys() {
        let examined = Identity::of(pid).and_then(|identity| {
            let precedes = identity.precedes(own);
            precedes
                .then(|| open_unleased(&folder_of(pid).join("exe")))
                .transpose()
        });
        match examined {
            Ok(Some(file)) => {
                let is_own = file
                    .metadata()
                    .is_ok_and(|found| own_file.as_ref().ok() == Some(&(found.dev(), found.ino())));
                if !is_own {
                    earlier.executables.push(Executable { pid, file });
                }
            }
            Ok(None) => {}
            Err(err) => {
                // Others have ended, or are threads of the kernel, which have no executable.
                let is_refused = err.kind() == io::ErrorKind::PermissionDenied;
                earlier.is_hidden |= is_refused && has_name(pid, &own.name);
            }
        }
    }
    earlier
}

fn folder_of(pid: u32) -> PathBuf {
    Path::new("/proc").join(pid.to_string())
}

/// The real user in a `/proc/PID/status`: the first number of the line `Uid:`.
fn real_user(status: &str) -> Option<u32> {
    let users = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    users.split_ascii_whitespace().next()?.parse().ok()
}

/// The file name in the target of `/proc/PID/exe`, which ends in ` (deleted)` when the file was replaced.
fn executable_name(target: &Path) -> OsString {
    let name = target.file_name().unwrap_or_default().as_bytes();
    let name = name.strip_suffix(b" (deleted)").unwrap_or(name);
    OsStr::from_bytes(name).to_owned()
}

/// Whether a process that may not be examined has this name, by what everybody may read.
fn has_name(pid: u32, name: &OsStr) -> bool {
    let name = name.as_bytes();
    let comm = &name[..name.len().min(COMM_BYTES_MAX)];
    fs::read(folder_of(pid).join("comm")).is_ok_and(|read| read.trim_ascii_end() == comm)
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;

    /// A process, killed when dropped.
    struct Sleeper(Child);

    impl Sleeper {
        fn start(program: &Path) -> Self {
            Self(Command::new(program).arg("60").spawn().unwrap())
        }
    }

    impl Drop for Sleeper {
        fn drop(&mut self) {
            self.0.kill().unwrap();
            self.0.wait().unwrap();
        }
    }

    /// Check that an earlier process with the same file name is found, with a file to lock, also when its file is replaced;
    /// that a later one is not, and none of another name or namespace.
    #[test]
    fn earlier_processes_of_one_kind() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("hand-over-test-program");
        fs::copy("/bin/sleep", &program).unwrap();
        let sleeper = Sleeper::start(&program);
        fs::remove_file(&program).unwrap();
        let pid = sleeper.0.id();
        let found = |own: &Identity| -> Vec<u32> {
            let earlier = find_earlier(own).executables;
            earlier.iter().map(|executable| executable.pid).collect()
        };
        let own = Identity {
            name: "hand-over-test-program".into(),
            age: (u64::MAX, 1),
            ..Identity::of_self().unwrap()
        };
        assert_eq!(found(&own), [pid]);
        for other in [
            Identity {
                age: Identity::of(pid).unwrap().age,
                ..own.clone()
            },
            Identity {
                name: "hand-over-test".into(),
                ..own.clone()
            },
            Identity {
                pid_namespace: "pid:[1]".into(),
                ..own.clone()
            },
        ] {
            assert_eq!(found(&other), [0_u32; 0], "{other:?}");
        }
    }

    /// Check that a process of another user is not waited for, unless it is root's.
    #[test]
    fn other_users_are_not_believed() {
        let own = Identity::of_self().unwrap();
        let of_user = |user| Identity {
            user,
            age: (0, 1),
            ..own.clone()
        };
        assert!(of_user(own.user).precedes(&own));
        assert!(of_user(ROOT).precedes(&own));
        assert!(!of_user(own.user + 1).precedes(&own));
        assert_eq!(own.user, rustix::process::getuid().as_raw());
        assert_eq!(real_user("Pid:\t9\nUid:\t1000\t0\t0\t0\n"), Some(1000));
        assert_eq!(real_user("Pid:\t9\n"), None);
    }

    /// Check that processes that run this program's own file are left out: the file has one lock.
    #[test]
    fn the_own_file_is_left_out() {
        let own = Identity {
            age: (u64::MAX, 1),
            ..Identity::of_self().unwrap()
        };
        let found = find_earlier(&own).executables;
        assert!(
            found
                .iter()
                .all(|executable| executable.pid != std::process::id()),
            "{found:?}"
        );
    }

    /// Check the names of files, replaced ones included.
    #[test]
    fn names() {
        for (target, name) in [
            ("/usr/bin/pilotlight-collector", "pilotlight-collector"),
            ("/a/pilotlight-collector (deleted)", "pilotlight-collector"),
            ("/", ""),
        ] {
            assert_eq!(executable_name(Path::new(target)), name);
        }
    }
}
