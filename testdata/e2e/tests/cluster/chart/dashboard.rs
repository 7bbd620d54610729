//! The dashboard's figures, by promtool.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::tools::{repository, run};

/// Labels that a ServiceMonitor gives two collectors.
const A: &str = r#"instance="a", node="n", job="collector""#;
const B: &str = r#"instance="b", node="m", job="collector""#;

/// Three minutes of counts that grow by 60 a minute, and some that stand still.
const GROWS: &str = "0+60x10";
const STANDS: &str = "7x10";

/// Panels, and the samples that they show: one collector samples, one cannot.
const PANELS: [(&str, &[(&str, f64)]); 5] = [
    ("Nodes sampled", &[("{}", 1.0)]),
    (
        "Collectors: CPU time",
        &[(r#"{instance="a", node="n"}"#, 3.0)],
    ),
    (
        "Collectors: memory",
        &[(r#"{instance="a", node="n"}"#, 21.0)],
    ),
    (
        "Server's resident memory",
        &[(
            r#"process_resident_memory_bytes{instance="s", job="profiles"}"#,
            7.0,
        )],
    ),
    (
        "Server: CPU time",
        &[(r#"{instance="s", job="profiles"}"#, 1.0)],
    ),
];

/// Check that panels show what their titles say, with the labels of scrapes in a cluster: a collector that cannot sample is no sampled
/// node, series of one collector are added up, and those of other programs are left out.
pub(super) fn check() -> Result<()> {
    let dashboard = repository().join("deploy/chart/files/dashboard.json");
    let dashboard = fs::read_to_string(dashboard).context("failed to read the dashboard")?;
    let dashboard: Value =
        serde_json::from_str(&dashboard).context("failed to read the dashboard")?;
    let mut text = "tests:\n  - interval: 1m\n    input_series:\n".to_owned();
    for (series, values) in series() {
        writeln!(text, "      - {{series: '{series}', values: {values}}}")?;
    }
    text.push_str("    promql_expr_test:\n");
    for (title, samples) in PANELS {
        let expression = expression_of(&dashboard, title)?.replace("$__rate_interval", "5m");
        writeln!(
            text,
            "      - eval_time: 10m\n        expr: '{expression}'\n        exp_samples:"
        )?;
        for (labels, value) in samples {
            writeln!(text, "          - {{labels: '{labels}', value: {value}}}")?;
        }
    }
    let file = repository().join("target/cluster/dashboard_test.yaml");
    fs::write(&file, text).context("failed to write a test")?;
    let said = run(Command::new("promtool").args(["test", "rules"]).arg(file))?;
    ensure!(said.is_success, "{}{}", said.stdout, said.stderr);
    Ok(())
}

fn series() -> Vec<(String, &'static str)> {
    let collector = |name, labels: &str| format!("pilotlight_collector_{name}{{{labels}}}");
    let with = |label: &str| format!("{A}, {label}");
    let server = r#"{instance="s", job="profiles"}"#;
    let other = r#"{instance="o", job="metrics-server"}"#;
    vec![
        (
            collector("build_info", &format!(r#"{A}, version="1""#)),
            "1x10",
        ),
        (
            collector("build_info", &format!(r#"{B}, version="1""#)),
            "1x10",
        ),
        (collector("entries_total", A), GROWS),
        (collector("entries_total", B), STANDS),
        (
            collector("cpu_seconds_total", &with(r#"part="self""#)),
            GROWS,
        ),
        (
            collector("cpu_seconds_total", &with(r#"part="child""#)),
            GROWS,
        ),
        (collector("bpf_seconds_total", A), GROWS),
        (collector("resident_bytes", &with(r#"part="self""#)), STANDS),
        (
            collector("resident_bytes", &with(r#"part="child""#)),
            STANDS,
        ),
        (collector("bpf_map_bytes", A), STANDS),
        (format!("pilotlight_server_build_info{server}"), "1x10"),
        (format!("process_resident_memory_bytes{server}"), STANDS),
        (format!("process_resident_memory_bytes{other}"), STANDS),
        (format!("process_cpu_seconds_total{server}"), GROWS),
        (format!("process_cpu_seconds_total{other}"), GROWS),
    ]
}

/// The expression of a panel's only query.
fn expression_of<'a>(dashboard: &'a Value, title: &str) -> Result<&'a str> {
    let panels = dashboard["panels"].as_array().context("no panels")?;
    let panel = panels.iter().find(|panel| panel["title"] == title);
    panel
        .and_then(|panel| panel.pointer("/targets/0/expr"))
        .and_then(Value::as_str)
        .with_context(|| format!("no panel `{title}`"))
}
