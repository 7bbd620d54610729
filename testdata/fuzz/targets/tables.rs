//! What a file's own tables say of addresses in it: symbols, entries of linkage tables, boundaries of functions, segments and the
//! debug link. Any bytes give answers within the limits, or none.
#![no_main]

mod elves;
mod seeds;

use std::fs;
use std::process::Command;

use collector::name::protocol::STRING_BYTES_MAX;
use collector::name::{Boundaries, FileFacts, SymbolTables, read_facts};
use libfuzzer_sys::fuzz_target;
use object::LittleEndian;
use object::read::elf::ElfFile64;

fuzz_target!(init: seeds::write_seeds(make_seeds()), |input: &[u8]| {
    let Ok(file) = ElfFile64::<LittleEndian, _>::parse(input) else { return };
    let (facts, _) = read_facts(&file);
    let addresses = spread(&facts);
    let tables = SymbolTables::read(&file);
    let names = tables.find(input, &addresses);
    assert_eq!(names.len(), addresses.len());
    let linkages = tables.find_linkages(input, &addresses);
    assert_eq!(linkages.len(), addresses.len());
    let names: Vec<Option<String>> = names.into_iter().chain(linkages).collect();
    assert!(names.iter().flatten().all(|it| !it.is_empty() && it.len() <= STRING_BYTES_MAX));
    let boundaries = Boundaries::read(&file);
    for address in addresses {
        let distance = boundaries.find(input, &facts, address);
        assert!(distance.is_none_or(|it| u64::from(it) <= address));
    }
});

/// Addresses all over what is mapped, and some that are not.
fn spread(facts: &FileFacts) -> Vec<u64> {
    let inside = facts.segments.iter().flat_map(|it| (0..32).map(|n| it.address.wrapping_add(it.bytes / 32 * n)));
    inside.chain([0, 1 << 32, u64::MAX]).collect()
}

fn make_seeds() -> Vec<Vec<u8>> {
    let mut seeds = elves::make_elves();
    seeds.extend(compile(&[]));
    seeds.extend(compile(&["-s"]));
    seeds.extend(compile(&["-g", "-Wl,-z,lazy"]));
    seeds
}

/// A program of some functions, if there is a compiler.
fn compile(options: &[&str]) -> Option<Vec<u8>> {
    let folder = std::env::temp_dir().join(format!("pilotlight-fuzz-{}", std::process::id()));
    fs::create_dir_all(&folder).ok()?;
    let (source, program) = (folder.join("seed.c"), folder.join("seed"));
    let text = "#include <stdio.h>\nint a(int n) { return n * 3; }\nint main(int n, char **v) { return puts(v[a(n) & 1]); }\n";
    fs::write(&source, text).ok()?;
    let status = Command::new("cc").args(options).arg("-o").args([&program, &source]).status();
    let bytes = fs::read(&program).ok();
    let _ = fs::remove_dir_all(&folder);
    bytes.filter(|_| status.is_ok_and(|it| it.success()))
}
