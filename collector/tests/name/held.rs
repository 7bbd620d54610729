//! Files that are kept open after their processes have ended.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use collector::file::{ElfFile, HeldFile, MappedBy, Relatives, UnnamedReason, hold};
use collector::name::Naming;

use collector::blocking_pool::BlockingPool;
use collector::clock::monotonic_ns;
use collector::process::{FileIdentity, FileKind, Files, ProcessTable, SnapshotReader};
use collector::unwind::{self, RuleSet, read_table};
use collector::upload::find_parts;

use crate::paths::{build_id, directory, start_in_root};
use crate::target::{
    Program, Running, functions, namer, new_key, object, options, reason, unmapped_file,
};

fn hold_alone(file: &ElfFile) -> Result<HeldFile, UnnamedReason> {
    hold(file.clone(), Relatives::default(), &BlockingPool::default())
}

fn held(file: ElfFile, held: HeldFile) -> ElfFile {
    ElfFile {
        held: Some(Arc::new(held)),
        ..file
    }
}

/// Check that a held file has its load segments although nobody has asked for it, since unnamed
/// offsets need them.
#[test]
fn layouts_are_known_of_held_files() {
    let directory = directory();
    let program = Program::compile(directory.path().join("program"), "a_function");
    let offset = program.offset_of("a_function");
    let file = unmapped_file(&program.path);
    let mut namer = namer();
    assert!(namer.segments(&object(file.clone())).is_empty());
    let opened = hold_alone(&file).unwrap();
    let object = object(held(file, opened));
    let segments = namer.segments(&object).to_vec();
    assert!(segments.len() >= 2, "{segments:?}");
    assert_eq!(
        functions(&namer.name(&object, &[offset])[0]),
        ["a_function"]
    );
    assert_eq!(namer.segments(&object), segments);
}

/// The file with this many section headers, those that it lacks being empty.
fn with_sections(file: &[u8], count: u16) -> Vec<u8> {
    let word = |at: usize| u64::from_le_bytes(file[at..at + 8].try_into().unwrap());
    let (table, old_count) = (word(40) as usize, u16::from_le_bytes([file[60], file[61]]));
    let old = &file[table..table + usize::from(old_count) * 64];
    let mut changed = file.to_vec();
    changed.resize(file.len().next_multiple_of(8), 0);
    let new_table = changed.len() as u64;
    changed.extend(old);
    changed.resize(new_table as usize + usize::from(count) * 64, 0);
    changed[40..48].copy_from_slice(&new_table.to_le_bytes());
    changed[60..62].copy_from_slice(&count.to_le_bytes());
    changed
}

/// Check that a file with as many sections as there may be has names, unwind rows, parts to upload and a layout while it is held,
/// and that one with a section more has none of them.
#[test]
fn a_file_over_a_limit_has_nothing() {
    let directory = directory();
    let program = Program::compile(directory.path().join("program"), "a_function");
    let offset = program.offset_of("a_function");
    let bytes = fs::read(&program.path).unwrap();
    let sections_max = elf::Limits::MAPPED.sections as u16;
    for (sections, is_within) in [(sections_max, true), (sections_max + 1, false)] {
        let bytes = with_sections(&bytes, sections);
        let path = directory.path().join(sections.to_string());
        fs::write(&path, &bytes).unwrap();
        let file = unmapped_file(&path);
        let mut namer = namer();
        let namings = namer.name(&object(file.clone()), &[offset]);
        let expected = if is_within {
            "a_function"
        } else {
            "unnamed: limit"
        };
        assert_eq!(functions(&namings[0]), [expected]);
        let rows = read_table(&*bytes, &mut RuleSet::new(), &unwind::Limits::default());
        assert_eq!(rows.is_ok(), is_within);
        let parts = find_parts(bytes.len() as u64, &*bytes);
        assert_eq!(parts.is_some(), is_within);
        let opened = hold_alone(&file).unwrap();
        let segments = self::namer().segments(&object(held(file, opened))).len();
        assert_eq!(segments > 0, is_within);
    }
}

/// The process id of a process that has ended.
fn ended_pid() -> u32 {
    let mut child = Command::new("true").spawn().unwrap();
    child.wait().unwrap();
    child.id()
}

/// Check that a program whose process has ended, and whose file was deleted or replaced, has its
/// names if it was held, and none otherwise.
#[test]
fn held_files_are_named_when_they_are_gone() {
    let directory = directory();
    let path = directory.path().join("program");
    let first = Program::compile(path.clone(), "first_function");
    let offset = first.offset_of("first_function");
    let (file, opened) = {
        let running = first.start();
        fs::remove_file(&path).unwrap();
        let file = running.code_file(&path);
        let opened = hold_alone(&file).unwrap();
        (file, opened)
    };
    Program::compile(path, "other_function");
    let mut namer = namer();
    let namings = namer.name(&object(file.clone()), &[offset]);
    assert_eq!(reason(&namings), UnnamedReason::FileGone);
    // The reason `file_gone` of the last request is not kept.
    let namings = namer.name(&object(held(file, opened)), &[offset]);
    assert_eq!(functions(&namings[0]), ["first_function"]);
}

/// Check that a file which has replaced another one is not held in its place, neither by mapping
/// nor by path.
#[test]
fn only_the_build_that_is_meant_is_held() {
    let directory = directory();
    let program = Program::compile(directory.path().join("program"), "a_function");
    let other = Program::compile(directory.path().join("other"), "other_function");
    let running = program.start();
    let mut file = ElfFile {
        build_id: Some(build_id(&program.path)),
        ..running.code_file(&program.path)
    };
    assert!(hold_alone(&file).is_ok());
    file.build_id = Some(build_id(&other.path));
    assert_eq!(hold_alone(&file).unwrap_err(), UnnamedReason::FileGone);
}

/// A file in a root directory, of a process there that has ended.
fn ended_in_root(program: &Program, path: &str, pid: u32) -> ElfFile {
    ElfFile {
        path: path.into(),
        candidates: vec![MappedBy {
            pid,
            parent: 0,
            start: 0x1000,
            end: 0x2000,
        }],
        ..unmapped_file(&program.path)
    }
}

/// Check that the file of an ended process is found in the root of an ancestor or of a process in
/// its cgroup.
#[test]
fn relatives_lead_to_the_root() {
    let root = directory();
    let root = root.path().canonicalize().unwrap();
    let living = start_in_root(&root);
    let program = Program::compile(root.join("brief"), "brief_function");
    let offset = program.offset_of("brief_function");
    let file = ended_in_root(&program, "/brief", ended_pid());
    assert_eq!(hold_alone(&file).unwrap_err(), UnnamedReason::FileGone);

    let cgroup = directory();
    fs::write(
        cgroup.path().join("cgroup.procs"),
        format!("{}\n{}\n", ended_pid(), living.pid()),
    )
    .unwrap();
    let by_ancestor = Relatives {
        ancestors: vec![ended_pid(), std::process::id(), living.pid()],
        cgroup: None,
    };
    let by_cgroup = Relatives {
        ancestors: vec![std::process::id()],
        cgroup: Some(cgroup.path().into()),
    };
    for relatives in [by_ancestor, by_cgroup] {
        let opened = hold(file.clone(), relatives, &BlockingPool::default()).unwrap();
        let file = ElfFile {
            key: new_key(),
            ..held(file.clone(), opened)
        };
        let namings = namer().name(&object(file), &[offset]);
        assert_eq!(functions(&namings[0]), ["brief_function"]);
    }
}

/// Check that a debug link is followed in the process's root while the root exists, so that lines
/// are known after the root is gone.
#[test]
fn debug_files_are_held_too() {
    let directory = directory();
    let root = directory.path().canonicalize().unwrap().join("root");
    fs::create_dir_all(root.join("opt/app")).unwrap();
    let program = Program::compile(root.join("opt/app/tool"), "a_function");
    let offset = program.offset_of("a_function");
    let debug = root.join("opt/app/tool.debug");
    run(Command::new("objcopy")
        .arg("--only-keep-debug")
        .args([&program.path, &debug]));
    run(Command::new("objcopy")
        .arg("--strip-all")
        .arg(format!("--add-gnu-debuglink={}", debug.display()))
        .arg(&program.path));

    let running: Running = start_in_root(&root);
    let file = ended_in_root(&program, "/opt/app/tool", running.pid());
    let opened = hold_alone(&file).unwrap();
    drop(running);
    fs::remove_dir_all(&root).unwrap();
    let namings = namer().name(&object(held(file.clone(), opened)), &[offset + 4]);
    let Naming::Named(frames) = &namings[0] else {
        panic!("{namings:?}");
    };
    assert_eq!(functions(&namings[0]), ["a_function"]);
    assert_eq!(frames[0].line, 2, "{frames:?}");
    // Without the held files, neither the program nor its debug information is found.
    let namings = namer().name(&object(file), &[offset + 4]);
    assert_eq!(reason(&namings), UnnamedReason::FileGone);
}

/// Check that a file which is gone with its processes is named through a live process that maps it
/// by another path, and not through one that maps a copy.
#[test]
fn another_living_process_leads_to_the_file() {
    let directory = directory();
    let program = Program::compile(directory.path().join("gone"), "a_function");
    let offset = program.offset_of("a_function");
    let [link, copy] = ["link", "copy"].map(|name| directory.path().join(name));
    fs::hard_link(&program.path, &link).unwrap();
    fs::copy(&program.path, &copy).unwrap();
    let living = [link, copy].map(|path| Program { path }.start());

    let mut table = ProcessTable::new();
    let reader = SnapshotReader::new(BlockingPool::default());
    for running in &living {
        table.apply_read(reader.read(running.pid()), monotonic_ns());
    }
    let file = ElfFile {
        build_id: Some(build_id(&program.path)),
        ..unmapped_file(&program.path)
    };
    fs::remove_file(&program.path).unwrap();
    let identity = FileIdentity::Inode {
        device: living[0].code_file(directory.path()).inode.unwrap().device,
        inode: file.inode.unwrap().number,
        generation: 0,
        claimed_build_id: file.build_id,
    };
    let path = program.path.to_str().unwrap().as_bytes();
    let mut files = Files::new();
    let gone = files.intern(FileKind::File, path, identity);
    let also_gone = files.intern(FileKind::File, b"/elsewhere", identity);
    let found = table.find_living(&[gone.clone(), also_gone.clone()], 2);
    let [by, also_by] = &found[..] else {
        panic!("{found:?}");
    };
    assert_eq!((by.pid, &by.file), (living[0].pid(), &gone));
    assert_eq!((also_by.pid, &also_by.file), (living[0].pid(), &also_gone));
    let file = |candidates: Vec<MappedBy>| ElfFile {
        candidates,
        ..file.clone()
    };
    let mapped_by = MappedBy {
        pid: by.pid,
        parent: by.parent,
        start: by.start,
        end: by.end,
    };
    let mut namer = namer();
    let namings = namer.name(&object(file(Vec::new())), &[offset]);
    assert_eq!(reason(&namings), UnnamedReason::FileGone);
    // The mapping process exists now.
    let namings = namer.name(&object(file(vec![mapped_by])), &[offset]);
    assert_eq!(functions(&namings[0]), ["a_function"]);
}

fn run(command: &mut Command) {
    assert!(command.status().unwrap().success(), "{command:?}");
}

/// Check that only regular files are held, and that a held file above the size limit has the reason
/// `limit`.
#[test]
fn odd_files_are_not_held() {
    let root = directory();
    let fifo = root.path().join("fifo");
    run(Command::new("mkfifo").arg(&fifo));
    for path in [&fifo, root.path(), Path::new("/dev/zero")] {
        let result = hold_alone(&unmapped_file(path));
        assert_eq!(result.unwrap_err(), UnnamedReason::FileGone);
    }
    let program = Program::compile(root.path().join("program"), "a_function");
    let file = unmapped_file(&program.path);
    let opened = hold_alone(&file).unwrap();
    let mut small = options();
    small.file_bytes_max = 3;
    let namings = collector::name::Namer::new(small).name(&object(held(file, opened)), &[0]);
    assert_eq!(reason(&namings), UnnamedReason::Limit);
}
