//! Series -> labels.
//!
//! In: what the kernel knows of a process (name, program, cgroup id). Out: label
//! sets in Prometheus' form. It never decides what is sampled.

mod cgroup;
mod container;
mod labels;

pub use cgroup::{CgroupHierarchy, CgroupTable};
pub use container::find_container_id;
pub use labels::make_label_set;
