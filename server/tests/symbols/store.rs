//! The store over HTTP: what is taken, what is refused, and that good is never shut out by bad.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use server::metrics::Metrics;
use server::symbol::child::ChildLimits;
use server::symbol::convert::RefusalKind;
use server::symbol::index::Rank;
use server::symbol::known_layouts::LayoutSource;
use server::symbol::shelf::{COLLECTOR_ORIGIN, PlaceError, Placed};
use server::symbol::wanted::Wanted;
use server::symbol::{BuildId, NameSource, Shelf, ShelfOptions};

use crate::build::{Built, C, CPP, Workshop};

/// A test that waits for a condition fails after this.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);

pub(crate) fn options(path: &Path) -> ShelfOptions {
    ShelfOptions {
        path: path.to_owned(),
        bytes_max: 1 << 30,
        file_bytes_max: 1 << 30,
        reserve_bytes: 0,
        program: env!("CARGO_BIN_EXE_pilotlight-server").into(),
        child: ChildLimits::default(),
    }
}

fn open(options: ShelfOptions) -> Shelf {
    Shelf::open(options, Arc::new(Metrics::new()), Wanted::off()).unwrap()
}

fn place(shelf: &Shelf, program: &Built) -> Result<Placed, PlaceError> {
    shelf.place(
        &program.build_id(),
        fs::File::open(&program.path).unwrap(),
        "test",
    )
}

fn is_stored(placed: &Result<Placed, PlaceError>) -> bool {
    matches!(placed, Ok(Placed::Stored(_)))
}

/// Where a symbol lies in the file.
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

/// Functions at the offset of a symbol, as `function file:line`; `None` if nothing is known of the file.
pub(crate) fn name_symbol(
    source: &dyn NameSource,
    program: &Built,
    symbol: &str,
) -> Option<Vec<String>> {
    let offset = offset_of(program, symbol);
    let mut named = Vec::new();
    let is_known = source.name(program.build_id().as_str(), &[offset], &mut |_, frames| {
        for frame in frames {
            let file = Path::new(frame.file).file_name().unwrap_or_default();
            named.push(format!(
                "{} {}:{}",
                frame.function,
                file.display(),
                frame.line
            ));
        }
    });
    is_known.then_some(named)
}

/// Check that a stripped file gives nothing but what it has, that the better one replaces it and not the other way round, and
/// that where the program is loaded is learnt from either.
#[test]
fn the_better_file_counts_whatever_comes_first() {
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
        let shelf = open(options(folder.path()));
        assert_eq!(name_symbol(&shelf, &program, "work"), None);
        let mut generation = shelf.generation();
        for (number, file) in order.into_iter().enumerate() {
            let placed = place(&shelf, file);
            assert!(placed.is_ok(), "{placed:?}");
            // What answers depend on may also be where the program is loaded, and so change without a new index.
            assert!(!is_stored(&placed) || shelf.generation() > generation);
            generation = shelf.generation();
            let named = name_symbol(&shelf, &program, "work");
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
        // And all of it is there after a restart.
        drop(shelf);
        let shelf = open(options(folder.path()));
        assert_eq!(
            name_symbol(&shelf, &program, "work").as_deref(),
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

/// Check a program whose only symbols are packed: they are better than those that it exports, and debug information is better
/// still. And that packed ones which cannot be read leave the exported ones.
#[test]
fn packed_symbol_tables_are_read() {
    let workshop = Workshop::new();
    for options_of_compiler in [&["-g", "-O2"][..], &["-g", "-O2", "-static", "-no-pie"]] {
        let program = workshop.compile("packed", C, options_of_compiler);
        let (_, stripped) = workshop.split("packed");
        let packed = pack_symbols(&workshop, "packed", |_| {});
        let folder = tempfile::tempdir().unwrap();
        let shelf = open(options(folder.path()));
        let has_exports = place(&shelf, &stripped).is_ok();
        assert_eq!(has_exports, !options_of_compiler.contains(&"-static"));
        let named = name_symbol(&shelf, &program, "work").unwrap_or_default();
        assert_eq!(named, [""; 0]);

        let placed = place(&shelf, &packed);
        let Ok(Placed::Stored(head)) = placed else {
            panic!("{placed:?}");
        };
        assert_eq!((head.rank, head.unreadable), (Rank::SymbolTable, 0));
        assert_eq!(name_symbol(&shelf, &program, "work").unwrap(), ["work :0"]);
        assert!(matches!(
            place(&shelf, &stripped),
            Ok(Placed::Unchanged(_)) | Err(_)
        ));
        assert!(is_stored(&place(&shelf, &program)));
        let named = name_symbol(&shelf, &program, "work").unwrap();
        assert_eq!(named, ["work packed.c:7"]);

        let damaged = pack_symbols(&workshop, "packed", |it| it.truncate(it.len() / 2));
        let folder = tempfile::tempdir().unwrap();
        let shelf = open(options(folder.path()));
        match (place(&shelf, &damaged), has_exports) {
            (Ok(Placed::Stored(head)), true) => assert_eq!(head.unreadable, 1),
            (Err(PlaceError::Refused(refusal)), false) => {
                assert_eq!(refusal.kind, RefusalKind::Corrupt);
            }
            (other, _) => panic!("{other:?}"),
        }
    }
}

/// Functions of assembler that says neither that they are functions nor how long they are, and one that is chosen at the start.
const LABELS: &str = r#"
asm(".globl by_hand\nby_hand: nop\nnop\nret\nnext_by_hand: nop\nret\n");
static int one(void) { return 1; }
static int (*choose(void))(void) { return one; }
int chosen(void) __attribute__((ifunc("choose")));
int main(void) { asm("inside: nop"); return chosen(); }
"#;

/// Check that a label reaches to the next one, that one inside a function is not taken for another function, and a function that
/// is chosen at the start has its name, with debug information and without.
#[test]
fn labels_are_named_where_no_function_is() {
    let workshop = Workshop::new();
    for (options_of_compiler, main) in [
        (&["-O1", "-g"][..], "main labels.c:6"),
        (&["-O1"], "main :0"),
    ] {
        let program = workshop.compile("labels", LABELS, options_of_compiler);
        let folder = tempfile::tempdir().unwrap();
        let shelf = open(options(folder.path()));
        assert!(is_stored(&place(&shelf, &program)));
        let name = |symbol| name_symbol(&shelf, &program, symbol).unwrap().join("; ");
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
        shelf.name(program.build_id().as_str(), &[offset], &mut |_, frames| {
            names.extend(frames.iter().map(|it| it.function.to_owned()));
        });
        assert_eq!(names, ["by_hand"], "{options_of_compiler:?}");
    }
    // Without the table of all symbols nobody knows where an exported label ends.
    let program = workshop.compile("exported", LABELS, &["-O1", "-rdynamic"]);
    let (_, stripped) = workshop.split("exported");
    let folder = tempfile::tempdir().unwrap();
    let shelf = open(options(folder.path()));
    assert!(is_stored(&place(&shelf, &stripped)));
    let name = |symbol| name_symbol(&shelf, &program, symbol).unwrap().join("; ");
    assert_eq!(name("by_hand"), "");
    assert_eq!(name("main"), "main :0");
}

/// Labels with code after them that is not theirs: of another section, and of a function that is not exported.
const FOREIGN: &str = r#"
asm(".pushsection own,\"ax\"\nnop\nret\n.globl at_end\nat_end:\n.popsection\n"
    ".pushsection other,\"ax\"\nret\n.popsection\n"
    ".globl by_hand\nby_hand: nop\nret\n"
    ".globl sized\n.size sized, 2\nsized: nop\nret\n");
__attribute__((noinline)) static int hidden(int n) { return n * 3; }
int main(int n, char **) { return hidden(n); }
"#;

/// Check that a label at the end of its section names nothing of the next one, and that one of the dynamic symbols without a length
/// names no function that is not exported, but one with a length its own code.
#[test]
fn labels_name_no_code_of_others() {
    let workshop = Workshop::new();
    let program = workshop.compile("foreign", FOREIGN, &["-O1", "-rdynamic"]);
    let (_, stripped) = workshop.split("foreign");
    let names_at = |file: &Built, symbol: &str| {
        let folder = tempfile::tempdir().unwrap();
        let shelf = open(options(folder.path()));
        assert!(is_stored(&place(&shelf, file)));
        name_symbol(&shelf, &program, symbol).unwrap().join("; ")
    };
    for (symbol, whole, exported) in [
        ("at_end", "", ""),
        ("by_hand", "by_hand :0", ""),
        ("sized", "sized :0", "sized :0"),
        ("hidden", "hidden :0", ""),
        ("main", "main :0", "main :0"),
    ] {
        assert_eq!(names_at(&program, symbol), whole, "{symbol}");
        assert_eq!(names_at(&stripped, symbol), exported, "{symbol}");
    }
}

/// Check that the layout that a collector saw makes a debug-only file name, and that its own wrong word does not change what the
/// file itself says.
#[test]
fn a_layout_from_a_profile_is_enough() {
    let workshop = Workshop::new();
    let program = workshop.compile("work", C, &["-g", "-O2"]);
    let (debug, _) = workshop.split("work");
    let folder = tempfile::tempdir().unwrap();
    let shelf = open(options(folder.path()));
    assert!(is_stored(&place(&shelf, &debug)));
    let before = shelf.generation();
    let layout = program.facts.layout.clone().unwrap();
    shelf.learn_layout(&program.build_id(), &layout, LayoutSource::Profile);
    assert!(shelf.generation() > before);
    assert_eq!(
        name_symbol(&shelf, &program, "work").unwrap(),
        ["work work.c:7"]
    );
    let wrong = server::symbol::layout::Layout::new(vec![server::symbol::layout::Segment {
        file_offset: 0,
        address: 0x1234_5000,
        bytes: 1 << 20,
    }]);
    place(&shelf, &program).unwrap();
    shelf.learn_layout(&program.build_id(), &wrong.unwrap(), LayoutSource::Profile);
    assert_eq!(
        name_symbol(&shelf, &program, "work").unwrap(),
        ["work work.c:7"]
    );
}

/// Check that where a file is loaded that came from a collector, and so from some process, is no last word: what is said later
/// counts, for a file that does not say it itself.
#[test]
fn a_process_does_not_fix_a_layout() {
    let workshop = Workshop::new();
    let id = "-Wl,--build-id=0x0123";
    let program = workshop.compile("work", C, &["-g", "-O2", id]);
    let other = workshop.compile("other", C, &["-O2", "-no-pie", id]);
    let (debug, _) = workshop.split("work");
    let folder = tempfile::tempdir().unwrap();
    let shelf = open(options(folder.path()));
    let file = fs::File::open(&other.path).unwrap();
    let placed = shelf.place(&other.build_id(), file, COLLECTOR_ORIGIN);
    assert!(is_stored(&placed));
    assert!(is_stored(&place(&shelf, &debug)));
    let layout = program.facts.layout.clone().unwrap();
    shelf.learn_layout(&program.build_id(), &layout, LayoutSource::Profile);
    assert_eq!(
        name_symbol(&shelf, &program, "work").unwrap(),
        ["work work.c:7"]
    );
}

/// Check that what came from a collector, and so from some process, never stands in the way of what a person has given, whatever
/// comes first; and that it counts where there is nothing as good.
#[test]
fn what_a_process_has_made_replaces_nothing_of_a_person() {
    let workshop = Workshop::new();
    let id = "-Wl,--build-id=0x0123";
    let small = workshop.compile("small", C, &["-g", "-O0", id]);
    let large = workshop.compile("large", C, &["-g3", "-O3", id]);
    let (_, bare) = workshop.split("large");
    let table = workshop.compile("table", C, &["-O2", id]);
    let place = |shelf: &Shelf, program: &Built, origin: &str| {
        let file = fs::File::open(&program.path).unwrap();
        is_stored(&shelf.place(&program.build_id(), file, origin))
    };
    let origin = |shelf: &Shelf| shelf.list()[0].head.origin.clone();
    let body = |shelf: &Shelf| shelf.list()[0].head.body_bytes;
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let shelf = open(options(folder.path()));
    assert!(place(&shelf, &small, "upload"));
    let of_person = body(&shelf);
    assert!(!place(&shelf, &large, COLLECTOR_ORIGIN));
    assert_eq!(
        (origin(&shelf).as_str(), body(&shelf)),
        ("upload", of_person)
    );

    // Nor is more of a process better than less of a person.
    let folder = tempfile::tempdir().unwrap();
    let shelf = open(options(folder.path()));
    assert!(place(&shelf, &table, "upload"));
    assert!(!place(&shelf, &large, COLLECTOR_ORIGIN));
    assert_eq!(shelf.list()[0].head.rank, Rank::SymbolTable);
    assert!(place(&shelf, &large, "upload"));

    let shelf = open(options(other.path()));
    assert!(place(&shelf, &table, COLLECTOR_ORIGIN));
    // A stripped file is no better for who sent it.
    assert!(!place(&shelf, &bare, "upload"));
    assert!(place(&shelf, &large, COLLECTOR_ORIGIN));
    assert!(body(&shelf) > of_person);
    assert!(place(&shelf, &small, "upload"));
    assert_eq!(
        (origin(&shelf).as_str(), body(&shelf)),
        ("upload", of_person)
    );
}

/// Check that debug information with nothing in it is none: such a file is what its symbol table makes it, stands in no table's
/// way, and without one is refused.
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
    let shelf = open(options(folder.path()));
    let none = Built::read(&workshop.path("static.empty"));
    assert_eq!(none.facts.rank, Some(Rank::DebugInfo));
    check_refused(place(&shelf, &none), RefusalKind::NoSymbols, "neither");
    let empty = Built::read(&workshop.path("table.empty"));
    assert_eq!(empty.facts.rank, Some(Rank::DebugInfo));
    match place(&shelf, &empty) {
        Ok(Placed::Stored(head)) => assert_eq!(head.rank, Rank::SymbolTable),
        other => panic!("{other:?}"),
    }
    assert!(is_stored(&place(&shelf, &table)));
    assert_eq!(name_symbol(&shelf, &table, "main").unwrap(), ["main :0"]);
}

fn check_refused(placed: Result<Placed, PlaceError>, kind: RefusalKind, words: &str) {
    match placed {
        Err(PlaceError::Refused(refusal)) => {
            assert_eq!(refusal.kind, kind, "{refusal}");
            assert!(refusal.message.contains(words), "{refusal}");
        }
        other => panic!("{words}: {other:?}"),
    }
}

#[test]
fn what_is_wrong_with_a_file_is_said() {
    let workshop = Workshop::new();
    let folder = tempfile::tempdir().unwrap();
    let shelf = open(options(folder.path()));
    let program = workshop.compile("work", C, &["-g"]);
    let other: BuildId = "0123".parse().unwrap();
    let file = |path: &Path| fs::File::open(path).unwrap();
    let wrong = shelf.place(&other, file(&program.path), "test");
    check_refused(
        wrong,
        RefusalKind::WrongBuildId,
        &format!("{}, and not 0123", program.build_id()),
    );
    let without = workshop.compile("without", C, &["-g", "-Wl,--build-id=none"]);
    let without = shelf.place(&other, file(&without.path), "test");
    check_refused(without, RefusalKind::NoBuildId, "-Wl,--build-id");
    workshop.compile("bare", C, &["-s", "-static", "-Wl,--build-id=0x0123"]);
    let bare = shelf.place(&other, file(&workshop.path("bare")), "test");
    check_refused(bare, RefusalKind::NoSymbols, "stripped");
    fs::write(workshop.path("text"), "no ELF file at all, but a text").unwrap();
    let text = shelf.place(&other, file(&workshop.path("text")), "test");
    check_refused(text, RefusalKind::NotElf, "not an ELF file");
    assert!(shelf.list().is_empty());
}

/// Check that a child that takes too much, or dies, costs one file and nothing else.
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
    let shelf = with(small, None);
    check_refused(place(&shelf, &program), RefusalKind::Limit, "memory");
    let short = ChildLimits {
        index_bytes_max: 4096,
        ..ChildLimits::default()
    };
    drop(shelf);
    let shelf = with(short, None);
    check_refused(place(&shelf, &program), RefusalKind::Limit, "larger");
    drop(shelf);
    // One that says that all is well and has written nothing.
    let shelf = with(ChildLimits::default(), Some("/bin/true"));
    let placed = place(&shelf, &program);
    assert!(
        matches!(&placed, Err(PlaceError::Failed(text)) if text.contains("not one")),
        "{placed:?}"
    );
    drop(shelf);
    let shelf = with(ChildLimits::default(), Some("/does/not/exist"));
    assert!(matches!(
        place(&shelf, &program),
        Err(PlaceError::Failed(_))
    ));
    drop(shelf);
    let shelf = with(ChildLimits::default(), None);
    assert!(is_stored(&place(&shelf, &program)));
    assert_eq!(
        fs::read_dir(folder.path().join("incoming"))
            .unwrap()
            .count(),
        0
    );
}

fn find_index(folder: &Path, build_id: &BuildId) -> std::path::PathBuf {
    let name = build_id.as_str();
    folder
        .join("index")
        .join(&name[..2])
        .join(format!("{name}.index"))
}

/// Check that an index that was changed on the disk, at any place, is dropped with its file, at start or when it is asked, and
/// that what was left behind is removed.
#[test]
fn a_damaged_index_is_dropped() {
    let workshop = Workshop::new();
    let program = workshop.compile("work", C, &["-g"]);
    let folder = tempfile::tempdir().unwrap();
    let path = find_index(folder.path(), &program.build_id());
    let shelf = open(options(folder.path()));
    place(&shelf, &program).unwrap();
    drop(shelf);
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
        let shelf = open(options(folder.path()));
        assert_eq!(
            name_symbol(&shelf, &program, "work").unwrap_or_default(),
            [""; 0]
        );
        assert!(!path.exists());
        assert!(shelf.list().is_empty());
        assert!(!folder.path().join("incoming/left").exists());
        assert!(is_stored(&place(&shelf, &program)));
    }
    // Under another name it is not what it says.
    let shelf = open(options(folder.path()));
    let elsewhere = find_index(folder.path(), &"00ff".parse().unwrap());
    fs::create_dir_all(elsewhere.parent().unwrap()).unwrap();
    fs::copy(&path, &elsewhere).unwrap();
    drop(shelf);
    assert_eq!(open(options(folder.path())).list().len(), 1);
    assert!(!elsewhere.exists());
}

/// Check that the cap holds, that what was used least lately goes first, also after a restart, and that what is too large for
/// all of it is refused.
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
    let shelf = open(options(folder.path()));
    place(&shelf, &programs[0]).unwrap();
    let one = shelf.list()[0].bytes;
    drop(shelf);
    let limited = ShelfOptions {
        bytes_max: 3 * one + one / 2,
        ..options(folder.path())
    };
    let shelf = open(limited.clone());
    place(&shelf, &programs[1]).unwrap();
    place(&shelf, &programs[2]).unwrap();
    drop(shelf);
    // By the clock of the files, since a second is the unit.
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
    let shelf = open(limited.clone());
    assert_eq!(
        name_symbol(&shelf, &programs[1], "work").unwrap(),
        ["work work2.c:7"]
    );
    place(&shelf, &programs[3]).unwrap();
    let kept: Vec<_> = shelf
        .list()
        .into_iter()
        .map(|listed| listed.head.build_id.to_string())
        .collect();
    assert_eq!(kept, ["0101", "0202", "0404"]);
    drop(shelf);
    assert_eq!(open(limited).list().len(), 3);
    let tiny = ShelfOptions {
        bytes_max: 100,
        ..options(folder.path())
    };
    let shelf = open(tiny);
    assert!(shelf.list().is_empty());
    check_refused(
        place(&shelf, &programs[0]),
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
    let shelf = open(options(folder.path()));
    place(&shelf, &program).unwrap();
    let named = name_symbol(&shelf, &program, "_ZNK4shop4Cart3sumEv").unwrap();
    assert_eq!(named, ["shop::Cart::sum() const cart.cc:21"]);
    let named = name_symbol(&shelf, &program, "_ZN4shop5scaleIiEET_S1_i").unwrap();
    assert_eq!(named, ["int shop::scale<int>(int, int) cart.cc:15"]);
}

/// Waits until `check` gives something.
pub(crate) fn wait_for<T>(mut check: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(
            started.elapsed() < PATIENCE,
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
