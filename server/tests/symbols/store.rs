//! The symbol store: accepted and refused files, and which index replaces which.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use elf::{BuildId, Layout, Segment};
use query::names::NameSource;
use serde_json::Value;
use server::symbol::child::ChildLimits;
use server::symbol::error::AddError;
use server::symbol::fetch_queue::FetchQueue;
use server::symbol::index_store::Added;
use server::symbol::known_layouts::LayoutSource;
use server::symbol::{IndexStore, IndexStoreOptions, SymbolMetrics};
use symbolize::index::{Rank, RefusalKind};

use crate::build::{Built, C, CPP, Workshop};

/// Time after which a test that waits for a condition fails.
pub(crate) const DEADLINE: Duration = Duration::from_secs(180);

pub(crate) fn options(path: &Path) -> IndexStoreOptions {
    IndexStoreOptions {
        path: path.to_owned(),
        bytes_max: 1 << 30,
        file_bytes_max: 1 << 30,
        reserve_bytes: 0,
        program: env!("CARGO_BIN_EXE_pilotlight-server").into(),
        child: ChildLimits::default(),
    }
}

fn open(options: IndexStoreOptions) -> IndexStore {
    IndexStore::open(options, SymbolMetrics::default(), FetchQueue::off()).unwrap()
}

fn add(indexes: &IndexStore, program: &Built) -> Result<Added, AddError> {
    indexes.add(
        &program.build_id(),
        fs::File::open(&program.path).unwrap(),
        "test",
    )
}

fn is_stored(placed: &Result<Added, AddError>) -> bool {
    matches!(placed, Ok(Added::Stored(_)))
}

/// Offset of a symbol in the file.
pub(crate) fn offset_of(program: &Built, symbol: &str) -> u64 {
    use object::{Object, ObjectSymbol};
    let file = object::File::parse(&*program.bytes).unwrap();
    let address = file
        .symbols()
        .find(|found| found.name() == Ok(symbol))
        .unwrap()
        .address();
    let segments = program.facts.layout.clone().unwrap();
    let segment = segments
        .segments()
        .iter()
        .find(|segment| (segment.address..segment.address + segment.bytes).contains(&address))
        .copied()
        .unwrap();
    address - segment.address + segment.file_offset
}

/// Functions at the offset of a symbol, as `function file:line`; `None` if there are no symbols of the file.
pub(crate) fn name_symbol(
    source: &dyn NameSource,
    program: &Built,
    symbol: &str,
) -> Option<Vec<String>> {
    let offset = offset_of(program, symbol);
    let mut named = Vec::new();
    let is_known = source.name(
        &program.build_id().to_string(),
        &[offset],
        &mut |_, frames| {
            for frame in frames {
                let file = Path::new(frame.file).file_name().unwrap_or_default();
                named.push(format!(
                    "{} {}:{}",
                    frame.function,
                    file.display(),
                    frame.line
                ));
            }
        },
    );
    is_known.then_some(named)
}

/// Check that a stripped file gives its own symbols only, that the better file replaces it and not the other way
/// round, and that the load segments are learnt from either.
#[test]
fn the_better_file_counts_in_any_order() {
    let workshop = Workshop::new();
    let program = workshop.compile("work", C, &["-g", "-O2", "-rdynamic"]);
    let (debug, stripped) = workshop.split("work");
    assert_eq!(debug.build_id(), program.build_id());
    assert_eq!(debug.facts.layout, None, "objcopy moved the segments");
    let lines = [String::from("work work.c:7")];
    let orders: [[&Built; 3]; 4] = [
        [&stripped, &debug, &program],
        [&debug, &stripped, &program],
        [&program, &stripped, &debug],
        [&stripped, &program, &debug],
    ];
    for order in orders {
        let folder = tempfile::tempdir().unwrap();
        let indexes = open(options(folder.path()));
        assert_eq!(name_symbol(&indexes, &program, "work"), None);
        for (number, file) in order.into_iter().enumerate() {
            let placed = add(&indexes, file);
            assert!(placed.is_ok(), "{placed:?}");
            let named = name_symbol(&indexes, &program, "work");
            match (
                number,
                file.path
                    .extension()
                    .is_some_and(|extension| extension == "debug"),
            ) {
                (0, true) => assert_eq!(named, None, "nobody knows where it is loaded"),
                (0, false) if file.facts.rank == stripped.facts.rank => {
                    assert_eq!(named, Some(vec!["work :0".to_owned()]));
                }
                _ => assert_eq!(
                    named.as_deref(),
                    Some(&lines[..]),
                    "{}",
                    file.path.display()
                ),
            }
        }
        // All of it is there after a restart.
        drop(indexes);
        let indexes = open(options(folder.path()));
        assert_eq!(
            name_symbol(&indexes, &program, "work").as_deref(),
            Some(&lines[..])
        );
    }
}

/// Strips `program` of all but a packed table of its functions, as Fedora's programs have it, changed by `change`.
fn pack_symbols(workshop: &Workshop, program: &str, change: fn(&mut Vec<u8>)) -> Built {
    let (symbols, packed) = (format!("{program}.symbols"), format!("{program}.packed"));
    workshop.run(
        "objcopy",
        &[
            "-S",
            "--keep-symbol=work",
            "--keep-symbol=main",
            program,
            &symbols,
        ],
    );
    workshop.run("xz", &["--keep", "--force", &symbols]);
    let section = workshop.path(&format!("{symbols}.xz"));
    let mut bytes = fs::read(&section).unwrap();
    change(&mut bytes);
    fs::write(&section, bytes).unwrap();
    let option = format!("--add-section=.gnu_debugdata={symbols}.xz");
    workshop.run("objcopy", &["--strip-all", &option, program, &packed]);
    Built::read(&workshop.path(&packed))
}

/// Check a program with compressed symbols only: they are better than exported ones, and debug information is better
/// still. Damaged compressed symbols leave the exported ones.
#[test]
fn packed_symbol_tables_are_read() {
    let workshop = Workshop::new();
    for options_of_compiler in [&["-g", "-O2"][..], &["-g", "-O2", "-static", "-no-pie"]] {
        let program = workshop.compile("packed", C, options_of_compiler);
        let (_, stripped) = workshop.split("packed");
        let packed = pack_symbols(&workshop, "packed", |_| {});
        let folder = tempfile::tempdir().unwrap();
        let indexes = open(options(folder.path()));
        let has_exports = add(&indexes, &stripped).is_ok();
        assert_eq!(has_exports, !options_of_compiler.contains(&"-static"));
        let named = name_symbol(&indexes, &program, "work").unwrap_or_default();
        assert_eq!(named, [""; 0]);

        let placed = add(&indexes, &packed);
        let Ok(Added::Stored(head)) = placed else {
            panic!("{placed:?}");
        };
        assert_eq!((head.rank, head.unreadable), (Rank::SymbolTable, 0));
        assert_eq!(
            name_symbol(&indexes, &program, "work").unwrap(),
            ["work :0"]
        );
        assert!(matches!(
            add(&indexes, &stripped),
            Ok(Added::Unchanged(_)) | Err(_)
        ));
        assert!(is_stored(&add(&indexes, &program)));
        let named = name_symbol(&indexes, &program, "work").unwrap();
        assert_eq!(named, ["work packed.c:7"]);

        let damaged = pack_symbols(&workshop, "packed", |bytes| bytes.truncate(bytes.len() / 2));
        let folder = tempfile::tempdir().unwrap();
        let indexes = open(options(folder.path()));
        match (add(&indexes, &damaged), has_exports) {
            (Ok(Added::Stored(head)), true) => assert_eq!(head.unreadable, 1),
            (Err(AddError::Refused(refusal)), false) => {
                assert_eq!(refusal.kind, RefusalKind::Corrupt);
            }
            (other, _) => panic!("{other:?}"),
        }
    }
}

/// Assembler functions without type and length, and an indirect function.
const LABELS: &str = r#"
asm(".globl by_hand\nby_hand: nop\nnop\nret\nnext_by_hand: nop\nret\n");
static int one(void) { return 1; }
static int (*choose(void))(void) { return one; }
int chosen(void) __attribute__((ifunc("choose")));
int main(void) { asm("inside: nop"); return chosen(); }
"#;

/// Check that a label reaches to the next one, that a label inside a function is not taken for another function, and
/// that an indirect function has its name, with debug information and without.
#[test]
fn labels_are_named_where_no_function_is() {
    let workshop = Workshop::new();
    for (options_of_compiler, main) in [
        (&["-O1", "-g"][..], "main labels.c:6"),
        (&["-O1"], "main :0"),
    ] {
        let program = workshop.compile("labels", LABELS, options_of_compiler);
        let folder = tempfile::tempdir().unwrap();
        let indexes = open(options(folder.path()));
        assert!(is_stored(&add(&indexes, &program)));
        let name = |symbol| name_symbol(&indexes, &program, symbol).unwrap().join("; ");
        for symbol in ["by_hand", "next_by_hand"] {
            assert_eq!(
                name(symbol),
                format!("{symbol} :0"),
                "{options_of_compiler:?}"
            );
        }
        assert_eq!(name("inside"), main, "{options_of_compiler:?}");
        assert!(["chosen", "choose"].contains(&name("chosen").split(' ').next().unwrap()));
        // The second byte of the first, which reaches to the second one.
        let offset = offset_of(&program, "by_hand") + 1;
        let mut names = Vec::new();
        indexes.name(
            &program.build_id().to_string(),
            &[offset],
            &mut |_, frames| {
                names.extend(frames.iter().map(|frame| frame.function.to_owned()));
            },
        );
        assert_eq!(names, ["by_hand"], "{options_of_compiler:?}");
    }
    // Without the symbol table, an exported label ends with its instructions.
    let program = workshop.compile("exported", LABELS, &["-O1", "-rdynamic"]);
    let (_, stripped) = workshop.split("exported");
    let folder = tempfile::tempdir().unwrap();
    let indexes = open(options(folder.path()));
    assert!(is_stored(&add(&indexes, &stripped)));
    let name = |symbol| name_symbol(&indexes, &program, symbol).unwrap().join("; ");
    assert_eq!(name("by_hand"), "by_hand :0");
    assert_eq!(name("next_by_hand"), "");
    assert_eq!(name("main"), "main :0");
}

/// Labels followed by other code: of another section, of a function that is not exported, and after padding.
const FOREIGN: &str = r#"
asm(".pushsection own,\"ax\"\nnop\nret\n.globl at_end\nat_end:\n.popsection\n"
    ".pushsection other,\"ax\"\nret\n.popsection\n"
    ".globl by_hand\nby_hand: nop\nret\n"
    ".globl sized\n.size sized, 2\nsized: nop\nret\n"
    ".globl first_asm\n.type first_asm, @function\nfirst_asm: ret\n.skip 65536, 0x90\n"
    "far_loop: dec %eax\njnz far_loop\nret\n");
__attribute__((noinline)) static int hidden(int n) { return n * 3; }
int main(int n, char **) { return hidden(n); }
"#;

/// Check that a label at the end of its section names nothing of the next one, that a dynamic label without a length
/// names its own code and no function that is not exported, and that one with a length names its own code.
#[test]
fn labels_name_no_code_of_others() {
    let workshop = Workshop::new();
    let program = workshop.compile("foreign", FOREIGN, &["-O1", "-rdynamic"]);
    let (_, stripped) = workshop.split("foreign");
    let names_at = |file: &Built, symbol: &str| {
        let folder = tempfile::tempdir().unwrap();
        let indexes = open(options(folder.path()));
        assert!(is_stored(&add(&indexes, file)));
        name_symbol(&indexes, &program, symbol).unwrap().join("; ")
    };
    for (symbol, whole, exported) in [
        ("at_end", "", ""),
        ("by_hand", "by_hand :0", "by_hand :0"),
        ("first_asm", "first_asm :0", "first_asm :0"),
        ("far_loop", "far_loop :0", ""),
        ("sized", "sized :0", "sized :0"),
        ("hidden", "hidden :0", ""),
        ("main", "main :0", "main :0"),
    ] {
        assert_eq!(names_at(&program, symbol), whole, "{symbol}");
        assert_eq!(names_at(&stripped, symbol), exported, "{symbol}");
    }
}

/// Check that labels of a file without code reach no code far behind them.
#[test]
fn labels_of_a_file_without_code() {
    let workshop = Workshop::new();
    let program = workshop.compile("foreign", FOREIGN, &["-O1"]);
    workshop.run("strip", &["-x", "-o", "left", "foreign"]);
    workshop.run("objcopy", &["--only-keep-debug", "left", "left.debug"]);
    let folder = tempfile::tempdir().unwrap();
    let indexes = open(options(folder.path()));
    assert!(is_stored(&add(
        &indexes,
        &Built::read(&workshop.path("left.debug"))
    )));
    let layout = program.facts.layout.clone().unwrap();
    indexes.learn_layout(&program.build_id(), &layout, LayoutSource::Profile);
    let name = |symbol| name_symbol(&indexes, &program, symbol).unwrap().join("; ");
    assert_eq!(name("first_asm"), "first_asm :0");
    assert_eq!(name("far_loop"), "");
}

/// Check that a debug-only file names with a collector's layout, and that a collector's wrong layout does not replace
/// the file's own.
#[test]
fn a_layout_from_a_profile_is_enough() {
    let workshop = Workshop::new();
    let program = workshop.compile("work", C, &["-g", "-O2"]);
    let (debug, _) = workshop.split("work");
    let folder = tempfile::tempdir().unwrap();
    let indexes = open(options(folder.path()));
    assert!(is_stored(&add(&indexes, &debug)));
    assert_eq!(name_symbol(&indexes, &program, "work"), None);
    let layout = program.facts.layout.clone().unwrap();
    indexes.learn_layout(&program.build_id(), &layout, LayoutSource::Profile);
    assert_eq!(
        name_symbol(&indexes, &program, "work").unwrap(),
        ["work work.c:7"]
    );
    let wrong = Layout::new(vec![Segment {
        file_offset: 0,
        address: 0x1234_5000,
        bytes: 1 << 20,
    }]);
    add(&indexes, &program).unwrap();
    indexes.learn_layout(&program.build_id(), &wrong.unwrap(), LayoutSource::Profile);
    assert_eq!(
        name_symbol(&indexes, &program, "work").unwrap(),
        ["work work.c:7"]
    );
}

/// Check that the load segments of a file from a collector, and so from some process, can be replaced by later ones,
/// if the index does not have its own.
#[test]
fn a_process_does_not_fix_a_layout() {
    let workshop = Workshop::new();
    let id = "-Wl,--build-id=0x0123";
    let program = workshop.compile("work", C, &["-g", "-O2", id]);
    let other = workshop.compile("other", C, &["-O2", "-no-pie", id]);
    let (debug, _) = workshop.split("work");
    let folder = tempfile::tempdir().unwrap();
    let indexes = open(options(folder.path()));
    let file = fs::File::open(&other.path).unwrap();
    let file_id = BuildId::new(&[9; 20]).unwrap();
    let placed = indexes.add_sent(&file_id, &other.build_id(), file);
    assert!(is_stored(&placed));
    assert!(is_stored(&add(&indexes, &debug)));
    let layout = program.facts.layout.clone().unwrap();
    indexes.learn_layout(&program.build_id(), &layout, LayoutSource::Profile);
    assert_eq!(
        name_symbol(&indexes, &program, "work").unwrap(),
        ["work work.c:7"]
    );
}

/// Check that a file from a collector, and so from some process, is kept beside a person's: it names frames with its
/// file id only, of equal file ids the better one counts, and an old one under its build id is dropped.
#[test]
fn a_file_of_a_process_replaces_none_of_a_person() {
    let workshop = Workshop::new();
    let id = "-Wl,--build-id=0x0123";
    let small = workshop.compile("small", C, &["-g", "-O0", id]);
    let large = workshop.compile("large", C, &["-g3", "-O3", id]);
    let table = workshop.compile("table", C, &["-O2", id]);
    let file_id = BuildId::new(&[9; 20]).unwrap();
    let add_sent = |indexes: &IndexStore, program: &Built| {
        let file = fs::File::open(&program.path).unwrap();
        is_stored(&indexes.add_sent(&file_id, &program.build_id(), file))
    };
    let name_sent = |indexes: &IndexStore, program: &Built, file_id: &str| {
        let mut names = Vec::new();
        let offset = offset_of(program, "work");
        indexes.name_sent(file_id, &[offset], &mut |_, frames| {
            names.extend(frames.iter().map(|frame| frame.function.to_owned()));
        });
        names
    };
    let folder = tempfile::tempdir().unwrap();
    let indexes = open(options(folder.path()));
    for (program, is_better) in [(&table, true), (&large, true), (&table, false)] {
        assert_eq!(add_sent(&indexes, program), is_better);
    }
    assert!(!indexes.knows("0123") && indexes.find(&small.build_id()).is_none());
    assert_eq!(name_sent(&indexes, &large, &file_id.to_string()), ["work"]);
    assert!(name_sent(&indexes, &large, "0123").is_empty());
    assert!(is_stored(&add(&indexes, &small)));
    assert!(!add_sent(&indexes, &large) && indexes.list().len() == 2);
    drop(indexes);
    let indexes = open(options(folder.path()));
    assert_eq!(indexes.list().len(), 2);
    assert_eq!(name_sent(&indexes, &large, &file_id.to_string()), ["work"]);
    assert!(indexes.remove(&small.build_id()).unwrap() && indexes.list().is_empty());

    let file = fs::File::open(&large.path).unwrap();
    assert!(is_stored(&indexes.add(
        &large.build_id(),
        file,
        "collector"
    )));
    drop(indexes);
    assert!(open(options(folder.path())).list().is_empty());
}

/// Check that empty debug information does not count: such a file ranks by its symbol table, does not block a better
/// one, and is refused without a table.
#[test]
fn debug_information_with_nothing_in_it_is_none() {
    let workshop = Workshop::new();
    // DWARF 4: length, version, abbreviations, bytes of an address, and the end of all entries.
    let unit = b"\x08\0\0\0\x04\0\0\0\0\0\x08\0";
    fs::write(workshop.path("unit"), unit).unwrap();
    fs::write(workshop.path("abbreviations"), b"\0").unwrap();
    let id = "-Wl,--build-id=0x0123";
    let table = workshop.compile("table", C, &["-O2", id]);
    workshop.compile("static", C, &["-O2", "-static", id]);
    for (program, kept) in [("table", "--keep-symbol=work"), ("static", "--strip-all")] {
        let options = [
            "--strip-all",
            kept,
            "--add-section=.debug_info=unit",
            "--add-section=.debug_abbrev=abbreviations",
            program,
            &format!("{program}.empty"),
        ];
        workshop.run("objcopy", &options);
    }
    let folder = tempfile::tempdir().unwrap();
    let indexes = open(options(folder.path()));
    let none = Built::read(&workshop.path("static.empty"));
    assert_eq!(none.facts.rank, Some(Rank::DebugInfo));
    check_refused(add(&indexes, &none), RefusalKind::NoSymbols, "neither");
    let empty = Built::read(&workshop.path("table.empty"));
    assert_eq!(empty.facts.rank, Some(Rank::DebugInfo));
    match add(&indexes, &empty) {
        Ok(Added::Stored(head)) => assert_eq!(head.rank, Rank::SymbolTable),
        other => panic!("{other:?}"),
    }
    assert!(is_stored(&add(&indexes, &table)));
    assert_eq!(name_symbol(&indexes, &table, "main").unwrap(), ["main :0"]);
}

fn check_refused(placed: Result<Added, AddError>, kind: RefusalKind, words: &str) {
    match placed {
        Err(AddError::Refused(refusal)) => {
            assert_eq!(refusal.kind, kind, "{refusal}");
            assert!(refusal.message.contains(words), "{refusal}");
        }
        other => panic!("{words}: {other:?}"),
    }
}

#[test]
fn refusals_name_the_mistake() {
    let workshop = Workshop::new();
    let folder = tempfile::tempdir().unwrap();
    let indexes = open(options(folder.path()));
    let program = workshop.compile("work", C, &["-g"]);
    let other: BuildId = "0123".parse().unwrap();
    let file = |path: &Path| fs::File::open(path).unwrap();
    let wrong = indexes.add(&other, file(&program.path), "test");
    check_refused(
        wrong,
        RefusalKind::WrongBuildId,
        &format!("{}, and not 0123", program.build_id()),
    );
    let without = workshop.compile("without", C, &["-g", "-Wl,--build-id=none"]);
    let without = indexes.add(&other, file(&without.path), "test");
    check_refused(without, RefusalKind::NoBuildId, "-Wl,--build-id");
    workshop.compile("bare", C, &["-s", "-static", "-Wl,--build-id=0x0123"]);
    let bare = indexes.add(&other, file(&workshop.path("bare")), "test");
    check_refused(bare, RefusalKind::NoSymbols, "stripped");
    fs::write(workshop.path("text"), "no ELF file at all, but a text").unwrap();
    let text = indexes.add(&other, file(&workshop.path("text")), "test");
    check_refused(text, RefusalKind::NotElf, "not an ELF file");
    assert!(indexes.list().is_empty());
}

/// Check that a child that exceeds a limit, or dies, costs one file only.
#[test]
fn a_child_that_dies_costs_only_its_file() {
    let workshop = Workshop::new();
    let program = workshop.compile("cart", CPP, &["-g", "-O1", "-gz", "-std=c++17"]);
    let small = ChildLimits {
        data_bytes_max: 4 << 20,
        ..ChildLimits::default()
    };
    let folder = tempfile::tempdir().unwrap();
    let with = |child: ChildLimits, program: Option<&str>| {
        let mut options = options(folder.path());
        options.child = child;
        if let Some(program) = program {
            options.program = program.into();
        }
        open(options)
    };
    let indexes = with(small, None);
    check_refused(add(&indexes, &program), RefusalKind::Limit, "memory");
    let short = ChildLimits {
        index_bytes_max: 4096,
        ..ChildLimits::default()
    };
    drop(indexes);
    let indexes = with(short, None);
    check_refused(add(&indexes, &program), RefusalKind::Limit, "larger");
    drop(indexes);
    // A child that succeeds and has written nothing.
    let indexes = with(ChildLimits::default(), Some("/bin/true"));
    let placed = add(&indexes, &program);
    assert!(
        matches!(&placed, Err(AddError::Failed(text)) if text.contains("not one")),
        "{placed:?}"
    );
    drop(indexes);
    let indexes = with(ChildLimits::default(), Some("/does/not/exist"));
    assert!(matches!(add(&indexes, &program), Err(AddError::Failed(_))));
    drop(indexes);
    let indexes = with(ChildLimits::default(), None);
    assert!(is_stored(&add(&indexes, &program)));
    assert_eq!(
        fs::read_dir(folder.path().join("incoming"))
            .unwrap()
            .count(),
        0
    );
}

fn find_index(folder: &Path, build_id: &BuildId) -> std::path::PathBuf {
    let name = build_id.to_string();
    folder
        .join("index")
        .join(&name[..2])
        .join(format!("{name}.index"))
}

/// Check that an index that was changed on the disk, at any byte, is dropped with its file, at the start or at its
/// first use, and that leftovers are removed.
#[test]
fn a_damaged_index_is_dropped() {
    let workshop = Workshop::new();
    let program = workshop.compile("work", C, &["-g"]);
    let folder = tempfile::tempdir().unwrap();
    let path = find_index(folder.path(), &program.build_id());
    let indexes = open(options(folder.path()));
    add(&indexes, &program).unwrap();
    drop(indexes);
    let whole = fs::read(&path).unwrap();
    let changed = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x40;
        bytes
    };
    let damaged = [
        Vec::new(),
        whole[..100].to_vec(),
        whole[..whole.len() - 1].to_vec(),
        [&whole[..], b"x"].concat(),
        changed(0),
        changed(20),
        changed(4096),
        changed(whole.len() - 1),
    ];
    for bytes in damaged {
        fs::write(&path, &bytes).unwrap();
        fs::write(folder.path().join("incoming/left"), "behind").unwrap();
        let indexes = open(options(folder.path()));
        assert_eq!(
            name_symbol(&indexes, &program, "work").unwrap_or_default(),
            [""; 0]
        );
        assert!(!path.exists());
        assert!(indexes.list().is_empty());
        assert!(!folder.path().join("incoming/left").exists());
        assert!(is_stored(&add(&indexes, &program)));
    }
    // Under another name it does not have its build id.
    let indexes = open(options(folder.path()));
    let elsewhere = find_index(folder.path(), &"00ff".parse().unwrap());
    fs::create_dir_all(elsewhere.parent().unwrap()).unwrap();
    fs::copy(&path, &elsewhere).unwrap();
    drop(indexes);
    assert_eq!(open(options(folder.path())).list().len(), 1);
    assert!(!elsewhere.exists());
}

/// Check that the cap holds, that the least recently used index is evicted first, also after a restart, and that an
/// index above the cap is refused.
#[test]
fn the_cap_is_kept() {
    let workshop = Workshop::new();
    let programs: Vec<_> = (1..=4)
        .map(|number| {
            let id = format!("-Wl,--build-id=0x{number:02}{number:02}");
            workshop.compile(&format!("work{number}"), C, &["-g", "-O2", &id])
        })
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let indexes = open(options(folder.path()));
    add(&indexes, &programs[0]).unwrap();
    let one = indexes.list()[0].bytes;
    drop(indexes);
    let limited = IndexStoreOptions {
        bytes_max: 3 * one + one / 2,
        ..options(folder.path())
    };
    let indexes = open(limited.clone());
    add(&indexes, &programs[1]).unwrap();
    add(&indexes, &programs[2]).unwrap();
    drop(indexes);
    // Set by the times of the files, since the unit is a second.
    for (number, age_s) in [(0, 10_000), (1, 30_000), (2, 20_000)] {
        let path = find_index(folder.path(), &programs[number].build_id());
        let time = std::time::SystemTime::now() - Duration::from_secs(age_s);
        fs::File::options()
            .write(true)
            .open(path)
            .unwrap()
            .set_modified(time)
            .unwrap();
    }
    let indexes = open(limited.clone());
    assert_eq!(
        name_symbol(&indexes, &programs[1], "work").unwrap(),
        ["work work2.c:7"]
    );
    add(&indexes, &programs[3]).unwrap();
    let kept: Vec<_> = indexes
        .list()
        .into_iter()
        .map(|listed| listed.head.build_id.to_string())
        .collect();
    assert_eq!(kept, ["0101", "0202", "0404"]);
    drop(indexes);
    assert_eq!(open(limited).list().len(), 3);
    let tiny = IndexStoreOptions {
        bytes_max: 100,
        ..options(folder.path())
    };
    let indexes = open(tiny);
    assert!(indexes.list().is_empty());
    check_refused(
        add(&indexes, &programs[0]),
        RefusalKind::Limit,
        "--symbol-bytes-max",
    );
}

/// Check C++ names: readable, with the mangled one beside it, and templates and inlined calls whole.
#[test]
fn names_are_readable_and_the_mangled_one_is_beside() {
    let workshop = Workshop::new();
    let program = workshop.compile("cart", CPP, &["-g", "-O0", "-std=c++17"]);
    let folder = tempfile::tempdir().unwrap();
    let indexes = open(options(folder.path()));
    add(&indexes, &program).unwrap();
    let named = name_symbol(&indexes, &program, "_ZNK4shop4Cart3sumEv").unwrap();
    assert_eq!(named, ["shop::Cart::sum() const cart.cc:21"]);
    let named = name_symbol(&indexes, &program, "_ZN4shop5scaleIiEET_S1_i").unwrap();
    assert_eq!(named, ["int shop::scale<int>(int, int) cart.cc:15"]);
}

/// Waits until `check` returns a value.
pub(crate) fn wait_for<T>(mut check: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(
            started.elapsed() < DEADLINE,
            "it did not come to this in time"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Counters and gauges of the symbol store.
pub(crate) fn read_metrics(text: &str) -> BTreeMap<String, f64> {
    let lines = text
        .lines()
        .filter_map(|line| line.strip_prefix("pilotlight_server_symbol_"));
    lines
        .filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        })
        .collect()
}

pub(crate) fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}
