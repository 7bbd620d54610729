//! `/proc/PID/cgroup` -> the path of a process's cgroup in one hierarchy. Pure.

use std::path::Path;

/// Finds the path, relative to the root, in the hierarchy with this v1 controller, or of the unified hierarchy.
///
/// Format: cgroups(7): `hierarchy-ID:controller-list:cgroup-path`, one line for each hierarchy; the list of the unified hierarchy is
/// empty, and that of a hierarchy without controllers is `name=NAME`. A path that is outside of the reader's cgroup namespace begins
/// with `/..`; that of a removed cgroup ends in ` (deleted)`.
pub fn find_path<'a>(text: &'a str, v1_controller: Option<&str>) -> Option<&'a Path> {
    text.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let is_wanted = match v1_controller {
            Some(wanted) => controllers.split(',').any(|name| name == wanted),
            None => controllers.is_empty(),
        };
        is_wanted.then(|| below_root(path))
    })
}

/// The path below the mount point. A root outside of the reader's namespace is taken for that of the mount: the caller compares the
/// inode number.
fn below_root(mut path: &str) -> &Path {
    while let Some(rest) = path.strip_prefix("/..")
        && (rest.is_empty() || rest.starts_with('/'))
    {
        path = rest;
    }
    Path::new(path.trim_start_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
12:name=systemd:/system.slice/a.service
5:memory:/kubepods/pod1/a:b
2:cpu,cpuacct:/kubepods/pod1
0::/unified
";

    /// Check that each hierarchy's own path is found, also with a colon in it.
    #[test]
    fn paths_by_hierarchy() {
        let find = |controller| find_path(HYBRID, controller).and_then(Path::to_str);
        assert_eq!(find(Some("memory")), Some("kubepods/pod1/a:b"));
        assert_eq!(find(Some("cpuacct")), Some("kubepods/pod1"));
        assert_eq!(find(None), Some("unified"));
        assert_eq!(find(Some("pids")), None);
        assert_eq!(find(Some("systemd")), None);
        assert_eq!(find_path("", None), None);
        assert_eq!(find_path("5:memory", Some("memory")), None);
    }

    /// Check the paths of roots, and of cgroups outside of the reader's namespace.
    #[test]
    fn paths_from_a_namespace() {
        for (line, path) in [
            ("0::/", ""),
            ("0::/..", ""),
            ("0::/../..", ""),
            ("0::/../../kubepods/pod1", "kubepods/pod1"),
            ("0::/..pod1/a", "..pod1/a"),
            ("0::", ""),
        ] {
            assert_eq!(find_path(line, None), Some(Path::new(path)), "{line}");
        }
    }
}
