//! Go programs, stripped and unstripped, linked in each way that Go supports, compared with the
//! DWARF of their unstripped twins.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::rc::Rc;

use collector::name::Naming;
use fastrand::Rng;
use symbolize::go::GoFile;

use crate::differential::{Frame, ask_symbolizer, our_frames};
use crate::target::{CodeSegment, DEADLINE, code_segment, functions, namer, object, unmapped_file};

/// Options of building a program.
#[derive(Clone, Copy)]
struct Build {
    cgo: &'static str,
    mode: &'static str,
    link: &'static str,
}

/// Each way of linking: by Go or by the system's linker, at a fixed address or
/// position-independent.
const BUILDS: [Build; 4] = [
    Build {
        cgo: "0",
        mode: "exe",
        link: "internal",
    },
    Build {
        cgo: "0",
        mode: "pie",
        link: "internal",
    },
    Build {
        cgo: "1",
        mode: "exe",
        link: "external",
    },
    Build {
        cgo: "1",
        mode: "pie",
        link: "external",
    },
];

impl Build {
    /// Builds testdata/names/go in `directory`. `strip` sets what Go's linker omits: `-s` symbols,
    /// `-w` DWARF.
    ///
    /// Test other versions of Go with `GOTOOLCHAIN=go1.17.13 cargo test --test name go::`.
    fn run(self, directory: &Path, strip: &str) -> PathBuf {
        let Self { cgo, mode, link } = self;
        let path = directory.join(format!("{mode}-{link}{}", strip.replace(' ', "")));
        let output = Command::new("go")
            .current_dir(copy_sources(directory))
            .envs([("CGO_ENABLED", cgo), ("GOFLAGS", ""), ("GOENV", "off")])
            .env(
                "GOTOOLCHAIN",
                std::env::var("GOTOOLCHAIN").as_deref().unwrap_or("local"),
            )
            .arg("build")
            .arg(format!("-buildmode={mode}"))
            // LLVM cannot read DWARF in the compressed form of Go up to 1.18.
            .arg(format!(
                "-ldflags=-compressdwarf=false -linkmode={link} {strip}"
            ))
            .arg("-o")
            .args([&path, Path::new(".")])
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        path
    }
}

/// Copies the program out of the repository: Go would otherwise embed the repository's version.
fn copy_sources(directory: &Path) -> PathBuf {
    let copy = directory.join("sources");
    fs::create_dir_all(&copy).unwrap();
    for entry in fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../testdata/names/go")).unwrap()
    {
        let entry = entry.unwrap();
        fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
    }
    copy
}

/// Go's table calls `f[go.shape.int]` `f[...]`.
fn without_types(name: &str) -> String {
    let mut depth = 0;
    let mut out = String::new();
    for char in name.chars() {
        depth += i32::from(char == '[');
        if depth == 0 {
            out.push(char);
        } else if char == '[' && depth == 1 {
            out.push_str("[...]");
        }
        depth -= i32::from(char == ']');
    }
    out
}

/// Random offsets in the code of a file.
fn draw_offsets(code: &CodeSegment, count: usize) -> Vec<u64> {
    let mut random = Rng::with_seed(7);
    let mut offsets: Vec<u64> = (0..count)
        .map(|_| code.offset + random.u64(..code.bytes))
        .collect();
    offsets.sort_unstable();
    offsets.dedup();
    offsets
}

/// The result of a comparison, in addresses.
#[derive(Debug, Default)]
struct Compared {
    same: usize,
    different: usize,
    /// Without a line of Go code: C code, and padding between functions, which Go's table assigns
    /// to the preceding function.
    without_line: usize,
    /// Go code that our table lacks.
    unnamed: usize,
}

impl Compared {
    /// Compares names with those of another tool; counts equal ones by `is_same`.
    fn count(
        namings: &[Naming],
        theirs: &[Vec<Frame>],
        is_same: impl Fn(&[Frame], &[Frame]) -> bool,
    ) -> Self {
        let mut compared = Self::default();
        for (naming, theirs) in namings.iter().zip(theirs) {
            let ours = our_frames(naming);
            let file = &theirs[0].file;
            let is_go = file.ends_with(".go") || file.ends_with(".s") || file.ends_with('>');
            if theirs[0].line == 0 || !is_go {
                compared.without_line += 1;
            } else if ours.is_empty() {
                compared.unnamed += 1;
            } else if is_same(&ours, theirs) {
                compared.same += 1;
            } else {
                compared.different += 1;
                if compared.different <= 5 {
                    eprintln!("  ours   {ours:?}\n  theirs {theirs:?}");
                }
            }
        }
        compared
    }

    /// Checks the share of equal names among the comparable ones.
    fn check(&self, same_min: usize) {
        let Self {
            same,
            different,
            unnamed,
            ..
        } = *self;
        assert!(same >= same_min, "{self:?}");
        assert!((different + unnamed) * 200 <= same, "{self:?}");
    }
}

/// Compares the names at random offsets in `stripped` with the DWARF of its twin, which has the
/// same code at the same offsets.
fn compare(stripped: &Path, twin: &Path, count: usize) -> Compared {
    let code = code_segment(&fs::read(stripped).unwrap());
    let offsets = draw_offsets(&code, count);
    let namings = namer().name(&object(unmapped_file(stripped)), &offsets);
    let theirs = ask_symbolizer(twin, &code_segment(&fs::read(twin).unwrap()), &offsets);
    assert_eq!(theirs.len(), offsets.len());
    let compared = Compared::count(&namings, &theirs, |ours, theirs| {
        ours.len() == theirs.len() && ours.iter().zip(theirs).all(is_same)
    });
    eprintln!("{}: {compared:?}", stripped.display());
    compared
}

/// LLVM prepends the compilation directory, `.`, to a relative path. For functions in assembly and
/// their wrappers it uses the name of the symbol table, which has the calling convention (`.abi0`)
/// and no `·`.
fn is_same((ours, theirs): (&Frame, &Frame)) -> bool {
    let file = theirs.file.strip_prefix("./").unwrap_or(&theirs.file);
    let name = theirs.name.strip_suffix(".abi0").unwrap_or(&theirs.name);
    ours.line == theirs.line
        && ours.file == file
        && without_types(&ours.name).replace('·', ".") == without_types(name)
}

/// Removes a file's section headers.
fn without_sections(path: &Path) -> PathBuf {
    let mut bytes = fs::read(path).unwrap();
    bytes[40..48].fill(0);
    bytes[58..64].fill(0);
    let bare = path.with_extension("bare");
    fs::write(&bare, bytes).unwrap();
    bare
}

/// Check that programs without symbols and DWARF have the same names, inlined calls, files and
/// lines as their twins with DWARF, also without section headers.
#[test]
fn stripped_programs_are_named_as_by_dwarf() {
    let directory = tempfile::tempdir().unwrap();
    for build in BUILDS {
        let twin = build.run(directory.path(), "");
        let stripped = build.run(directory.path(), "-s -w");
        compare(&stripped, &twin, 4000).check(3500);
        compare(&without_sections(&stripped), &twin, 1000).check(800);
    }
}

/// Check a large program as released, Go's own, against `go tool addr2line`, which returns the
/// function that contains the code, and the innermost file and line.
#[test]
fn go_itself_is_named_as_by_its_addr2line() {
    let root = Command::new("go").args(["env", "GOROOT"]).output().unwrap();
    let path = Path::new(String::from_utf8(root.stdout).unwrap().trim()).join("bin/go");
    let path = path.canonicalize().unwrap();
    let code = code_segment(&fs::read(&path).unwrap());
    let offsets = draw_offsets(&code, 6000);
    let addresses: String = offsets
        .iter()
        .map(|offset| format!("{:#x}\n", offset - code.offset + code.address))
        .collect();
    let mut child = Command::new("go")
        .args(["tool", "addr2line"])
        .arg(&path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || input.write_all(addresses.as_bytes()).unwrap());
    let output = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    writer.join().unwrap();
    let lines: Vec<&str> = output.lines().collect();
    let theirs: Vec<Vec<Frame>> = lines.chunks(2).map(|pair| vec![read_place(pair)]).collect();
    assert_eq!(theirs.len(), offsets.len());
    let started = std::time::Instant::now();
    let mut namer = namer();
    let namings = namer.name(&object(unmapped_file(&path)), &offsets);
    eprintln!("{} addresses in {:?}", offsets.len(), started.elapsed());
    let compared = Compared::count(&namings, &theirs, |ours, theirs| {
        let (inner, outer) = (&ours[0], &ours[ours.len() - 1]);
        let theirs = &theirs[0];
        let name = theirs.name.strip_suffix(".abi0").unwrap_or(&theirs.name);
        inner.line == theirs.line
            && inner.file == theirs.file
            && without_types(&outer.name).replace('·', ".") == without_types(name)
    });
    eprintln!(
        "{}: {compared:?}, {:?}",
        path.display(),
        namer.stats().child
    );
    compared.check(5000);
}

/// A function and `file:line`; `?` and 0 where there is none.
fn read_place(lines: &[&str]) -> Frame {
    let (file, line) = lines[1].rsplit_once(':').unwrap();
    Frame {
        name: lines[0].to_owned(),
        file: file.to_owned(),
        line: line.parse().unwrap_or(0),
    }
}

/// Check a program with symbols and without DWARF: lines and inlined calls come from Go's table,
/// types of generic functions from the symbols. A function has its start line.
#[test]
fn symbols_add_the_types_of_generic_functions() {
    let directory = tempfile::tempdir().unwrap();
    let path = BUILDS[0].run(directory.path(), "-w");
    let bytes = fs::read(&path).unwrap();
    let code = code_segment(&bytes);
    let nm = Command::new("nm").arg(&path).output().unwrap();
    let symbols = String::from_utf8(nm.stdout).unwrap();
    let address_of = |name: &str| {
        let line = symbols
            .lines()
            .find(|line| line.split(' ').nth(2) == Some(name))
            .unwrap();
        u64::from_str_radix(line.split(' ').next().unwrap(), 16).unwrap()
    };
    let offset_of = |name: &str| address_of(name) - code.address + code.offset;
    let mut namer = namer();
    let object = object(unmapped_file(&path));
    for name in [
        "main.sum[go.shape.int]",
        "main.(*pair[go.shape.string,go.shape.int]).describe",
        "main.total",
    ] {
        let namings = namer.name(&object, &[offset_of(name) + 1]);
        assert_eq!(functions(&namings[0]), [name]);
    }
    // Each offset of a function with inlined calls.
    let caller = offset_of("main.caller");
    let offsets: Vec<u64> = (caller..caller + 64).collect();
    let namings = namer.name(&object, &offsets);
    let mut chains: Vec<Vec<String>> = namings.iter().map(functions).collect();
    chains.sort();
    chains.dedup();
    assert!(
        chains.contains(
            &["main.innermost", "main.inlined", "main.caller"]
                .map(str::to_owned)
                .into()
        ),
        "{chains:?}"
    );
    let source = fs::read_to_string(directory.path().join("sources/main.go")).unwrap();
    let start_of = |function: &str| {
        let is_start = |line: &str| line.starts_with(&format!("func {function}("));
        1 + source.lines().position(is_start).unwrap() as u32
    };
    for naming in &namings {
        let Naming::Named(frames) = naming else {
            panic!("{namings:?}")
        };
        for frame in frames
            .iter()
            .filter(|frame| frame.function.starts_with("main."))
        {
            let function = frame.function.strip_prefix("main.").unwrap();
            assert_eq!(frame.start_line, start_of(function), "{frame:?}");
            assert!(
                frame.file.ends_with("/main.go") && frame.line >= frame.start_line,
                "{frame:?}"
            );
        }
    }
}

/// Check 3,000 damaged programs: truncated anywhere, or with changed bytes in the headers and the
/// table. Each gives names or none, within a short time.
#[test]
fn damaged_tables_give_names_or_none() {
    let directory = tempfile::tempdir().unwrap();
    let mut named = 0;
    for build in [BUILDS[0], BUILDS[3]] {
        let whole = fs::read(build.run(directory.path(), "-s -w")).unwrap();
        let code = code_segment(&whole);
        let offsets: Vec<u64> = (0..64)
            .map(|at| code.offset + at * code.bytes / 64)
            .collect();
        let magic = whole
            .windows(8)
            .position(|bytes| bytes == [0xf1, 0xff, 0xff, 0xff, 0, 0, 1, 8]);
        let table = magic.unwrap_or(0) as u64;
        let len = whole.len() as u64;
        let mut random = Rng::with_seed(0x60);
        let mut damaged = whole.clone();
        for round in 0..1500 {
            let mut cut = whole.len();
            let mut changed = Vec::new();
            if round % 8 == 0 {
                cut = random.u64(..len) as usize;
            }
            for _ in 0..random.u64(..40) {
                let at = match random.u64(..64) {
                    0 => random.u64(..1024),
                    1 => table + random.u64(..128),
                    2 => len - 1 - random.u64(..4096),
                    _ => table + random.u64(..len - table),
                } as usize;
                changed.push(at);
                damaged[at] = random.u8(..);
            }
            let started = std::time::Instant::now();
            if let Some(file) = GoFile::open(&damaged[..cut], &Rc::default()) {
                let names = offsets.iter().map(|offset| file.name(*offset));
                named += usize::from(names.flatten().next().is_some());
            }
            let time = started.elapsed();
            assert!(time < DEADLINE, "{round} took {time:?}");
            for at in changed {
                damaged[at] = whole[at];
            }
        }
    }
    eprintln!("{named} of 3000 gave names");
    assert!(named > 300 && named < 3000);
}
