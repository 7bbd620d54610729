//! Files that change while they are read, or were never whole.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use collector::blocking_pool::{BlockingPool, Resource};
use collector::file::{ElfFile, FileKey, Relatives, UnnamedReason, hold};
use collector::name::{Namer, Naming, Object, Readings};
use collector::process::{FileIdentity, read_contents};
use fastrand::Rng;
use object::{Object as _, ObjectSection as _};

use crate::linked::{seen_here, split_file};
use crate::own_address;
use crate::paths::build_id;
use crate::target::{
    DEADLINE, Program, code_segment, functions, lease, locate, namer, new_key, object, reason,
    unmapped_file,
};
use crate::variants::{SOURCE, offset_in_outer, run};

fn is_known_reason(naming: &Naming) -> bool {
    match naming {
        Naming::Named(frames) => !frames.is_empty(),
        unnamed => matches!(
            unnamed.unnamed(),
            Some(
                UnnamedReason::NoSymbol
                    | UnnamedReason::Corrupt
                    | UnnamedReason::Limit
                    | UnnamedReason::FileGone
            )
        ),
    }
}

/// Names a file that is truncated and written again all the time, until five children died of it or `tries` are over.
/// Gives the namer, and how many died.
fn name_while_cut(directory: &Path, bytes: &[u8], tries: u32) -> (Namer, u64) {
    let path = directory.join("cut");
    fs::write(&path, bytes).unwrap();
    let code = code_segment(bytes);
    let offsets: Vec<u64> = (0..400)
        .map(|at| code.offset + at * code.bytes / 400)
        .collect();
    let is_over = AtomicBool::new(false);
    let mut namer = namer();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let file = OpenOptions::new().write(true).open(&path).unwrap();
            while !is_over.load(Ordering::Relaxed) {
                let cut = bytes.len() / 3;
                file.set_len(cut as u64).unwrap();
                // Bytes that are not written yet read as zeros, so that the parsed contents change as well.
                file.set_len(bytes.len() as u64).unwrap();
                file.write_all_at(&bytes[cut..], cut as u64).unwrap();
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        for _ in 0..tries {
            let mut file = unmapped_file(&path);
            file.key = new_key();
            let namings = namer.name(&object(file), &offsets);
            assert!(namings.iter().all(is_known_reason), "{namings:?}");
            if namer.stats().ends.died >= 5 {
                break;
            }
        }
        is_over.store(true, Ordering::Relaxed);
    });
    let ends = namer.stats().ends;
    assert_eq!((ends.nonsense, ends.not_started), (0, 0));
    (namer, ends.died)
}

/// Check that a file which is truncated while it is mapped kills at most the child: the addresses get a reason, and the next
/// file is named as if nothing had been.
#[test]
fn file_cut_while_it_is_mapped_kills_only_the_child() {
    let directory = tempfile::tempdir().unwrap();
    let source = directory.path().join("program.c");
    let functions_of_it = (0..4000).map(|at| format!("int f{at}(int x) {{ return x * {at}; }}\n"));
    fs::write(
        &source,
        functions_of_it.collect::<String>() + "int main(void) { return f7(1); }\n",
    )
    .unwrap();
    let program = directory.path().join("program");
    run(Command::new("cc")
        .arg("-g")
        .arg("-o")
        .args([&program, &source]));
    let (mut namer, died) = name_while_cut(directory.path(), &fs::read(&program).unwrap(), 3000);
    assert!(died >= 1, "no child met the cut");
    let (own, offset) = locate(own_address());
    let namings = namer.name(&object(own), &[offset]);
    assert_eq!(functions(&namings[0]), ["name::a_function_with_a_name"]);
}

/// Check that no child dies of a file with much debug information: that is read and not mapped.
#[test]
fn large_file_cut_while_it_is_read_kills_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let (own, _) = locate(own_address());
    let (_, died) = name_while_cut(directory.path(), &fs::read(&own.path).unwrap(), 30);
    assert_eq!(died, 0);
}

/// Check 2,000 damaged files: cut anywhere, or with bytes changed, most of them
/// where the structure is. None is more than the child bears in the end, or
/// what it bears not, the parent does.
#[test]
fn damaged_files_have_names_or_a_reason() {
    let directory = tempfile::tempdir().unwrap();
    let program = Program::compile(directory.path().join("program"), "some_function");
    let bytes = fs::read(&program.path).unwrap();
    let code = code_segment(&bytes);
    let offsets: Vec<u64> = (0..16)
        .map(|at| code.offset + at * code.bytes / 16)
        .collect();
    let path = directory.path().join("damaged");
    let mut random = Rng::with_seed(0x5eed);
    let mut namer = namer();
    let mut named = 0;
    for round in 0..2000 {
        let mut damaged = bytes.clone();
        let len = damaged.len() as u64;
        if round % 4 == 0 {
            damaged.truncate(random.u64(..len) as usize);
        } else {
            for _ in 0..1 + random.u64(..16) {
                // Headers lie at both ends, debug information in the second half.
                let at = match random.u64(..3) {
                    0 => random.u64(..1024),
                    1 => len - 1 - random.u64(..4096),
                    _ => len / 2 + random.u64(..len / 2),
                };
                damaged[at as usize] = random.u8(..);
            }
        }
        fs::write(&path, damaged).unwrap();
        let mut file = unmapped_file(&path);
        file.key = new_key();
        let namings = namer.name(&object(file), &offsets);
        assert_eq!(namings.len(), offsets.len());
        assert!(namings.iter().all(is_known_reason), "{round}: {namings:?}");
        named += usize::from(
            namings
                .iter()
                .any(|naming| matches!(naming, Naming::Named(_))),
        );
    }
    let stats = namer.stats();
    eprintln!("{named} of 2000 files gave names; {:?}", stats.ends);
    assert!(
        named > 500 && stats.files_without_debug_info > 0,
        "{stats:?}"
    );
    assert_eq!((stats.ends.nonsense, stats.ends.timed_out), (0, 0));
    let namings = namer.name(
        &object(unmapped_file(&program.path)),
        &[program.offset_of("caller")],
    );
    assert!(functions(&namings[0]).contains(&"caller".to_owned()));
}

/// Check that a file with a damaged unit counts once, and is known to be damaged also when the last question met another one.
#[test]
fn a_damaged_unit_is_remembered() {
    let directory = tempfile::tempdir().unwrap();
    for unit in ["main", "other"] {
        let source = format!("int {unit}(void) {{ return 1; }}\n");
        fs::write(directory.path().join(unit).with_extension("c"), source).unwrap();
    }
    let path = directory.path().join("program");
    run(Command::new("cc")
        .current_dir(&directory)
        .args(["-g", "-O1", "-o", "program", "main.c", "other.c"]));
    let mut bytes = fs::read(&path).unwrap();
    let parsed = object::File::parse(&*bytes).unwrap();
    let section = parsed.section_by_name(".debug_info").unwrap();
    let (start, _) = section.file_range().unwrap();
    let first_bytes = u32::from_le_bytes(section.data().unwrap()[..4].try_into().unwrap());
    // The header after its length, version, type, size of addresses, and offset of its abbreviations.
    let root = start as usize + 4 + first_bytes as usize + 12;
    bytes[root..root + 8].fill(0x7f);
    fs::write(&path, bytes).unwrap();

    let program = Program { path };
    let [sound, damaged] = ["main", "other"].map(|name| program.offset_of(name));
    let mut namer = namer();
    let file = object(unmapped_file(&program.path));
    let mut name = |offset: u64| {
        let names = functions(&namer.name(&file, &[offset])[0]);
        let stats = namer.stats();
        let counted = (stats.requests, stats.files_without_debug_info);
        (names[0].clone(), namer.uses_debug_info(&file), counted)
    };
    assert_eq!(name(sound), ("main".to_owned(), true, (1, 0)));
    assert_eq!(name(damaged), ("other".to_owned(), false, (2, 1)));
    assert_eq!(name(sound + 1), ("main".to_owned(), false, (3, 1)));
    assert_eq!(name(damaged + 1), ("other".to_owned(), false, (4, 1)));
}

/// Check 600 damaged files with split units, and as many damaged packages: the inlined calls are missing at most, and the
/// child lives, or another one names the rest.
#[test]
fn damaged_split_files_have_names_or_a_reason() {
    let directory = tempfile::tempdir().unwrap();
    let source = directory.path().join("program.c");
    fs::write(&source, SOURCE).unwrap();
    let path = directory.path().join("program");
    run(Command::new("cc").current_dir(&directory).args([
        "-g",
        "-O2",
        "-gsplit-dwarf",
        "-o",
        "program",
        "program.c",
    ]));
    let offset = offset_in_outer(&path);
    let split = split_file(directory.path());
    let package = directory.path().join("program.dwp");
    run(Command::new("llvm-dwp-22")
        .arg(&split)
        .args(["-o".as_ref(), package.as_os_str()]));
    let mut random = Rng::with_seed(0xd0_0d);
    let mut namer = namer();
    let (mut outer, mut inlined) = (0, 0);
    for file in [&package, &split] {
        let bytes = fs::read(file).unwrap();
        let len = bytes.len() as u64;
        for round in 0..600 {
            let mut damaged = bytes.clone();
            if round % 4 == 0 {
                damaged.truncate(random.u64(..len) as usize);
            } else {
                for _ in 0..1 + random.u64(..16) {
                    damaged[random.u64(..len) as usize] = random.u8(..);
                }
            }
            fs::write(file, damaged).unwrap();
            let program = ElfFile {
                key: new_key(),
                ..seen_here(&path)
            };
            let namings = namer.name(&object(program), &[offset]);
            assert!(namings.iter().all(is_known_reason), "{round}: {namings:?}");
            // Names may be damaged too.
            let names = functions(&namings[0]);
            outer += usize::from(names.last().is_some_and(|name| name == "outer"));
            inlined += usize::from(names.len() > 1);
        }
        // Without the package, the split file counts.
        fs::remove_file(file).unwrap();
    }
    let stats = namer.stats();
    eprintln!(
        "{outer} of 1200 named the function, {inlined} gave inlined calls; {:?}",
        stats.ends
    );
    assert!(
        outer > 1000 && inlined > 300 && stats.files_without_debug_info > 0,
        "{stats:?}"
    );
    assert_eq!((stats.ends.nonsense, stats.ends.timed_out), (0, 0));
}

/// An ELF file whose debug link is any text, with a checksum that fits nothing.
fn with_debug_link(program: &Program, link: &str) -> ElfFile {
    let mut section = link.as_bytes().to_vec();
    section.push(0);
    while !section.len().is_multiple_of(4) {
        section.push(0);
    }
    section.extend_from_slice(&[1, 2, 3, 4]);
    let contents = program.path.with_extension("link");
    fs::write(&contents, section).unwrap();
    let linked = program.path.with_extension("linked");
    let status = Command::new("objcopy")
        .arg(format!(
            "--add-section=.gnu_debuglink={}",
            contents.display()
        ))
        .args([&program.path, &linked])
        .status()
        .unwrap();
    assert!(status.success());
    ElfFile {
        key: new_key(),
        ..unmapped_file(&linked)
    }
}

/// Check that a file cannot have the child open another one: with a debug link
/// to a FIFO, to a device, or to a real file, it is named from what it has itself.
#[test]
fn debug_links_lead_nowhere() {
    let directory = tempfile::tempdir().unwrap();
    let program = Program::compile(directory.path().join("program"), "some_function");
    let offset = program.offset_of("some_function");
    let fifo = directory.path().join("fifo");
    assert!(
        Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .unwrap()
            .success()
    );
    let mut namer = namer();
    let started = Instant::now();
    for link in [
        fifo.to_str().unwrap(),
        "fifo",
        "/dev/tty",
        "/etc/passwd",
        "../../../../../../../../etc/passwd",
        "/proc/self/mem",
        "0",
        "3",
    ] {
        let namings = namer.name(&object(with_debug_link(&program, link)), &[offset]);
        let [Naming::Named(frames)] = &namings[..] else {
            panic!("{link}: {namings:?}");
        };
        assert_eq!(&*frames[0].function, "some_function", "{link}");
    }
    assert!(started.elapsed() < DEADLINE);
    assert_eq!(namer.stats().ends, Default::default());
}

/// Check offsets that lie in no segment, in no function, and at both ends.
#[test]
fn odd_offsets_have_a_reason() {
    let (own, _) = locate(own_address());
    let mut namer = namer();
    let offsets = [0, 1, 63, 64, 1 << 20, 1 << 40, u64::MAX - 1, u64::MAX];
    let namings = namer.name(&object(own), &offsets);
    assert!(namings.iter().all(is_known_reason), "{namings:?}");
    let namings = namer.name(
        &Object::Kernel(Readings::ALL),
        &[u64::MAX / 2, 1 << 40, 1 << 62],
    );
    assert!(
        namings
            .iter()
            .all(|naming| matches!(naming, Naming::Unnamed(_))),
        "{namings:?}"
    );
    let namings = namer.name(&Object::Vdso, &[0, 1 << 20, u64::MAX]);
    assert!(namings.iter().all(is_known_reason), "{namings:?}");
    assert_eq!(namer.name(&Object::Vdso, &[]), []);
    assert_eq!(namer.stats().ends, Default::default());
}

/// Check that files on which a process holds a lease, which would have whoever opens them wait for 45 s, have a reason at once,
/// and names later.
#[test]
fn leases_hold_nobody_up() {
    let directory = tempfile::tempdir().unwrap();
    let program = Program::compile(directory.path().join("program"), "a_function");
    let offset = program.offset_of("a_function");
    let build_id = Some(build_id(&program.path));
    let leased = lease(&program.path);
    let file = || leased.code_file(&program.path);
    let known = || ElfFile { build_id, ..file() };
    let started = Instant::now();
    let mut namer = namer();
    let reason_of = |namer: &mut Namer, file| reason(&namer.name(&object(file), &[offset]));
    assert_eq!(reason_of(&mut namer, file()), UnnamedReason::Permission);
    // Whether it has the build id cannot be known.
    assert_eq!(reason_of(&mut namer, known()), UnnamedReason::FileGone);
    let held = hold(known(), Relatives::default(), &BlockingPool::default());
    assert_eq!(held.err(), Some(UnnamedReason::FileGone));
    let (mapped_by, resource) = (file().candidates[0], Resource::of_device(0));
    let pool = BlockingPool::default();
    let id = read_contents(&mapped_by, FileIdentity::Path, resource, &pool);
    assert_eq!(id, None);
    let map = PathBuf::from(format!("/tmp/perf-{}.map", leased.pid()));
    fs::write(&map, "1000 100 made\n").unwrap();
    let map_lease = lease(&map);
    let made = namer.name_jit(leased.pid(), None, &[0x1000]);
    fs::remove_file(&map).unwrap();
    assert_eq!(reason(&made), UnnamedReason::Permission);
    assert!(started.elapsed() < DEADLINE);
    drop((leased, map_lease));
    let namings = namer.name(&object(unmapped_file(&program.path)), &[offset]);
    assert_eq!(functions(&namings[0]), ["a_function"]);
    assert_eq!(namer.stats().ends, Default::default());
}

/// Check that a file gone before it was asked for has that reason, and that it
/// is not asked for again in the same minute.
#[test]
fn missing_file_is_gone() {
    let file = ElfFile {
        key: FileKey::Place(1 << 100),
        path: Path::new("/nowhere/at/all").into(),
        build_id: None,
        inode: None,
        candidates: Vec::new(),
        held: None,
    };
    let mut namer = namer();
    let object = object(file);
    let gone = [Naming::Unnamed(UnnamedReason::FileGone)];
    assert_eq!(namer.name(&object, &[1]), gone);
    assert_eq!(namer.name(&object, &[2]), gone);
    let stats = namer.stats();
    assert_eq!(stats.requests, 1);
    assert_eq!(
        stats.unnamed[usize::from(UnnamedReason::FileGone.code()) - 1],
        2
    );
}
