//! A package's sources -> which of its modules imports which. Pure.
//!
//! Tests may import any module: items with `#[cfg(test)]` and the modules that these declare are left out.

use std::collections::{BTreeMap, BTreeSet};

/// The names from the crate's root to a module or an item.
type ModulePath = Vec<String>;

/// Module -> the modules that it imports.
pub(crate) type Imports = BTreeMap<String, BTreeSet<String>>;

/// The modules of a package.
#[derive(Default)]
pub(crate) struct Package {
    /// All modules, folders among them.
    modules: BTreeSet<ModulePath>,
    tests: BTreeSet<ModulePath>,
    /// The paths that the code of a module names, from the root.
    named: BTreeMap<ModulePath, BTreeSet<ModulePath>>,
    /// What `use` brings into a module, by its last name.
    used: BTreeMap<ModulePath, BTreeMap<String, ModulePath>>,
}

impl Package {
    /// Reads sources, by their paths below `src` without the extension.
    pub(crate) fn read(sources: &[(String, String)]) -> Self {
        let mut package = Self::default();
        let sources: Vec<(ModulePath, &str)> = sources
            .iter()
            .map(|(path, source)| (module_of(path), source.as_str()))
            .collect();
        for (module, source) in &sources {
            for depth in 0..=module.len() {
                package.modules.insert(module[..depth].to_vec());
            }
            let tests = test_modules(source).into_iter();
            package.tests.extend(tests.map(|test| child(module, &test)));
        }
        for (module, source) in &sources {
            if !package.is_test(module) {
                package.add_code(module, &code_of(source));
            }
        }
        package
    }

    /// The imports between the modules of each folder, by its path from the root.
    pub(crate) fn folders(&self) -> BTreeMap<String, Imports> {
        let mut folders: BTreeMap<String, Imports> = BTreeMap::new();
        for module in self.modules.iter().filter(|module| !self.is_test(module)) {
            if let Some((name, folder)) = module.split_last() {
                let imports = folders.entry(folder.join("/")).or_default();
                imports.entry(name.clone()).or_default();
            }
        }
        for (from, named) in &self.named {
            for to in named.iter().map(|place| self.module_at(place)) {
                let common = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
                if let (Some(own), Some(other)) = (from.get(common), to.get(common))
                    && !self.is_test(&to)
                {
                    let imports = folders.entry(from[..common].join("/")).or_default();
                    let own = imports.entry(own.clone()).or_default();
                    own.insert(other.clone());
                }
            }
        }
        folders
    }

    fn is_test(&self, module: &[String]) -> bool {
        (1..=module.len()).any(|depth| self.tests.contains(&module[..depth]))
    }

    fn add_code(&mut self, module: &ModulePath, code: &str) {
        let named = self.named.entry(module.clone()).or_default();
        for (at, _) in code.match_indices("::") {
            let start = code[..at]
                .rfind(|char| !is_name(char))
                .map_or(0, |end| end + 1);
            let is_start = matches!(&code[start..at], "crate" | "super" | "self");
            if is_start && !code[..start].ends_with([':', '$']) {
                let paths = expand(&code[start..]).into_iter();
                named.extend(paths.filter_map(|path| resolve(module, &path)));
            }
        }
        let used = self.used.entry(module.clone()).or_default();
        for (_, rest) in code
            .match_indices("use ")
            .map(|(at, _)| code.split_at(at + 4))
        {
            for path in expand(rest.split(';').next().unwrap_or_default()) {
                let is_relative = matches!(path[0].as_str(), "crate" | "super" | "self");
                let place = if is_relative {
                    resolve(module, &path)
                } else {
                    let place = [module.clone(), path].concat();
                    let is_own = self.modules.contains(&place[..=module.len()]);
                    is_own.then_some(place)
                };
                let last = place.as_ref().and_then(|place| place.last().cloned());
                if let (Some(place), Some(last)) = (place, last) {
                    named.insert(place.clone());
                    used.insert(last, place);
                }
            }
        }
    }

    /// The module of an item, also of one that another module has by `pub use`.
    fn module_at(&self, place: &[String]) -> ModulePath {
        let mut place = place.to_vec();
        // More would be a circle of `use`.
        for _ in 0..10 {
            let depths = (0..=place.len()).rev();
            let depth = depths.map(|depth| &place[..depth]);
            let module = depth.clone().find(|start| self.modules.contains(*start));
            let module = module.unwrap_or_default().to_vec();
            let item = place.get(module.len());
            let used = item.and_then(|item| self.used.get(&module)?.get(item));
            match used {
                Some(used) if *used != place => {
                    place = [used, &place[module.len() + 1..]].concat();
                }
                _ => return module,
            }
        }
        ModulePath::new()
    }
}

fn module_of(path: &str) -> ModulePath {
    let mut module: ModulePath = path.split('/').map(str::to_owned).collect();
    if module.last().is_some_and(|name| name == "mod") || ["lib", "main"].contains(&path) {
        module.pop();
    }
    module
}

fn child(module: &[String], name: &str) -> ModulePath {
    [module, &[name.to_owned()]].concat()
}

fn is_name(char: char) -> bool {
    char.is_alphanumeric() || char == '_'
}

fn is_test_attribute(line: &str) -> bool {
    line.starts_with("#[cfg(test)") || line.starts_with("#[cfg(any(test")
}

/// The modules in other files that are there for tests only.
fn test_modules(source: &str) -> Vec<String> {
    let mut lines = source.lines();
    let mut names = Vec::new();
    while lines.by_ref().any(is_test_attribute) {
        let item = lines.find(|line| !line.starts_with("#[")).unwrap_or("");
        let name = item
            .strip_suffix(';')
            .and_then(|item| item.rsplit_once("mod "));
        names.extend(name.map(|(_, name)| name.to_owned()));
    }
    names
}

/// The source without comments, and without the items for tests, which rustfmt ends with a line of one brace.
fn code_of(source: &str) -> String {
    let mut lines = source.lines();
    let mut code = String::new();
    while let Some(line) = lines.next() {
        if is_test_attribute(line) {
            let item = lines.find(|line| !line.starts_with("#[")).unwrap_or("");
            if !item.ends_with(';') && !item.ends_with('}') {
                lines.find(|line| *line == "}");
            }
            continue;
        }
        code += line.split("//").next().unwrap_or_default();
        code.push('\n');
    }
    code
}

/// The paths that text begins with: `a::{b, c::d}` is `a::b` and `a::c::d`.
fn expand(text: &str) -> Vec<Vec<String>> {
    let mut paths = Vec::new();
    expand_behind(text, &mut Vec::new(), &mut paths);
    paths
}

/// Expands the path after a prefix, and returns the text after it.
fn expand_behind<'a>(
    text: &'a str,
    prefix: &mut Vec<String>,
    paths: &mut Vec<Vec<String>>,
) -> &'a str {
    let text = text.trim_start();
    if let Some(mut list) = text.strip_prefix('{') {
        loop {
            list = list.trim_start_matches([' ', '\n', ',']);
            if list.is_empty() || list.starts_with('}') {
                return list.strip_prefix('}').unwrap_or_default();
            }
            let rest = expand_behind(list, prefix, paths);
            // What is no path.
            list = if rest.len() == list.len() { "" } else { rest };
        }
    }
    let end = text.find(|char| !is_name(char)).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    if name.is_empty() {
        return rest.strip_prefix('*').unwrap_or(rest);
    }
    prefix.push(name.to_owned());
    let rest = match rest.strip_prefix("::") {
        Some(rest) => expand_behind(rest, prefix, paths),
        None => {
            paths.push(prefix.clone());
            skip_alias(rest)
        }
    };
    prefix.pop();
    rest
}

fn skip_alias(text: &str) -> &str {
    match text.strip_prefix(" as ") {
        Some(alias) => alias.trim_start_matches(is_name),
        None => text,
    }
}

/// A path from the root; `None` for one that leads out of the crate.
fn resolve(module: &[String], path: &[String]) -> Option<ModulePath> {
    let mut place = module.to_vec();
    let mut names = path.iter().peekable();
    if names.next_if(|name| *name == "crate").is_some() {
        place.clear();
    }
    while let Some(name) = names.next_if(|name| *name == "super" || *name == "self") {
        if name == "super" {
            place.pop()?;
        }
    }
    place.extend(names.cloned());
    Some(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows the imports of each folder as "folder: a -> b, …".
    fn show(sources: &[(&str, &str)]) -> Vec<String> {
        let own = |(path, source): &(&str, &str)| ((*path).to_owned(), (*source).to_owned());
        let sources: Vec<_> = sources.iter().map(own).collect();
        let folders = Package::read(&sources).folders();
        let shown = folders.iter().flat_map(|(folder, imports)| {
            imports.iter().flat_map(move |(module, named)| {
                let named = named.iter();
                named.map(move |name| format!("{folder}: {module} -> {name}"))
            })
        });
        shown.collect()
    }

    /// Check which names count as imports, also those below `crate` in the middle of the code.
    #[test]
    fn imports_of_a_file() {
        let source = "
use crate::{
    a::{x, y::z},
    b,
    c_d::E as F,
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
fn p() { crate::q::r() }
";
        let mut sources = vec![("main_part", source)];
        let others = [
            "a", "b", "c_d", "f", "crate_g", "h", "j", "l", "n", "o", "q",
        ];
        sources.extend(others.map(|name| (name, "")));
        let expected = ["a", "b", "c_d", "f", "j", "q"];
        assert_eq!(
            show(&sources),
            expected.map(|name| format!(": main_part -> {name}"))
        );
    }

    /// Check that `super` goes up by one module each time, and that imports are of the folder in which both modules are.
    #[test]
    fn imports_by_super() {
        let sources = [
            ("a/mod", "mod b; mod c; mod d;"),
            ("a/b", "use super::c::C;"),
            ("a/c", "use super::super::e;"),
            ("a/d/mod", "use super::{b::{self, B}, super::e::E};"),
            ("a/d/f", "use super::g::G; fn h() { super::super::c::c() }"),
            ("a/d/g", "use self::i;"),
            ("e", ""),
        ];
        let expected = ["a: b -> c", "a: d -> b", "a: d -> c", "a/d: f -> g"];
        let mut shown = show(&sources);
        let root = shown.drain(..1).collect::<Vec<_>>();
        assert_eq!(
            (root, shown),
            (
                vec![": a -> e".to_owned()],
                expected.map(str::to_owned).to_vec()
            )
        );
    }

    /// Check that an item that a folder's module passes on is of the module that has it.
    #[test]
    fn imports_of_what_is_passed_on() {
        let sources = [
            (
                "a/mod",
                "mod b; mod c; pub use b::{B, D as E}; pub use self::c::C;",
            ),
            ("a/b", "use super::C;"),
            ("a/c", "use crate::a::B;"),
        ];
        assert_eq!(show(&sources), ["a: b -> c", "a: c -> b"]);
    }

    /// Check that what only tests have is left out.
    #[test]
    fn imports_of_tests() {
        let sources = [
            (
                "a",
                "#[cfg(test)]\npub(crate) mod testing {\n    use super::super::b;\n}\nfn f() {}\n",
            ),
            (
                "b",
                "#[cfg(test)]\nmod tests;\n#[cfg(test)]\nuse crate::a;\n",
            ),
            ("b/tests", "use crate::a;"),
            ("c", "use crate::b;"),
        ];
        assert_eq!(show(&sources), [": c -> b"]);
    }
}
