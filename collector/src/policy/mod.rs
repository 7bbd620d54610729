//! Which pods and which processes of the host are profiled: the rules as they are now.
//!
//! In: a file, or a ConfigMap of the cluster. Out: [`PolicyState`], which other threads read, [`Enforcer`], which has the kernel exclude
//! samples, and gives the verdicts on those that come through, and the excluded pods for people.
//!
//! The last policy that was read stays in force while its source has none that can be used: the source cannot be reached, is gone, or
//! has a mistake. It is kept in the cache directory, so that this holds across restarts. A source that is gone by mistake must not let
//! excluded pods be profiled; whoever wants no policy says `default: allow`.

mod enforcer;
mod enforcer_stats;
mod excluded;
mod last_policy;
mod policy_file;
mod reader;
mod state;
mod verdicts;
mod watch;

pub use enforcer::Enforcer;
pub use enforcer_stats::EnforcerStats;
pub use excluded::{ExcludedPod, ExcludedPods};
pub use reader::NO_POLICY;
pub use state::{KnownPolicy, PolicyNow, PolicyState, SourceState};
pub use verdicts::Verdict;
pub use watch::{PolicySource, PolicyWatch};
