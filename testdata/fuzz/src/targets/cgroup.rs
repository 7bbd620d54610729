//! Paths of cgroups, which any process with a cgroup of its own may extend, by themselves and in a `/proc/PID/cgroup`.

use k8s::Identity;

const TABLE: &str = include_str!("../../../cgroups/paths.tsv");

pub(crate) fn run(input: &[u8]) {
    let Ok(input) = std::str::from_utf8(input) else { return };
    try_path(input);
    for controller in [None, Some("memory")] {
        let path = cgroupfs::find_path(input, controller);
        assert!(path.is_none_or(|path| path.is_relative() && input.contains(&*path.to_string_lossy())));
    }
}

pub(crate) fn make_seeds() -> Vec<Vec<u8>> {
    real_paths().map(Vec::from).collect()
}

/// The real paths.
fn real_paths() -> impl Iterator<Item = &'static str> {
    let rows = TABLE.lines().filter(|line| !line.starts_with('#'));
    rows.filter_map(|row| row.split('\t').next())
}

/// Checks that uid and container id are parts of the path in their documented forms, and that parsing a unit's own name gives the
/// same unit.
fn try_path(path: &str) {
    let Identity {
        pod_uid,
        container_id,
        unit,
    } = Identity::of_path(path);
    if let Some(uid) = &pod_uid {
        assert!(has_form(uid, &[32]) || has_form(uid, &[8, 4, 4, 4, 12]));
        assert!(path.replace('_', "-").contains(&**uid));
    }
    if let Some(id) = container_id {
        let is_fargate = (7..=10).any(|digits| has_form(id, &[32, digits]));
        let is_garden = has_form(id, &[8, 4, 4, 4, 4]) || has_form(id, &[8, 4, 4, 4, 12]);
        assert!(has_form(id, &[64]) || is_fargate || is_garden);
        assert!(path.contains(id));
    }
    let Some(unit) = unit else { return };
    assert!(pod_uid.is_none() && !unit.is_empty() && unit.len() <= path.len());
    let mut rest = path;
    for part in unit.strip_prefix("lxc/").unwrap_or(&unit).split('*') {
        let at = rest.find(part).expect("each part is in the path");
        rest = &rest[at + part.len()..];
    }
    let is_name = !unit.contains('/') && !unit.ends_with(".slice") && !unit.starts_with('_');
    if is_name && container_id.is_none() {
        let again = format!("/{unit}");
        assert_eq!(Identity::of_path(&again).unit.as_ref(), Some(&unit));
    }
}

fn has_form(id: &str, lengths: &[usize]) -> bool {
    let groups: Vec<&str> = id.split('-').collect();
    groups
        .iter()
        .map(|group| group.len())
        .eq(lengths.iter().copied())
        && id
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'-'))
}
