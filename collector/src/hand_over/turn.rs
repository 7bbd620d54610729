//! The locks that a collector takes, in their order, before it samples.
//!
//! | lock | what it does |
//! | --- | --- |
//! | own executable, kept | later collectors find it as `/proc/PID/exe` |
//! | executables of earlier collectors, given back at once | one that samples has its own locked |
//! | `sampling.lock` in `--cache-dir`, kept | collectors that cannot see each other in `/proc` |
//!
//! Both ways are used together, so that they work in a roll-out that adds or takes away the directory. A collector waits for earlier
//! ones only and takes the shared lock last, so that no two wait for each other.

use std::{
    fs::OpenOptions,
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use super::{
    earlier::{Earlier, Identity, find_earlier},
    lock::Lock,
};
use crate::{private_folder::make_private_folder, procfs::open_unleased};

/// Name of the shared lock.
const LOCK_FILE: &str = "sampling.lock";

/// The consequence if other collectors cannot be seen. Without a hand-over, two collectors sampled together for 0.55 and 0.68 s.
const RISK: &str = "in a roll-out up to 0.7 s may be sampled twice";

/// The right to sample this node.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    steps: Vec<Step>,
    /// Steps that are done.
    done: usize,
}

#[derive(Debug)]
struct Step {
    lock: Lock,
    /// Whether this collector has the lock while it samples.
    is_kept: bool,
}

impl Turn {
    /// Opens the files to lock, and finds the earlier collectors. A turn without any files (by default) can be taken at once.
    pub(crate) fn prepare(cache_dir: Option<&Path>) -> Self {
        let mut steps = Vec::new();
        let sees_others = match find_collectors() {
            Ok((own, earlier)) => {
                steps.push(Step {
                    lock: own,
                    is_kept: true,
                });
                let locks = earlier.executables.into_iter().map(|executable| {
                    let holder = format!("process {}", executable.pid);
                    Lock::new(executable.file, holder)
                });
                steps.extend(locks.map(|lock| Step {
                    lock,
                    is_kept: false,
                }));
                !earlier.is_hidden && !is_alone()
            }
            Err(err) => {
                tracing::debug!(err = format!("{err:#}"), "no locks on executables");
                false
            }
        };
        let shared = cache_dir.map(open_lock_file).transpose();
        match shared {
            Ok(Some(lock)) => steps.push(Step {
                lock,
                is_kept: true,
            }),
            Ok(None) if sees_others => {}
            Ok(None) => tracing::warn!(
                "cannot see whether another collector samples this node: {RISK}; set --cache-dir to a directory \
                 of the node, or grant hostPID and CAP_SYS_PTRACE"
            ),
            Err(err) if sees_others => {
                tracing::debug!(err = format!("{err:#}"), "no lock in --cache-dir");
            }
            Err(err) => tracing::warn!(
                err = format!("{err:#}"),
                "cannot see whether another collector samples this node: {RISK}; make --cache-dir usable, \
                 or grant hostPID and CAP_SYS_PTRACE"
            ),
        }
        Self { steps, done: 0 }
    }

    /// Takes the turn. If another collector has it: who that is.
    pub(crate) fn try_take(&mut self) -> Result<(), &str> {
        while let Some(step) = self.steps.get(self.done) {
            match step.lock.try_take() {
                Ok(true) if !step.is_kept => step.lock.release(),
                Ok(true) => {}
                Ok(false) => return Err(&step.lock.holder),
                Err(err) => {
                    tracing::warn!(%err, holder = step.lock.holder, "failed to lock: {RISK}");
                }
            }
            self.done += 1;
        }
        Ok(())
    }

    /// Lets the next collector sample.
    pub(crate) fn release(self) {
        for step in &self.steps[..self.done] {
            step.lock.release();
        }
    }
}

fn find_collectors() -> Result<(Lock, Earlier)> {
    let own = Identity::of_self().context("failed to read /proc/self")?;
    let path = Path::new("/proc/self/exe");
    let file = open_unleased(path).context("failed to open /proc/self/exe")?;
    let shown = path.read_link().unwrap_or_else(|_| PathBuf::from(path));
    let lock = Lock::new(file, format!("one that runs `{}`", shown.display()));
    Ok((lock, find_earlier(&own)))
}

/// Whether this is the first process of its PID namespace, as in a container that does not share the node's.
fn is_alone() -> bool {
    std::process::id() == 1
}

/// The shared lock's file, which only this user can open.
fn open_lock_file(folder: &Path) -> Result<Lock> {
    make_private_folder(folder)?;
    let path = folder.join(LOCK_FILE);
    let file: io::Result<_> = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&path);
    let file = file.with_context(|| format!("failed to open `{}`", path.display()))?;
    let holder = format!("one that has locked `{}`", path.display());
    Ok(Lock::new(file, holder))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(folder: &Path, steps: &[(&str, bool)]) -> Turn {
        let step = |(name, is_kept): &(&str, bool)| {
            let file = OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .open(folder.join(name));
            Step {
                lock: Lock::new(file.unwrap(), (*name).to_owned()),
                is_kept: *is_kept,
            }
        };
        Turn {
            steps: steps.iter().map(step).collect(),
            done: 0,
        }
    }

    /// Check that collectors take turns in the order of their age, each after the one before has given its turn back, and that
    /// none waits for a later one.
    #[test]
    fn turns_by_age() {
        let folder = tempfile::tempdir().unwrap();
        let mut a = turn(folder.path(), &[("a", true), ("shared", true)]);
        let steps = [("b", true), ("a", false), ("shared", true)];
        let mut b = turn(folder.path(), &steps);
        let steps = [("c", true), ("a", false), ("b", false), ("shared", true)];
        let mut c = turn(folder.path(), &steps);
        assert_eq!(a.try_take(), Ok(()));
        assert_eq!(b.try_take(), Err("a"));
        assert_eq!(c.try_take(), Err("a"));
        a.release();
        // The latest asks first, and waits for the one between.
        assert_eq!(c.try_take(), Err("b"));
        assert_eq!(b.try_take(), Ok(()));
        assert_eq!(c.try_take(), Err("b"));
        b.release();
        assert_eq!(c.try_take(), Ok(()));
    }

    /// Check that a collector with the directory and one without it exclude each other, and that collectors without a common
    /// way to see each other are excluded by the directory.
    #[test]
    fn either_lock_suffices() {
        let folder = tempfile::tempdir().unwrap();
        let mut old = turn(folder.path(), &[("old", true)]);
        let steps = [("new", true), ("old", false), ("shared", true)];
        let mut new = turn(folder.path(), &steps);
        assert_eq!(old.try_take(), Ok(()));
        assert_eq!(new.try_take(), Err("old"));
        drop(old);
        assert_eq!(new.try_take(), Ok(()));
        let mut blind = turn(folder.path(), &[("blind", true), ("shared", true)]);
        assert_eq!(blind.try_take(), Err("shared"));
        new.release();
        assert_eq!(blind.try_take(), Ok(()));
    }

    /// Check that the lock's directory may belong to nobody else.
    #[test]
    fn the_directory_is_private() {
        let folder = tempfile::tempdir().unwrap();
        let lock = open_lock_file(&folder.path().join("new/cache")).unwrap();
        assert!(lock.try_take().unwrap());
        rustix::fs::chmod(folder.path(), 0o777.into()).unwrap();
        let refused = open_lock_file(folder.path()).unwrap_err();
        assert!(refused.to_string().contains("no other may write to"));
    }

    /// Check that a second turn of one program waits, whatever its directory: both run the same file.
    #[test]
    fn one_program() {
        let mut first = Turn::prepare(None);
        let mut second = Turn::prepare(None);
        assert_eq!(first.try_take(), Ok(()));
        let holder = second.try_take().unwrap_err();
        assert!(holder.starts_with("one that runs `/"), "{holder}");
        first.release();
        assert_eq!(second.try_take(), Ok(()));
        assert_eq!(Turn::default().try_take(), Ok(()));
    }
}
