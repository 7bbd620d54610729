//! What is read from the current task: its user registers and its cgroup.
//!
//! Rust has no CO-RE relocations, so that the collector reads the kernel's BTF
//! and sets the few offsets below before it loads the object.

use core::ptr;

use aya_ebpf::{
    bindings::pt_regs,
    helpers::{
        bpf_probe_read_kernel,
        generated::{
            bpf_get_current_cgroup_id, bpf_get_current_task, bpf_get_current_task_btf,
            bpf_task_pt_regs,
        },
    },
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

/// Reads the pointer-sized field at `offset` of the kernel object at `base`.
#[inline(always)]
fn read_field(base: u64, offset: usize) -> Option<u64> {
    // SAFETY: bpf_probe_read_kernel takes any address and fails on a bad one.
    unsafe { bpf_probe_read_kernel((base as usize + offset) as *const u64) }.ok()
}

/// Whether the current task has user memory of its own. A kernel thread has none
/// (also while it borrows some), nor has a process that is nearly gone.
#[inline(always)]
pub(crate) fn has_user_memory() -> bool {
    // SAFETY: the helper has no preconditions.
    let task = unsafe { bpf_get_current_task() };
    read_field(task, get(&TASK_MM)).is_some_and(|mm| mm != 0)
}

/// The user registers that were saved when the current task entered the kernel.
#[inline(always)]
pub(crate) fn read_user_registers() -> Option<pt_regs> {
    // SAFETY: both helpers take and give the current task's own pointers; the
    // registers are read by a helper which fails on a bad address.
    unsafe {
        let registers = bpf_task_pt_regs(bpf_get_current_task_btf()) as *const pt_regs;
        bpf_probe_read_kernel(registers).ok()
    }
}

/// Id of the current task's cgroup in the hierarchy that the collector chose, or 0.
#[inline(always)]
pub(crate) fn cgroup_id() -> u64 {
    match get(&CGROUP_SOURCE) as u32 {
        // SAFETY: the helper has no preconditions.
        cgroup_source::V2 => unsafe { bpf_get_current_cgroup_id() },
        cgroup_source::V1 => read_v1_cgroup_id().unwrap_or(0),
        _ => 0,
    }
}

/// `task->cgroups->subsys[i]->cgroup->kn->id`
#[inline(always)]
fn read_v1_cgroup_id() -> Option<u64> {
    // SAFETY: the helper has no preconditions.
    let task = unsafe { bpf_get_current_task() };
    let css_set = read_field(task, get(&TASK_CGROUPS))?;
    let css = read_field(css_set, get(&CSS_SET_SUBSYS))?;
    let cgroup = read_field(css, get(&CSS_CGROUP))?;
    let node = read_field(cgroup, get(&CGROUP_KN))?;
    read_field(node, get(&KERNFS_ID))
}
