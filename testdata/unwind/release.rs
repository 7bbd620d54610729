//! Release code of Rust: generics, closures, strings, maps, sorting, and a panic that is caught.

use std::collections::{BTreeMap, HashMap};
use std::panic::{catch_unwind, set_hook};

#[inline(never)]
fn count(words: &[&str]) -> HashMap<String, usize> {
    let mut counts = HashMap::new();
    for word in words {
        *counts.entry((*word).to_owned()).or_insert(0) += word.len();
    }
    counts
}

#[inline(never)]
fn sort_by<K: Ord>(counts: &HashMap<String, usize>, key: impl Fn(&str, usize) -> K) -> Vec<String> {
    let mut names: Vec<_> = counts.iter().collect();
    names.sort_by_key(|(name, count)| key(name, **count));
    names.into_iter().map(|(name, count)| format!("{name}={count}")).collect()
}

#[inline(never)]
fn fail(depth: u32, text: &str) -> u32 {
    let copy = text.to_owned();
    if depth == 0 {
        panic!("{copy}");
    }
    fail(depth - 1, &copy) + copy.len() as u32
}

fn main() {
    let words = ["a", "stack", "is", "a", "list", "of", "frames", "of", "calls"];
    let counts = count(&words);
    let sorted = sort_by(&counts, |name, count| (count, name.to_owned()));
    let tree: BTreeMap<_, _> = sort_by(&counts, |name, _| name.len()).into_iter().zip(0..).collect();
    set_hook(Box::new(|_| {}));
    let caught = catch_unwind(|| fail(3, "thrown")).is_err();
    println!("{sorted:?} {tree:?} {caught}");
}
