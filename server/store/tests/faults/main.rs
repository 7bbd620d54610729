//! The embedded store on a disk whose operations fail, and which crashes: no acknowledged window is lost or doubled.
//!
//! Histories are the same in each run; `PILOTLIGHT_FAULT_SEEDS=100` tries more of them, and each operation of each.

#![allow(clippy::unwrap_used, reason = "a test")]

mod damage;
mod disk;
mod history;
mod steps;
