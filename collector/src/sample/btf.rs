//! Offsets of kernel structures, from the kernel's own BTF.

use std::{fs::File, io, os::fd::AsRawFd as _};

use anyhow::{Context as _, Result, bail};
use btf_rs::{Backend, Btf, BtfType, Type};
use rustix::fs::{MemfdFlags, memfd_create};

use super::PidNamespace;

/// The kernel's description of its types.
pub const BTF_PATH: &str = "/sys/kernel/btf/vmlinux";

/// Offsets in bytes of the fields that the program follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelOffsets {
    /// `task_struct.stack`
    pub task_stack: u32,
    /// `task_struct.mm`
    pub task_mm: u32,
    /// `task_struct.comm`
    pub task_comm: u32,
    /// `task_struct.group_leader`
    pub task_group_leader: u32,
    /// `task_struct.start_boottime`
    pub task_start_boottime: u32,
    /// `task_struct.self_exec_id`
    pub task_self_exec_id: u32,
    /// `task_struct.thread.fsbase`
    pub task_fsbase: u32,
    /// `mm_struct.start_stack`
    pub mm_start_stack: u32,
    /// `task_struct.cgroups`
    pub task_cgroups: u32,
    /// `css_set.subsys[controller]`, or 0 without a controller
    pub css_set_subsys: u32,
    /// `css_set.dfl_cgrp`
    pub css_set_dfl_cgrp: u32,
    /// `cgroup_subsys_state.cgroup`
    pub css_cgroup: u32,
    /// `cgroup.self.parent`
    pub cgroup_self_parent: u32,
    /// `cgroup.kn`
    pub cgroup_kn: u32,
    /// `kernfs_node.id`
    pub kernfs_id: u32,
    /// `task_struct.thread_pid`
    pub task_thread_pid: u32,
    /// `pid.level`
    pub pid_level: u32,
    /// `pid.numbers`
    pub pid_numbers: u32,
    /// Size of `upid`
    pub upid_bytes: u32,
    /// `upid.nr`
    pub upid_nr: u32,
    /// `upid.ns`
    pub upid_ns: u32,
    /// `pid_namespace.ns.inum`
    pub namespace_inum: u32,
}

impl KernelOffsets {
    /// Reads the offsets of the running kernel. `controller` is the v1 cgroup
    /// controller whose cgroups are wanted (`memory`, `cpu`, …), if any; those of
    /// process ids are read if a PID namespace other than the host's is sampled.
    ///
    /// # Errors
    /// The kernel has no BTF, or its types are not as expected.
    pub fn read(controller: Option<&str>, namespace: PidNamespace) -> Result<Self> {
        let btf = open_btf().with_context(|| {
            format!("failed to read `{BTF_PATH}`: a kernel with CONFIG_DEBUG_INFO_BTF is needed")
        })?;
        let mut offsets = Self {
            task_stack: field_offset(&btf, "task_struct", "stack")?,
            task_mm: field_offset(&btf, "task_struct", "mm")?,
            task_comm: field_offset(&btf, "task_struct", "comm")?,
            task_group_leader: field_offset(&btf, "task_struct", "group_leader")?,
            task_start_boottime: field_offset(&btf, "task_struct", "start_boottime")?,
            task_self_exec_id: field_offset(&btf, "task_struct", "self_exec_id")?,
            task_fsbase: field_offset(&btf, "task_struct", "thread")?
                + field_offset(&btf, "thread_struct", "fsbase")?,
            mm_start_stack: field_offset(&btf, "mm_struct", "start_stack")?,
            task_cgroups: field_offset(&btf, "task_struct", "cgroups")?,
            css_set_dfl_cgrp: field_offset(&btf, "css_set", "dfl_cgrp")?,
            css_cgroup: field_offset(&btf, "cgroup_subsys_state", "cgroup")?,
            cgroup_self_parent: field_offset(&btf, "cgroup", "self")?
                + field_offset(&btf, "cgroup_subsys_state", "parent")?,
            cgroup_kn: field_offset(&btf, "cgroup", "kn")?,
            kernfs_id: field_offset(&btf, "kernfs_node", "id")?,
            ..Self::default()
        };
        if let Some(controller) = controller {
            let id = format!("{controller}_cgrp_id");
            let index = enum_value(&btf, "cgroup_subsys_id", &id)?;
            offsets.css_set_subsys = field_offset(&btf, "css_set", "subsys")? + 8 * index;
        }
        if namespace.nested().is_some() {
            offsets.task_thread_pid = field_offset(&btf, "task_struct", "thread_pid")?;
            offsets.pid_level = field_offset(&btf, "pid", "level")?;
            offsets.pid_numbers = field_offset(&btf, "pid", "numbers")?;
            offsets.upid_bytes = struct_bytes(&btf, "upid")?;
            offsets.upid_nr = field_offset(&btf, "upid", "nr")?;
            offsets.upid_ns = field_offset(&btf, "upid", "ns")?;
            offsets.namespace_inum = field_offset(&btf, "pid_namespace", "ns")?
                + field_offset(&btf, "ns_common", "inum")?;
        }
        Ok(offsets)
    }

    /// The program's settings that hold them, by name.
    pub fn settings(&self) -> [(&'static str, &u32); 22] {
        let Self {
            task_stack,
            task_mm,
            task_comm,
            task_group_leader,
            task_start_boottime,
            task_self_exec_id,
            task_fsbase,
            mm_start_stack,
            task_cgroups,
            css_set_subsys,
            css_set_dfl_cgrp,
            css_cgroup,
            cgroup_self_parent,
            cgroup_kn,
            kernfs_id,
            task_thread_pid,
            pid_level,
            pid_numbers,
            upid_bytes,
            upid_nr,
            upid_ns,
            namespace_inum,
        } = self;
        [
            ("TASK_STACK", task_stack),
            ("TASK_MM", task_mm),
            ("TASK_COMM", task_comm),
            ("TASK_GROUP_LEADER", task_group_leader),
            ("TASK_START_BOOTTIME", task_start_boottime),
            ("TASK_SELF_EXEC_ID", task_self_exec_id),
            ("TASK_FSBASE", task_fsbase),
            ("MM_START_STACK", mm_start_stack),
            ("TASK_CGROUPS", task_cgroups),
            ("CSS_SET_SUBSYS", css_set_subsys),
            ("CSS_SET_DFL_CGRP", css_set_dfl_cgrp),
            ("CSS_CGROUP", css_cgroup),
            ("CGROUP_SELF_PARENT", cgroup_self_parent),
            ("CGROUP_KN", cgroup_kn),
            ("KERNFS_ID", kernfs_id),
            ("TASK_THREAD_PID", task_thread_pid),
            ("PID_LEVEL", pid_level),
            ("PID_NUMBERS", pid_numbers),
            ("UPID_BYTES", upid_bytes),
            ("UPID_NR", upid_nr),
            ("UPID_NS", upid_ns),
            ("NAMESPACE_INUM", namespace_inum),
        ]
    }
}

/// The kernel's types, mapped: parsed into structures of their own they take tens of megabytes.
///
/// Kernels before 6.16 do not map the file; then 4 to 6 MB are copied to where they can be mapped,
/// until the offsets are read.
fn open_btf() -> Result<Btf> {
    if let Ok(btf) = Btf::from_file_with_backend(BTF_PATH, Backend::Mmap) {
        return Ok(btf);
    }
    let copy = memfd_create("btf", MemfdFlags::CLOEXEC)?;
    let path = format!("/proc/self/fd/{}", copy.as_raw_fd());
    io::copy(
        &mut File::open(BTF_PATH)?,
        &mut File::from(copy.try_clone()?),
    )?;
    Ok(Btf::from_file_with_backend(&path, Backend::Mmap)?)
}

/// Offset of a field, looked for in anonymous members too.
fn field_offset(btf: &Btf, structure: &str, field: &str) -> Result<u32> {
    for found in find_structs(btf, structure)? {
        if let Some(bits) = find_member(btf, &found, field)? {
            return Ok(bits / 8);
        }
    }
    bail!("failed to find `{structure}.{field}` in the kernel's BTF")
}

/// Size of a structure.
fn struct_bytes(btf: &Btf, structure: &str) -> Result<u32> {
    let found = find_structs(btf, structure)?;
    let bytes = found.first().map(btf_rs::Struct::size);
    let bytes = bytes.and_then(|bytes| u32::try_from(bytes).ok());
    bytes.with_context(|| format!("failed to find `struct {structure}` in the kernel's BTF"))
}

fn find_structs(btf: &Btf, name: &str) -> Result<Vec<btf_rs::Struct>> {
    let types = btf
        .resolve_types_by_name(name)
        .with_context(|| format!("failed to find `struct {name}` in the kernel's BTF"))?;
    let structs = types.into_iter().filter_map(|found| match found {
        Type::Struct(found) => Some(found),
        _ => None,
    });
    Ok(structs.collect())
}

fn find_member(btf: &Btf, structure: &btf_rs::Struct, field: &str) -> Result<Option<u32>> {
    for member in &structure.members {
        let name = btf.resolve_name(member).unwrap_or_default();
        if name == field {
            return Ok(Some(member.bit_offset()));
        }
        if !name.is_empty() {
            continue;
        }
        // An anonymous struct or union: its members are the outer one's too.
        if let Ok(Type::Struct(inner) | Type::Union(inner)) = btf.resolve_chained_type(member)
            && let Some(bits) = find_member(btf, &inner, field)?
        {
            return Ok(Some(member.bit_offset() + bits));
        }
    }
    Ok(None)
}

fn enum_value(btf: &Btf, enumeration: &str, name: &str) -> Result<u32> {
    let types = btf
        .resolve_types_by_name(enumeration)
        .with_context(|| format!("failed to find `enum {enumeration}` in the kernel's BTF"))?;
    for found in types {
        let Type::Enum(found) = found else { continue };
        for member in &found.members {
            if btf
                .resolve_name(member as &dyn BtfType)
                .is_ok_and(|found| found == name)
            {
                return Ok(member.val());
            }
        }
    }
    bail!("failed to find `{name}` in the kernel's `enum {enumeration}`")
}
