//! Identity of an opened file.
//!
//! In: a descriptor. Out: its [`FileStamp`], its [`Origin`], and whether it is the [`Inode`] of a mapping. Only the kernel
//! is asked, and no server of a file system.

use std::os::fd::AsFd;

use rustix::fs::{Statx, StatxFlags, fstatfs, makedev};

use crate::procfs::read_attributes;

/// An inode, as the kernel's mapping records and `/proc/PID/maps` give it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Inode {
    /// Device number. `stat` of the same file may give another one: see [`Inode::is_of`].
    pub device: u64,
    /// Number of the inode on the device.
    pub number: u64,
}

impl Inode {
    /// Whether an opened file has this inode.
    ///
    /// Inode numbers and devices must be equal. Two file systems show another device in `stat` than in the
    /// kernel's mapping records: btrfs has one for each subvolume, and overlayfs before the fix of Linux 6.18
    /// shows the layer's in records and its own in `stat`. There the inode number decides.
    pub fn is_of(self, file: impl AsFd) -> bool {
        let Ok(found) = read_attributes(&file, StatxFlags::INO) else {
            return false;
        };
        let is_on_device = || device_of(&found) == self.device || has_other_devices(&file);
        found.stx_ino == self.number && is_on_device()
    }
}

/// The identity of a file's contents: data read from a file is kept under it.
///
/// The device and the inode tell files apart, and no process can choose them. The times and the size tell a file from what it
/// was before: each change sets the change time, which no process can set. Three kinds of changes leave the stamp as it is: a
/// second one within a tick of the clock (4 ms), one through a shared mapping of a file on tmpfs, and one on a file system
/// in user space. They affect only the processes that map this very file, whose code its writer could change as well.
///
/// The device is `stat`'s. On overlayfs each mount has its own, so that two containers with the same image have two stamps for
/// a file of a layer that they share: debug files beside it may differ between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileStamp {
    /// Device number, as in `stat`.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
    /// Length in bytes.
    pub size: u64,
    /// Time of the last change of its contents, nanoseconds since the epoch.
    pub modified_ns: i64,
    /// Time of the last change of its contents or attributes, nanoseconds since the epoch.
    pub changed_ns: i64,
}

impl FileStamp {
    /// The stamp of an opened file; `None` when the kernel does not give it.
    pub fn of(file: impl AsFd) -> Option<Self> {
        let found = read_attributes(&file, StatxFlags::BASIC_STATS).ok()?;
        let time_ns = |seconds: i64, nanoseconds: u32| {
            let whole_ns = seconds.saturating_mul(1_000_000_000);
            whole_ns.saturating_add(nanoseconds.into())
        };
        Some(Self {
            device: device_of(&found),
            inode: found.stx_ino,
            size: found.stx_size,
            modified_ns: time_ns(found.stx_mtime.tv_sec, found.stx_mtime.tv_nsec),
            changed_ns: time_ns(found.stx_ctime.tv_sec, found.stx_ctime.tv_nsec),
        })
    }
}

/// The mount and the owner of a program, by which it is decided whether a file in its process's root may name for it.
///
/// A process chooses its root directory, also with a library in it that others map. A debug file from there would name for
/// all of them, so it must lie on the library's mount and belong to its owner or to root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    mount: u64,
    user: u32,
}

impl Origin {
    /// The origin of an opened file; `None` when the kernel does not give it.
    pub(crate) fn of(file: impl AsFd) -> Option<Self> {
        let wanted = StatxFlags::UID | StatxFlags::MNT_ID;
        let found = read_attributes(&file, wanted).ok()?;
        StatxFlags::from_bits_retain(found.stx_mask)
            .contains(wanted)
            .then_some(Self {
                mount: found.stx_mnt_id,
                user: found.stx_uid,
            })
    }

    /// Whether another opened file may name for a program of this origin.
    pub(crate) fn admits(self, file: impl AsFd) -> bool {
        Self::of(file).is_some_and(|other| {
            other.mount == self.mount && (other.user == self.user || other.user == 0)
        })
    }
}

fn has_other_devices(file: impl AsFd) -> bool {
    /// `statfs(2)`.
    const BTRFS_SUPER_MAGIC: i64 = 0x9123_683e;
    const OVERLAYFS_SUPER_MAGIC: i64 = 0x794c_7630;
    fstatfs(file).is_ok_and(|found| {
        let kind = found.f_type;
        kind == BTRFS_SUPER_MAGIC || kind == OVERLAYFS_SUPER_MAGIC
    })
}

fn device_of(found: &Statx) -> u64 {
    makedev(found.stx_dev_major, found.stx_dev_minor)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::MetadataExt as _};

    use super::*;

    /// Check that a stamp tells a file from its copy, and from itself after a change that keeps size and
    /// modification time.
    #[test]
    fn stamps_tell_contents_apart() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        fs::write(&path, "one").unwrap();
        let file = fs::File::options()
            .read(true)
            .write(true)
            .open(&path)
            .unwrap();
        let before = FileStamp::of(&file).unwrap();
        assert_eq!(FileStamp::of(&file), Some(before));
        let modified = file.metadata().unwrap().modified().unwrap();
        loop {
            // The clock of file times goes in steps of some milliseconds.
            fs::write(&path, "two").unwrap();
            file.set_modified(modified).unwrap();
            let after = FileStamp::of(&file).unwrap();
            assert_eq!(after.modified_ns, before.modified_ns);
            if after != before {
                break;
            }
        }
        let copy = directory.path().join("b");
        fs::copy(&path, &copy).unwrap();
        let copy = fs::File::open(copy).unwrap();
        assert_ne!(FileStamp::of(&copy), FileStamp::of(&file));
    }

    /// Check that a file is the mapped one by inode and device, and that neither alone will do.
    #[test]
    fn mapped_files_by_inode_and_device() {
        let file = tempfile::tempfile_in("/dev/shm").unwrap();
        let found = file.metadata().unwrap();
        let is_of = |device, number| Inode { device, number }.is_of(&file);
        let (device, inode) = (found.dev(), found.ino());
        assert!(is_of(device, inode));
        assert!(!is_of(device, inode + 1));
        assert!(!is_of(device + 1, inode));
    }

    /// Check that a file admits those of its mount that are its owner's or root's.
    #[test]
    fn origins_admit_files_of_the_same_mount() {
        let file = |directory: &str| tempfile::tempfile_in(directory).unwrap();
        let (program, other) = (file("/dev/shm"), file("/dev/shm"));
        let origin = Origin::of(&program).unwrap();
        assert!(origin.admits(&program) && origin.admits(&other));
        assert!(!origin.admits(fs::File::open("/proc/version").unwrap()));
        let of_user = |user| Origin { user, ..origin };
        assert_eq!(of_user(origin.user + 1).admits(&other), origin.user == 0);
        assert!(
            !Origin {
                mount: origin.mount + 1,
                ..origin
            }
            .admits(&other)
        );
    }
}
