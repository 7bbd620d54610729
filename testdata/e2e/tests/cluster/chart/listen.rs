//! The addresses on which the programs of a rendered manifest listen.

use std::fs;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result, ensure};

use super::test_data;

/// Scenarios, and the addresses that the kubelet may give their pods: with two families the cluster says which one is first.
const SCENARIOS: [(&str, &[&str]); 3] = [
    ("default", &["10.88.0.7"]),
    ("ipv6", &["fd00:88::7"]),
    ("dual-stack", &["10.88.0.7", "fd00:88::7"]),
];

/// Check that all four listeners have an address that the programs accept, of the pod's family or for all families.
pub(super) fn check() -> Result<()> {
    for (scenario, pod_ips) in SCENARIOS {
        let manifest = test_data().join(format!("rendered/{scenario}.yaml"));
        let manifest = fs::read_to_string(manifest).context("failed to read a manifest")?;
        let texts = listen_texts(&manifest);
        ensure!(texts.len() == 4, "{scenario}: {texts:?}");
        for pod_ip in pod_ips {
            check_texts(&texts, pod_ip).with_context(|| format!("{scenario}, pod {pod_ip}"))?;
        }
    }
    Ok(())
}

fn check_texts(texts: &[&str], pod_ip: &str) -> Result<()> {
    let pod_ip: IpAddr = pod_ip.parse()?;
    for text in texts {
        let text = text.replace("$(POD_IP)", &pod_ip.to_string());
        let address: SocketAddr = text
            .parse()
            .with_context(|| format!("`{text}` is no address"))?;
        let ip = address.ip();
        // A socket on `[::]` takes connections of both families.
        let is_reached = ip == pod_ip
            || (ip.is_unspecified() && (ip.is_ipv6() || ip.is_ipv4() == pod_ip.is_ipv4()));
        ensure!(is_reached, "`{text}` is not reached");
    }
    Ok(())
}

/// The values of `--…-listen=` and of the variable for the collector's metrics.
fn listen_texts(manifest: &str) -> Vec<&str> {
    let flags = manifest
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- --")?.split_once("-listen="))
        .map(|(_, text)| text);
    let variable = manifest
        .split("name: PILOTLIGHT_COLLECTOR_METRICS_LISTEN\n")
        .skip(1)
        .filter_map(|rest| rest.trim_start().strip_prefix("value: ")?.lines().next());
    flags
        .chain(variable)
        .map(|text| text.trim_matches('"'))
        .collect()
}
