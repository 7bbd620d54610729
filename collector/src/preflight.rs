//! Whether this machine can be sampled, and safely.

use std::{fs, path::Path};

use anyhow::{Result, bail};

/// A kernel's version: major and minor number.
type Version = (u32, u32);

/// The oldest kernel on which `make test-kernels` runs. Younger than others of what the program needs are the ring buffer
/// (5.8), and tail calls in a program that has functions (5.10).
const OLDEST: Version = (5, 10);

/// Kernels that crash in their own stack walkers when these run from perf events:
/// from and to, both included.
const KNOWN_BAD: [(Version, Version); 2] = [((5, 19), (6, 0)), ((6, 11), (6, 11))];

/// Inode of the initial PID namespace: PROC_PID_INIT_INO in include/linux/proc_ns.h.
const INITIAL_PID_NAMESPACE: &str = "pid:[4026531836]";

/// Checks the machine.
///
/// # Errors
/// It cannot be sampled, or should not be; with what to do about it.
pub fn check_machine(force_kernel: bool) -> Result<()> {
    let release = rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned();
    let Some(version) = parse_version(&release) else {
        bail!("failed to understand the kernel's version `{release}`");
    };
    if version < OLDEST {
        let (major, minor) = OLDEST;
        bail!(
            "the kernel is {release}; {major}.{minor} or newer is needed: older ones have no BPF ring \
             buffer, or no tail calls beside functions"
        );
    }
    if !force_kernel && is_known_bad(version) {
        bail!(
            "the kernel is {release}, which is known to crash while it walks stacks \
             (5.19 to 6.0, and 6.11): upgrade it, or take the risk with --force-kernel"
        );
    }
    if !Path::new(super::sample::BTF_PATH).exists() {
        bail!(
            "`{}` is missing: a kernel with CONFIG_DEBUG_INFO_BTF=y is needed",
            super::sample::BTF_PATH
        );
    }
    let namespace = fs::read_link("/proc/self/ns/pid")?;
    if namespace.as_os_str() != INITIAL_PID_NAMESPACE {
        bail!(
            "the collector runs in a PID namespace of its own, and would see wrong process \
             numbers: start it with `hostPID: true` or `--pid=host`"
        );
    }
    Ok(())
}

fn is_known_bad(version: Version) -> bool {
    KNOWN_BAD
        .iter()
        .any(|(from, to)| (*from..=*to).contains(&version))
}

/// Major and minor number of a release like `6.1.0-18-amd64`.
fn parse_version(release: &str) -> Option<Version> {
    let mut numbers = release.split(|char: char| !char.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
