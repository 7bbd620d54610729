//! Pods and containers as a user sees them: each sample of the pods has the names that the API server
//! has for them, and each program its known functions.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use e2e::expected::ratio;
use e2e::statistics::{FALSE_ALARM, binomial_two_sided};
use run::http;
use serde_json::Value;

use crate::release::wait_stored;
use crate::tools::run;
use crate::workloads::{PROGRAM, Ran, Workloads, expected};

/// Standard deviations of a function's samples in all pods together. A run makes ten such comparisons, so that one beyond three is
/// chance in one run in 40. Then all pods run a second time, and the function must not be beyond three again: a correct profiler fails
/// one run in 14,000 (10 · 0.0027²), and a bias of five deviations is found in 95 % of the runs. A single limit of four would fail one
/// in 1,600, and find that bias in 84 %.
const DEVIATIONS_MAX: f64 = 3.0;

/// The program of the sandboxes.
const SANDBOX_PROGRAM: &str = "pause";

/// Check the labels of all samples of these pods, and the functions' shares. Returns the functions whose share in all pods together is
/// beyond [`DEVIATIONS_MAX`], which a second sample must decide.
pub(crate) fn check(http: SocketAddr, workloads: &Workloads) -> Result<BTreeSet<String>> {
    wait_stored(http, workloads.ended_ms + 1)?;
    check_labels(http, workloads)?;
    check_nothing_without_pod(http, workloads)?;
    check_shares(http, workloads)
}

/// The series of a selection since the pods' start: their labels, and samples.
fn series(http: SocketAddr, workloads: &Workloads, query: &str) -> Result<Vec<(Value, u64)>> {
    let from = workloads.from_ms.to_string();
    let parameters = [("query", query), ("from", &*from), ("limit", "10000")];
    let answer = http::get_json(http, "/api/v1/series", &parameters)?;
    let series = answer["series"].as_array().context("no series")?;
    let with_samples = series.iter().map(|series| {
        let samples = series["samples"].as_u64().unwrap_or_default();
        (series["labels"].clone(), samples)
    });
    Ok(with_samples.collect())
}

/// Check that each series in the namespace has a pod, container and workload that exist, that each
/// container's program has been sampled under these names or under its id, and that sandboxes are in their pods.
fn check_labels(http: SocketAddr, workloads: &Workloads) -> Result<()> {
    let query = format!(r#"{{namespace="{}"}}"#, workloads.namespace);
    let mut found = BTreeSet::new();
    let (mut sandbox_samples, mut program_samples, mut late_samples) = (0, 0, 0);
    for (labels, samples) in series(http, workloads, &query)? {
        let label = |name: &str| labels[name].as_str().unwrap_or_default();
        let (pod, container) = (label("pod"), label("container"));
        let is_program = label("comm") == PROGRAM;
        let mut of_pod = workloads.ran.iter().filter(|ran| ran.pod == pod);
        let ran = of_pod.find(|ran| match (container.is_empty(), is_program) {
            // A busy kubelet tells the name later than a window waits for it.
            (true, true) => ran.id == label("container_id"),
            // A sandbox has the id as its label if its pod's first container comes some seconds later.
            (true, false) => true,
            (false, _) => ran.container == container,
        });
        let ran = ran.with_context(|| format!("no such pod or container: {labels}"))?;
        ensure!(
            label("workload_kind") == ran.row.workload_kind
                && label("workload") == ran.row.workload,
            "{labels} instead of {:?}",
            ran.row
        );
        if is_program {
            program_samples += samples;
            late_samples += if container.is_empty() { samples } else { 0 };
            found.insert((&ran.pod, &ran.container));
        } else if container.is_empty() && label("comm") == SANDBOX_PROGRAM {
            sandbox_samples += samples;
        }
    }
    println!(
        "{}: {late_samples} of {program_samples} samples have the container's id, since its name came late",
        workloads.namespace
    );
    for ran in &workloads.ran {
        if !found.contains(&(&ran.pod, &ran.container)) {
            let pod = series(http, workloads, &format!(r#"{{pod="{}"}}"#, ran.pod))?;
            let unknown = series(http, workloads, r#"{container_id=~".+", pod=""}"#)?;
            bail!(
                "no samples of {ran:?}; its pod has {pod:?}, containers without a pod {unknown:?}"
            );
        }
    }
    // Each takes 0.1 s at its start (testdata/cluster/pause): ten samples for each of the 30 pods.
    ensure!(sandbox_samples > 0, "no sample of a sandbox");
    println!(
        "{}: {} containers under their names or ids, {sandbox_samples} samples of sandboxes",
        workloads.namespace,
        found.len()
    );
    Ok(())
}

/// Check that no container of the kubelet's is without a pod, sandboxes included.
fn check_nothing_without_pod(http: SocketAddr, workloads: &Workloads) -> Result<()> {
    let ids = runtime_containers()?;
    let mut unnamed = series(http, workloads, r#"{container_id=~".+", pod=""}"#)?;
    // Other containers of this machine are in no pod.
    unnamed.retain(|(labels, _)| {
        labels["container_id"]
            .as_str()
            .is_some_and(|id| ids.contains(id))
    });
    ensure!(unnamed.is_empty(), "containers without pods: {unnamed:?}");
    // `runc:[2:INIT]` is not asked for: runc starts a command in a running container, such as a probe, before it moves it into the
    // container's cgroup.
    for comm in [SANDBOX_PROGRAM, PROGRAM] {
        let outside = series(http, workloads, &format!(r#"{{comm=~"{comm}", pod=""}}"#))?;
        ensure!(outside.is_empty(), "outside of pods: {outside:?}");
    }
    Ok(())
}

/// The ids of all containers and sandboxes that the kubelet's runtime knows, those that ended included.
fn runtime_containers() -> Result<BTreeSet<String>> {
    let keeper = fs::read_to_string("/run/pilotlight-cluster/keeper").context("no keeper")?;
    let listed = run(Command::new("nsenter")
        .args(["--target", keeper.trim(), "--mount", "--net", "--", "ctr"])
        .args(["--namespace", "k8s.io", "containers", "list", "--quiet"]))?;
    let ids: BTreeSet<String> = listed.stdout.lines().map(str::to_owned).collect();
    ensure!(ids.len() > 50, "ctr lists {ids:?}: {}", listed.stderr);
    Ok(ids)
}

/// Check each function's share in each container. Returns those beyond [`DEVIATIONS_MAX`] in all of them together.
pub(crate) fn check_shares(http: SocketAddr, workloads: &Workloads) -> Result<BTreeSet<String>> {
    // By function: found and expected samples, and the variance.
    let mut sums: BTreeMap<String, [f64; 3]> = BTreeMap::new();
    for ran in workloads.ran.iter().filter(|ran| ran.row.has_shares()) {
        let (samples, functions) = find_functions(http, workloads, ran)?;
        let [samples_min, all] = [
            ratio(ran.truth.cpu_ns, 1_000_000_000) * 50.0,
            ratio(samples, 1),
        ];
        ensure!(
            all >= samples_min,
            "`{}`/`{}`: {samples} samples of {} ns",
            ran.pod,
            ran.container,
            ran.truth.cpu_ns
        );
        for (function, share) in expected()?.true_shares(&ran.truth) {
            let found = functions.get(&function).copied().unwrap_or_default();
            let p = binomial_two_sided(found, samples, share);
            ensure!(
                p >= FALSE_ALARM,
                "`{}`/`{}`: `{function}`: {found} of {samples} samples, took {share:.3} (p = {p:.1e}); {functions:?}",
                ran.pod,
                ran.container
            );
            let [sum, mean, variance] = sums.entry(function).or_default();
            *sum += ratio(found, 1);
            *mean += all * share;
            *variance += all * share * (1.0 - share);
        }
    }
    let mut beyond = BTreeSet::new();
    for (function, [found, mean, variance]) in sums {
        let deviations = (found - mean) / variance.sqrt();
        println!(
            "{}: `{function}`: {found} samples, expected {mean:.1}: {deviations:+.2} standard deviations",
            workloads.namespace
        );
        if deviations.abs() > DEVIATIONS_MAX {
            beyond.insert(function);
        }
    }
    Ok(beyond)
}

/// The samples of a container's program, and of its functions with their callees: under the container's name, and under its id where
/// the name came late.
fn find_functions(
    http: SocketAddr,
    workloads: &Workloads,
    ran: &Ran,
) -> Result<(u64, BTreeMap<String, u64>)> {
    let from = workloads.from_ms.to_string();
    let (mut samples, mut functions) = (0, BTreeMap::new());
    for container in [
        format!(r#"container="{}""#, ran.container),
        format!(r#"container="", container_id="{}""#, ran.id),
    ] {
        let query = format!(
            r#"{{namespace="{}", pod="{}", {container}, workload_kind="{}", workload="{}", comm="{PROGRAM}"}}"#,
            workloads.namespace, ran.pod, ran.row.workload_kind, ran.row.workload
        );
        let parameters = [
            ("query", &*query),
            ("from", &from),
            ("sort", "total"),
            ("limit", "1000"),
        ];
        let top = http::get_json(http, "/api/v1/top", &parameters)?;
        samples += top["samples"].as_u64().context("no samples")?;
        for function in top["functions"].as_array().context("no functions")? {
            let name = function["name"].as_str().context("no name")?.to_owned();
            let found = function["total_samples"].as_u64();
            *functions.entry(name).or_default() += found.context("no samples")?;
        }
    }
    Ok((samples, functions))
}
