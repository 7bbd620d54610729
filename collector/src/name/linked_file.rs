//! Finds the files that have parts of another one's debug information: the one that several files share
//! (`.gnu_debugaltlink`), the package of split units (`.dwp`), and single ones (`.dwo`).
//!
//! In: a file, and what it or its debug file says. Out: a descriptor of a regular file, which may still be any: the child
//! compares build ids and the numbers of units. What a file names may be any path, so it is looked for in the root of its
//! processes; in the node's own only below `/usr/lib/debug`, and never on file systems that are no files on a disk.
//!
//! Places are those of GDB ("Debugging Information in Separate Files", `dwarf2/read.c`), with the build-id tree for packages.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::fstatfs;

use super::debug_file::{DEBUG_DIRECTORY, build_id_path};
use super::facts::AlternativeLink;
use super::object::ElfFile;
use super::open::{OWN_ROOT, open_beside, open_first, roots};
use super::protocol::SplitFile;
use crate::patience::Patience;

/// Roots that a split file is looked for in: with 64 files at 3 places, 768 looks of 3 µs for a question,
/// and 256 times 20 µs for the threads that look.
const SPLIT_ROOTS_MAX: usize = 4;

/// File systems whose files are made when they are read, and some of which are devices: proc, sysfs, debugfs, tracefs,
/// securityfs, cgroup, cgroup2, bpf, pstore, configfs, and the kernel's for EFI's variables. Numbers of `linux/magic.h`.
const NOT_ON_DISK: [u32; 11] = [
    0x9fa0,
    0x6265_6572,
    0x6462_6720,
    0x7472_6163,
    0x7363_6673,
    0x0027_e0eb,
    0x6367_7270,
    0xcafe_4a11,
    0x6165_676c,
    0x6265_6570,
    0xde5e_81e4,
];

/// Finds the file that `link` names, which `file` or its debug file has.
pub(super) fn find_alternative(
    file: &ElfFile,
    link: &AlternativeLink,
    bytes_max: u64,
    patience: &Patience,
) -> Option<OwnedFd> {
    let mut all = vec![build_id_path(&link.build_id, "debug")];
    all.extend(alternative_paths(file, link));
    let is_debug = |it: &&PathBuf| it.starts_with(DEBUG_DIRECTORY);
    let installed: Vec<PathBuf> = all.iter().filter(is_debug).cloned().collect();
    let installed = (Path::new(DEBUG_DIRECTORY), installed);
    open_first(OWN_ROOT, installed, patience, on_disk(bytes_max)).or_else(|| {
        roots(file).find_map(|root| {
            let beside = (file.directory(), all.clone());
            open_first(&root, beside, patience, on_disk(bytes_max))
        })
    })
}

/// Finds the package with the split units of `file`.
pub(super) fn find_package(file: &ElfFile, bytes_max: u64, patience: &Patience) -> Option<OwnedFd> {
    let by_id = file.build_id.as_ref().map(|it| build_id_path(it, "dwp"));
    let mut name = file.path.clone();
    name.push(".dwp");
    let beside = below_root(Path::new(&name));
    let installed = (Path::new(DEBUG_DIRECTORY), by_id.iter().cloned().collect());
    let all: Vec<PathBuf> = beside.into_iter().chain(by_id).collect();
    open_first(OWN_ROOT, installed, patience, on_disk(bytes_max)).or_else(|| {
        roots(file).find_map(|root| {
            let beside = (file.directory(), all.clone());
            open_first(&root, beside, patience, on_disk(bytes_max))
        })
    })
}

/// Finds a file with a split unit of `file`.
pub(super) fn find_split(
    file: &ElfFile,
    wanted: &SplitFile,
    bytes_max: u64,
    patience: &Patience,
) -> Option<OwnedFd> {
    let paths = split_paths(file, wanted);
    roots(file).take(SPLIT_ROOTS_MAX).find_map(|root| {
        let named = (Path::new(&wanted.directory), paths.clone());
        open_first(&root, named, patience, on_disk(bytes_max))
    })
}

/// Where the file may be that a link names, relative to a root. The link is in `file` or in its debug file, of which the
/// place is one of those in `debug_file`.
fn alternative_paths(file: &ElfFile, link: &AlternativeLink) -> Vec<PathBuf> {
    let path = Path::new(&link.path);
    if path.has_root() {
        return below_root(path).into_iter().collect();
    }
    let by_id = file.build_id.as_ref().map(|it| build_id_path(it, "debug"));
    let beside = below_root(Path::new(&file.path));
    let installed = beside
        .as_ref()
        .map(|it| Path::new(DEBUG_DIRECTORY).join(it));
    let from = [by_id, beside, installed];
    let directories = from.iter().flatten().filter_map(|it| it.parent());
    directories.filter_map(|it| clean(&it.join(path))).collect()
}

/// Where a split file may be, relative to a root: where the compiler wrote it, or, if that is relative, or it was moved
/// together with the program, beside that.
fn split_paths(file: &ElfFile, wanted: &SplitFile) -> Vec<PathBuf> {
    let named = Path::new(&wanted.directory).join(&wanted.name);
    let beside = below_root(Path::new(&file.path));
    let beside = beside.as_deref().and_then(Path::parent);
    let moved = beside.and_then(|it| match named.has_root() {
        true => None,
        false => clean(&it.join(&named)),
    });
    let alone = beside.and_then(|it| Some(it.join(named.file_name()?)));
    [below_root(&named), moved, alone]
        .into_iter()
        .flatten()
        .collect()
}

/// An absolute path, relative to its root.
fn below_root(path: &Path) -> Option<PathBuf> {
    clean(path.strip_prefix("/").ok()?)
}

/// A relative path without `..`, if it leads to something below where it starts.
fn clean(path: &Path) -> Option<PathBuf> {
    let mut cleaned = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::Normal(name) => cleaned.push(name),
            Component::ParentDir if cleaned.pop() => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    (!cleaned.as_os_str().is_empty()).then_some(cleaned)
}

/// Opens such files of at most so many bytes.
fn on_disk(bytes_max: u64) -> impl Fn(&str, &Path) -> Option<OwnedFd> + Send + 'static {
    move |root, path| open_on_disk(root, path, bytes_max)
}

/// A regular file on a real file system.
fn open_on_disk(root: &str, path: &Path, bytes_max: u64) -> Option<OwnedFd> {
    let opened = open_beside(root, path, bytes_max)?;
    let system = fstatfs(opened.as_fd()).ok()?;
    // The kernel's number has 32 bits; some of them come with a sign.
    (!NOT_ON_DISK.contains(&(system.f_type as u32))).then_some(opened)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::FileKey;
    use crate::process::BuildId;

    fn file(path: &str) -> ElfFile {
        ElfFile {
            key: FileKey::FileId(0),
            path: path.into(),
            build_id: BuildId::new(&[0xab, 0xcd]),
            inode: None,
            candidates: Vec::new(),
            held: None,
        }
    }

    fn paths(all: Vec<PathBuf>) -> Vec<String> {
        let all = all.into_iter();
        all.map(|it| it.to_str().unwrap().to_owned()).collect()
    }

    /// Check where split files are looked for, and that none is above the root.
    #[test]
    fn places_of_split_files() {
        let places = |directory: &str, name: &str| {
            let wanted = SplitFile {
                id: 1,
                name: name.into(),
                directory: directory.into(),
            };
            paths(split_paths(&file("/opt/app/tool"), &wanted))
        };
        assert_eq!(
            places("/src", "out/a.dwo"),
            ["src/out/a.dwo", "opt/app/a.dwo"]
        );
        assert_eq!(places("/src", "/x/a.dwo"), ["x/a.dwo", "opt/app/a.dwo"]);
        assert_eq!(
            places(".", "out/a.dwo"),
            ["opt/app/out/a.dwo", "opt/app/a.dwo"]
        );
        assert_eq!(places("/src/..", "../../a.dwo"), ["opt/app/a.dwo"]);
        assert!(places("", "../../..").is_empty());
    }

    /// Check where a shared file is looked for.
    #[test]
    fn places_of_shared_files() {
        let places = |path: &str| {
            let link = AlternativeLink {
                path: path.into(),
                build_id: BuildId::new(&[1, 2]).unwrap(),
            };
            paths(alternative_paths(&file("/usr/bin/tool"), &link))
        };
        assert_eq!(
            places("/usr/lib/debug/.dwz/tool"),
            ["usr/lib/debug/.dwz/tool"]
        );
        assert_eq!(
            places("../../.dwz/tool"),
            [
                "usr/lib/debug/.dwz/tool",
                ".dwz/tool",
                "usr/lib/debug/.dwz/tool"
            ]
        );
        assert!(places("/usr/../../etc/shadow").is_empty());
    }

    /// Check that the files of the kernel's own file systems are not opened.
    #[test]
    fn only_files_on_a_disk_are_opened() {
        let own = std::env::current_exe().unwrap();
        let open = |path: &Path| open_on_disk("/", &below_root(path).unwrap(), u64::MAX);
        assert!(open(&own).is_some());
        for path in ["/proc/version", "/sys/kernel/notes"] {
            assert!(Path::new(path).exists() && open(Path::new(path)).is_none());
        }
    }
}
