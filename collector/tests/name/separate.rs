//! Separate debug information.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use collector::file::{ElfFile, UnnamedReason};
use collector::name::{Namer, NamerOptions, Naming};
use tempfile::TempDir;

use crate::paths::{build_id, directory, start_in_root};
use crate::target::{Program, Running, functions, namer, object, options, reason, unmapped_file};

/// A process with its own root, which contains the program `/opt/app/tool` without debug
/// information.
struct Container {
    root: PathBuf,
    running: Running,
    program: Program,
    /// Offset of a function that only the debug information names.
    offset: u64,
    /// The debug information, outside of the root.
    debug: PathBuf,
    _directory: TempDir,
}

fn run(command: &mut Command) {
    assert!(command.status().unwrap().success(), "{command:?}");
}

impl Container {
    /// `strip` is `--strip-all`, or `--strip-debug`, which keeps the symbol table.
    fn new(strip: &str) -> Self {
        let directory = directory();
        let root = directory.path().canonicalize().unwrap().join("root");
        fs::create_dir_all(root.join("opt/app")).unwrap();
        let running = start_in_root(&root);
        let program = Program::compile(root.join("opt/app/tool"), "a_function");
        let offset = program.offset_of("a_function");
        let debug = directory.path().join("tool.debug");
        let objcopy = || Command::new("objcopy");
        run(objcopy()
            .arg("--only-keep-debug")
            .args([&program.path, &debug]));
        run(objcopy()
            .arg(strip)
            .arg(format!("--add-gnu-debuglink={}", debug.display()))
            .arg(&program.path));
        Self {
            root,
            running,
            program,
            offset,
            debug,
            _directory: directory,
        }
    }

    /// The program's mapped file, for a process in the root.
    fn file(&self) -> ElfFile {
        let mut file = unmapped_file(&self.program.path);
        file.path = "/opt/app/tool".into();
        file.candidates = self.running.code_file(Path::new("/")).candidates;
        // Found by its path in the root, since `sleep` does not map it.
        file.candidates[0].start += 4096;
        file
    }

    /// Copies the debug information into the root.
    fn put(&self, place: &str) -> PathBuf {
        let path = self.root.join(place);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::copy(&self.debug, &path).unwrap();
        path
    }

    fn name(&self, file: ElfFile) -> Vec<Naming> {
        namer().name(&object(file), &[self.offset + 4])
    }

    /// Checks that the function has its name and its line.
    fn assert_named(&self, file: ElfFile, what: &str) {
        let namings = self.name(file);
        let Naming::Named(frames) = &namings[0] else {
            panic!("{what}: {namings:?}");
        };
        assert_eq!(functions(&namings[0]), ["a_function"], "{what}");
        assert!(
            frames[0].file.ends_with("tool.c") && frames[0].line == 2,
            "{what}: {frames:?}"
        );
    }

    fn assert_unnamed(&self, file: ElfFile, what: &str) {
        assert_eq!(reason(&self.name(file)), UnnamedReason::NoSymbol, "{what}");
    }
}

/// Check each place that a debug link may lead to, and that a stripped program has no names without
/// it.
#[test]
fn links_lead_beside_the_file_and_below_usr_lib_debug() {
    let container = Container::new("--strip-all");
    container.assert_unnamed(container.file(), "no debug file");
    for place in [
        "opt/app/tool.debug",
        "opt/app/.debug/tool.debug",
        "usr/lib/debug/opt/app/tool.debug",
    ] {
        let path = container.put(place);
        container.assert_named(container.file(), place);
        fs::remove_file(path).unwrap();
    }
}

/// Check the build-id tree, and that a file of another build there is refused.
#[test]
fn the_build_id_tree_is_searched() {
    let container = Container::new("--strip-all");
    let id = build_id(&container.program.path);
    let file = || ElfFile {
        build_id: Some(id),
        ..container.file()
    };
    let hex = id.to_string();
    let (directory, name) = hex.split_at(2);
    let place = format!("usr/lib/debug/.build-id/{directory}/{name}.debug");
    let path = container.put(&place);
    container.assert_named(file(), "by build id");
    // Without the build id, it cannot be found.
    container.assert_unnamed(container.file(), "by nothing");
    let other = Program::compile(container.root.join("other"), "other_function");
    fs::copy(&other.path, &path).unwrap();
    container.assert_unnamed(file(), "of another build");
}

/// Check that there is no further request with the debug file after the time is used up, but one as
/// soon as there is time again.
#[test]
fn what_was_cut_is_asked_for_again() {
    let container = Container::new("--strip-debug");
    container.put("opt/app/tool.debug");
    let mut namer = Namer::new(NamerOptions {
        window_time: Duration::from_nanos(1),
        ..options()
    });
    let object = object(container.file());
    for (windows, line, requests) in [(0, 0, 1), (5, 0, 1), (1, 2, 2), (20, 2, 2)] {
        (0..windows).for_each(|_| namer.end_window());
        let namings = namer.name(&object, &[container.offset + 4]);
        let Naming::Named(frames) = &namings[0] else {
            panic!("{namings:?}");
        };
        let found = (&*frames[0].function, frames[0].line);
        assert_eq!(found, ("a_function", line));
        assert_eq!(namer.stats().requests, requests);
    }
    assert_eq!(namer.stats().held_back.window_time, 1);
}

/// Check that a debug file with another checksum than the link's is refused, and that the symbol
/// table is used.
#[test]
fn a_wrong_checksum_leaves_the_symbol_table() {
    let container = Container::new("--strip-debug");
    let path = container.put("opt/app/tool.debug");
    container.assert_named(container.file(), "with the right checksum");
    let mut bytes = fs::read(&path).unwrap();
    bytes.push(0);
    fs::write(&path, bytes).unwrap();
    let mut namer = namer();
    let object = object(container.file());
    let namings = namer.name(&object, &[container.offset + 4]);
    let Naming::Named(frames) = &namings[0] else {
        panic!("{namings:?}");
    };
    assert_eq!((&*frames[0].function, frames[0].line), ("a_function", 0));
    assert_eq!(namer.stats().files_without_debug_info, 1);
    assert!(!namer.uses_debug_info(&object));
    // The debug file is checked once, and the result is kept.
    namer.name(&object, &[container.offset + 8]);
    assert_eq!(namer.stats().files_without_debug_info, 1);
    assert!(!namer.uses_debug_info(&object));
}

/// Check that debug information is searched only in the process's root, and that only a regular
/// file is opened.
#[test]
fn links_do_not_leave_the_root() {
    let container = Container::new("--strip-all");
    // The path at which the host has the debug information.
    let place = container.root.join("opt/app/tool.debug");
    symlink(&container.debug, &place).unwrap();
    container.assert_unnamed(container.file(), "an absolute link out of the root");
    fs::remove_file(&place).unwrap();
    symlink("../../../../../../../../tool.debug", &place).unwrap();
    container.assert_unnamed(container.file(), "a relative link out of the root");
    fs::remove_file(&place).unwrap();
    run(Command::new("mkfifo").arg(&place));
    container.assert_unnamed(container.file(), "a FIFO");
    fs::remove_file(&place).unwrap();
    // Within the root, a link works like the file.
    container.put("elsewhere/tool.debug");
    symlink("/elsewhere/tool.debug", &place).unwrap();
    container.assert_named(container.file(), "a link within the root");
}

/// Check that a debug file in a process's root is only used for a program of the same owner, or if
/// root owns it: a process may have chosen its root, with a library in it that others also map.
#[test]
fn debug_files_are_of_the_same_owner() {
    let container = Container::new("--strip-all");
    let debug = container.put("opt/app/tool.debug");
    let own = |path: &Path, user| std::os::unix::fs::chown(path, Some(user), None).unwrap();
    own(&debug, 1001);
    container.assert_unnamed(container.file(), "another user's");
    own(&container.program.path, 1001);
    container.assert_named(container.file(), "the same user's");
    own(&debug, 0);
    container.assert_named(container.file(), "root's");
}

/// Check that links of a program in the node's own root are followed when none of its processes lives and their parent is
/// not known.
#[test]
fn links_are_followed_when_no_process_lives() {
    let container = Container::new("--strip-all");
    container.put("opt/app/tool.debug");
    container.assert_named(unmapped_file(&container.program.path), "by its path");
}

/// Check that a container's program gets its own debug information, not the host's at the same
/// path, even if that would match.
#[test]
fn the_host_has_no_debug_files_for_containers() {
    let container = Container::new("--strip-all");
    let host = directory();
    let host = host.path().canonicalize().unwrap();
    fs::copy(&container.debug, host.join("tool.debug")).unwrap();
    let place = host.strip_prefix("/").unwrap();
    fs::create_dir_all(container.root.join(place)).unwrap();
    let copy = container.root.join(place).join("tool");
    fs::copy(&container.program.path, &copy).unwrap();
    let file = || ElfFile {
        path: host.join("tool").into(),
        candidates: container.file().candidates,
        ..unmapped_file(&copy)
    };
    container.assert_unnamed(file(), "the host's");
    container.put(place.join("tool.debug").to_str().unwrap());
    container.assert_named(file(), "the container's");
}
