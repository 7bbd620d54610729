//! Files that were moved or replaced, or that are not regular files.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt as _, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use collector::file::{ElfFile, MappedBy, UnnamedReason};
use elf::BuildId;
use tempfile::TempDir;

use crate::target::{
    DEADLINE, Program, Running, functions, mappings, namer, new_key, object, options, reason,
    unmapped_file, until,
};

pub(crate) fn directory() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// The build id from `readelf -n`.
pub(crate) fn build_id(path: &Path) -> BuildId {
    let output = Command::new("readelf")
        .arg("-n")
        .arg(path)
        .output()
        .unwrap();
    let notes = String::from_utf8(output.stdout).unwrap();
    let hex = notes
        .split_once("Build ID: ")
        .unwrap()
        .1
        .split_whitespace()
        .next()
        .unwrap();
    let bytes: Vec<u8> = (0..hex.len() / 2)
        .map(|at| u8::from_str_radix(&hex[at * 2..at * 2 + 2], 16).unwrap())
        .collect();
    BuildId::new(&bytes).unwrap()
}

/// Check that a running program is named from its own file after the file was deleted, and after
/// another file has its path.
#[test]
fn deleted_and_replaced_files_are_named_by_their_mapping() {
    let directory = directory();
    let first = Program::compile(directory.path().join("program"), "first_function");
    let offset = first.offset_of("first_function");
    let running = first.start();
    let file = |running: &Running| object(running.code_file(&first.path));

    fs::remove_file(&first.path).unwrap();
    let mut namer = namer();
    let namings = namer.name(&file(&running), &[offset]);
    assert_eq!(functions(&namings[0]), ["first_function"]);

    let second = Program::compile(directory.path().join("program"), "other_function");
    assert_eq!(second.offset_of("other_function"), offset);
    let namings = namer.name(&file(&running), &[offset]);
    assert_eq!(functions(&namings[0]), ["first_function"]);
    let namings = namer.name(&file(&second.start()), &[offset]);
    assert_eq!(functions(&namings[0]), ["other_function"]);
}

/// Check that after the process's end a file at the same path is only used if inode and build id
/// are those of the mapped file.
#[test]
fn path_alone_is_not_trusted() {
    let directory = directory();
    let path = directory.path().join("program");
    let program = Program::compile(path.clone(), "first_function");
    let offset = program.offset_of("first_function");
    let id = build_id(&path);
    let file = {
        let running = program.start();
        running.code_file(&path)
    };
    let by_build_id = ElfFile {
        build_id: Some(id),
        inode: None,
        ..file.clone()
    };
    let by_both = ElfFile {
        build_id: Some(id),
        ..file.clone()
    };
    let name = |file: &ElfFile| namer().name(&object(file.clone()), &[offset]);
    assert_eq!(functions(&name(&file)[0]), ["first_function"]);
    assert_eq!(functions(&name(&by_both)[0]), ["first_function"]);
    assert_eq!(reason(&name(&by_build_id)), UnnamedReason::FileGone);

    let kept = directory.path().join("kept");
    fs::rename(&path, &kept).unwrap();
    Program::compile(path.clone(), "other_function");
    // A copy has another inode, and the same build id.
    let copy = || fs::copy(&kept, &path).map(drop);
    for change in [&|| Ok(()), &copy as &dyn Fn() -> std::io::Result<()>] {
        change().unwrap();
        for file in [&file, &by_both, &by_build_id] {
            assert_eq!(reason(&name(file)), UnnamedReason::FileGone);
        }
    }
    // The same inode with other contents.
    fs::rename(&kept, &path).unwrap();
    assert_eq!(functions(&name(&by_both)[0]), ["first_function"]);
    let other = Program::compile(directory.path().join("other"), "other_function");
    fs::write(&path, fs::read(other.path).unwrap()).unwrap();
    assert_eq!(reason(&name(&by_both)), UnnamedReason::FileGone);
}

/// Check that other kinds of files are never opened: opening or reading one of these takes forever.
#[test]
fn special_files_are_left_alone() {
    let directory = directory();
    let fifo = directory.path().join("fifo");
    assert!(
        Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .unwrap()
            .success()
    );
    let started = Instant::now();
    let mut namer = namer();
    for path in [
        &fifo,
        directory.path(),
        Path::new("/dev/zero"),
        Path::new("/dev/tty"),
    ] {
        let namings = namer.name(&object(unmapped_file(path)), &[0, 4096]);
        assert_eq!(
            reason(&namings),
            UnnamedReason::FileGone,
            "{}",
            path.display()
        );
    }
    assert!(started.elapsed() < DEADLINE);
    assert_eq!(namer.stats().ends, Default::default());
}

/// Check the reasons for an empty file and for one that is not ELF, and the size limit.
#[test]
fn odd_files_have_a_reason() {
    let directory = directory();
    let path = directory.path().join("file");
    let mut namer = namer();
    for (contents, expected) in [
        (&b""[..], UnnamedReason::Corrupt),
        (b"#!/bin/sh\n", UnnamedReason::Corrupt),
        (b"\x7fELF", UnnamedReason::Corrupt),
    ] {
        fs::write(&path, contents).unwrap();
        let namings = namer.name(&object(unmapped_file(&path)), &[0, 4096]);
        assert_eq!(reason(&namings), expected, "{contents:?}");
    }
    let mut options = options();
    options.file_bytes_max = 3;
    let mut namer = collector::name::Namer::new(options);
    let namings = namer.name(&object(unmapped_file(&path)), &[0]);
    assert_eq!(reason(&namings), UnnamedReason::Limit);
}

/// Check a file with a hole of many gigabytes: its program is named without reading all of it.
/// Beyond the limit it has a reason, and so it has if its headers claim to fill the whole file.
#[test]
fn huge_files_are_not_read_whole() {
    let directory = directory();
    let program = Program::compile(directory.path().join("program"), "a_function");
    let offset = program.offset_of("a_function");
    let path = directory.path().join("huge");
    fs::copy(&program.path, &path).unwrap();
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    let mut namer = namer();
    let started = Instant::now();
    let mut name = |key| {
        let file = ElfFile {
            key,
            ..unmapped_file(&path)
        };
        let namings = namer.name(&object(file), &[offset]);
        let stats = namer.stats();
        assert!(stats.child_resident_peak_bytes < 300 << 20, "{stats:?}");
        namings
    };
    file.set_len(options().file_bytes_max).unwrap();
    assert_eq!(functions(&name(new_key())[0]), ["a_function"]);
    // Section header count 0: the first section header has the number, here 200 million.
    let sections = options().file_bytes_max - (200_000_000 * 64);
    file.write_all_at(&sections.to_le_bytes(), 40).unwrap();
    file.write_all_at(&[0; 2], 60).unwrap();
    file.write_all_at(&200_000_000_u64.to_le_bytes(), sections + 32)
        .unwrap();
    let namings = name(new_key());
    assert!(
        matches!(
            reason(&namings),
            UnnamedReason::Limit | UnnamedReason::Corrupt
        ),
        "{namings:?}"
    );
    file.set_len(options().file_bytes_max + 1).unwrap();
    assert_eq!(reason(&name(new_key())), UnnamedReason::Limit);
    assert!(started.elapsed() < DEADLINE);
}

/// A process that runs `sleep` in its own root directory.
pub(crate) fn start_in_root(root: &Path) -> Running {
    let sleep = Path::new("/bin/sleep").canonicalize().unwrap();
    let probe = Running(Command::new(&sleep).arg("60").spawn().unwrap());
    until("sleep has its libraries", || {
        let paths: Vec<String> = mappings(probe.pid())
            .into_iter()
            .map(|mapping| mapping.path)
            .collect();
        paths.iter().any(|path| path.contains("libc")) && paths.iter().any(|path| path == "[stack]")
    });
    let mut paths: Vec<String> = mappings(probe.pid())
        .into_iter()
        .map(|mapping| mapping.path)
        .collect();
    // Files that the program opens by name.
    paths.push("/lib64/ld-linux-x86-64.so.2".into());
    paths.push("/lib/x86_64-linux-gnu/libc.so.6".into());
    for path in paths
        .iter()
        .filter(|path| path.starts_with('/') && Path::new(path).exists())
    {
        let copy = root.join(&path[1..]);
        fs::create_dir_all(copy.parent().unwrap()).unwrap();
        fs::copy(path, copy).unwrap();
    }
    let child = Command::new("chroot")
        .arg(root)
        .arg(&sleep)
        .arg("60")
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let running = Running(child);
    until("sleep runs in its root", || {
        let maps = mappings(running.pid());
        maps.iter()
            .any(|mapping| mapping.is_code && mapping.path.ends_with("sleep"))
            && fs::read_link(format!("/proc/{}/root", running.pid())).unwrap() == root
    });
    running
}

/// Check that paths are resolved in the process's root: a symbolic link there, absolute or with
/// `..`, does not lead to a file of the host.
#[test]
fn links_stay_in_the_root_of_the_process() {
    let root = directory();
    let root = root.path().canonicalize().unwrap();
    let outside = directory();
    let program = Program::compile(outside.path().join("secret"), "secret_function");
    let offset = program.offset_of("secret_function");
    let running = start_in_root(&root);
    symlink(&program.path, root.join("absolute")).unwrap();
    let up = format!(
        "{}{}",
        "../".repeat(20),
        &program.path.to_str().unwrap()[1..]
    );
    symlink(up, root.join("dots")).unwrap();
    symlink(
        format!("/proc/{}/exe", std::process::id()),
        root.join("magic"),
    )
    .unwrap();
    fs::copy(&program.path, root.join("inside")).unwrap();
    symlink("/../inside", root.join("good")).unwrap();

    let mut namer = namer();
    let mut name = |link: &str, target: &Path| {
        // As a process could claim: the path of the link with the inode of the target.
        let mut file = unmapped_file(target);
        file.path = format!("/{link}").into();
        file.candidates = running.code_file(Path::new("/")).candidates;
        file.candidates[0].start += 4096;
        namer.name(&object(file), &[offset])
    };
    assert_eq!(
        reason(&name("absolute", &program.path)),
        UnnamedReason::FileGone
    );
    assert_eq!(
        reason(&name("dots", &program.path)),
        UnnamedReason::FileGone
    );
    assert_eq!(
        reason(&name("magic", &program.path)),
        UnnamedReason::FileGone
    );
    let inside = root.join("inside");
    assert_eq!(functions(&name("good", &inside)[0]), ["secret_function"]);
}

/// Check that the file of an ended process is found in its parent's root, not on the host.
#[test]
fn files_of_ended_processes_are_found_where_their_parents_live() {
    let root = directory();
    let root = root.path().canonicalize().unwrap();
    let parent = start_in_root(&root);
    let program = Program::compile(root.join("brief"), "brief_function");
    let offset = program.offset_of("brief_function");
    let ended = {
        let mut child = Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        child.id()
    };
    let name = |parent: u32| {
        let mut file = unmapped_file(&program.path);
        file.path = "/brief".into();
        file.candidates = vec![MappedBy {
            pid: ended,
            parent,
            start: 0x1000,
            end: 0x2000,
        }];
        namer().name(&object(file), &[offset])
    };
    assert_eq!(functions(&name(parent.pid())[0]), ["brief_function"]);
    assert_eq!(reason(&name(0)), UnnamedReason::FileGone);
    assert_eq!(reason(&name(std::process::id())), UnnamedReason::FileGone);
}

/// Check that the child may reuse a descriptor's number for another file: more files than stay
/// open, in turns, each with its own names.
#[test]
fn files_are_not_mixed_up() {
    let directory = directory();
    let first = Program::compile(directory.path().join("program0"), "function_0000");
    let offset = first.offset_of("function_0000");
    let bytes = fs::read(&first.path).unwrap();
    let mut files = Vec::new();
    for index in 0..40 {
        // The files differ only in names: same size, same offsets.
        let name = format!("function_{index:04}");
        let mut bytes = bytes.clone();
        while let Some(at) = find(&bytes, b"function_0000").filter(|_| index > 0) {
            bytes[at..at + name.len()].copy_from_slice(name.as_bytes());
        }
        let path = directory.path().join(format!("copy{index}"));
        fs::write(&path, bytes).unwrap();
        files.push((unmapped_file(&path), name));
    }
    let mut namer = namer();
    for round in 0..3 {
        for (file, name) in &files {
            // Another offset in each round, so that the child answers and not the cache.
            let namings = namer.name(&object(file.clone()), &[offset + round]);
            assert_eq!(functions(&namings[0]), std::slice::from_ref(name));
        }
    }
    assert_eq!(namer.stats().requests, 120);
}

fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}
