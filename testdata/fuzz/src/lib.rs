//! Fuzz targets: parsers of bytes that nobody controls.
//!
//! `testdata/fuzz/run` runs each [target](TARGETS) under libFuzzer for as long as it is told. The test `seeded` runs all of them for some
//! seconds on the same inputs each time: the seeds, what fuzzing found interesting, and [mutations](mutate) of both.

mod inputs {
    pub(crate) mod elves;
    pub(crate) mod pod_objects;
}
pub mod mutate;
mod targets;
#[path = "../../../server/src/receive/grpc/test_push.rs"]
mod test_push;

pub use targets::TARGETS;

/// Parser under test.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name on the command line and in `corpus/`.
    pub name: &'static str,
    /// Parses any bytes. Panics if a property does not hold.
    pub run: fn(&[u8]),
    /// First inputs, whole and valid, so that the search begins behind the first checks. They are made by the code that writes such
    /// bytes for the product where there is one, and so follow its changes.
    pub make_seeds: fn() -> Vec<Vec<u8>>,
}

/// An input whose first byte chooses what is done with the rest.
fn of_kind(kind: u8, bytes: &[u8]) -> Vec<u8> {
    [&[kind], bytes].concat()
}
