//! One module a target.

use crate::Target;

macro_rules! targets {
    ($($name:ident)*) => {
        $(mod $name;)*

        /// All targets.
        pub const TARGETS: &[Target] = &[
            $(Target { name: stringify!($name), run: $name::run, make_seeds: $name::make_seeds },)*
        ];
    };
}

targets! {
    record maps namer frames selector segment columnar log push entries pprof elf cfi walk rows code go jit tables debug symbols cgroup
    pod relabel policy
}
