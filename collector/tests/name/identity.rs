//! Files are identified by their contents, not by the build id that they claim.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use collector::blocking_pool::BlockingPool;
use collector::file::{ElfFile, FileKey, Relatives, hold};
use elf::BuildId;

use crate::paths::{build_id, directory};
use crate::target::{Program, Running, functions, namer, object, unmapped_file};

/// Replaces a program's build id by that of another file.
fn claim(program: &Program, build_id: BuildId) {
    let own = crate::paths::build_id(&program.path);
    let mut contents = fs::read(&program.path).unwrap();
    let own = own.as_bytes();
    let at = contents.windows(own.len()).position(|bytes| bytes == own);
    contents[at.unwrap()..][..own.len()].copy_from_slice(build_id.as_bytes());
    fs::write(&program.path, contents).unwrap();
    assert_eq!(crate::paths::build_id(&program.path), build_id);
}

/// Two programs with the same build id and different functions at the same offset.
fn twins(directory: &Path) -> ([Program; 2], u64) {
    let compile = |name| Program::compile(directory.join(name), name);
    let programs = ["honest_function", "hostile_function"].map(compile);
    claim(&programs[1], build_id(&programs[0].path));
    let [offset, other] = [0, 1].map(|at: usize| {
        let name = programs[at].path.file_name().unwrap();
        programs[at].offset_of(name.to_str().unwrap())
    });
    assert_eq!(offset, other);
    (programs, offset)
}

fn sampled(running: &Running, path: &Path) -> ElfFile {
    let file = ElfFile {
        build_id: Some(build_id(path)),
        ..running.code_file(path)
    };
    file.with_stamp(&BlockingPool::default())
}

/// Check that two files with the same build id each have their own names, in any order of sampling,
/// held or not, and with or without their processes.
#[test]
fn a_claimed_build_id_shares_no_names() {
    let directory = directory();
    let (programs, offset) = twins(directory.path());
    let running = programs.each_ref().map(Program::start);
    let sample = |at: usize| sampled(&running[at], &programs[at].path);
    let hold = |file: ElfFile| {
        let pool = BlockingPool::default();
        let held = hold(file.clone(), Relatives::default(), &pool).unwrap();
        let held = Some(Arc::new(held));
        ElfFile { held, ..file }.with_stamp(&pool)
    };
    let unmapped = |at: usize| {
        let path = &programs[at].path;
        let file = ElfFile {
            build_id: Some(build_id(path)),
            ..unmapped_file(path)
        };
        file.with_stamp(&BlockingPool::default())
    };
    let ways: [&dyn Fn(usize) -> ElfFile; 3] = [&sample, &|at| hold(sample(at)), &unmapped];
    for way in ways {
        for order in [[0, 1], [1, 0]] {
            let mut namer = namer();
            for at in order {
                let name = programs[at].path.file_name().unwrap().to_str().unwrap();
                let namings = namer.name(&object(way(at)), &[offset]);
                assert_eq!(functions(&namings[0]), [name]);
            }
        }
    }
}

/// Check that a file with the right build id is not accepted in place of another file at the same
/// path.
#[test]
fn a_claimed_build_id_replaces_no_file() {
    let directory = directory();
    let ([honest, hostile], offset) = twins(directory.path());
    let file = {
        let running = honest.start();
        sampled(&running, &honest.path)
    };
    fs::rename(&hostile.path, &honest.path).unwrap();
    let namings = namer().name(&object(file), &[offset]);
    assert_eq!(functions(&namings[0]), ["unnamed: file_gone"]);
}

/// Check that a file is read once for all processes that map it, by any path, and again after a
/// change.
#[test]
fn one_file_is_read_once() {
    let directory = directory();
    let (programs, offset) = twins(directory.path());
    let [program, other] = &programs;
    let link = directory.path().join("link");
    fs::hard_link(&program.path, &link).unwrap();
    let pool = BlockingPool::default();
    let mut namer = namer();
    let name = |namer: &mut collector::name::Namer, path: PathBuf| {
        let file = unmapped_file(&path).with_stamp(&pool);
        assert!(matches!(file.key, FileKey::Stamp(_)));
        functions(&namer.name(&object(file), &[offset])[0])
    };
    for running in [program.start(), program.start()] {
        let file = sampled(&running, &program.path);
        assert_eq!(
            functions(&namer.name(&object(file), &[offset])[0]),
            ["honest_function"]
        );
    }
    assert_eq!(name(&mut namer, link.clone()), ["honest_function"]);
    assert_eq!((namer.stats().requests, namer.stats().cache_files), (1, 1));
    fs::write(&link, fs::read(&other.path).unwrap()).unwrap();
    assert_eq!(name(&mut namer, link), ["hostile_function"]);
}
