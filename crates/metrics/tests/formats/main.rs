//! Encodes one registry with metrics of all kinds in both formats.
//!
//! A test whose tools are missing is ignored, with the reason on stderr.

#![allow(clippy::unwrap_used, reason = "a test")]

mod validators;

use std::sync::atomic::AtomicU64;

use libtest_mimic::{Arguments, Failed, Trial};
use metrics::{
    Counter, Exposition, Family, Gauge, Histogram, Registry, Unit, register_figures,
    register_program,
};
use validators::Validators;

const TEXT: &str = r#"# HELP app_jobs_total Jobs.
# TYPE app_jobs_total counter
app_jobs_total 3
# HELP app_read_bytes_total Bytes read, by file.
# TYPE app_read_bytes_total counter
app_read_bytes_total{file="/a \"b\"\\n\nc # {d} é"} 7
# HELP app_load A ratio.
# TYPE app_load gauge
app_load 0.5
# HELP app_wait_seconds Time that a job waited, by route and result.
# TYPE app_wait_seconds histogram
app_wait_seconds_sum{route="/x",result="ok"} 2.25
app_wait_seconds_count{route="/x",result="ok"} 2
app_wait_seconds_bucket{le="0.5",route="/x",result="ok"} 1
app_wait_seconds_bucket{le="+Inf",route="/x",result="ok"} 2
# HELP app_stage_seconds_total CPU time, by stage.
# TYPE app_stage_seconds_total counter
app_stage_seconds_total{stage="a"} 1.5
app_stage_seconds_total{stage="b"} 2.0
# HELP app_held_bytes Bytes held.
# TYPE app_held_bytes gauge
app_held_bytes 9223372036854775807
# HELP app_seen_total Samples seen.
# TYPE app_seen_total counter
app_seen_total 18446744073709551615
# HELP app_build_info The running version.
# TYPE app_build_info gauge
app_build_info{version="1.2.3"} 1
"#;

const OPENMETRICS: &str = r#"# HELP app_jobs Jobs.
# TYPE app_jobs counter
app_jobs_total 3
# HELP app_read_bytes Bytes read, by file.
# TYPE app_read_bytes counter
# UNIT app_read_bytes bytes
app_read_bytes_total{file="/a \"b\"\\n\nc # {d} é"} 7
# HELP app_load A ratio.
# TYPE app_load gauge
app_load 0.5
# HELP app_wait_seconds Time that a job waited, by route and result.
# TYPE app_wait_seconds histogram
# UNIT app_wait_seconds seconds
app_wait_seconds_sum{route="/x",result="ok"} 2.25
app_wait_seconds_count{route="/x",result="ok"} 2
app_wait_seconds_bucket{le="0.5",route="/x",result="ok"} 1
app_wait_seconds_bucket{le="+Inf",route="/x",result="ok"} 2
# HELP app_stage_seconds CPU time, by stage.
# TYPE app_stage_seconds counter
# UNIT app_stage_seconds seconds
app_stage_seconds_total{stage="a"} 1.5
app_stage_seconds_total{stage="b"} 2.0
# HELP app_held_bytes Bytes held.
# TYPE app_held_bytes gauge
# UNIT app_held_bytes bytes
app_held_bytes 9223372036854775807
# HELP app_seen Samples seen.
# TYPE app_seen counter
app_seen_total 18446744073709551615
# HELP app_build The running version.
# TYPE app_build info
app_build_info{version="1.2.3"} 1
"#;

/// The only value that differs between runs.
const START_TIME: &str = "process_start_time_seconds ";

fn main() {
    let arguments = Arguments::from_args();
    let validators = Validators::find();
    let validated = Trial::test("both_formats_pass_their_validators", move || {
        let validators = Validators::find()?;
        validators.check_text(&Exposition::Text.encode(&fill_registry())?)?;
        validators.check_openmetrics(&Exposition::OpenMetrics.encode(&fill_registry())?)?;
        Ok(())
    });
    if let (Err(missing), false) = (&validators, arguments.list) {
        eprintln!(
            "{} is ignored: this machine has no {missing}",
            validated.name()
        );
    }
    let trials = vec![
        Trial::test("text_is_as_prometheus_defines_it", || {
            compare(Exposition::Text, TEXT, "")
        }),
        Trial::test("openmetrics_has_units_and_an_end", || {
            compare(Exposition::OpenMetrics, OPENMETRICS, "# EOF\n")
        }),
        validated.with_ignored_flag(validators.is_err()),
    ];
    libtest_mimic::run(&arguments, trials).exit();
}

/// Metrics of all kinds. The label values contain all escaped characters, and text that looks like
/// an exemplar.
fn fill_registry() -> Registry {
    let mut registry = Registry::default();
    let app = registry.sub_registry_with_prefix("app");

    let jobs: Counter = Counter::default();
    jobs.inc_by(3);
    app.register("jobs", "Jobs", jobs);

    let read: Family<Counter> = Family::new(["file"]);
    read.of(["/a \"b\"\\n\nc # {d} é".to_owned()]).inc_by(7);
    app.register_with_unit("read", "Bytes read, by file", Unit::Bytes, read);

    let load: Gauge<f64, AtomicU64> = Gauge::default();
    load.set(0.5);
    app.register("load", "A ratio", load);

    let never: Family<Counter> = Family::new(["reason"]);
    app.register("never", "A family without metrics is not announced", never);

    let wait = Family::with_constructor(["route", "result"], || Histogram::new([0.5]));
    wait.of(["/x", "ok"]).observe(0.25);
    wait.of(["/x", "ok"]).observe(2.0);
    app.register_with_unit(
        "wait",
        "Time that a job waited, by route and result",
        Unit::Seconds,
        wait,
    );

    let stages = [(["a"], 1.5), (["b"], 2.0)];
    register_figures(app, move |figures| {
        figures.counters("stage_seconds", "CPU time, by stage", ["stage"], stages);
        figures.gauge("held_bytes", "Bytes held", u64::MAX);
        figures.counter("seen", "Samples seen", u64::MAX);
        figures.gauges("none", "Nor is this", ["x"], [(["y"], 1_u64); 0]);
    });
    register_program(&mut registry, "app", "1.2.3");
    registry
}

fn compare(exposition: Exposition, expected: &str, end: &str) -> Result<(), Failed> {
    let written = exposition.encode(&fill_registry())?;
    let (before, after) = written.split_once("# HELP process_").ok_or("no start")?;
    // `prometheus-client` writes values that are read at the scrape after all others.
    assert_eq!(before, expected);
    assert!(after.ends_with(end), "{after}");
    let start = after.lines().find_map(|line| line.strip_prefix(START_TIME));
    let start: f64 = start.ok_or("no start time")?.parse()?;
    assert!(start > 1e9, "{start}");
    Ok(())
}
