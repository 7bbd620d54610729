//! What is read from the current task: its user registers and its cgroup.
//!
//! Rust has no CO-RE relocations, so that the collector reads the kernel's BTF
//! and sets the few offsets below before it loads the object.
//!
//! From `bpf_get_current_task_btf` on, the verifier knows the type of each pointer
//! and lets plain loads follow it; a load that faults gives zero. That spares a
//! helper call for each field.

use core::ptr;

use aya_ebpf::{
    bindings::pt_regs,
    helpers::generated::{bpf_get_current_cgroup_id, bpf_get_current_task_btf, bpf_task_pt_regs},
};
use profiler_bpf::settings::cgroup_source;

/// A constant that the collector sets before it loads the object.
macro_rules! setting {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[unsafe(no_mangle)]
        static $name: u32 = 0;
    };
}

setting!(
    /// Offset of `task_struct.mm`.
    TASK_MM
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
    /// Offset of `cgroup_subsys_state.cgroup`.
    CSS_CGROUP
);
setting!(
    /// Offset of `cgroup.kn`, a `struct kernfs_node *`.
    CGROUP_KN
);
setting!(
    /// Offset of `kernfs_node.id`.
    KERNFS_ID
);

/// Reads a setting. Volatile, so that the compiler does not take the zero above
/// for its value.
#[inline(always)]
fn get(setting: &'static u32) -> usize {
    // SAFETY: a reference is readable.
    (unsafe { ptr::read_volatile(setting) }) as usize
}

/// Whether the current task has user memory of its own. A kernel thread has none
/// (also while it borrows some), nor has a process that is nearly gone.
#[inline(always)]
pub(crate) fn has_user_memory() -> bool {
    // SAFETY: as in `v1_cgroup_id`.
    let mm = unsafe { load_field(bpf_get_current_task_btf() as u64, get(&TASK_MM)) };
    mm != 0
}

/// The user registers that were saved when the current task entered the kernel.
#[inline(always)]
pub(crate) fn user_registers() -> *const pt_regs {
    // SAFETY: both helpers take and give the current task's own pointers.
    unsafe { bpf_task_pt_regs(bpf_get_current_task_btf()) as *const pt_regs }
}

/// Id of the current task's cgroup in the hierarchy that the collector chose, or 0.
#[inline(always)]
pub(crate) fn cgroup_id() -> u64 {
    match get(&CGROUP_SOURCE) as u32 {
        // SAFETY: the helper has no preconditions.
        cgroup_source::V2 => unsafe { bpf_get_current_cgroup_id() },
        cgroup_source::V1 => v1_cgroup_id(),
        _ => 0,
    }
}

/// `task->cgroups->subsys[i]->cgroup->kn->id`
#[inline(always)]
fn v1_cgroup_id() -> u64 {
    // SAFETY: the pointers come from the helper, and the collector took the offsets
    // from the kernel's own types. The verifier checks both.
    unsafe {
        let task = bpf_get_current_task_btf() as u64;
        let css_set = load_field(task, get(&TASK_CGROUPS));
        let css = load_field(css_set, get(&CSS_SET_SUBSYS));
        let cgroup = load_field(css, get(&CSS_CGROUP));
        let node = load_field(cgroup, get(&CGROUP_KN));
        load_field(node, get(&KERNFS_ID))
    }
}

/// Loads the field of eight bytes at `offset` of the kernel object at `base`.
///
/// # Safety
/// `base` is a pointer whose type the verifier knows, and has such a field there.
#[inline(always)]
unsafe fn load_field(base: u64, offset: usize) -> u64 {
    // SAFETY: as the caller says. Volatile, since the kernel changes it at any time.
    unsafe { ptr::read_volatile((base as usize + offset) as *const u64) }
}
