//! Checks that the modules of a folder have no import cycles, in any package, so that each can be read, tested and moved with only
//! the modules below it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::imports::{Imports, Package};

/// Cycles that stay: package, folder, one of its modules, and why.
const ALLOWED: [(&str, &str, &str, &str); 2] = [
    (
        "server/model",
        "",
        "spare",
        "what questions leave of their memory is a part of its state, from which they take it back",
    ),
    (
        "server/segment",
        "read",
        "source",
        "the trait `Source` has methods for callers that are functions over any `Source`, a file each",
    ),
];

/// The repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The packages of the workspace with sources, by their paths.
fn packages() -> Vec<String> {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let members = manifest.split_once("members = [").unwrap().1;
    let members = members.split_once(']').unwrap().0;
    let members = members
        .split(',')
        .map(|member| member.trim().trim_matches('"'));
    let expand = |member: &str| -> Vec<String> {
        let Some(folder) = member.strip_suffix("/*") else {
            return vec![member.to_owned()];
        };
        let entries = fs::read_dir(root().join(folder)).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.map(|name| format!("{folder}/{name}")).collect()
    };
    let packages = members.flat_map(expand);
    packages
        .filter(|package| root().join(package).join("src").is_dir())
        .collect()
}

fn read_package(package: &str) -> Package {
    let sources = root().join(package).join("src");
    let mut files = Vec::new();
    let mut pending = vec![sources.clone()];
    while let Some(folder) = pending.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                pending.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let relative = path.strip_prefix(&sources).unwrap().with_extension("");
                let source = fs::read_to_string(&path).unwrap();
                files.push((relative.to_str().unwrap().to_owned(), source));
            }
        }
    }
    Package::read(&files)
}

/// A path of imports from a module to itself.
fn find_circle(imports: &Imports) -> Option<Vec<&str>> {
    let mut clear = BTreeSet::new();
    let mut circles = imports.keys();
    circles.find_map(|module| follow(imports, module, &mut Vec::new(), &mut clear))
}

fn follow<'a>(
    imports: &'a Imports,
    module: &'a str,
    path: &mut Vec<&'a str>,
    clear: &mut BTreeSet<&'a str>,
) -> Option<Vec<&'a str>> {
    if clear.contains(module) {
        return None;
    }
    path.push(module);
    if let Some(start) = path[..path.len() - 1]
        .iter()
        .position(|part| *part == module)
    {
        return Some(path[start..].to_vec());
    }
    let circle = imports[module]
        .iter()
        .find_map(|next| follow(imports, next, path, clear));
    path.pop();
    clear.insert(module);
    circle
}

/// Check that no folder of a package has an import cycle, but for those that are allowed, which must still be there.
#[test]
fn no_circles_between_modules() {
    let packages = packages();
    assert!(packages.len() >= 20, "{packages:?}");
    let (mut modules, mut allowed) = (0, 0);
    let mut circles: Vec<String> = Vec::new();
    for package in &packages {
        for (folder, mut imports) in read_package(package).folders() {
            modules += imports.len();
            let is_here =
                |entry: &&(&str, &str, &str, &str)| entry.0 == package && entry.1 == folder;
            if let Some((.., module, _)) = ALLOWED.iter().find(is_here) {
                assert!(
                    find_circle(&imports).is_some(),
                    "{package} {folder} has none any more"
                );
                imports.insert((*module).to_owned(), BTreeSet::new());
                allowed += 1;
            }
            let circle = find_circle(&imports).map(|circle| circle.join(" -> "));
            circles.extend(circle.map(|circle| format!("{package} {folder}: {circle}")));
        }
    }
    assert!(circles.is_empty(), "{circles:#?}");
    assert!(modules >= 500, "{modules}");
    assert_eq!(allowed, ALLOWED.len());
}

/// Check borders in the collector that a cycle check misses: naming, uploads and the process table
/// use `file` but not each other; stages use `metrics`, which uses none of them.
#[test]
fn borders_between_modules() {
    let folders = read_package("collector").folders();
    let imports = &folders[""];
    for (module, other) in [("name", "process"), ("send", "name"), ("upload", "name")] {
        assert!(!imports[module].contains(other), "{module} -> {other}");
    }
    assert_eq!(imports["metrics"], BTreeSet::new());
}

/// Check that a cycle is found from any start, and that shared imports are not a cycle.
#[test]
fn circles_are_found() {
    let imports = |edges: &[(&str, &[&str])]| -> Imports {
        let named = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        edges
            .iter()
            .map(|(module, names)| ((*module).to_owned(), named(names)))
            .collect()
    };
    let without = imports(&[("a", &["b", "c"]), ("b", &["c"]), ("c", &[])]);
    assert_eq!(find_circle(&without), None);
    let with = imports(&[("a", &["b"]), ("b", &["c"]), ("c", &["d"]), ("d", &["b"])]);
    assert_eq!(find_circle(&with), Some(vec!["b", "c", "d", "b"]));
}
