//! First inputs that are whole and valid, so that the search begins behind the first checks. Each target makes its own, at
//! each start, with the code that writes such bytes for the product where there is one; so they never fall behind it.

#![allow(dead_code, reason = "not every target takes all of it")]

use std::fs;
use std::path::Path;

/// Writes seeds to the folder that `testdata/fuzz/run` names, before libFuzzer reads it.
pub(crate) fn write_seeds(seeds: impl IntoIterator<Item = Vec<u8>>) {
    let Some(folder) = std::env::var_os("PILOTLIGHT_FUZZ_SEEDS") else {
        return;
    };
    for (number, seed) in seeds.into_iter().enumerate() {
        fs::write(Path::new(&folder).join(format!("seed-{number}")), seed)
            .expect("the corpus can be written");
    }
}

/// An input whose first byte chooses what is done with the rest.
pub(crate) fn of_kind(kind: u8, bytes: &[u8]) -> Vec<u8> {
    [&[kind], bytes].concat()
}
