//! Debug information that lies in two files, or is read unit by unit, at addresses all over the code. Any bytes give functions
//! within the limits, the name of a file that is wanted, or nothing.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;
use std::rc::Rc;
use std::sync::LazyLock;

use elf::{BlockCache, Headers, Limits};
use symbolize::dwarf::{LinkedFiles, Linking, Lookup, SPLIT_PATH_BYTES_MAX};
use symbolize::read_facts;

/// The two files of an input.
static FILES: LazyLock<[File; 2]> = LazyLock::new(|| ["main", "other"].map(make_file));

/// The head of an input: the kind of the other file, and the bytes of the main file. The main file and the other file follow.
const HEAD_BYTES: usize = 5;

pub(crate) fn run(input: &[u8]) {
    let Some((head, files)) = input.split_first_chunk::<HEAD_BYTES>() else { return };
    let [kind, at @ ..] = head;
    let Some((main, other)) = files.split_at_checked(u32::from_le_bytes(*at) as usize) else { return };
    let Ok(headers) = Headers::read(main, Limits::OBJECTS) else { return };
    let (facts, _) = read_facts(&headers, main);
    let [main, other] = [(0, main), (1, other)].map(|(place, bytes)| write(&FILES[place], bytes));
    let mut linked = LinkedFiles::new(Rc::new(BlockCache::default()));
    linked.look(&main, input.len() as u64);
    let reopen = || other.try_clone().expect("there are descriptors");
    let linking = match kind % 3 {
        0 => Linking { alternative: Some(reopen()), ..Linking::default() },
        1 => Linking { package: Some(reopen()), ..Linking::default() },
        _ => Linking::default(),
    };
    linked.take(linking, &main, facts.alternative.as_ref());
    if !linked.is_needed() {
        return;
    }
    let segments = facts.segments.iter().take(4);
    for address in segments.flat_map(|segment| (0..16).map(|n| segment.address.wrapping_add(segment.bytes / 16 * n))).chain([0, u64::MAX]) {
        let mut lookup = linked.find(&main, address);
        if let Lookup::Wants(wanted, _) = lookup {
            assert!(wanted.name.len() <= SPLIT_PATH_BYTES_MAX && wanted.directory.len() <= SPLIT_PATH_BYTES_MAX);
            let split = vec![(wanted.id, Some(reopen()))];
            linked.take(Linking { split, ..Linking::default() }, &main, None);
            lookup = linked.find(&main, address);
            // It is asked for once.
            assert!(!matches!(&lookup, Lookup::Wants(again, _) if again.id == wanted.id));
        }
        if let Lookup::Found(found) = lookup {
            assert!(!found.is_empty());
        }
    }
}

fn make_file(name: &str) -> File {
    let path = format!("/dev/shm/pilotlight-fuzz-{}-{name}", std::process::id());
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path);
    let _ = fs::remove_file(&path);
    file.expect("there is memory for a file")
}

fn write(file: &File, bytes: &[u8]) -> File {
    file.set_len(bytes.len() as u64).expect("a file can be cut");
    file.write_all_at(bytes, 0).expect("a file can be written");
    file.try_clone().expect("there are descriptors")
}

pub(crate) fn make_seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for version in ["-gdwarf-4", "-gdwarf-5"] {
        for (kind, options) in [(2, &["-gsplit-dwarf"][..]), (2, &[]), (0, &[]), (2, &["-gsplit-dwarf", "-gz"])] {
            seeds.extend(compile(kind, &[&[version], options].concat()));
        }
    }
    seeds
}

/// A library of some functions and its split file, if there is a compiler; without a split file, the library twice.
fn compile(kind: u8, options: &[&str]) -> Option<Vec<u8>> {
    let folder = std::env::temp_dir().join(format!("pilotlight-fuzz-{}", std::process::id()));
    fs::create_dir_all(&folder).ok()?;
    let text = "static inline __attribute__((always_inline)) int in(int n) { return n * 3 + 1; }\n\
        int a(int n) { int s = 0; for (int i = 0; i < n; i++) s ^= in(s + i); return s; }\nint b(int n) { return a(in(n)); }\n";
    fs::write(folder.join("seed.c"), text).ok()?;
    let object = [&["-O1", "-fPIC", "-c", "-o", "seed.o", "seed.c"], options].concat();
    let files = run_cc(&folder, &object)
        .and_then(|()| run_cc(&folder, &["-shared", "-nostdlib", "-Wl,-z,noseparate-code", "-o", "seed.so", "seed.o"]))
        .and_then(|()| fs::read(folder.join("seed.so")).ok())
        .map(|main| (fs::read(folder.join("seed.dwo")).unwrap_or_else(|_| main.clone()), main));
    let _ = fs::remove_dir_all(&folder);
    let (other, main) = files?;
    let at = u32::try_from(main.len()).ok()?;
    Some([&[kind], &at.to_le_bytes()[..], &main, &other].concat())
}

fn run_cc(folder: &Path, arguments: &[&str]) -> Option<()> {
    let status = Command::new("cc").args(arguments).current_dir(folder).status().ok()?;
    status.success().then_some(())
}
