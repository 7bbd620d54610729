//! Rows by instructions agree with the call frame information of files that each machine has.
//!
//! `testdata/bench/codeflow` compares all files of a machine.

mod compare;

use std::path::PathBuf;

use compare::{ElfFile, Options, Source, Tally, compare};

/// The test itself, and the libraries that it is linked with, by the names of their mappings.
fn files() -> Vec<ElfFile> {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("there is /proc");
    let names = maps
        .lines()
        .filter_map(|line| line.split_whitespace().nth(5));
    let mut paths: Vec<PathBuf> = names
        .filter(|name| name.starts_with('/'))
        .map(PathBuf::from)
        .collect();
    // Libraries with much assembler, where they are installed.
    paths.push(PathBuf::from("/usr/lib/x86_64-linux-gnu/libcrypto.so.3"));
    paths.sort();
    paths.dedup();
    let files: Vec<ElfFile> = paths
        .iter()
        .filter_map(|path| ElfFile::read(path))
        .collect();
    assert!(files.len() >= 3, "the program, libc and the dynamic linker");
    files
}

fn compare_all(options: &Options) -> Tally {
    let mut sum = Tally::default();
    for file in files() {
        sum += &compare(&file, options).unwrap_or_default();
    }
    sum.print();
    sum
}

/// Checks the shares of all points that are wrong, and of those without exception tables that
/// agree, in percent.
fn check(tally: &Tally, agree: [f64; 2]) {
    for (is_call, agree) in [(true, agree[0]), (false, agree[1])] {
        let all = tally.sum(is_call, false);
        assert!(all.all() > 500, "{all:?}");
        assert!(all.percent(all.wrong) <= 0.03, "{all:?}");
        assert!(all.percent(all.wrong_rbp) <= 0.1, "{all:?}");
        let plain = tally.sum(is_call, true);
        assert!(plain.percent(plain.agree) >= agree, "{plain:?}");
        assert!(plain.right_percent() >= 99.95, "{plain:?}");
    }
}

/// Check the rows of whole files.
#[test]
fn regions() {
    let tally = compare_all(&Options {
        points: 2_000,
        source: Source::Regions,
        examples: 5,
    });
    check(&tally, [98.5, 99.0]);
}

/// Check the rows of an analysis for each address. Parts of functions that are far away are not
/// found by it.
#[test]
fn closures() {
    let tally = compare_all(&Options {
        points: 250,
        source: Source::Closures,
        examples: 5,
    });
    check(&tally, [97.0, 98.0]);
}
