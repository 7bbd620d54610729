//! Functions with names and files like those of four languages.

use std::collections::HashSet;

use fastrand::Rng;

/// Functions of all languages.
pub(crate) const FUNCTIONS: usize = 20_000;

/// Languages.
pub(crate) const LANGUAGES: usize = 4;

/// Bytes of a function's code.
pub(crate) const FUNCTION_BYTES: u64 = 0x90;

/// A function.
pub(crate) struct NamedFunction {
    pub(crate) name: String,
    pub(crate) file: String,
    pub(crate) start_line: i64,
}

/// Parts of names.
pub(crate) const WORDS: [&str; 24] = [
    "ledger",
    "billing",
    "checkout",
    "auth",
    "session",
    "catalog",
    "search",
    "index",
    "storage",
    "codec",
    "proto",
    "transport",
    "server",
    "client",
    "router",
    "cache",
    "queue",
    "scheduler",
    "worker",
    "metrics",
    "trace",
    "config",
    "crypto",
    "snapshot",
];
const VERBS: [&str; 16] = [
    "Apply", "Get", "Put", "Scan", "Encode", "Decode", "Read", "Write", "Flush", "Handle", "Serve",
    "Commit", "Merge", "Compare", "Validate", "Parse",
];
const NOUNS: [&str; 16] = [
    "Batch", "Record", "Row", "Key", "Value", "Page", "Block", "Chunk", "Frame", "Header",
    "Request", "Stream", "Order", "Invoice", "Table", "Buffer",
];

/// The functions of all services; those with the same remainder by [`LANGUAGES`] are of one language.
pub(crate) fn make_functions(seed: u64) -> Vec<NamedFunction> {
    let mut random = Rng::with_seed(seed);
    let mut known = HashSet::new();
    let mut functions = Vec::new();
    while functions.len() < FUNCTIONS {
        let mut word = || WORDS[random.usize(0..WORDS.len())];
        let (a, b) = (word(), word());
        let mut noun = || NOUNS[random.usize(0..NOUNS.len())];
        let (n, m, o) = (noun(), noun(), noun());
        let v = VERBS[random.usize(0..VERBS.len())];
        let (name, file) = match functions.len() % LANGUAGES {
            0 => (
                format!("github.com/acme/{a}/internal/{b}.(*{m}Store).{v}{n}{o}"),
                format!("/src/github.com/acme/{a}/internal/{b}/{m}.go"),
            ),
            1 => (
                format!("com.acme.{a}.{b}.{m}{o}Service.{v}{n}"),
                format!("{m}Service.java"),
            ),
            2 => (
                format!("acme::{a}::{b}::{v}{n}{o}({m} const&, unsigned long)"),
                format!("/build/src/{a}/{b}.cc"),
            ),
            _ => (
                format!("{a}_{b}_{v}{n}{m}{o}"),
                format!("/usr/lib/python3/dist-packages/{a}/{b}.py"),
            ),
        };
        if known.insert(name.clone()) {
            functions.push(NamedFunction {
                name,
                file,
                start_line: random.i64(10..1510),
            });
        }
    }
    functions
}
