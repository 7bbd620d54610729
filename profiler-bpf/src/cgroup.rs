//! The current task's cgroup, and whether the policy excludes its samples.
//!
//! A cgroup's id comes from `task->cgroups`: with cgroups v1 through the memory controller's state, with v2 directly. Both survive the
//! end of the process. The cgroups above are found through `cgroup.self.parent`, which is the same in v1, v2 and all kernels from 5.10
//! on (the helper for ancestors knows v2 only, and the array of ancestors was another before 6.1).
//!
//! The cgroup is remembered for the next sample of the same task, and the verdict for the next sample of the same cgroup. The
//! collector raises the generation after each change of the verdicts, so that none is remembered for longer.

use core::{arch::asm, ptr};

use profiler_bpf::{
    policy::{EXCLUDE, LEVELS, REMEMBERED_MAX, Remembered},
    record::CgroupSeen,
    settings::cgroup_source,
};

use crate::{
    POLICY, VERDICTS,
    arithmetic::zero,
    scratch,
    task::{current_task, get, load_field, setting},
};

setting!(
    /// 1 if there is a policy.
    HAS_POLICY
);
setting!(
    /// One of [`cgroup_source`].
    CGROUP_SOURCE
);
setting!(
    /// Offset of `task_struct.cgroups`, a `struct css_set *`.
    TASK_CGROUPS
);
setting!(
    /// Offset of the wanted controller's element in `css_set.subsys[]`.
    CSS_SET_SUBSYS
);
setting!(
    /// Offset of `css_set.dfl_cgrp`, the cgroup of v2.
    CSS_SET_DFL_CGRP
);
setting!(
    /// Offset of `cgroup_subsys_state.cgroup`.
    CSS_CGROUP
);
setting!(
    /// Offset of `cgroup.self.parent`, a `struct cgroup_subsys_state *`.
    CGROUP_SELF_PARENT
);
setting!(
    /// Offset of `cgroup.kn`, a `struct kernfs_node *`.
    CGROUP_KN
);
setting!(
    /// Offset of `kernfs_node.id`.
    KERNFS_ID
);

/// Lifetime of what is remembered of a cgroup. A task seldom moves to another
/// cgroup, and it is the same `css_set` at the same address even more seldom.
const CGROUP_SEEN_NS: u64 = 1_000_000_000;

/// Finds the current task's cgroup: its id is in `seen` then, with the task's ids. Gives whether its samples are excluded; then
/// this one is counted.
///
/// # Safety
/// `seen` is that of this CPU's record, to which nothing refers.
#[inline(always)]
pub(crate) unsafe fn find(seen: *mut CgroupSeen, pid_tgid: u64, time_ns: u64) -> bool {
    if get(&CGROUP_SOURCE) as u32 == cgroup_source::NONE {
        // SAFETY: guaranteed by the caller.
        unsafe { (*seen).pid_tgid = pid_tgid };
        return false;
    }
    let has_policy = get(&HAS_POLICY) != 0;
    let generation = if has_policy {
        // SAFETY: a number that the collector writes as a whole.
        let read = |generation: &u64| unsafe { ptr::read_volatile(generation) };
        POLICY.get(zero()).map_or(0, read)
    } else {
        0
    };
    // SAFETY: guaranteed by the caller. The offsets are from the kernel's own types.
    unsafe {
        let css_set = load_field(current_task(), get(&TASK_CGROUPS));
        let is_seen = (*seen).css_set == css_set
            && (*seen).pid_tgid == pid_tgid
            && (*seen).generation == generation
            && time_ns.wrapping_sub((*seen).time_ns) < CGROUP_SEEN_NS;
        if !is_seen {
            (*seen).css_set = css_set;
            (*seen).pid_tgid = pid_tgid;
            (*seen).generation = generation;
            (*seen).time_ns = time_ns;
            if has_policy {
                look_up();
            } else {
                (*seen).id = load_id(load_cgroup(css_set));
            }
        }
        has_policy && is_excluded(seen)
    }
}

/// Whether a verdict that was found excludes the sample, which is counted then.
///
/// # Safety
/// As for [`find`].
#[inline(always)]
unsafe fn is_excluded(seen: *const CgroupSeen) -> bool {
    // SAFETY: guaranteed by the caller. Volatile, since `look_up` has written it.
    let excluder = unsafe { ptr::read_volatile(&raw const (*seen).excluder) };
    if excluder == 0 {
        return false;
    }
    // An entry that was just removed excludes this one sample more.
    if let Some(verdict) = VERDICTS.get_ptr_mut(excluder) {
        // SAFETY: both words are the map's value. `core` has no atomic addition for BPF; other CPUs add at the same time.
        unsafe {
            let count = verdict.cast::<u64>().add(1);
            asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) count, in(reg) 1_u64);
        }
    }
    true
}

/// Finds the id of the current task's cgroup and the verdict on it, for [`CgroupSeen`].
///
/// A function with a name: see [`step`](crate::walk::step).
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn look_up() -> u32 {
    let Some(scratch) = scratch() else {
        return 0;
    };
    // SAFETY: the record is this CPU's own, and `find` refers to nothing of it meanwhile. The offsets are from the
    // kernel's own types.
    unsafe {
        let seen = &raw mut (*scratch).cgroup;
        let generation = (*seen).generation;
        let css_set = load_field(current_task(), get(&TASK_CGROUPS));
        let mut cgroup = load_cgroup(css_set);
        let mut id = load_id(cgroup);
        (*seen).id = id;
        let place = id.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58;
        // The mask changes nothing; it lets the verifier see the bound.
        let remembered = (&raw mut (*scratch).verdicts)
            .cast::<Remembered>()
            .add(place as usize & (REMEMBERED_MAX - 1));
        if (*remembered).id == id && (*remembered).generation == generation {
            (*seen).excluder = (*remembered).excluder;
            return 0;
        }
        (*remembered).id = id;
        (*remembered).generation = generation;
        (*remembered).excluder = 0;
        (*seen).excluder = 0;
        for _ in 0..LEVELS {
            if id == 0 {
                // Above the root.
                break;
            }
            if let Some(found) = VERDICTS.get_ptr(id) {
                if ptr::read_volatile(found.cast::<u64>()) == EXCLUDE {
                    (*seen).excluder = id;
                    (*remembered).excluder = id;
                }
                break;
            }
            let parent = load_field(cgroup, get(&CGROUP_SELF_PARENT));
            cgroup = load_field(parent, get(&CSS_CGROUP));
            id = load_id(cgroup);
        }
    }
    0
}

/// The `struct cgroup` of a `css_set` in the hierarchy that the collector chose.
///
/// # Safety
/// `css_set` is one.
#[inline(always)]
unsafe fn load_cgroup(css_set: u64) -> u64 {
    // SAFETY: guaranteed by the caller.
    unsafe {
        match get(&CGROUP_SOURCE) as u32 {
            cgroup_source::V2 => load_field(css_set, get(&CSS_SET_DFL_CGRP)),
            _ => load_field(load_field(css_set, get(&CSS_SET_SUBSYS)), get(&CSS_CGROUP)),
        }
    }
}

/// `cgroup->kn->id`
///
/// # Safety
/// `cgroup` is a `struct cgroup`.
#[inline(always)]
unsafe fn load_id(cgroup: u64) -> u64 {
    // SAFETY: guaranteed by the caller.
    unsafe { load_field(load_field(cgroup, get(&CGROUP_KN)), get(&KERNFS_ID)) }
}
