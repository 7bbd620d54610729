//! Finds the file that holds another one's debug information.
//!
//! In: a file, with its build id and its debug link. Out: a descriptor of a regular file, not checked yet:
//! the child compares build ids and checksums.
//!
//! Places and their order are those of GDB ("Debugging Information in Separate Files"): the build-id tree, then by
//! the link beside the file, in `.debug` there, and below `/usr/lib/debug`. The node's own tree comes before a
//! container's: a debug file there is the administrator's, and serves every file that claims its build id. One in the root of
//! a process serves only files of its own mount and owner (see [`super::linked`]).
//!
//! The child cannot open files, so the collector opens the debug file and passes its descriptor with the
//! executable's. The child reads the debug link: it is in the first answer, and the request is
//! repeated with the debug file. The executable's segments turn offsets into addresses, since the segments of a
//! debug file may have other offsets.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use elf::{BuildId, is_file_name};
use symbolize::FoundBy;

use super::linked::{DEBUG_DIRECTORY, LinkedFiles};

impl LinkedFiles<'_> {
    /// The file with the debug information of one whose debug link is `link`, in the [roots](Self::roots).
    pub(crate) fn debug_file(&self, link: Option<&str>) -> Option<(OwnedFd, FoundBy)> {
        let held = self.file.held.as_ref().and_then(|held| held.debug_file());
        held.or_else(|| self.debug_file_in(&self.roots().collect::<Vec<_>>(), link))
    }

    /// The same in these roots. The build-id tree of the node's own comes before theirs.
    pub(crate) fn debug_file_in(
        &self,
        roots: &[String],
        link: Option<&str>,
    ) -> Option<(OwnedFd, FoundBy)> {
        let find = |directory: &Path, paths: &[PathBuf]| {
            let mut roots = roots.iter();
            roots.find_map(|root| self.find_in_root(root, directory, paths.to_vec()))
        };
        if let Some(build_id) = &self.file.build_id {
            let tree = vec![build_id_path(build_id, "debug")];
            let installed = self.find_installed(tree.clone());
            let found = installed.or_else(|| find(Path::new(DEBUG_DIRECTORY), &tree));
            if let Some(found) = found {
                return Some((found, FoundBy::BuildId));
            }
        }
        // A link is looked for where the file itself is, since a name alone tells nothing elsewhere.
        let paths = link_paths(Path::new(&self.file.path), link?);
        let found = find(self.file.directory(), &paths)?;
        Some((found, FoundBy::Link))
    }
}

/// The path of a file's debug information in the build-id tree, relative to a root; `kind` is the extension of its name.
pub(crate) fn build_id_path(build_id: &BuildId, kind: &str) -> PathBuf {
    let hex = build_id.to_string();
    let (directory, name) = hex.split_at(2.min(hex.len()));
    Path::new(DEBUG_DIRECTORY)
        .join(".build-id")
        .join(directory)
        .join(format!("{name}.{kind}"))
}

/// The paths that a file's debug link may mean, relative to a root; none if it is no plain name.
fn link_paths(file: &Path, link: &str) -> Vec<PathBuf> {
    let directory = file.parent().and_then(|path| path.strip_prefix("/").ok());
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
