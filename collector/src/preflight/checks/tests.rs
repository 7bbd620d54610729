use super::*;
use crate::sample::CgroupView;

/// A node on which all is well, with the eight capabilities alone and a seccomp filter.
fn well() -> Facts {
    Facts {
        release: "6.1.0-18-amd64".into(),
        btf: Ok(()),
        lockdown: Some("none".into()),
        pid_namespace: PidNamespace::Host,
        in_host_user_namespace: true,
        effective: 0x1c4_000c_4004,
        process_root: Ok(()),
        seccomp: Seccomp::Filter,
        bpf_call: Ok(()),
        bpf_load: BpfLoad::Loaded,
        map_create: Ok(()),
        perf_call: Ok(()),
        perf_open: Ok(()),
        cycles_open: None,
        buffers: BufferAttempt::Mapped,
        buffer_bytes_per_cpu: 392 << 10,
        perf_event_paranoid: Some(2),
        perf_event_mlock_kb: Some(516),
        kptr_restrict: Some(1),
        shows_addresses: Some(true),
        memlock_bytes: Some(64 << 10),
        uid: 0,
        cpus: 2,
        cgroups: CgroupView {
            hierarchy: CgroupHierarchy::V2 {
                mount: "/sys/fs/cgroup".into(),
            },
            has_host_root: true,
            has_own_root: false,
        },
        memory_limit: MemoryLimit::Unlimited,
    }
}

const NEEDS: Needs = Needs {
    event: Event::CpuClock,
    force_kernel: false,
    unwind_bytes: 24 << 20,
    queue_bytes: 64 << 20,
};

fn without(capability: Capability) -> u64 {
    let mut bits = (0..64).map(|bit| 1_u64 << bit);
    let bit = bits.find(|bit| capability.is_in(*bit) && *bit != 1 << 21);
    well().effective & !bit.unwrap()
}

/// The rows that are not well, as lines with the result.
fn complaints(facts: &Facts) -> Vec<String> {
    let report = check(facts, &NEEDS);
    let bad = report
        .checks
        .iter()
        .filter(|check| check.verdict != Verdict::Ok);
    bad.map(|check| format!("{} {check}", check.verdict.as_str()))
        .collect()
}

fn found(facts: &Facts, name: &str) -> Option<String> {
    let report = check(facts, &NEEDS);
    let row = report.checks.into_iter().find(|check| check.name == name);
    row.map(|check| check.found)
}

/// Check that a node on which all is well has nothing to complain about, and one row for each part.
#[test]
fn all_is_well() {
    assert!(complaints(&well()).is_empty());
    let names: Vec<_> = check(&well(), &NEEDS)
        .checks
        .iter()
        .map(|check| check.name)
        .collect();
    let expected = "kernel btf lockdown pid_namespace user_namespace seccomp CAP_BPF CAP_PERFMON CAP_SYS_PTRACE \
        CAP_DAC_READ_SEARCH CAP_SYSLOG CAP_CHECKPOINT_RESTORE CAP_SYS_CHROOT CAP_IPC_LOCK process_access perf_event_paranoid \
        bpf perf_event_open locked_memory kptr_restrict cgroups memory_limit";
    assert_eq!(names.join(" "), expected);
    assert_eq!(
        found(&well(), "locked_memory").unwrap(),
        "perf's buffers take 784 KiB (392 KiB on each of 2 processors)"
    );
}

/// Check that a security module is named only where the capability is there and the kernel refuses: a process that is not there says
/// nothing.
#[test]
fn security_module_refuses_processes() {
    let mut facts = Facts {
        process_root: Err(Errno::ACCESS),
        ..well()
    };
    let [row] = &complaints(&facts)[..] else {
        panic!("{:?}", complaints(&facts));
    };
    let start = "degraded process_access: failed to read `/proc/1/root`: Permission denied (os error 13); CAP_SYS_PTRACE \
        is granted, so a security module refuses it; ";
    assert!(row.starts_with(start), "{row}");
    facts.process_root = Err(Errno::NOENT);
    assert!(complaints(&facts).is_empty());
}

/// Check that each missing capability has a row of its own and no other row: what fails without it
/// is not reported a second time.
#[test]
fn missing_capabilities() {
    for capability in Capability::ALL {
        let mut facts = Facts {
            effective: without(capability),
            ..well()
        };
        let verdict = match capability {
            Capability::Bpf => {
                facts.bpf_load = BpfLoad::Failed(Errno::PERM);
                "fatal"
            }
            Capability::PerfMon => {
                facts.bpf_load = BpfLoad::Failed(Errno::PERM);
                facts.perf_open = Err(Errno::ACCESS);
                facts.buffers = BufferAttempt::NotTried;
                "fatal"
            }
            Capability::SysPtrace => {
                facts.process_root = Err(Errno::ACCESS);
                "degraded"
            }
            Capability::Syslog => {
                facts.shows_addresses = Some(false);
                "degraded"
            }
            _ => "degraded",
        };
        let (name, effect) = (capability.name(), capability.effect());
        let line = format!("{verdict} {name}: not granted (not in CapEff); {effect}; grant {name}");
        assert_eq!(complaints(&facts), [line], "{name}");
    }
}

/// Check that capabilities which change nothing here are not asked for.
#[test]
fn unneeded_capabilities() {
    let facts = Facts {
        effective: without(Capability::IpcLock) & without(Capability::Syslog),
        memlock_bytes: Some(8 << 20),
        kptr_restrict: Some(0),
        ..well()
    };
    assert!(complaints(&facts).is_empty());
    assert_eq!(
        found(&facts, "CAP_IPC_LOCK").unwrap(),
        "not granted, and not needed: perf's buffers take 784 KiB, and RLIMIT_MEMLOCK is 8 MiB"
    );
    assert_eq!(
        found(&facts, "CAP_SYSLOG").unwrap(),
        "not granted, and not needed: the kernel shows its addresses to every user"
    );
}

/// Check that a filter's refusal is told from the kernel's own, and that nobody guesses where both
/// would be the same.
#[test]
fn seccomp_filters() {
    let refused = |bpf, perf| Facts {
        bpf_call: bpf,
        bpf_load: BpfLoad::Failed(Errno::PERM),
        perf_call: perf,
        perf_open: Err(Errno::PERM),
        buffers: BufferAttempt::NotTried,
        ..well()
    };
    let remedy = "use a seccomp profile that permits bpf and perf_event_open: RuntimeDefault of containerd and \
                  Docker's default do so for CAP_BPF and CAP_PERFMON; else Unconfined (chart: collector.seccomp.type)";
    assert_eq!(
        complaints(&refused(Err(Errno::PERM), Err(Errno::NOSYS))),
        [format!(
            "fatal seccomp: a filter refuses bpf (Operation not permitted (os error 1)) and perf_event_open \
             (Function not implemented (os error 38)); nothing is sampled; {remedy}"
        )]
    );
    let mut facts = refused(Err(Errno::PERM), Ok(()));
    facts.perf_open = Ok(());
    facts.buffers = BufferAttempt::Mapped;
    facts.effective = without(Capability::Bpf);
    assert_eq!(
        found(&facts, "seccomp").unwrap(),
        "a filter, which permits perf_event_open; whether it permits bpf cannot be tried without CAP_BPF"
    );
    assert_eq!(complaints(&facts).len(), 1, "only CAP_BPF is missing");
    // Without a filter no filter is named, whatever the calls say.
    let mut facts = refused(Err(Errno::PERM), Err(Errno::PERM));
    facts.seccomp = Seccomp::Off;
    let names: Vec<_> = check(&facts, &NEEDS)
        .of(Verdict::Fatal)
        .map(|check| check.name)
        .collect();
    assert_eq!(names, ["bpf", "perf_event_open"]);
}

/// Check that a failure which no known cause explains names what was ruled out.
#[test]
fn unexplained_failures() {
    let facts = Facts {
        bpf_load: BpfLoad::Failed(Errno::ACCESS),
        ..well()
    };
    let line = "fatal bpf: failed to load a program: Permission denied (os error 13); the capabilities are granted, \
        no seccomp filter refuses bpf, the user namespace is the host's; nothing is sampled; look in the node's \
        kernel log for lockdown and for refusals of a security module (SELinux, AppArmor)";
    assert_eq!(complaints(&facts), [line]);
    let facts = Facts {
        perf_open: Err(Errno::ACCESS),
        buffers: BufferAttempt::NotTried,
        ..well()
    };
    assert!(
        complaints(&facts)[0]
            .starts_with("fatal perf_event_open: failed to open a cpu-clock event: Permission")
    );
}

/// Check that the kernels of Debian and Ubuntu are told from a missing capability, and that the
/// setting alone is no reason to complain.
#[test]
fn paranoid_kernels() {
    let mut facts = Facts {
        perf_event_paranoid: Some(3),
        perf_open: Err(Errno::ACCESS),
        buffers: BufferAttempt::NotTried,
        ..well()
    };
    let line = "fatal perf_event_paranoid: kernel.perf_event_paranoid is 3, from 3 on the kernels of Debian and \
        Ubuntu want CAP_SYS_ADMIN, and perf_event_open fails: Permission denied (os error 13); nothing is sampled; \
        set it to 2 on the node: sysctl kernel.perf_event_paranoid=2";
    assert_eq!(complaints(&facts), [line]);
    facts.perf_open = Ok(());
    facts.buffers = BufferAttempt::Mapped;
    assert!(complaints(&facts).is_empty());
    assert_eq!(found(&facts, "perf_event_paranoid").unwrap(), "3");
}

/// Check the arithmetic of locked memory, and that the limit is named only where it applies.
#[test]
fn locked_memory() {
    let mut facts = Facts {
        effective: without(Capability::IpcLock),
        buffers: BufferAttempt::NotMapped(Errno::PERM),
        ..well()
    };
    let line = "fatal locked_memory: perf's buffers take 784 KiB (392 KiB on each of 2 processors); the kernel lets \
        all programs of user 0 lock 1032 KiB together (kernel.perf_event_mlock_kb, 516 KiB on each processor), and \
        this one 64 KiB more (RLIMIT_MEMLOCK): other programs of this user lock more than 312 KiB; nothing is \
        sampled; grant CAP_IPC_LOCK, or raise RLIMIT_MEMLOCK to 784 KiB (LimitMEMLOCK= of systemd, ulimit -l)";
    assert_eq!(complaints(&facts).last().unwrap(), line);
    facts.perf_event_mlock_kb = Some(128);
    let last = complaints(&facts).pop().unwrap();
    assert!(
        last.contains("(RLIMIT_MEMLOCK): too little, even if no other program"),
        "{last}"
    );
    facts.effective = well().effective;
    let last = complaints(&facts).pop().unwrap();
    assert!(
        last.contains("the limit on locked memory is not the cause"),
        "{last}"
    );
}

/// Check that eBPF maps count as locked memory before 5.11.
#[test]
fn locked_maps() {
    let mut facts = Facts {
        release: "5.10.0-30-amd64".into(),
        ..well()
    };
    let line = "degraded map_memory: before Linux 5.11 eBPF maps are locked memory: up to 41 MiB, and RLIMIT_MEMLOCK \
        is 64 KiB; the collector may fail to start, or later lack unwind rows; set RLIMIT_MEMLOCK to unlimited \
        (LimitMEMLOCK=infinity of systemd), or grant CAP_SYS_RESOURCE (chart: collector.extraCapabilities)";
    assert_eq!(complaints(&facts), [line]);
    let mut refused = facts.clone();
    refused.bpf_load = BpfLoad::Failed(Errno::PERM);
    refused.map_create = Err(Errno::PERM);
    let line = "fatal map_memory: before Linux 5.11 eBPF maps are locked memory: up to 41 MiB, and RLIMIT_MEMLOCK is \
        64 KiB; failed to create one of 2 MiB: Operation not permitted (os error 1); nothing is sampled; set \
        RLIMIT_MEMLOCK to unlimited (LimitMEMLOCK=infinity of systemd), or grant CAP_SYS_RESOURCE (chart: collector.extraCapabilities)";
    assert_eq!(complaints(&refused), [line]);
    // Without CAP_BPF, that alone is the cause.
    refused.effective = without(Capability::Bpf);
    assert_eq!(check(&refused, &NEEDS).of(Verdict::Fatal).count(), 1);
    facts.effective |= 1 << 24;
    assert!(complaints(&facts).is_empty());
}

/// Check the refusals that concern the kernel, and the namespaces.
#[test]
fn kernels_and_namespaces() {
    let with_release = |release: &str| Facts {
        release: release.into(),
        memlock_bytes: None,
        ..well()
    };
    let cases: [(Facts, &str); 7] = [
        (
            with_release("5.4.0-150-generic"),
            "fatal kernel: Linux 5.4.0-150-generic, and 5.10 or newer is needed",
        ),
        (
            with_release("6.11.0-8"),
            "fatal kernel: Linux 6.11.0-8, which is known to crash",
        ),
        (
            with_release("linux"),
            "fatal kernel: the release `linux` has no version",
        ),
        (
            Facts {
                btf: Err(Errno::NOENT),
                ..well()
            },
            "fatal btf: `/sys/kernel/btf/vmlinux` is missing; nothing is sampled; boot a kernel with",
        ),
        (
            Facts {
                lockdown: Some("confidentiality".into()),
                bpf_load: BpfLoad::NoHelper,
                ..well()
            },
            "fatal lockdown: the mode is confidentiality, in which no eBPF program may read kernel memory",
        ),
        (
            Facts {
                pid_namespace: PidNamespace::OtherProc,
                ..well()
            },
            "fatal pid_namespace: `/proc` is that of another PID namespace",
        ),
        (
            Facts {
                in_host_user_namespace: false,
                bpf_load: BpfLoad::Failed(Errno::PERM),
                perf_open: Err(Errno::ACCESS),
                ..well()
            },
            "fatal user_namespace: the collector runs in a user namespace of its own",
        ),
    ];
    for (facts, begin) in cases {
        let lines = complaints(&facts);
        assert!(
            lines.len() == 1 && lines[0].starts_with(begin),
            "{begin}: {lines:#?}"
        );
    }
    let accepted = Needs {
        force_kernel: true,
        ..NEEDS
    };
    assert_eq!(
        check(&with_release("6.11.0-8"), &accepted).verdict(),
        Verdict::Ok
    );
}

/// Check that hidden addresses are explained by the setting or by the capability, not by both.
#[test]
fn hidden_addresses() {
    let facts = Facts {
        kptr_restrict: Some(2),
        shows_addresses: Some(false),
        ..well()
    };
    let line = "degraded kptr_restrict: kernel.kptr_restrict is 2: the kernel hides its addresses from everybody; \
        kernel frames have no names (reason `permission`); set it to 1 on the node: sysctl kernel.kptr_restrict=1";
    assert_eq!(complaints(&facts), [line]);
}

/// Check that a collector is ready on a node that is a container, whose root cgroup is not the host's, and that one in a PID
/// namespace of its own is not.
#[test]
fn nodes_in_containers() {
    let nested = |pid_namespace, has_own_root| {
        let mut facts = well();
        facts.pid_namespace = pid_namespace;
        facts.cgroups.has_host_root = false;
        facts.cgroups.has_own_root = has_own_root;
        let lines = complaints(&facts);
        let starts = |start| lines.iter().any(|line| line.starts_with(start));
        [
            "degraded pid_namespace: ",
            "not_ready pid_namespace: ",
            "not_ready cgroups: ",
        ]
        .map(starts)
    };
    let node = PidNamespace::Container { inode: 7 };
    assert_eq!(nested(node, false), [true, false, false]);
    assert_eq!(nested(node, true), [true, false, true]);
    let own = PidNamespace::Own { inode: 7 };
    assert_eq!(nested(own, true), [false, true, true]);
}

/// Check that a collector that sees its own cgroup alone is not ready.
#[test]
fn own_cgroup_alone() {
    let cgroups = |hierarchy| Facts {
        cgroups: CgroupView {
            hierarchy,
            has_host_root: false,
            has_own_root: false,
        },
        ..well()
    };
    let v1 = CgroupHierarchy::V1 {
        controller: "memory",
        mount: "/sys/fs/cgroup/memory".into(),
    };
    let rest = "processes outside of it have no labels `container_id` and `unit`; mount the host's /sys/fs/cgroup \
                read-only at /sys/fs/cgroup";
    assert_eq!(
        complaints(&cgroups(v1)),
        [format!(
            "not_ready cgroups: v1, controller memory at /sys/fs/cgroup/memory, whose root is not the host's root \
             cgroup but one below it; {rest}"
        )]
    );
    let found = "no cgroups are mounted at /sys/fs/cgroup";
    assert_eq!(
        complaints(&cgroups(CgroupHierarchy::None)),
        [format!("not_ready cgroups: {found}; {rest}")]
    );
}

/// Check the arithmetic of memory.
#[test]
fn memory_limits() {
    let limited = |mib: u64| Facts {
        memory_limit: MemoryLimit::Bytes(mib << 20),
        ..well()
    };
    assert!(complaints(&limited(209)).is_empty());
    let line = "degraded memory_limit: 100 MiB, and 209 MiB are needed: collector 64 MiB, naming child 40 MiB, eBPF \
        maps and perf's buffers on 2 processors 17 MiB, --unwind-bytes 24 MiB, --buffer-bytes 64 MiB; the naming \
        child may take 40 MiB; the kernel may end the naming child or the collector (OOM), most likely while the \
        server is away; raise the limit to 209 MiB (chart: collector.resources.limits.memory), or lower --buffer-bytes or --unwind-bytes";
    assert_eq!(complaints(&limited(100)), [line]);
}

/// Check that a processor without counters is told from a refusal.
#[test]
fn cycle_counters() {
    let facts = Facts {
        cycles_open: Some(Err(Errno::NOENT)),
        ..well()
    };
    let line = "fatal event: cpu-clock events open, the processor's cycle counter does not: No such file or directory \
        (os error 2); nothing is sampled; use --event cpu-clock";
    assert_eq!(complaints(&facts), [line]);
}

/// Check the releases of several distributions.
#[test]
fn versions() {
    for (release, version) in [
        ("6.1.0-18-amd64", Some((6, 1))),
        ("5.15.0-1051-aws", Some((5, 15))),
        ("6.18.44-fc-v657", Some((6, 18))),
        ("5.10", Some((5, 10))),
        ("linux", None),
        ("6", None),
    ] {
        assert_eq!(parse_version(release), version, "{release}");
    }
}

/// Check the edges of the ranges that are known to be bad.
#[test]
fn known_bad() {
    let bad: Vec<Version> = [(5, 18), (5, 19), (6, 0), (6, 1), (6, 10), (6, 11), (6, 12)]
        .into_iter()
        .filter(|version| is_known_bad(*version))
        .collect();
    assert_eq!(bad, [(5, 19), (6, 0), (6, 11)]);
}
