//! Debug information in several files: split units (`.dwo`), packages of them (`.dwp`), and files
//! that `dwz` shares between programs.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use collector::file::{ElfFile, MappedBy};
use collector::name::{Frame, Namer, NamerOptions, Naming};
use symbolize::FileFacts;

use crate::paths::{build_id, directory, start_in_root};
use crate::target::{Running, functions, namer, object, options, unmapped_file};
use crate::variants::{SOURCE, offset_in_outer, run};
use tempfile::TempDir;

/// A process with its own root, which contains a program that was built below `/src`.
struct Container {
    root: PathBuf,
    running: Running,
    program: PathBuf,
    offset: u64,
    _directory: TempDir,
}

impl Container {
    fn new(options: &[&str]) -> Self {
        let directory = directory();
        let root = directory.path().canonicalize().unwrap().join("root");
        fs::create_dir_all(root.join("src")).unwrap();
        let running = start_in_root(&root);
        fs::write(root.join("src/program.c"), SOURCE).unwrap();
        let program = root.join("src/program");
        run(Command::new("cc")
            .current_dir(root.join("src"))
            .args(["-g", "-O2", "-Wl,--build-id=sha1", "-o", "program"])
            .arg(format!("-fdebug-prefix-map={}=", root.display()))
            .args(options)
            .arg("program.c"));
        Self {
            offset: offset_in_outer(&program),
            root,
            running,
            program,
            _directory: directory,
        }
    }

    fn place(&self, path: &str) -> PathBuf {
        let place = self.root.join(path);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        place
    }

    fn split_file(&self) -> PathBuf {
        split_file(&self.root.join("src"))
    }

    /// The program's mapped file, for a process in the root.
    fn file(&self) -> ElfFile {
        let mut file = unmapped_file(&self.program);
        file.path = Path::new("/")
            .join(self.program.strip_prefix(&self.root).unwrap())
            .into();
        file.candidates = self.running.code_file(Path::new("/")).candidates;
        // Found by its path in the root, since `sleep` does not map it.
        file.candidates[0].start += 4096;
        file
    }

    fn frames(&self, namer: &mut Namer, file: ElfFile) -> Vec<Frame> {
        frames(&namer.name(&object(file), &[self.offset])[0])
    }

    /// Checks whether the inlined call is known.
    fn check(&self, knows: Knows, what: &str) -> Namer {
        let mut namer = namer();
        let file = ElfFile {
            build_id: Some(build_id(&self.program)),
            ..self.file()
        };
        let frames = self.frames(&mut namer, file);
        check(&frames, knows, what);
        namer
    }
}

/// The split unit that the compiler wrote to this directory.
pub(crate) fn split_file(directory: &Path) -> PathBuf {
    let mut files = fs::read_dir(directory).unwrap();
    let is_split = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "dwo");
    let found = files.find_map(|entry| Some(entry.unwrap().path()).filter(is_split));
    found.expect("the compiler wrote a .dwo file")
}

#[derive(Clone, Copy)]
enum Knows {
    Line,
    Inlined,
}

fn frames(naming: &Naming) -> Vec<Frame> {
    let Naming::Named(frames) = naming else {
        panic!("{naming:?}");
    };
    frames.to_vec()
}

fn check(frames: &[Frame], knows: Knows, what: &str) {
    let found: Vec<(&str, u32)> = frames
        .iter()
        .map(|frame| (&*frame.function, frame.line))
        .collect();
    let expected = match knows {
        Knows::Line => &[("outer", 2)][..],
        Knows::Inlined => &[("inlined", 2), ("outer", 6)],
    };
    assert_eq!(found, expected, "{what}");
    let is_source = |frame: &Frame| frame.file.ends_with("src/program.c");
    assert!(frames.iter().all(is_source), "{what}: {frames:?}");
}

const SPLIT: [&[&str]; 2] = [
    &["-gsplit-dwarf", "-gdwarf-5"],
    &["-gsplit-dwarf", "-gdwarf-4"],
];

/// Check that split units are read from the compiler's output directory and from beside a moved
/// program, only in the process's root, and that missing ones are counted.
#[test]
fn split_files_are_found_in_the_process_root() {
    for options in SPLIT {
        let mut container = Container::new(options);
        let split = container.split_file();
        let namer = container.check(Knows::Inlined, "where it was built");
        let stats = namer.stats();
        assert_eq!((stats.split_files, stats.split_files_missing), (1, 0));
        assert_eq!(stats.requests, 2);

        let kept = container.root.with_extension("dwo");
        fs::rename(&split, &kept).unwrap();
        let namer = container.check(Knows::Line, "without it");
        let stats = namer.stats();
        assert_eq!((stats.split_files, stats.split_files_missing), (1, 1));
        assert_eq!(stats.files_without_debug_info, 0);

        let moved = container.place("opt/app/program");
        fs::rename(&container.program, &moved).unwrap();
        fs::copy(&kept, moved.with_file_name(split.file_name().unwrap())).unwrap();
        container.program = moved;
        container.check(Knows::Inlined, "beside a program that was moved");
        fs::rename(container.place("opt/app"), container.place("opt/other")).unwrap();
        container.program = container.place("opt/other/program");
        container.check(Knows::Inlined, "as it is not kept by path");
        // The host has a file at the path that the program names.
        fs::remove_file(
            container
                .place("opt/other")
                .join(split.file_name().unwrap()),
        )
        .unwrap();
        symlink(&kept, &split).unwrap();
        container.check(Knows::Line, "a link out of the root");
    }
}

/// Check that packages, beside the program and in the build-id tree, replace the split files.
#[test]
fn packages_are_read() {
    for (options, tool) in SPLIT.into_iter().zip(["llvm-dwp-22", "dwp"]) {
        let container = Container::new(options);
        let split = container.split_file();
        let package = container.root.join("src/program.dwp");
        run(Command::new(tool)
            .current_dir(container.root.join("src"))
            .arg(&split)
            .args(["-o".as_ref(), package.as_os_str()]));
        fs::remove_file(&split).unwrap();
        let namer = container.check(Knows::Inlined, "beside the program");
        assert_eq!(namer.stats().split_files, 0, "{options:?}");

        let hex = build_id(&container.program).to_string();
        let (head, tail) = hex.split_at(2);
        let place = container.place(&format!("usr/lib/debug/.build-id/{head}/{tail}.dwp"));
        fs::rename(&package, place).unwrap();
        container.check(Knows::Inlined, "in the build-id tree");

        // A package of another program: none of its units belongs to this one.
        let other = Container::new(&[options, &["-DOTHER=1", "-O1"]].concat());
        run(Command::new(tool)
            .arg(other.split_file())
            .args(["-o".as_ref(), package.as_os_str()]));
        fs::remove_dir_all(container.root.join("usr/lib/debug")).unwrap();
        container.check(Knows::Line, "of another program");
        fs::write(&package, "no package").unwrap();
        container.check(Knows::Line, "no package at all");
    }
}

/// Check that a split file is only used if it contains the unit, and that any other file in its
/// place costs no more than the inlined calls.
#[test]
fn split_files_that_are_not_right_are_refused() {
    for options in SPLIT {
        let container = Container::new(options);
        let split = container.split_file();
        let bytes = fs::read(&split).unwrap();
        let other = Container::new(&[options, &["-O1"]].concat());
        let put: [(&str, &dyn Fn()); 7] = [
            ("of another build", &|| {
                fs::copy(other.split_file(), &split).map(drop).unwrap()
            }),
            ("cut", &|| {
                fs::write(&split, &bytes[..bytes.len() / 2]).unwrap()
            }),
            ("empty", &|| fs::write(&split, "").unwrap()),
            ("the program itself", &|| {
                symlink("program", &split).unwrap()
            }),
            ("a FIFO", &|| run(Command::new("mkfifo").arg(&split))),
            ("a directory", &|| fs::create_dir(&split).unwrap()),
            ("larger than may be", &|| {
                fs::write(&split, &bytes).unwrap();
                let file = fs::File::options().write(true).open(&split).unwrap();
                file.set_len((16 << 30) + 1).unwrap();
            }),
        ];
        for (what, put) in put {
            if split.is_dir() {
                fs::remove_dir(&split).unwrap();
            } else if split.symlink_metadata().is_ok() {
                fs::remove_file(&split).unwrap();
            }
            put();
            let namer = container.check(Knows::Line, what);
            assert_eq!(namer.stats().ends, Default::default(), "{what}");
        }
        fs::remove_dir_all(&split)
            .or_else(|_| fs::remove_file(&split))
            .unwrap();
        fs::write(&split, &bytes).unwrap();
        container.check(Knows::Inlined, "the right one again");
    }
}

/// Check that split files are not searched for after the time is used up, and that this is counted.
#[test]
fn split_files_are_left_when_there_is_no_time() {
    let container = Container::new(SPLIT[0]);
    let mut namer = Namer::new(NamerOptions {
        window_time: Duration::from_nanos(1),
        ..options()
    });
    let frames = container.frames(&mut namer, container.file());
    check(&frames, Knows::Line, "without the time");
    let stats = namer.stats();
    assert_eq!((stats.split_files, stats.split_files_left), (0, 1));
    assert_eq!((stats.requests, stats.held_back.window_time), (1, 1));
}

/// Check a stripped program whose debug file has split units.
#[test]
fn debug_files_may_be_split() {
    let container = Container::new(SPLIT[0]);
    let debug = container.root.join("src/program.debug");
    let objcopy = || Command::new("objcopy");
    run(objcopy()
        .arg("--only-keep-debug")
        .args([&container.program, &debug]));
    run(objcopy()
        .arg("--strip-all")
        .arg(format!("--add-gnu-debuglink={}", debug.display()))
        .arg(&container.program));
    let namer = container.check(Knows::Inlined, "by the debug link");
    assert_eq!(namer.stats().requests, 3);
}

/// Check a program with more units than fit into one request, and that known units are not
/// requested again.
#[test]
fn many_split_files_are_asked_for_in_turn() {
    const UNITS: usize = 150;
    let directory = directory();
    let mut compile = Command::new("cc");
    compile
        .current_dir(&directory)
        .args(["-g", "-O2", "-gsplit-dwarf", "-o", "program", "main.c"]);
    let mut main = String::new();
    for unit in 0..UNITS {
        let source = format!(
            "static inline __attribute__((always_inline)) int inlined_{unit}(int n) {{\n\
             __asm__ volatile(\".skip 16, 0x90\"); return n + {unit}; }}\n\
             int outer_{unit}(int n) {{ return inlined_{unit}(n) + 1; }}\n"
        );
        fs::write(directory.path().join(format!("unit{unit}.c")), source).unwrap();
        compile.arg(format!("unit{unit}.c"));
        main += &format!("int outer_{unit}(int);\n");
    }
    main += "int main(int n, char **v) { (void)v;\n";
    (0..UNITS).for_each(|unit| main += &format!("n += outer_{unit}(n);\n"));
    fs::write(directory.path().join("main.c"), main + "return n; }\n").unwrap();
    run(&mut compile);
    let path = directory.path().join("program");
    let program = crate::target::Program { path };
    let offsets: Vec<u64> = (0..UNITS)
        .map(|unit| program.offset_of(&format!("outer_{unit}")) + 8)
        .collect();
    let mut namer = namer();
    let file = object(seen_here(&program.path));
    let namings = namer.name(&file, &offsets);
    for (unit, naming) in namings.iter().enumerate() {
        let names = functions(naming);
        assert_eq!(names.last(), Some(&format!("outer_{unit}")), "{names:?}");
        assert!(names.len() == 2, "{unit}: {names:?}");
    }
    let stats = namer.stats();
    assert_eq!((stats.split_files, stats.split_files_missing), (150, 0));
    let again: Vec<u64> = offsets.iter().map(|offset| offset + 1).collect();
    namer.name(&file, &again);
    assert_eq!(namer.stats().split_files, 150);
    assert_eq!(namer.stats().requests, stats.requests + 1);
}

/// A file that only this process has in its root, and that no process maps.
pub(crate) fn seen_here(path: &Path) -> ElfFile {
    ElfFile {
        candidates: vec![MappedBy {
            pid: std::process::id(),
            parent: 0,
            start: 4096,
            end: 8192,
        }],
        ..unmapped_file(path)
    }
}

/// Check the output of rustc, in both forms.
#[test]
fn split_rust_programs_are_named() {
    const RUST: &str = "\
#[inline(always)]
fn inlined(n: u64) -> u64 {
    (0..n).fold(n, |sum, number| std::hint::black_box(sum ^ number))
}
#[inline(never)]
#[unsafe(no_mangle)]
fn outer(n: u64) -> u64 {
    inlined(n) + inlined(n + 1)
}
fn main() {
    std::process::exit(outer(std::env::args().count() as u64) as i32);
}
";
    for form in ["unpacked", "packed"] {
        let directory = directory();
        let source = directory.path().join("program.rs");
        fs::write(&source, RUST).unwrap();
        run(Command::new("rustc")
            .current_dir(&directory)
            .args([
                "--edition=2024",
                "-Copt-level=2",
                "-Cdebuginfo=2",
                "-o",
                "program",
            ])
            .arg(format!("-Csplit-debuginfo={form}"))
            .arg("program.rs"));
        let path = directory.path().join("program");
        let program = crate::target::Program { path };
        let start = program.offset_of("outer");
        let offsets: Vec<u64> = (start + 4..start + 40).step_by(4).collect();
        let mut namer = namer();
        let namings = namer.name(&object(seen_here(&program.path)), &offsets);
        let chains: Vec<Vec<String>> = namings.iter().map(functions).collect();
        let is_inlined = |chain: &Vec<String>| {
            chain.last().is_some_and(|name| name.ends_with("outer"))
                && chain.iter().any(|name| name.ends_with("inlined"))
        };
        assert!(chains.iter().any(is_inlined), "{form}: {chains:?}");
        let stats = namer.stats();
        assert_eq!(stats.split_files > 0, form == "unpacked", "{stats:?}");
        assert_eq!(stats.split_files_missing, 0, "{form}");
    }
}

/// Check that a program with units of DWARF 5 by LLVM and others of DWARF 4, like Rust's library,
/// is not taken for split, and that a split program of DWARF 4 is.
#[test]
fn units_of_two_versions_are_not_split() {
    let directory = directory();
    let path = directory.path().join("program");
    fs::write(path.with_extension("rs"), "fn main() {}").unwrap();
    for packing in ["none", "zlib"] {
        run(Command::new("rustc")
            .current_dir(&directory)
            .args(["-Cdebuginfo=2", "-Cdwarf-version=5", "program.rs"])
            .arg(format!(
                "-Clink-arg=-Wl,--compress-debug-sections={packing}"
            )));
        let facts = facts_of(&path);
        assert!(facts.has_debug_info && !facts.is_split, "{packing}");
    }
    let sections = Command::new("readelf").arg("-SW").arg(&path).output();
    let sections = String::from_utf8(sections.unwrap().stdout).unwrap();
    assert!(sections.contains(" .debug_addr "), "it shows nothing");
    for options in SPLIT {
        assert!(facts_of(&Container::new(options).program).is_split);
    }
}

fn facts_of(program: &Path) -> FileFacts {
    let mut namer = namer();
    let object = object(unmapped_file(program));
    namer.name(&object, &[0]);
    namer.facts(&object).unwrap().clone()
}

/// Makes `dwz` move a program's common debug information to `shared`.
pub(crate) fn share(program: &Path, shared: &Path, link: &str) {
    let other = program.with_extension("other");
    fs::copy(program, &other).unwrap();
    run(Command::new("dwz")
        .arg("-m")
        .arg(shared)
        .args(["-M", link])
        .args([program, &other]));
}

/// Check that names which `dwz` has moved to a shared file are found there, by build id and by
/// path, and that a file of another build is refused.
#[test]
fn shared_debug_information_is_read() {
    const LINK: &str = "/usr/lib/debug/.dwz/shared.debug";
    let container = Container::new(&["-gdwarf-4"]);
    let shared = container.root.join("shared.debug");
    share(&container.program, &shared, LINK);
    let check = |knows: bool, what: &str| {
        let mut namer = namer();
        let frames = container.frames(&mut namer, container.file());
        let names: Vec<&str> = frames.iter().map(|frame| &*frame.function).collect();
        if knows {
            assert_eq!(names, ["inlined", "outer"], "{what}")
        } else {
            assert!(!names.contains(&"inlined"), "{what}: {names:?}")
        }
        namer
    };
    check(false, "without it");
    let hex = build_id(&shared).to_string();
    let (head, tail) = hex.split_at(2);
    for place in [
        format!("usr/lib/debug/.build-id/{head}/{tail}.debug"),
        LINK[1..].to_owned(),
    ] {
        let path = container.place(&place);
        fs::copy(&shared, &path).unwrap();
        let namer = check(true, &place);
        assert_eq!(namer.stats().files_without_debug_info, 0);
        // A file of another build, and no file at all.
        fs::copy(&container.program, &path).unwrap();
        let namer = check(false, "of another build");
        assert_eq!(namer.stats().files_without_debug_info, 1);
        fs::remove_file(&path).unwrap();
        symlink(&shared, &path).unwrap();
        check(false, "a link out of the root");
        fs::remove_file(&path).unwrap();
    }
}

/// Check a shared file whose name is relative to the debug file, as on Fedora.
#[test]
fn shared_files_may_be_named_from_the_debug_file() {
    let container = Container::new(&[]);
    let shared = container.root.join("shared.debug");
    share(&container.program, &shared, "../../.dwz/shared");
    let hex = build_id(&container.program).to_string();
    let (head, tail) = hex.split_at(2);
    let debug = container.place(&format!("usr/lib/debug/.build-id/{head}/{tail}.debug"));
    let objcopy = || Command::new("objcopy");
    run(objcopy()
        .arg("--only-keep-debug")
        .args([&container.program, &debug]));
    run(objcopy().arg("--strip-all").arg(&container.program));
    fs::rename(&shared, container.place("usr/lib/debug/.dwz/shared")).unwrap();
    container.check(Knows::Inlined, "from the build-id tree");
}
