//! Tables of an ELF file that name its addresses: symbols, linkage tables, boundaries of functions. Any bytes give names within the
//! limits, or none.

use std::fs;
use std::process::Command;

use elf::{Headers, Layout, Limits};
use symbolize::{Boundaries, STRING_BYTES_MAX, SymbolTables};

use crate::inputs::elves;

pub(crate) fn run(input: &[u8]) {
    let Ok(headers) = Headers::read(input, Limits::OBJECTS) else { return };
    let layout = headers.layout();
    let addresses = spread(&layout);
    let tables = SymbolTables::read(&headers);
    let names = tables.find(input, &addresses, |label| label.saturating_add(64));
    assert_eq!(names.len(), addresses.len());
    let linkages = tables.find_linkages(input, &addresses);
    assert_eq!(linkages.len(), addresses.len());
    let names: Vec<Option<String>> = names.into_iter().chain(linkages).collect();
    assert!(names.iter().flatten().all(|name| !name.is_empty() && name.len() <= STRING_BYTES_MAX));
    let boundaries = Boundaries::read(&headers);
    for address in addresses {
        let distance = boundaries.find(input, &layout, address);
        assert!(distance.is_none_or(|distance| u64::from(distance) <= address));
    }
}

/// Addresses all over what is mapped, and some that are not.
fn spread(layout: &Layout) -> Vec<u64> {
    let inside = layout.segments().iter().flat_map(|segment| (0..32).map(|n| segment.address.wrapping_add(segment.bytes / 32 * n)));
    inside.chain([0, 1 << 32, u64::MAX]).collect()
}

pub(crate) fn make_seeds() -> Vec<Vec<u8>> {
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
    bytes.filter(|_| status.is_ok_and(|status| status.success()))
}
