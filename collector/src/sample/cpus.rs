//! The processors that are online.

use std::fs;

use anyhow::{Context as _, Result};
use thiserror::Error;

/// The kernel's list of them.
const ONLINE_PATH: &str = "/sys/devices/system/cpu/online";

/// The most processors a list may name: the kernel's own limit (CONFIG_NR_CPUS ≤ 8,192).
const CPUS_MAX: u32 = 8192;

/// Why a list of processors cannot be read.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("`{0}` is no list of processors like `0-3,8`")]
pub struct CpuListError(String);

/// Reads the online processors' numbers, in ascending order.
///
/// # Errors
/// The kernel's list cannot be read.
pub fn read_online_cpus() -> Result<Vec<u32>> {
    let list = fs::read_to_string(ONLINE_PATH)
        .with_context(|| format!("failed to read `{ONLINE_PATH}`"))?;
    Ok(parse_cpu_list(list.trim_end())?)
}

/// Parses the kernel's list form: `0-3,8,10-11`.
///
/// # Errors
/// Anything that is not of this form, or not ascending.
pub fn parse_cpu_list(list: &str) -> Result<Vec<u32>, CpuListError> {
    let error = || CpuListError(list.chars().take(80).collect());
    let mut cpus = Vec::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let first: u32 = first.parse().map_err(|_| error())?;
        let last: u32 = last.parse().map_err(|_| error())?;
        if first > last || last >= CPUS_MAX || cpus.last().is_some_and(|before| *before >= first) {
            return Err(error());
        }
        cpus.extend(first..=last);
    }
    Ok(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check the forms that kernels write.
    #[test]
    fn lists() {
        assert_eq!(parse_cpu_list("0"), Ok(vec![0]));
        assert_eq!(parse_cpu_list("0-1"), Ok(vec![0, 1]));
        assert_eq!(parse_cpu_list("0-2,5,8-9"), Ok(vec![0, 1, 2, 5, 8, 9]));
    }

    /// Check that text which is no list is refused.
    #[test]
    fn no_lists() {
        for list in [
            "",
            "a",
            "1-",
            "3-1",
            "0,0",
            "2,1",
            "0-99999999",
            "-1",
            "0 1",
        ] {
            assert!(parse_cpu_list(list).is_err(), "{list}");
        }
    }
}
