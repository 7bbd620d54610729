//! Verdicts of the policy on cgroups: the map `VERDICTS`, and the generation of its contents.
//!
//! The program looks up a sample's cgroup and those above it, from the innermost on, and takes the first verdict that it finds. Where
//! there is none, the sample is taken. So one entry decides for a pod, also for its containers to come.

/// Entries of the map. A pod that is excluded takes one, and nodes have 110 pods by default, 500 or 1,000 in large clusters; so there
/// are some for excluded units and for pods that are allowed below an excluded cgroup. An entry takes its key and value, 48 bytes of
/// the kernel's and 16 for its bucket, 88 in all: 360 KB, preallocated, since kernels before 6.1 let a perf event use no others.
pub const VERDICTS_MAX: u32 = 4096;

/// Cgroups that are looked up for a sample: its own, and three above. A pod's directory is the parent of its containers' for all
/// runtimes; crun puts the processes into a `container` below that (2 levels above), and systemd in a container makes
/// `system.slice/NAME.service` or `init.scope` (3 levels). Deeper ones have an entry of their own in each fourth level.
pub const LEVELS: usize = 4;

/// Verdicts that each CPU remembers, by the cgroup's id. A cgroup has the same ones above it for all of its life, and ids are not used
/// again, so that a verdict holds until the generation changes.
///
/// A look-up in all levels touches a dozen places, which are cold after 10 ms of other work: that is 3 us on a busy virtual machine.
/// Some ten cgroups use a processor in a second.
pub const REMEMBERED_MAX: usize = 64;

/// A remembered verdict.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Remembered {
    /// The cgroup.
    pub id: u64,
    /// The generation of the verdicts.
    pub generation: u64,
    /// The cgroup whose verdict excludes it: itself or one above; 0 if none does.
    pub excluder: u64,
}

/// A value of the map: [`EXCLUDE`] or [`TAKE`], and the samples that this entry has excluded.
pub type Verdict = [u64; 2];

/// Samples leave nothing but the counts.
pub const EXCLUDE: u64 = 1;

/// Samples are taken, although a cgroup above is excluded.
pub const TAKE: u64 = 2;
