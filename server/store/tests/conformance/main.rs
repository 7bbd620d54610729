//! What every store must do: the same questions to each, and exact answers.
//!
//! A store is added by a line below. Random histories are the same in each run; `PILOTLIGHT_CONFORMANCE_SEEDS=1000` tries more of
//! them.

#![allow(clippy::unwrap_used, reason = "a test")]

mod answers;
mod cases;
mod concurrent;
mod random;
mod stores;
mod windows;

use stores::{Embedded, Memory, Settled};

/// Runs the suite over a store.
macro_rules! conformance {
    ($($name:ident: $store:ty;)*) => {$(
        mod $name {
            use super::*;

            #[test]
            fn answers_are_exact() {
                cases::answers_are_exact::<$store>();
            }

            #[test]
            fn versions_have_their_times() {
                cases::versions_have_their_times::<$store>();
            }

            #[test]
            fn reports_are_kept_by_node() {
                cases::reports_are_kept_by_node::<$store>();
            }

            #[test]
            fn answers_hold_what_was_acknowledged_before() {
                concurrent::answers_hold_what_was_acknowledged_before::<$store>();
            }

            #[test]
            fn random_histories_have_the_answers_of_the_reference() {
                random::histories_have_the_answers_of_the_reference::<$store>();
            }
        }
    )*};
}

conformance! {
    // The reference itself: its random histories show that the suite's own order and names of things are stable.
    memory: Memory;
    embedded: Embedded;
    // In segments, which are merged all the while.
    settled: Settled;
}
