//! Checks that the top-level modules of a program have no import cycles, so that each can be read,
//! tested and moved with only the modules below it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Module -> the modules that it imports.
type Imports = BTreeMap<String, BTreeSet<String>>;

/// Adds the names after `crate::` in a source file. Its tests, at its end, may import any module.
fn add_imports(source: &str, found: &mut BTreeSet<String>) {
    let code = source.split("#[cfg(test)]\nmod tests").next().unwrap_or("");
    let lines = code
        .lines()
        .map(|line| line.split("//").next().unwrap_or(""));
    let code: String = lines.collect::<Vec<_>>().join("\n");
    let is_name = |char: char| char.is_alphanumeric() || char == '_';
    let name = |text: &str| text.split(|char| !is_name(char)).next().map(str::to_owned);
    for (at, path) in code.match_indices("crate::") {
        // `crate` is the end of a longer name, or part of a macro path.
        if code[..at].ends_with(|char| is_name(char) || char == '$') {
            continue;
        }
        let rest = &code[at + path.len()..];
        match rest.strip_prefix('{') {
            Some(list) => {
                let items = items(list).into_iter().map(str::trim_start);
                found.extend(items.filter_map(name).filter(|name| !name.is_empty()));
            }
            None => found.extend(name(rest)),
        }
    }
}

/// The items of a braced list; nested lists belong to their item.
fn items(list: &str) -> Vec<&str> {
    let (mut depth, mut start, mut items) = (0_usize, 0, Vec::new());
    for (at, char) in list.char_indices() {
        match char {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                items.push(&list[start..at]);
                start = at + 1;
                if char == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    items
}

/// The imports between the top-level modules of a crate.
fn read_imports(sources: &Path) -> Imports {
    let mut imports = Imports::new();
    let mut pending = vec![sources.to_owned()];
    while let Some(folder) = pending.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                pending.push(path);
                continue;
            }
            let relative = path.strip_prefix(sources).unwrap().with_extension("");
            let module = relative.iter().next().unwrap().to_str().unwrap().to_owned();
            if !matches!(module.as_str(), "lib" | "main") {
                let source = fs::read_to_string(&path).unwrap();
                add_imports(&source, imports.entry(module).or_default());
            }
        }
    }
    let modules: BTreeSet<String> = imports.keys().cloned().collect();
    for (module, named) in &mut imports {
        named.retain(|name| name != module && modules.contains(name));
    }
    imports
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

/// Check that neither program has an import cycle, nor any of the server's libraries.
#[test]
fn no_circles_between_modules() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for (package, modules_min) in [
        ("collector", 6),
        ("server", 6),
        ("server/model", 6),
        ("server/query", 6),
        ("server/render", 4),
        ("server/segment", 10),
        ("server/store", 3),
    ] {
        let imports = read_imports(&root.join(package).join("src"));
        assert!(imports.len() >= modules_min, "{package}: {imports:?}");
        let circle = find_circle(&imports).map(|circle| circle.join(" -> "));
        assert_eq!(circle, None, "{package}");
    }
}

/// Check borders in the collector that a cycle check misses: naming, uploads and the process table
/// use `file` but not each other; stages use `metrics`, which uses none of them.
#[test]
fn borders_between_modules() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let imports = read_imports(&root.join("collector/src"));
    for (module, other) in [("name", "process"), ("send", "name"), ("upload", "name")] {
        assert!(!imports[module].contains(other), "{module} -> {other}");
    }
    assert_eq!(imports["metrics"], BTreeSet::new());
}

/// Check which names count as imports.
#[test]
fn imports_of_a_file() {
    let source = "
use crate::{
    a::{x, y::z},
    b,
    c_d::E,
};
use crate::f;
pub(crate) use other::{crate_g, h};
use std::{fmt, io};
fn i() -> crate::j::K { $crate::l::m(); }
// crate::n
#[cfg(test)]
mod tests {
    use crate::o;
}
";
    let mut found = BTreeSet::new();
    add_imports(source, &mut found);
    let found: Vec<&str> = found.iter().map(String::as_str).collect();
    assert_eq!(found, ["a", "b", "c_d", "f", "j"]);
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
