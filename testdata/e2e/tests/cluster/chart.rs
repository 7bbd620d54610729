//! The chart without a cluster: rendered manifests, refused values, documentation.

mod dashboard;
mod listen;
mod named_values;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::Check;
use crate::tools::{ask_tool, repository, run, run_tool};

pub(crate) const CHECKS: [Check; 12] = [
    ("lint", check_lint),
    ("scenarios", check_scenarios),
    ("listen_addresses", listen::check),
    ("schema_refuses", check_schema),
    ("combinations_fail", check_combinations),
    ("flags", check_flags),
    ("capabilities", check_capabilities),
    ("values_table", check_values_table),
    ("named_values", named_values::check),
    ("versions", check_versions),
    ("alerts", check_alerts),
    ("dashboard", dashboard::check),
];

/// Flags that the chart sets from its own values, so that `flags` may not have them.
const OWN_FLAGS: [&str; 16] = [
    "server",
    "node",
    "kubernetes",
    "kubeconfig",
    "relabel-config",
    "policy-file",
    "policy-configmap",
    "metrics-listen",
    "cache-dir",
    "on-failure",
    "hand-over",
    "http-listen",
    "grpc-listen",
    "admin-listen",
    "data-dir",
    "addresses-file",
];

const REPOSITORY: &str = r#"image.repository="registry.example.com/profiles""#;

/// `--set-json` of a wrong value, and what the message must have.
const REFUSED_BY_SCHEMA: &[(&str, &str)] = &[
    (
        "colector={}",
        "additional properties 'colector' not allowed",
    ),
    (
        r#"image.repository="https://registry.example.com""#,
        "'/image/repository': 'https://registry.example.com' does not match pattern",
    ),
    (r#"image.tag="a tag""#, "'/image/tag'"),
    (
        r#"image.pullPolicy="Sometimes""#,
        "value must be one of 'Always', 'IfNotPresent', 'Never'",
    ),
    (
        r#"image.pullSecrets=["registry"]"#,
        "'/image/pullSecrets/0': got string, want object",
    ),
    (
        r#"ipFamily="IPv5""#,
        "value must be one of 'IPv4', 'IPv6', 'DualStack'",
    ),
    (
        r#"collector.enabled="yes""#,
        "'/collector/enabled': got string, want boolean",
    ),
    (
        r#"collector.server="profiles:7071""#,
        "'/collector/server': 'profiles:7071' does not match pattern",
    ),
    (
        r#"collector.flags.freqency=99"#,
        "'/collector/flags': additional properties 'freqency' not allowed",
    ),
    (
        r#"collector.flags.node="a""#,
        "'/collector/flags': additional properties 'node' not allowed",
    ),
    (
        r#"collector.flags.frequency=[99]"#,
        "'/collector/flags/frequency': got array",
    ),
    (
        r#"collector.cache.hostPath="cache""#,
        "'/collector/cache/hostPath'",
    ),
    (
        r#"collector.seccomp.type="None""#,
        "value must be one of 'RuntimeDefault', 'Unconfined', 'Localhost'",
    ),
    (
        r#"collector.resources.limits.memory="256MiB""#,
        "'/collector/resources/limits/memory': '256MiB' does not match pattern",
    ),
    (
        r#"collector.maxSurge=-1"#,
        "'/collector/maxSurge': minimum: got -1, want 0",
    ),
    (
        r#"collector.extraCapabilities=["ALL"]"#,
        "'/collector/extraCapabilities/0': value must be one of 'SYS_ADMIN', 'SYS_RESOURCE'",
    ),
    (
        r#"collector.policy.default="none""#,
        "'/collector/policy/default': value must be one of 'allow', 'deny'",
    ),
    (
        r#"collector.policy.annotationPrefix="example.com/""#,
        "'/collector/policy/annotationPrefix': 'example.com/' does not match pattern",
    ),
    (
        r#"collector.policy.rules=[{"action":"deny"}]"#,
        "'/collector/policy/rules/0': minProperties: got 1, want 2",
    ),
    (
        r#"collector.policy.rules=[{"action":"deny","namespace":["a"]}]"#,
        "'/collector/policy/rules/0': additional properties 'namespace' not allowed",
    ),
    (
        r#"collector.policy.rules=[{"action":"deny","workloads":["cart"]}]"#,
        "'/collector/policy/rules/0/workloads/0': 'cart' does not match pattern",
    ),
    (
        r#"server.replicas=2"#,
        "'/server': additional properties 'replicas' not allowed",
    ),
    (
        r#"server.flags.http-listen="0.0.0.0:80""#,
        "additional properties 'http-listen' not allowed",
    ),
    (
        r#"server.persistence.accessModes=[]"#,
        "'/server/persistence/accessModes': minItems: got 0, want 1",
    ),
    (
        r#"server.persistence.whenDeleted="Keep""#,
        "value must be one of 'Retain', 'Delete'",
    ),
    (
        r#"networkPolicy.apiServerPorts=["https"]"#,
        "'/networkPolicy/apiServerPorts/0': got string, want integer",
    ),
    (
        r#"networkPolicy.dnsPorts=[]"#,
        "'/networkPolicy/dnsPorts': minItems: got 0, want 1",
    ),
    (
        r#"monitoring.serviceMonitor.interval="often""#,
        "'/monitoring/serviceMonitor/interval'",
    ),
    (
        r#"openShift.scc="yes""#,
        "value must be one of 'auto', 'always', 'never'",
    ),
];

/// Values that do not work together, and the remedy in the message.
const REFUSED_TOGETHER: &[(&[&str], &str)] = &[
    (
        &[r#"image.repository="""#],
        "deploy/images/build --push registry.example.com/profiles",
    ),
    (
        &[r#"image.repository="""#, "collector.enabled=false"],
        "no image of the server",
    ),
    (
        &["collector.enabled=false", "server.enabled=false"],
        "Set one of them to true",
    ),
    (
        &["server.enabled=false"],
        "--set collector.server=http://profiles.example.com:7071",
    ),
    (
        &["collector.maxSurge=0"],
        "--set collector.maxSurge=1,collector.maxUnavailable=0",
    ),
    (
        &["collector.maxUnavailable=1"],
        "--set collector.maxSurge=1,collector.maxUnavailable=0",
    ),
    (
        &[r#"collector.seccomp.type="Localhost""#],
        "`collector.seccomp.localhostProfile` need each other",
    ),
    (
        &[r#"collector.seccomp.localhostProfile="a.json""#],
        "`collector.seccomp.localhostProfile` need each other",
    ),
    (
        &[r#"collector.appArmor.type="Localhost""#],
        "`collector.appArmor.localhostProfile` need each other",
    ),
    (
        &[
            "collector.policy.enabled=true",
            "collector.kubernetes.enabled=false",
        ],
        "Set `collector.kubernetes.enabled=true`",
    ),
    (
        &[r#"collector.policy.rules=[{"action":"deny","namespaces":["payments"]}]"#],
        "set collector.policy.enabled=true",
    ),
    (
        &[r#"collector.policy.default="deny""#],
        "set collector.policy.enabled=true",
    ),
    (
        &[r#"collector.policy.host="deny""#],
        "set collector.policy.enabled=true",
    ),
    (
        &[r#"collector.policy.annotationPrefix="profiling.example.com""#],
        "set collector.policy.enabled=true",
    ),
    (
        &["collector.serviceAccount.create=false"],
        "or `collector.kubernetes.enabled=false`",
    ),
    (
        &[
            "collector.serviceAccount.create=false",
            r#"openShift.scc="always""#,
        ],
        "Set `collector.serviceAccount.name`",
    ),
    (
        &[
            "server.persistence.enabled=false",
            r#"server.persistence.existingClaim="a""#,
        ],
        "Set it to true to use the claim",
    ),
    (
        &["server.initChown.enabled=true"],
        "--set server.initChown.image=",
    ),
    (
        &[
            "server.initChown.enabled=true",
            r#"server.initChown.image="a""#,
            "server.persistence.enabled=false",
        ],
        "Set `server.initChown.enabled=false`",
    ),
    (
        &[
            "server.initChown.enabled=true",
            r#"server.initChown.image="a""#,
            r#"server.podSecurityContext={"fsGroup":1000}"#,
        ],
        "Set `server.podSecurityContext` with `runAsUser`",
    ),
    (
        &[r#"server.service.type="NodePort""#],
        "--set-json 'networkPolicy.pageFrom=",
    ),
    (
        &[r#"server.grpcService.type="LoadBalancer""#],
        "--set-json 'networkPolicy.grpcFrom=",
    ),
    (
        &["collector.enabled=false"],
        "--set-json 'networkPolicy.grpcFrom=",
    ),
    (
        &["server.ingress.enabled=true"],
        "--set 'server.ingress.hosts={profiles.example.com}'",
    ),
    (
        &[
            "server.ingress.enabled=true",
            r#"server.ingress.hosts=["a.example.com"]"#,
        ],
        "--set-json 'networkPolicy.pageFrom=",
    ),
];

fn chart() -> String {
    repository().join("deploy/chart").display().to_string()
}

fn test_data() -> PathBuf {
    repository().join("testdata/chart")
}

fn check_lint() -> Result<()> {
    ask_tool(&[
        "helm",
        "lint",
        "--strict",
        "--set-json",
        REPOSITORY,
        &chart(),
    ])
    .map(drop)
}

/// Check that each scenario renders to its committed manifest, and that Kubernetes' own schemas
/// accept it, with no unknown field. `PILOTLIGHT_WRITE_RENDERED=1` writes the manifests.
fn check_scenarios() -> Result<()> {
    let mut names = Vec::new();
    for entry in fs::read_dir(test_data().join("scenarios")).context("failed to list scenarios")? {
        let path = entry.context("failed to list scenarios")?.path();
        let name = path.file_stem().context("a scenario without a name")?;
        names.push(name.to_string_lossy().into_owned());
    }
    names.sort();
    let mut wrong = Vec::new();
    for name in &names {
        if let Err(error) = check_scenario(name) {
            wrong.push(format!("{name}: {error:#}"));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    let rendered =
        fs::read_dir(test_data().join("rendered")).context("failed to list manifests")?;
    ensure!(
        rendered.count() == names.len(),
        "testdata/chart/rendered/ has a manifest without a scenario"
    );
    Ok(())
}

fn check_scenario(name: &str) -> Result<()> {
    let values = test_data().join(format!("scenarios/{name}.yaml"));
    let manifest = render(&values)?;
    ensure!(!manifest.contains("SYS_ADMIN"), "asks for CAP_SYS_ADMIN");
    let committed = test_data().join(format!("rendered/{name}.yaml"));
    if std::env::var_os("PILOTLIGHT_WRITE_RENDERED").is_some() {
        fs::write(&committed, &manifest).context("failed to write a manifest")?;
    }
    let fresh = repository().join(format!("target/cluster/rendered-{name}.yaml"));
    fs::write(&fresh, &manifest).context("failed to write a manifest")?;
    let difference = run(Command::new("diff").arg("-u").args([&committed, &fresh]))?;
    ensure!(
        difference.is_success,
        "differs from the committed manifest; if this is right, run the test with \
         PILOTLIGHT_WRITE_RENDERED=1 and commit it:\n{}{}",
        difference.stdout,
        difference.stderr
    );
    let schemas = |directory: PathBuf| {
        let file = "{{.ResourceKind}}{{.KindSuffix}}.json";
        format!("{}/{file}", directory.display())
    };
    ask_tool(&[
        "kubeconform",
        "-strict",
        "-schema-location",
        &schemas(repository().join("target/cluster/schemas")),
        "-schema-location",
        &schemas(test_data().join("schemas")),
        &fresh.display().to_string(),
    ])?;
    Ok(())
}

/// The manifest of a scenario. Its first line may have options for helm: `# helm: --kube-version 1.29.0`.
fn render(values: &Path) -> Result<String> {
    let text = fs::read_to_string(values).context("failed to read a scenario")?;
    let options = text
        .lines()
        .next()
        .and_then(|line| line.strip_prefix("# helm: "));
    let (values, chart) = (values.display().to_string(), chart());
    let mut arguments = vec!["helm", "template", "pilotlight", "--namespace", "profiling"];
    arguments.extend(["--values", &values, &chart]);
    arguments.extend(options.unwrap_or_default().split_whitespace());
    ask_tool(&arguments)
}

/// Check that the schema refuses each wrong value, with a message that names the value.
fn check_schema() -> Result<()> {
    for (value, message) in REFUSED_BY_SCHEMA {
        check_refused(&[*value], message)?;
    }
    Ok(())
}

/// Check that values that do not work together end with a message that has the remedy.
fn check_combinations() -> Result<()> {
    for (values, message) in REFUSED_TOGETHER {
        check_refused(values, message)?;
    }
    Ok(())
}

fn check_refused(values: &[&str], message: &str) -> Result<()> {
    let chart = chart();
    let mut arguments = vec!["helm", "template", "pilotlight", &chart];
    let values_of_all = [REPOSITORY];
    let options = values_of_all.iter().chain(values);
    arguments.extend(options.flat_map(|value| ["--set-json", value]));
    let said = run_tool(&arguments)?;
    ensure!(!said.is_success, "{values:?} is accepted");
    ensure!(
        said.stderr.contains(message),
        "{values:?} does not say `{message}`: {}",
        said.stderr
    );
    Ok(())
}

/// Check that `flags` takes all flags of docs/configuration.md except those that the chart sets, and that the variables of the collector's
/// are those that the chart sets.
fn check_flags() -> Result<()> {
    let schema = fs::read_to_string(repository().join("deploy/chart/values.schema.json"))?;
    let schema: Value = serde_json::from_str(&schema).context("failed to read the schema")?;
    let page = fs::read_to_string(repository().join("docs/configuration.md"))?;
    for (component, heading) in [("collector", "## Collector"), ("server", "## Server")] {
        let pointer = format!("/properties/{component}/properties/flags/properties");
        let flags = schema.pointer(&pointer).and_then(Value::as_object);
        let accepted: BTreeSet<&str> = flags
            .context("the schema has no flags")?
            .keys()
            .map(String::as_str)
            .collect();
        let documented: BTreeSet<&str> = page
            .lines()
            .skip_while(|line| *line != heading)
            .skip(1)
            .take_while(|line| !line.starts_with("## "))
            .filter_map(|line| line.strip_prefix("| `--")?.split('`').next())
            .filter(|flag| !OWN_FLAGS.contains(flag))
            .collect();
        ensure!(
            accepted == documented,
            "{component}: the schema and docs/configuration.md differ in {:?}",
            accepted.symmetric_difference(&documented)
        );
        // The template makes the variable's name from the flag's.
        let variable = |flag: &str| flag.to_uppercase().replace('-', "_");
        let row = |flag| format!("| `--{flag}` | `PILOTLIGHT_COLLECTOR_{}` |", variable(flag));
        let other = accepted.iter().find(|flag| !page.contains(&row(flag)));
        ensure!(
            component == "server" || other.is_none(),
            "no such variable for {other:?}"
        );
    }
    Ok(())
}

/// Check that the collector has the capabilities of docs/install.md.
fn check_capabilities() -> Result<()> {
    let page = fs::read_to_string(repository().join("docs/install.md"))?;
    let documented: BTreeSet<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `CAP_")?.split('`').next())
        .collect();
    let template = "deploy/chart/templates/collector/_capabilities.tpl";
    let template = fs::read_to_string(repository().join(template))?;
    let granted: BTreeSet<&str> = template
        .lines()
        .filter_map(|line| line.strip_prefix("- "))
        .filter(|line| !line.contains("{{"))
        .collect();
    ensure!(
        granted == documented && granted.len() > 4,
        "the chart grants {granted:?}, docs/install.md has {documented:?}"
    );
    Ok(())
}

/// Check that the table of values is what helm-docs writes.
fn check_values_table() -> Result<()> {
    let written = ask_tool(&["helm-docs", "--dry-run", "--chart-search-root", &chart()])?;
    let committed = fs::read_to_string(repository().join("deploy/chart/README.md"))
        .context("failed to read the chart's README.md")?;
    ensure!(
        written.trim() == committed.trim(),
        "deploy/chart/README.md is not up to date; run: \
         testdata/cluster/with helm-docs --chart-search-root deploy/chart"
    );
    Ok(())
}

/// Check that the chart's default tag is the version of the programs.
fn check_versions() -> Result<()> {
    let manifest = fs::read_to_string(repository().join("deploy/chart/Chart.yaml"))?;
    let version = env!("CARGO_PKG_VERSION");
    ensure!(
        manifest
            .lines()
            .any(|line| line == format!("appVersion: {version}")),
        "Chart.yaml's appVersion is not {version}"
    );
    Ok(())
}

/// Check that each alert fires when it should, and only then.
fn check_alerts() -> Result<()> {
    let rules = test_data().join("alerts_test.yaml");
    let said = run(Command::new("promtool").args(["test", "rules"]).arg(rules))?;
    ensure!(said.is_success, "{}{}", said.stdout, said.stderr);
    Ok(())
}
