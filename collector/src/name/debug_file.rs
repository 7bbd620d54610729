//! Finds the file that holds another one's debug information.
//!
//! In: a file, by build id and by the link in it. Out: a descriptor of a regular file, which may still be any:
//! the child compares build ids and checksums. Never follows a path out of a process's root, nor a link that is
//! more than a file's name.
//!
//! Places and their order are those of GDB ("Debugging Information in Separate Files"): the build-id tree, then by
//! the link beside the file, in `.debug` there, and below `/usr/lib/debug`. The node's own tree comes before a
//! container's, since names are kept by build id for all processes: what an administrator has put there is not
//! to be shadowed by what some container has.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use super::facts::is_file_name;
use super::object::ElfFile;
use super::open::{OWN_ROOT, open_beside, open_first, roots};
use crate::patience::Patience;
use crate::process::BuildId;

/// Where debug information is installed.
pub(super) const DEBUG_DIRECTORY: &str = "usr/lib/debug";

/// How a debug file was found, and so what must agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FoundBy {
    /// In the build-id tree: its build id.
    BuildId,
    /// By the link: its checksum, and its build id if both have one.
    Link,
}

/// Finds the file with the debug information of `file`, whose debug link is `link`.
pub(crate) fn find_debug_file(
    file: &ElfFile,
    link: Option<&str>,
    bytes_max: u64,
    patience: &Patience,
) -> Option<(OwnedFd, FoundBy)> {
    if let Some(held) = file.held.as_ref().and_then(|it| it.debug_file()) {
        return Some(held);
    }
    let roots: Vec<String> = roots(file).collect();
    find_debug_file_in(&roots, file, link, bytes_max, patience)
}

/// As [`find_debug_file`], in these roots, and by build id in the node's own.
pub(super) fn find_debug_file_in(
    roots: &[String],
    file: &ElfFile,
    link: Option<&str>,
    bytes_max: u64,
    patience: &Patience,
) -> Option<(OwnedFd, FoundBy)> {
    let open = move |root: &str, path: &Path| open_beside(root, path, bytes_max);
    if let Some(path) = file.build_id.as_ref().map(|it| build_id_path(it, "debug")) {
        let all = std::iter::once(OWN_ROOT).chain(roots.iter().map(String::as_str));
        for root in all {
            let tree = (Path::new(DEBUG_DIRECTORY), vec![path.clone()]);
            if let Some(found) = open_first(root, tree, patience, open) {
                return Some((found, FoundBy::BuildId));
            }
        }
    }
    let paths = link_paths(Path::new(&file.path), link?);
    // A link is looked for where the file itself is, since a name alone tells nothing elsewhere.
    roots.iter().find_map(|root| {
        let beside = (file.directory(), paths.clone());
        let found = open_first(root, beside, patience, open)?;
        Some((found, FoundBy::Link))
    })
}

/// Where the build-id tree has a file's debug information, relative to a root; `kind` is how its name ends.
pub(super) fn build_id_path(build_id: &BuildId, kind: &str) -> PathBuf {
    let hex = build_id.to_string();
    let (directory, name) = hex.split_at(2.min(hex.len()));
    Path::new(DEBUG_DIRECTORY)
        .join(".build-id")
        .join(directory)
        .join(format!("{name}.{kind}"))
}

/// Where a file's debug link may lead, relative to a root; nowhere if it is no plain name.
fn link_paths(file: &Path, link: &str) -> Vec<PathBuf> {
    let directory = file.parent().and_then(|it| it.strip_prefix("/").ok());
    let Some(directory) = directory.filter(|_| is_file_name(link)) else {
        return Vec::new();
    };
    vec![
        directory.join(link),
        directory.join(".debug").join(link),
        Path::new(DEBUG_DIRECTORY).join(directory).join(link),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check the places, and that neither a link nor a file without a path leads anywhere else.
    #[test]
    fn places() {
        let id = BuildId::new(&[0xab, 0xcd, 0xef]).unwrap();
        let path = "usr/lib/debug/.build-id/ab/cdef.debug";
        assert_eq!(build_id_path(&id, "debug"), Path::new(path));
        let paths = link_paths(Path::new("/opt/app/bin/tool"), "tool.debug");
        let expected = [
            "opt/app/bin/tool.debug",
            "opt/app/bin/.debug/tool.debug",
            "usr/lib/debug/opt/app/bin/tool.debug",
        ];
        assert_eq!(paths, expected.map(PathBuf::from));
        assert!(link_paths(Path::new("/bin/tool"), "../tool").is_empty());
        assert!(link_paths(Path::new("[heap]"), "tool").is_empty());
    }
}
