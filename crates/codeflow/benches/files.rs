//! Compares rows by instructions with call frame information, over files: see
//! testdata/bench/codeflow.

#[path = "../tests/compare/mod.rs"]
mod compare;

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use compare::{ElfFile, Options, Source, Tally, compare};

/// Where programs and libraries are.
const FOLDERS: [&str; 3] = ["/usr/bin", "/usr/sbin", "/usr/lib"];

fn main() {
    let mut options = Options {
        points: 2_000,
        source: Source::Regions,
        examples: 0,
    };
    let mut prints_files = false;
    let mut paths: Vec<PathBuf> = Vec::new();
    for argument in std::env::args().skip(1) {
        match argument.split_once('=') {
            Some(("points", number)) => options.points = number.parse().expect("a number"),
            Some(("examples", number)) => options.examples = number.parse().expect("a number"),
            _ if argument == "closures" => options.source = Source::Closures,
            _ if argument == "files" => prints_files = true,
            _ if argument.starts_with("--") => {}
            _ => paths.push(PathBuf::from(argument)),
        }
    }
    if paths.is_empty() {
        paths = FOLDERS.map(PathBuf::from).to_vec();
    }
    let mut sum = Tally::default();
    let mut files = 0;
    for file in list_files(paths)
        .iter()
        .filter_map(|path| ElfFile::read(path))
    {
        let Some(tally) = compare(&file, &options) else {
            continue;
        };
        files += 1;
        if prints_files {
            println!("{}", file.path.display());
            tally.print();
        }
        sum += &tally;
    }
    println!("{files} files");
    sum.print();
}

/// All files below the paths, each once, whatever links lead to it.
fn list_files(paths: Vec<PathBuf>) -> Vec<PathBuf> {
    let mut open = paths;
    let mut seen = HashSet::new();
    let mut files = Vec::new();
    while let Some(path) = open.pop() {
        let Ok(path) = path.canonicalize() else {
            continue;
        };
        if !seen.insert(path.clone()) {
            continue;
        }
        if path.is_dir() {
            open.extend(list_folder(&path));
        } else {
            files.push(path);
        }
    }
    files.sort();
    files
}

fn list_folder(path: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}
