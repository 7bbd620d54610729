//! The capabilities that the collector uses. docs/install.md has the same list for people.

/// A capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capability {
    /// eBPF programs and maps.
    Bpf,
    /// Perf events on all processors, and eBPF programs that read the kernel's memory.
    PerfMon,
    /// `/proc/PID/maps` and files of other users' processes.
    SysPtrace,
    /// Files in directories that only their owner may read.
    DacReadSearch,
    /// Addresses in `/proc/kallsyms`.
    Syslog,
    /// Deleted and replaced files, by `/proc/PID/map_files`.
    CheckpointRestore,
    /// An empty root directory for the naming child.
    SysChroot,
    /// Perf's buffers beyond the limit of locked memory.
    IpcLock,
}

/// CAP_SYS_ADMIN: the kernel takes it for BPF, PERFMON and CHECKPOINT_RESTORE too.
const SYS_ADMIN: u32 = 21;

impl Capability {
    /// All of them, in the order of the table.
    pub const ALL: [Self; 8] = [
        Self::Bpf,
        Self::PerfMon,
        Self::SysPtrace,
        Self::DacReadSearch,
        Self::Syslog,
        Self::CheckpointRestore,
        Self::SysChroot,
        Self::IpcLock,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bpf => "CAP_BPF",
            Self::PerfMon => "CAP_PERFMON",
            Self::SysPtrace => "CAP_SYS_PTRACE",
            Self::DacReadSearch => "CAP_DAC_READ_SEARCH",
            Self::Syslog => "CAP_SYSLOG",
            Self::CheckpointRestore => "CAP_CHECKPOINT_RESTORE",
            Self::SysChroot => "CAP_SYS_CHROOT",
            Self::IpcLock => "CAP_IPC_LOCK",
        }
    }

    /// Its bit in `CapEff`. Source: linux/capability.h.
    fn bit(self) -> u32 {
        match self {
            Self::Bpf => 39,
            Self::PerfMon => 38,
            Self::SysPtrace => 19,
            Self::DacReadSearch => 2,
            Self::Syslog => 34,
            Self::CheckpointRestore => 40,
            Self::SysChroot => 18,
            Self::IpcLock => 14,
        }
    }

    /// Whether a process with these effective capabilities may do what this one permits.
    pub fn is_in(self, effective: u64) -> bool {
        let by_admin = match self {
            Self::Bpf | Self::PerfMon | Self::CheckpointRestore => is_admin(effective),
            Self::SysPtrace
            | Self::DacReadSearch
            | Self::Syslog
            | Self::SysChroot
            | Self::IpcLock => false,
        };
        by_admin || effective & (1 << self.bit()) != 0
    }

    /// Features that the collector lacks without it.
    pub fn effect(self) -> &'static str {
        match self {
            Self::Bpf => "the kernel takes no eBPF program, so nothing is sampled",
            Self::PerfMon => {
                "the kernel opens no perf events of all processes, so nothing is sampled"
            }
            Self::SysPtrace => {
                "the mappings of other users' processes cannot be read: most of their frames have no names \
                 (reason `permission`), and many stacks are incomplete"
            }
            Self::DacReadSearch => {
                "programs in directories that only their owner may read have no names and incomplete stacks"
            }
            Self::Syslog => "kernel frames have no names (reason `permission`)",
            Self::CheckpointRestore => {
                "frames of deleted and replaced files have no names (reason `file_gone`)"
            }
            Self::SysChroot => {
                "the naming child reads symbol tables only: no lines and inlined calls, unless the server \
                 fetches the files"
            }
            Self::IpcLock => {
                "the collector starts only while other programs of its user leave room for perf's buffers"
            }
        }
    }
}

/// Whether CAP_SYS_ADMIN is among these effective capabilities.
pub(crate) fn is_admin(effective: u64) -> bool {
    effective & (1 << SYS_ADMIN) != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check the bits with a `CapEff` of the eight capabilities alone, and that CAP_SYS_ADMIN
    /// stands for three of them.
    #[test]
    fn bits() {
        let effective = 0x1c4_000c_4004;
        assert!(Capability::ALL.iter().all(|cap| cap.is_in(effective)));
        let bits = Capability::ALL.iter().map(|cap| 1u64 << cap.bit());
        assert_eq!(bits.sum::<u64>(), effective);
        let by_admin = Capability::ALL.iter().filter(|cap| cap.is_in(1 << 21));
        assert_eq!(by_admin.count(), 3);
    }
}
