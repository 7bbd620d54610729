//! Segments against a plain reference: random windows, random questions, equal to the sample.

#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod addresses;
mod block;
mod compare;
mod damage;
mod exact;
mod log;
mod merges;
mod random;
mod reference;
