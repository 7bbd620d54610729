//! The current task's process and thread id, as `/proc` and perf's records have them.
//!
//! These have the numbers of the collector's PID namespace. Where the node is a container itself (kind, minikube,
//! k3d) that is not the host's, and `bpf_get_current_pid_tgid` gives the host's numbers. `bpf_get_ns_current_pid_tgid` knows a
//! task only in the innermost of its namespaces, and so none of a container on such a node. A task's `struct pid` has a number for
//! each level of namespaces, from the host's down.

use core::ptr;

use aya_ebpf::helpers::{
    bpf_get_current_pid_tgid,
    generated::{bpf_get_current_task, bpf_probe_read_kernel},
};

use crate::task::{TASK_GROUP_LEADER, get, setting};

setting!(
    /// Inode number of the collector's PID namespace, or 0 if that is the host's.
    PID_NAMESPACE
);
setting!(
    /// Offset of `task_struct.thread_pid`, a `struct pid *`.
    TASK_THREAD_PID
);
setting!(
    /// Offset of `pid.level`, the level of its innermost namespace. The host's is 0.
    PID_LEVEL
);
setting!(
    /// Offset of `pid.numbers[]`, a `struct upid` for each level.
    PID_NUMBERS
);
setting!(
    /// Size of `struct upid`.
    UPID_BYTES
);
setting!(
    /// Offset of `upid.nr`.
    UPID_NR
);
setting!(
    /// Offset of `upid.ns`, a `struct pid_namespace *`.
    UPID_NS
);
setting!(
    /// Offset of `pid_namespace.ns.inum`.
    NAMESPACE_INUM
);

/// Levels below the host's: `MAX_PID_NS_LEVEL` of include/linux/pid_namespace.h.
const LEVELS_MAX: u32 = 32;

/// Both ids, in the form of `bpf_get_current_pid_tgid`. `None` for a task outside of the collector's namespace.
#[inline(always)]
pub(crate) fn pid_tgid() -> Option<u64> {
    if get(&PID_NAMESPACE) == 0 {
        return Some(bpf_get_current_pid_tgid());
    }
    match find_ids() {
        0 => None,
        ids => Some(ids),
    }
}

/// Both ids in the collector's namespace, or 0. A task at its very end has none any more.
///
/// A function with a name of its own, so that the verifier does not check the rest of the program again for each level.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn find_ids() -> u64 {
    // SAFETY: the offsets are from the kernel's own types.
    unsafe {
        let task = bpf_get_current_task();
        let leader: u64 = read(task, get(&TASK_GROUP_LEADER));
        let process: u64 = read(leader, get(&TASK_THREAD_PID));
        let thread: u64 = read(task, get(&TASK_THREAD_PID));
        let mut number = get(&PID_NUMBERS);
        for level in 1..LEVELS_MAX + 1 {
            // Read each time: the compiler would make the loop end at a number that the verifier does not know.
            let innermost: u32 = read(process, get(&PID_LEVEL));
            if level > innermost {
                break;
            }
            number += get(&UPID_BYTES);
            let namespace: u64 = read(process, number + get(&UPID_NS));
            let inode: u32 = read(namespace, get(&NAMESPACE_INUM));
            if inode as usize == get(&PID_NAMESPACE) {
                let pid: u32 = read(process, number + get(&UPID_NR));
                let tid: u32 = read(thread, number + get(&UPID_NR));
                return u64::from(pid) << 32 | u64::from(tid);
            }
        }
    }
    0
}

/// Reads a number at an offset of a kernel object; zero where it cannot be read. Not by a typed pointer: before 6.5 the verifier
/// knew the first of [`PID_NUMBERS`] alone.
///
/// # Safety
/// `T` may have any value.
#[inline(always)]
unsafe fn read<T: Copy + Default>(object: u64, offset: usize) -> T {
    let mut value = T::default();
    let from = object.wrapping_add(offset as u64) as *const T;
    // SAFETY: the helper takes any address, and gives zero where it cannot be read.
    unsafe {
        bpf_probe_read_kernel(
            ptr::from_mut(&mut value).cast(),
            size_of::<T>() as u32,
            from.cast(),
        )
    };
    value
}
