//! The uploaded ranges of a file give the same names as the whole file, for an independent reader.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use collector::upload::{FileParts, Offer, find_parts};
use fastrand::Rng;

use crate::differential::ask_symbolizer;
use crate::own_address;
use crate::target::{code_segment, locate};

const CPP: &str = "\
#include <algorithm>
#include <iostream>
#include <map>
#include <regex>
#include <string>
#include <vector>
template <typename T> T scale(T value, int by) { T sum{}; for (int i = 0; i < by; i++) sum = sum * 3 + value; return sum; }
int main(int argc, char **argv) {
    std::map<std::string, std::vector<int>> items;
    std::regex pattern(\"([a-z]+)-([0-9]+)\");
    for (int i = 0; i < argc; i++) {
        if (std::regex_match(argv[i], pattern)) items[argv[i]].push_back(scale(i, 3));
    }
    for (auto &[name, list] : items) {
        std::sort(list.begin(), list.end());
        std::cout << name << list.size();
    }
}
";

fn parts_of(path: &Path) -> FileParts {
    let file = File::open(path).unwrap();
    let bytes = file.metadata().unwrap().len();
    find_parts(bytes, &file).unwrap()
}

/// The file on the server: its ranges at their offsets, and zeros elsewhere.
fn write_parts(path: &Path, parts: &FileParts, to: &Path) {
    let (from, out) = (File::open(path).unwrap(), File::create(to).unwrap());
    out.set_len(parts.file_bytes).unwrap();
    for part in &parts.parts {
        let mut bytes = vec![0; part.bytes as usize];
        from.read_exact_at(&mut bytes, part.offset).unwrap();
        out.write_all_at(&bytes, part.offset).unwrap();
    }
}

fn compile_cpp(directory: &Path, name: &str, options: &[&str]) -> PathBuf {
    let source = directory.join("program.cc");
    fs::write(&source, CPP).unwrap();
    let path = directory.join(name);
    let status = Command::new("g++")
        .args(["-g", "-O2", "-std=c++17", "-o"])
        .args([&path, &source])
        .args(options)
        .status();
    assert!(status.unwrap().success());
    path
}

/// Check that the ranges give the same names at random addresses, for programs in several forms and
/// for this one, and the size of the ranges.
#[test]
fn parts_name_what_the_whole_file_does() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let mut programs = vec![PathBuf::from(&locate(own_address()).0.path)];
    for (name, options) in [
        ("dwarf5", &["-gdwarf-5"][..]),
        ("dwarf4", &["-gdwarf-4"]),
        ("packed", &["-gz"]),
        ("fixed", &["-no-pie"]),
    ] {
        programs.push(compile_cpp(directory, name, options));
    }
    for path in programs {
        let parts = parts_of(&path);
        assert_eq!(parts.offer, Offer::DebugInfo);
        let sent = directory.join("sent");
        write_parts(&path, &parts, &sent);
        let code = code_segment(&fs::read(&path).unwrap());
        let mut random = Rng::with_seed(7);
        let offset = |_| code.offset + random.u64(..code.bytes);
        let offsets: Vec<u64> = (0..2000).map(offset).collect();
        let whole = ask_symbolizer(&path, &code, &offsets);
        let named = whole.iter().filter(|frames| frames[0].line > 0).count();
        assert!(named > 200, "{named} have a line");
        assert_eq!(ask_symbolizer(&sent, &code, &offsets), whole);
        let (sent, all) = (parts.total_bytes(), parts.file_bytes);
        println!(
            "{}: {sent} of {all} bytes in {} parts, {named} of 2000 with a line",
            path.display(),
            parts.parts.len()
        );
        assert!(sent < all);
    }
}

/// Check that no range contains mapped code or data, except for notes and the tables that lead to
/// symbols.
#[test]
fn parts_have_no_code() {
    let own = PathBuf::from(&locate(own_address()).0.path);
    let code = code_segment(&fs::read(&own).unwrap());
    let parts = parts_of(&own);
    let (from, to) = (code.offset, code.offset + code.bytes);
    let in_code = parts
        .parts
        .iter()
        .filter(|part| part.offset < to && part.end() > from);
    assert_eq!(in_code.count(), 0);
}
