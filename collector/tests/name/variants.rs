//! The forms of names and debug information that compilers and distributions produce.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use collector::name::{Frame, Naming};
use collector::unwind::{self, RuleSet, read_table};
use elf::{Headers, Limits};

use crate::paths::directory;
use crate::target::{code_segment, functions, namer, object, unmapped_file};

/// A function whose line only the debug information has, inlined into another function, which is
/// not exported.
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

/// Offset of `nop` in `outer`, from `objdump` of the unstripped program.
pub(crate) fn offset_in_outer(path: &Path) -> u64 {
    let output = Command::new("objdump")
        .args(["-d", "--no-show-raw-insn", "--disassemble=outer"])
        .arg(path)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let line = text.lines().find(|line| line.ends_with("\tnop")).unwrap();
    let address = u64::from_str_radix(line.trim().split(':').next().unwrap(), 16).unwrap();
    let code = code_segment(&fs::read(path).unwrap());
    address - code.address + code.offset
}

/// Offset of `outer` in the file, from its symbol.
fn start_of_outer(path: &Path) -> u64 {
    let output = Command::new("nm").arg(path).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let line = text.lines().find(|line| line.ends_with(" outer")).unwrap();
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

/// The expected information at an address.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Knows {
    /// The function alone.
    Name,
    /// Function, file, line, and the inlined call.
    Inlined,
}

fn check(path: &Path, offset: u64, knows: Knows, what: &str) {
    let frames = frames(path, offset);
    let names: Vec<&str> = frames.iter().map(|frame| &*frame.function).collect();
    let expected: &[&str] = match knows {
        Knows::Name => &["outer"],
        Knows::Inlined => &["inlined", "outer"],
    };
    assert_eq!(names, expected, "{what}");
    let lines: Vec<u32> = frames.iter().map(|frame| frame.line).collect();
    match knows {
        Knows::Name => assert_eq!(lines, [0], "{what}"),
        Knows::Inlined => assert_eq!(lines, [2, 6], "{what}"),
    }
    let has_file = |frame: &Frame| frame.file.ends_with("/program.c");
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
        // The inlined calls are in other files, which are found in this root since the program is.
        (&["-g", "-gsplit-dwarf"], Knows::Inlined),
        (&["-g", "-gdwarf-4", "-gsplit-dwarf"], Knows::Inlined),
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

/// Check sections that were compressed afterwards, by both methods.
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

/// Check a stripped program with a compressed symbol table (`.gnu_debugdata`), as on Fedora.
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

/// Check that unnamed functions of a stripped program are distinguished by their starts.
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

/// Check that an entry of a procedure linkage table has the name of the function that it calls, for
/// all kinds of tables: lazy, for branch targets, and bound at the start; also in a file with debug
/// information, which does not describe them.
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

/// A library with this many load segments: the headers, one function each, and the dynamic section.
fn link_segments(directory: &Path, count: usize) -> PathBuf {
    let functions = 0..count - 2;
    let source: String = functions
        .clone()
        .map(|number| format!("int function_{number}(int n) {{ return n * 3; }}\n"))
        .collect();
    let headers: String = functions
        .clone()
        .map(|number| format!("code_{number} PT_LOAD FLAGS(5);\n"))
        .collect();
    let sections: String = functions
        .map(|number| {
            format!(
                ". = ALIGN(4096);\n.text.{number} : {{ *(.text.function_{number}) }} :code_{number}\n"
            )
        })
        .collect();
    let script = format!(
        "PHDRS {{ first PT_LOAD FILEHDR PHDRS FLAGS(4); {headers} data PT_LOAD FLAGS(6); dynamic PT_DYNAMIC;\n\
         frames PT_GNU_EH_FRAME; }}\n\
         SECTIONS {{ . = SIZEOF_HEADERS;\n\
         .first : {{ *(.hash) *(.gnu.hash) }} :first\n.dynsym : {{ *(.dynsym) }} :first\n.dynstr : {{ *(.dynstr) }} :first\n\
         .note : {{ *(.note*) }} :first\n.eh_frame_hdr : {{ *(.eh_frame_hdr) }} :first :frames\n\
         .eh_frame : {{ *(.eh_frame) }} :first\n{sections}\n\
         . = ALIGN(4096);\n.dynamic : {{ *(.dynamic) }} :data :dynamic\n.data : {{ *(.data*) *(.got*) }} :data }}\n"
    );
    fs::write(directory.join("segments.c"), source).unwrap();
    fs::write(directory.join("segments.ld"), script).unwrap();
    let path = directory.join("segments.so");
    run(Command::new("cc")
        .current_dir(directory)
        .args([
            "-O1",
            "-fPIC",
            "-shared",
            "-nostdlib",
            "-ffunction-sections",
        ])
        .args(["-Wl,-T,segments.ld", "-Wl,--build-id=sha1", "-o"])
        .args([path.as_os_str(), "segments.c".as_ref()]));
    path
}

/// Check that a file with 40 load segments is named in all of them, as it is located and unwound in
/// all.
#[test]
fn many_load_segments_are_named() {
    let directory = directory();
    let path = link_segments(directory.path(), 40);
    let file = fs::read(&path).unwrap();
    let headers = Headers::read(&*file, Limits::MAPPED).unwrap();
    let layout = headers.layout();
    assert_eq!(layout.segments().len(), 40);
    let code = headers.loads().filter(|header| header.is_code());
    let offsets: Vec<u64> = code.map(|header| header.range.offset).collect();
    let rows = read_table(&*file, &mut RuleSet::new(), &unwind::Limits::default()).unwrap();
    assert!(
        offsets
            .iter()
            .all(|offset| rows.table.find(*offset).is_some())
    );
    let object = object(unmapped_file(&path));
    let mut namer = namer();
    let namings = namer.name(&object, &offsets);
    let names: Vec<String> = namings.iter().flat_map(functions).collect();
    let expected: Vec<String> = (0..38).map(|number| format!("function_{number}")).collect();
    assert_eq!(names, expected);
    assert_eq!(namer.segments(&object), layout.segments());
}
