//! The forms in which compilers and distributions leave names.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use collector::name::{Frame, Naming};

use crate::paths::directory;
use crate::target::{code_segment, namer, object, unmapped_file};

/// A function of which nobody else knows the line, called inline by another one, which is not exported.
pub(crate) const SOURCE: &str = "\
static inline __attribute__((always_inline)) int inlined(int n) {
    for (int i = 0; i < n; i++) __asm__ volatile(\"nop\" : \"+r\"(n));
    return n;
}
static __attribute__((noinline)) int outer(int n) {
    return inlined(n) + inlined(n + 1);
}
int main(int argc, char **argv) {
    return outer(argc);
}
";

pub(crate) fn run(command: &mut Command) {
    assert!(command.status().unwrap().success(), "{command:?}");
}

fn compile(directory: &Path, options: &[&str]) -> PathBuf {
    let source = directory.join("program.c");
    fs::write(&source, SOURCE).unwrap();
    let path = directory.join("program");
    run(Command::new("cc")
        .current_dir(directory)
        .args(["-O2", "-Wl,--build-id=sha1", "-o"])
        .args([&path, &source])
        .args(options));
    path
}

/// Where `nop` is in `outer`, by what `objdump` says of the program, before it is stripped.
pub(crate) fn offset_in_outer(path: &Path) -> u64 {
    let output = Command::new("objdump")
        .args(["-d", "--no-show-raw-insn", "--disassemble=outer"])
        .arg(path)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let line = text.lines().find(|it| it.ends_with("\tnop")).unwrap();
    let address = u64::from_str_radix(line.trim().split(':').next().unwrap(), 16).unwrap();
    let code = code_segment(&fs::read(path).unwrap());
    address - code.address + code.offset
}

/// The offset in the file where `outer` starts, by its symbol.
fn start_of_outer(path: &Path) -> u64 {
    let output = Command::new("nm").arg(path).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let line = text.lines().find(|it| it.ends_with(" outer")).unwrap();
    let address = u64::from_str_radix(line.split(' ').next().unwrap(), 16).unwrap();
    let code = code_segment(&fs::read(path).unwrap());
    address - code.address + code.offset
}

fn frames(path: &Path, offset: u64) -> Vec<Frame> {
    let namings = namer().name(&object(unmapped_file(path)), &[offset]);
    match &namings[0] {
        Naming::Named(frames) => frames.to_vec(),
        unnamed => panic!("{}: {unnamed:?}", path.display()),
    }
}

/// What is expected at an address.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Knows {
    /// The function alone.
    Name,
    /// The function, its file and its line.
    Line,
    /// All of that, and the inlined call.
    Inlined,
}

fn check(path: &Path, offset: u64, knows: Knows, what: &str) {
    let frames = frames(path, offset);
    let names: Vec<&str> = frames.iter().map(|it| &*it.function).collect();
    let expected: &[&str] = match knows {
        Knows::Name | Knows::Line => &["outer"],
        Knows::Inlined => &["inlined", "outer"],
    };
    assert_eq!(names, expected, "{what}");
    let lines: Vec<u32> = frames.iter().map(|it| it.line).collect();
    match knows {
        Knows::Name => assert_eq!(lines, [0], "{what}"),
        Knows::Line => assert_eq!(lines, [2], "{what}"),
        Knows::Inlined => assert_eq!(lines, [2, 6], "{what}"),
    }
    let has_file = |it: &Frame| it.file.ends_with("/program.c");
    assert!(
        knows == Knows::Name || frames.iter().all(has_file),
        "{what}: {frames:?}"
    );
}

/// Check each version and form of debug information that compilers write.
#[test]
fn debug_information_of_each_kind_is_read() {
    for (options, knows) in [
        (&["-g"][..], Knows::Inlined),
        (&["-gdwarf-4"], Knows::Inlined),
        (&["-gdwarf-5"], Knows::Inlined),
        (&["-gdwarf-3"], Knows::Inlined),
        (&["-g", "-gz=zlib"], Knows::Inlined),
        (&["-g", "-static"], Knows::Inlined),
        (&["-g", "-no-pie"], Knows::Inlined),
        (&["-g", "-static-pie"], Knows::Inlined),
        (
            &["-g", "-fno-omit-frame-pointer", "-Wl,-z,noseparate-code"],
            Knows::Inlined,
        ),
        (
            &["-g", "-ffunction-sections", "-Wl,--gc-sections"],
            Knows::Inlined,
        ),
        // The inlined calls are in other files, which are looked for in the root of a process (see `linked`).
        (&["-g", "-gsplit-dwarf"], Knows::Line),
        (&["-g", "-gdwarf-4", "-gsplit-dwarf"], Knows::Line),
        (&[], Knows::Name),
        (&["-static"], Knows::Name),
        (&["-Wl,-z,noseparate-code"], Knows::Name),
    ] {
        let directory = directory();
        let path = compile(directory.path(), options);
        check(
            &path,
            offset_in_outer(&path),
            knows,
            &format!("{options:?}"),
        );
    }
}

/// Check sections that were compressed after the fact, by either method.
#[test]
fn compressed_sections_are_read() {
    for method in ["zlib", "zstd"] {
        let directory = directory();
        let path = compile(directory.path(), &["-g"]);
        let offset = offset_in_outer(&path);
        let objcopy = if method == "zstd" {
            "llvm-objcopy-22"
        } else {
            "objcopy"
        };
        run(Command::new(objcopy)
            .arg(format!("--compress-debug-sections={method}"))
            .arg(&path));
        check(&path, offset, Knows::Inlined, method);
    }
}

/// Check a stripped program with a compressed symbol table, as Fedora's are (`.gnu_debugdata`).
#[test]
fn compressed_symbol_tables_are_read() {
    let directory = directory();
    let path = compile(directory.path(), &[]);
    let offset = offset_in_outer(&path);
    let symbols = directory.path().join("symbols");
    run(Command::new("objcopy")
        .args([
            "-S",
            "--remove-section=.gdb_index",
            "--remove-section=.comment",
        ])
        .args(["--keep-symbol=outer", "--keep-symbol=main"])
        .args([&path, &symbols]));
    run(Command::new("xz").arg("--keep").arg(&symbols));
    run(Command::new("objcopy")
        .arg("--strip-all")
        .arg(format!(
            "--add-section=.gnu_debugdata={}.xz",
            symbols.display()
        ))
        .arg(&path));
    check(&path, offset, Knows::Name, "a compressed symbol table");
}

/// Check that a stripped program's functions are told from each other, though they have no names.
#[test]
fn functions_without_names_have_boundaries() {
    let directory = directory();
    let path = compile(directory.path(), &[]);
    let inside = offset_in_outer(&path);
    let start = start_of_outer(&path);
    run(Command::new("strip").arg(&path));
    let namings = namer().name(&object(unmapped_file(&path)), &[start, inside]);
    let distance = u32::try_from(inside - start).unwrap();
    assert!(distance > 0);
    let expected = [0, distance].map(Naming::InFunction);
    assert_eq!(namings, expected);
}

/// Check that an entry of a procedure linkage table is called after the function that it leads to, with the table's
/// kinds: lazy ones, ones for branch targets, and ones that are bound at the start; also in a file with debug information,
/// which has nothing about them.
#[test]
fn linkage_tables_are_named() {
    for options in [
        &["-Wl,-z,lazy"][..],
        &["-Wl,-z,lazy", "-fcf-protection=full", "-Wl,-z,ibtplt"],
        &["-Wl,-z,now", "-Wl,-z,relro"],
        &["-Wl,-z,lazy", "-g"],
    ] {
        let directory = directory();
        let source = directory.path().join("calls.c");
        let text = "#include <stdlib.h>\n#include <string.h>\n\
            int main(int n, char **v) { abs(strcspn(v[0], v[n - 1]) + atoi(v[0])); return puts(v[0]) + (int)strlen(v[0]); }\n";
        fs::write(&source, format!("#include <stdio.h>\n{text}")).unwrap();
        let path = directory.path().join("calls");
        run(Command::new("cc")
            .args(["-O0", "-fno-builtin", "-o"])
            .args([&path, &source])
            .args(options));
        if !options.contains(&"-g") {
            run(Command::new("strip").arg(&path));
        }
        let output = Command::new("objdump")
            .arg("-d")
            .arg(&path)
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let code = code_segment(&fs::read(&path).unwrap());
        // `0000000000001050 <strlen@plt>:`
        let entries: Vec<(u64, &str)> = text
            .lines()
            .filter_map(|line| {
                let (address, rest) = line.split_once(" <")?;
                let name = rest.strip_suffix("@plt>:")?;
                let address = u64::from_str_radix(address, 16).ok()?;
                Some((address - code.address + code.offset, name))
            })
            .filter(|(_, name)| !name.starts_with('*'))
            .collect();
        assert!(entries.len() >= 4, "{options:?}: {text}");
        for (offset, name) in entries {
            let frames = frames(&path, offset + 4);
            assert_eq!(*frames[0].function, format!("{name}@plt"), "{options:?}");
        }
    }
}
