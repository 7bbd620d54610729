//! Generates the windows of a cluster, for measurements: the same ones for the same [`Shape`].
//!
//! A cluster has 60 services in 30 namespaces. A service has a tree of calls with 1,500 stacks, 27 frames deep on average, of which a
//! pod uses 60 to 240 in a window, with a power law; so stacks come back window after window. [`Shape::default`] is a load test's: 20
//! nodes with 30 pods each, where 90 windows have 7.4 million rows.
//!
//! That is kinder to a store than real machines are: a function has one address and a service one file, everything has a name, and no
//! stack is new. The other fields of [`Shape`] change that.
//!
//! ```
//! use fleet::{Fleet, Shape};
//!
//! let shape = Shape::parse(["nodes=1", "pods=2", "threads=3"].map(String::from))?;
//! let fleet = Fleet::new(shape);
//! let window = fleet.window(0, 7);
//! assert_eq!(window.series.len(), 2);
//! assert_eq!(fleet.window(0, 7), window);
//! # Ok::<(), String>(())
//! ```

mod frames;
mod functions;
mod services;
mod shape;
mod windows;

pub use shape::Shape;
pub use windows::{Fleet, SAMPLE_NS, START_MS, WINDOW_MS};
