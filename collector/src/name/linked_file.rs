//! Finds the files that have parts of another one's debug information: the one that several files share
//! (`.gnu_debugaltlink`), the package of split units (`.dwp`), and single ones (`.dwo`).
//!
//! In: a file, and a link that was read in it or in its debug file. Out: a descriptor of a regular file, not checked yet: the
//! child compares build ids and the numbers of units. A link may name any path, so the file is searched in the roots of the
//! processes that map it, and in the node's own root only below `/usr/lib/debug`.
//!
//! Places are those of GDB ("Debugging Information in Separate Files", `dwarf2/read.c`), with the build-id tree for packages.
//!
//! The child's answer names the missing files. The collector opens them and repeats the request, six
//! times at most and while there is time, so that 512 addresses may lie in 256 units. The metric
//! `name_split_files_total` counts each `.dwo` that does not exist, and as `left` each that was not
//! searched for; the address has its function and line then.

use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use elf::AlternativeLink;
use symbolize::dwarf::SplitFile;

use crate::file::{DEBUG_DIRECTORY, ElfFile, LinkedFiles, build_id_path};

/// Roots in which a split file is searched for: with 64 files at 3 paths, 768 opens of 3 µs for a request,
/// and 256 times 20 µs for the threads that open them.
const SPLIT_ROOTS_MAX: usize = 4;

impl LinkedFiles<'_> {
    /// The file that `link` names, which the file or its debug file has.
    pub(super) fn alternative(&self, link: &AlternativeLink) -> Option<OwnedFd> {
        let mut paths = vec![build_id_path(&link.build_id, "debug")];
        paths.extend(alternative_paths(self.file, link));
        self.find_installed_or_beside(&paths)
    }

    /// The package with the split units of the file.
    pub(super) fn package(&self) -> Option<OwnedFd> {
        let build_id = self.file.build_id.as_ref();
        let by_id = build_id.map(|build_id| build_id_path(build_id, "dwp"));
        let mut name = self.file.path.clone();
        name.push(".dwp");
        let beside = below_root(Path::new(&name));
        self.find_installed_or_beside(&beside.into_iter().chain(by_id).collect::<Vec<_>>())
    }

    /// A file with a split unit of the file.
    pub(super) fn split(&self, wanted: &SplitFile) -> Option<OwnedFd> {
        let paths = split_paths(self.file, wanted);
        let directory = Path::new(&wanted.directory);
        let mut roots = self.roots().take(SPLIT_ROOTS_MAX);
        roots.find_map(|root| self.find_in_root(&root, directory, paths.clone()))
    }

    fn find_installed_or_beside(&self, paths: &[PathBuf]) -> Option<OwnedFd> {
        self.find_installed(paths.to_vec()).or_else(|| {
            let directory = self.file.directory();
            let mut roots = self.roots();
            roots.find_map(|root| self.find_in_root(&root, directory, paths.to_vec()))
        })
    }
}

/// The paths that a link may mean, relative to a root. The link is in `file` or in its debug file, which is at one of the
/// places in `debug_file`.
fn alternative_paths(file: &ElfFile, link: &AlternativeLink) -> Vec<PathBuf> {
    let path = Path::new(&link.path);
    if path.has_root() {
        return below_root(path).into_iter().collect();
    }
    let by_id = file.build_id.as_ref();
    let by_id = by_id.map(|build_id| build_id_path(build_id, "debug"));
    let beside = below_root(Path::new(&file.path));
    let installed = beside
        .as_ref()
        .map(|path| Path::new(DEBUG_DIRECTORY).join(path));
    let from = [by_id, beside, installed];
    let directories = from.iter().flatten().filter_map(|path| path.parent());
    directories
        .filter_map(|directory| clean(&directory.join(path)))
        .collect()
}

/// The paths that a split file may have, relative to a root: the one to which the compiler wrote it, or one beside the program, if
/// that path is relative or the file was moved together with the program.
fn split_paths(file: &ElfFile, wanted: &SplitFile) -> Vec<PathBuf> {
    let named = Path::new(&wanted.directory).join(&wanted.name);
    let beside = below_root(Path::new(&file.path));
    let beside = beside.as_deref().and_then(Path::parent);
    let relative = beside.filter(|_| !named.has_root());
    let moved = relative.and_then(|directory| clean(&directory.join(&named)));
    let alone = beside.and_then(|directory| Some(directory.join(named.file_name()?)));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::FileKey;
    use elf::BuildId;

    fn file(path: &str) -> ElfFile {
        ElfFile {
            key: FileKey::Place(0),
            path: path.into(),
            build_id: BuildId::new(&[0xab, 0xcd]),
            inode: None,
            candidates: Vec::new(),
            held: None,
        }
    }

    fn paths(all: Vec<PathBuf>) -> Vec<String> {
        let all = all.into_iter();
        all.map(|path| path.to_str().unwrap().to_owned()).collect()
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
}
