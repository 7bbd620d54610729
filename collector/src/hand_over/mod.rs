//! The hand-over between collectors of one node (`--hand-over`): one samples at a time.
//!
//! In a roll-out the new collector starts while the old one samples. It prepares everything, waits until the old one has stopped its
//! timers, and starts its own. So no moment is sampled twice, and the gap is some milliseconds.
//!
//! Locks (flock) decide who samples: [`Turn`] has their order. The kernel releases those of a collector that was killed.
//! [`HandOver`] is the state for people.
//!
//! A collector without `--hand-over` neither takes the locks nor waits, so that two can sample one machine on purpose.

mod earlier;
mod lock;
mod state;
mod turn;

pub use state::HandOver;
pub(crate) use turn::Turn;
