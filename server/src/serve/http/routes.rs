//! The routes below `/api/v1`: parameters in, a query, an answer out. All but `status` and `progress` also take POST.

use std::io;
use std::time::SystemTime;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::header::{
    CONTENT_DISPOSITION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, USER_AGENT, VARY,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use model::{PROCESS_LABELS, TimeRange};
use profile::is_label_name;
use query::containers::{ContainerOrder, report_containers};
use query::functions::{FunctionOrder, list_functions};
use query::label_values::{list_label_names, list_label_values};
use query::lines::{FunctionFilter, report_lines};
use query::nodes::{add_reports, list_nodes};
use query::overlap::sum_overlap;
use query::series::list_series;
use query::stacks::report_stacks;
use query::timeseries::{Steps, sum_over_time};
use query::unknown::report_unknown;
use query::versions::report_versions;
use query::{Profiles, Selection, Selector, Tree, build_tree, unread};
use render::folded::{FoldedOptions, FoldedUnit, write_folded};
use render::graph::lay_out;
use render::pprof::render_pprof;
use render::svg::{SvgOptions, draw_svg};
use store::{PROGRAM_LABEL, Snapshot, StoreError, WORKLOAD_LABELS};

use super::HttpState;
use super::answer::{
    ContainersAnswer, FlamegraphAnswer, LabelsAnswer, LinesAnswer, NodesAnswer, ProgressAnswer,
    SeriesAnswer, StacksAnswer, StatusAnswer, TimeseriesAnswer, TopAnswer, Unit, UnknownAnswer,
    ValuesAnswer, VersionsAnswer,
};
use super::columns::{self, write_columns};
use super::encoding::{Encoded, Form};
use super::error::{ApiError, ErrorKind};
use super::parameters::{PLUS_HINT, Parameters, QueryRequest};
use super::questions::{Asked, Asker, Questions, Work};

/// Nodes of a flame graph in one answer: a million are some 30 MB of JSON.
const NODES_MAX: usize = 1_000_000;

/// Entries of a list in one answer.
const LIST_MAX: usize = 100_000;

/// Steps of a time series: a day in steps of 10 s is 8,640.
const STEPS_MAX: usize = 11_000;

/// Default number of steps of a time series: about one for each two or three pixels of a page.
const STEPS_DEFAULT: usize = 360;

/// Lines of a time series.
const LINES_MAX: usize = 1000;

/// Header of answers that are files, with the number of windows that could not be read.
const INCOMPLETE: HeaderName = HeaderName::from_static("pilotlight-incomplete");

/// Header of answers that are files, with the CPU time that two collectors of a node sampled and that is left out.
const OVERLAP: HeaderName = HeaderName::from_static("pilotlight-overlap");

/// A window's usual length; steps are multiples of it.
const STEP_UNIT_MS: i64 = 10_000;

/// Longest profile by length, in seconds: a year.
const SECONDS_MAX: usize = 366 * 24 * 3600;

/// Frames of a path; a stack has at most 4,608 locations, each with inlined calls.
const PATH_FRAMES_MAX: usize = 16_384;

/// Allows inferno's script only: no loading, no sending.
const SVG_POLICY: &str = "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'";

type Answer = Result<Encoded, ApiError>;

/// `GET /api/v1/labels`
pub async fn labels(
    State(questions): State<Questions>,
    QueryRequest { parameters, asker }: QueryRequest,
) -> Answer {
    let selection = parameters.allow(&[])?.selection(now_ms())?;
    let answer = move |asked: &Asked<'_>| {
        let labels = list_label_names(asked.snapshot, &asked.selection.selector)?;
        asked.json(LabelsAnswer { labels })
    };
    questions.ask(asker, Work::Labels, selection, answer).await
}

/// `GET /api/v1/label/{name}/values`
pub async fn label_values(
    State(questions): State<Questions>,
    Path(name): Path<String>,
    QueryRequest { parameters, asker }: QueryRequest,
) -> Answer {
    let selection = parameters.allow(&[])?.selection(now_ms())?;
    check_label_name("name", &name)?;
    let answer = move |asked: &Asked<'_>| {
        let values = list_label_values(asked.snapshot, &asked.selection.selector, &name)?;
        asked.json(ValuesAnswer { values })
    };
    questions.ask(asker, Work::Labels, selection, answer).await
}

/// `GET /api/v1/series`
pub async fn series(
    State(questions): State<Questions>,
    QueryRequest { parameters, asker }: QueryRequest,
) -> Answer {
    let parameters = parameters.allow(&["limit"])?;
    let selection = parameters.selection(now_ms())?;
    let limit = parameters.number("limit", 1000, 0..=LIST_MAX)?;
    let answer = move |asked: &Asked<'_>| {
        let series = list_series(asked.snapshot, &asked.selection.selector)?;
        asked.json(SeriesAnswer::new(&series, limit))
    };
    questions.ask(asker, Work::Sums, selection, answer).await
}

/// `GET /api/v1/timeseries`
pub async fn timeseries(
    State(questions): State<Questions>,
    QueryRequest { parameters, asker }: QueryRequest,
) -> Answer {
    let parameters = parameters.allow(&["by", "unit", "step", "limit"])?;
    let selection = parameters.selection(now_ms())?;
    let unit = parameters.choice(
        "unit",
        &[("cores", Unit::Cores), ("samples", Unit::Samples)],
    )?;
    let limit = parameters.number("limit", 8, 0..=LINES_MAX)?;
    let steps = read_steps(&parameters, &selection)?;
    let by = parameters.text("by").map(str::to_owned);
    if let Some(by) = &by {
        check_label_name("by", by)?;
    }
    let answer = move |asked: &Asked<'_>| {
        let Selection { selector, range } = asked.selection;
        let by = by.as_deref();
        let sums = sum_over_time(asked.snapshot, selector, by, steps)?;
        asked.json(TimeseriesAnswer::new(sums, by, range.to_ms, unit, limit))
    };
    questions.ask(asker, Work::Sums, selection, answer).await
}

fn read_steps(parameters: &Parameters, selection: &Selection) -> Result<Steps, ApiError> {
    let Some(step_ms) = parameters.duration_ms("step")? else {
        return Ok(Steps::fit(selection.range, STEP_UNIT_MS, STEPS_DEFAULT));
    };
    if step_ms <= 0 || step_ms % STEP_UNIT_MS != 0 {
        let message = format!("{step_ms} ms is not a multiple of 10s");
        return Err(ApiError::in_parameter(ErrorKind::BadTime, "step", message));
    }
    let steps = Steps::cover(selection.range, step_ms);
    if steps.count > STEPS_MAX {
        let message = format!("{} steps, and at most {STEPS_MAX} are made", steps.count);
        let error = ApiError::in_parameter(ErrorKind::TooLarge, "step", message);
        return Err(error.with_hint("ask for a longer step or a shorter range"));
    }
    Ok(steps)
}

/// `GET /api/v1/flamegraph`
pub async fn flamegraph(
    State(questions): State<Questions>,
    QueryRequest { parameters, asker }: QueryRequest,
) -> Answer {
    let parameters = parameters.allow(&["max_nodes", "path"])?;
    let selection = parameters.selection(now_ms())?;
    let nodes_max = parameters.number("max_nodes", 200_000, 2..=NODES_MAX)?;
    let path = read_path(&parameters)?;
    let answer = move |asked: &Asked<'_>| {
        let Selection { selector, range } = asked.selection;
        let tree = build_tree(asked.profiles(), selector)?;
        let mut walk = tree.walk();
        let root = walk.find(&path).ok_or_else(|| {
            let message = "no stack of the selection begins with this path";
            ApiError::in_parameter(ErrorKind::NotFound, "path", message)
        })?;
        let path_total_ns = (!path.is_empty()).then_some(root.total.ns);
        let graph = lay_out(walk, root, nodes_max).map_err(StoreError::from)?;
        let mut charge = tree.charge();
        charge.set(graph.heap_bytes()).map_err(StoreError::from)?;
        let answer = FlamegraphAnswer::new(*range, &tree, graph, path_total_ns);
        encode_graph(asked, answer)
    };
    questions.ask(asker, Work::Stacks, selection, answer).await
}

fn encode_graph(asked: &Asked<'_>, mut answer: FlamegraphAnswer) -> Answer {
    let encoded = match asked.form {
        Form::Json => asked.json(answer),
        Form::Columns => {
            let columns = answer.take_columns();
            let answer = asked.tell_losses(answer)?;
            asked.bytes(columns::MEDIA_TYPE, |out| {
                write_columns(out, &answer, &columns.list())
            })
        }
    }?;
    let vary = HeaderValue::from_static("accept");
    Ok(encoded.with_header((VARY, vary)))
}

fn read_path(parameters: &Parameters) -> Result<Vec<String>, ApiError> {
    let Some(text) = parameters.text("path") else {
        return Ok(Vec::new());
    };
    let wrong = |message: String| {
        let error = ApiError::in_parameter(ErrorKind::BadParameter, "path", message);
        error.with_hint("write a JSON array of frame names from the root: [\"main\",\"work\"]")
    };
    let path: Vec<String> =
        serde_json::from_str(text).map_err(|err| wrong(format!("not an array of names: {err}")))?;
    match path.len() {
        0..=PATH_FRAMES_MAX => Ok(path),
        length => Err(wrong(format!(
            "{length} frames, and at most {PATH_FRAMES_MAX} are taken"
        ))),
    }
}

/// `GET /api/v1/top`
pub async fn top(
    State(questions): State<Questions>,
    QueryRequest { parameters, asker }: QueryRequest,
) -> Answer {
    let parameters = parameters.allow(&["sort", "limit", "offset", "search"])?;
    let selection = parameters.selection(now_ms())?;
    let order = parameters.choice(
        "sort",
        &[
            ("self", FunctionOrder::Own),
            ("total", FunctionOrder::Total),
        ],
    )?;
    let limit = parameters.number("limit", 200, 0..=LIST_MAX)?;
    let offset = parameters.number("offset", 0, 0..=usize::MAX)?;
    let search = parameters.text("search").unwrap_or_default().to_owned();
    let answer = move |asked: &Asked<'_>| {
        let tree = build_tree(asked.profiles(), &asked.selection.selector)?;
        let page = offset..offset.saturating_add(limit);
        let page = list_functions(&tree, order, &search, page);
        asked.json(TopAnswer::new(&tree, &page))
    };
    questions.ask(asker, Work::Stacks, selection, answer).await
}

/// `GET /api/v1/lines`
pub async fn lines(
    State(questions): State<Questions>,
    QueryRequest { parameters, asker }: QueryRequest,
) -> Answer {
    let parameters = parameters.allow(&["function", "binary", "file", "limit"])?;
    let selection = parameters.selection(now_ms())?;
    let limit = parameters.number("limit", 1000, 0..=LIST_MAX)?;
    let text = |name: &str| parameters.text(name).map(str::to_owned);
    let Some(name) = text("function").filter(|name| !name.is_empty()) else {
        let message = "the function is missing";
        let error = ApiError::in_parameter(ErrorKind::BadParameter, "function", message);
        return Err(error.with_hint("name one as /api/v1/top lists it"));
    };
    let function = FunctionFilter {
        name,
        binary: text("binary"),
        file: text("file"),
    };
    let answer = move |asked: &Asked<'_>| {
        let report = report_lines(asked.profiles(), &asked.selection.selector, &function)?;
        asked.json(LinesAnswer::new(report, limit))
    };
    questions.ask(asker, Work::Stacks, selection, answer).await
}

/// `GET /api/v1/stacks`
pub async fn stacks(
    State(questions): State<Questions>,
    QueryRequest { parameters, asker }: QueryRequest,
) -> Answer {
    let parameters = parameters.allow(&["limit"])?;
    let selection = parameters.selection(now_ms())?;
    let limit = parameters.number("limit", 200, 0..=LIST_MAX)?;
    let answer = move |asked: &Asked<'_>| {
        let report = report_stacks(asked.profiles(), &asked.selection.selector)?;
        asked.json(StacksAnswer::new(&report, limit))
    };
    questions.ask(asker, Work::Stacks, selection, answer).await
}

/// `GET /api/v1/unknown`
pub async fn unknown(
    State(questions): State<Questions>,
    QueryRequest { parameters, asker }: QueryRequest,
) -> Answer {
    let parameters = parameters.allow(&["limit"])?;
    let selection = parameters.selection(now_ms())?;
    let limit = parameters.number("limit", 200, 0..=LIST_MAX)?;
    let answer = move |asked: &Asked<'_>| {
        let report = report_unknown(asked.profiles(), &asked.selection.selector, limit)?;
        asked.json(UnknownAnswer::new(&report))
    };
    questions.ask(asker, Work::Stacks, selection, answer).await
}

/// `GET /api/v1/flamegraph.svg`
pub async fn flamegraph_svg(
    State(questions): State<Questions>,
    QueryRequest { parameters, asker }: QueryRequest,
) -> Answer {
    let parameters = parameters.allow(&["title", "width", "min_width"])?;
    let selection = parameters.selection(now_ms())?;
    let title = parameters.text("title").unwrap_or("CPU").to_owned();
    let width = parameters.number("width", 1200, 100..=20_000)?;
    let min_width = parameters.number("min_width", 0.1, 0.0..=100.0)?;
    let answer = move |asked: &Asked<'_>| {
        let tree = build_sampled_tree(asked.profiles(), asked.selection, &parameters)?;
        let unread = asked.snapshot.unread();
        let options = SvgOptions {
            title,
            subtitle: unread.first().map(unread::describe),
            width,
            min_width,
        };
        let svg = asked.bytes("image/svg+xml", |out| {
            draw_svg(&tree, options, out).map_err(io::Error::other)
        })?;
        let policy = HeaderValue::from_static(SVG_POLICY);
        let policy = (CONTENT_SECURITY_POLICY, policy);
        let svg = svg.with_header(policy);
        Ok(tell_losses(svg, asked.snapshot, &asked.selection.selector)?)
    };
    questions.ask(asker, Work::Stacks, selection, answer).await
}

/// Adds the headers of answers that are files: `pilotlight-incomplete` with the number of windows that could not be read, and
/// `pilotlight-overlap` with the nanoseconds that are left out since another collector of the node sampled them too.
fn tell_losses(
    answer: Encoded,
    snapshot: &dyn Snapshot,
    selector: &Selector,
) -> Result<Encoded, StoreError> {
    let windows = snapshot.unread().iter().map(|unread| unread.windows).sum();
    let left_out_ns = sum_overlap(snapshot, selector)?.left_out.ns;
    let header = |name: HeaderName, number: u64, unit: &str| {
        let text = HeaderValue::from_str(&format!("{number} {unit}")).ok()?;
        (number > 0).then_some((name, text))
    };
    Ok(answer
        .with_header(header(INCOMPLETE, windows, "windows"))
        .with_header(header(OVERLAP, left_out_ns, "ns")))
}

fn build_sampled_tree(
    profiles: Profiles<'_>,
    selection: &Selection,
    parameters: &Parameters,
) -> Result<Tree, ApiError> {
    let tree = build_tree(profiles, &selection.selector)?;
    if tree.total().samples > 0 {
        Ok(tree)
    } else {
        Err(no_samples(parameters))
    }
}

/// The error of the routes whose answers are files: an empty file looks like an idle machine. The JSON of the others
/// says how many samples it has.
fn no_samples(parameters: &Parameters) -> ApiError {
    let selector = parameters.text("query").unwrap_or("{}");
    let message = format!("the selection {selector} has no samples");
    let mut hint =
        "choose a longer range or other labels; /api/v1/series lists all series".to_owned();
    if selector.contains(' ') {
        hint = format!("{PLUS_HINT}; else {hint}");
    }
    ApiError::in_parameter(ErrorKind::NotFound, "query", message).with_hint(hint)
}

/// `GET /api/v1/pprof`
pub async fn pprof(
    State(state): State<HttpState>,
    headers: HeaderMap,
    QueryRequest { parameters, asker }: QueryRequest,
) -> Response {
    match answer_pprof(state, parameters, asker).await {
        Ok(answer) => answer.into_response(),
        Err(error) if is_go(&headers) => pprof_error(&error),
        Err(error) => error.into_response(),
    }
}

async fn answer_pprof(state: HttpState, parameters: Parameters, asker: Asker) -> Answer {
    let parameters = parameters.allow(&["seconds"])?;
    // `go tool pprof` rewrites every URL, and silently drops a parameter whose value has a `;`. The profile of
    // everything would be taken for that of the selection.
    if parameters.text("query").is_none() {
        let message = "the selector is missing";
        let error = ApiError::in_parameter(ErrorKind::BadParameter, "query", message);
        return Err(error.with_hint(
            "write query={} for everything; Go's tools drop a parameter with a `;`: write it %3B",
        ));
    }
    let selection = parameters.selection(now_ms())?;
    let seconds = match parameters.text("seconds") {
        Some(_) => Some(parameters.number("seconds", 1, 1..=SECONDS_MAX)?),
        None => None,
    };
    let symbols = state.symbols;
    let answer = move |asked: &Asked<'_>| {
        let Selection { selector, range } = asked.selection;
        let mut range = *range;
        if let Some(seconds) = seconds {
            range = keep_last(asked, seconds as i64 * 1000)?;
        }
        let layout_of = |build_id: &str| symbols.find_layout(build_id);
        let snapshot = asked.store.ask(range, asked.snapshot.question())?;
        let profiles = Profiles::new(&*snapshot, asked.names);
        let pprof = render_pprof(profiles, selector, &layout_of, asked.buffer()?)
            .map_err(|err| ApiError::new(ErrorKind::Internal, err.to_string()))?
            .ok_or_else(|| no_samples(&parameters))?;
        let name = HeaderValue::from_static("attachment; filename=\"profile.pb.gz\"");
        let pprof = Encoded::new("application/octet-stream", pprof);
        let pprof = pprof.with_header((CONTENT_DISPOSITION, name));
        Ok(tell_losses(pprof, &*snapshot, selector)?)
    };
    state
        .questions
        .ask(asker, Work::Stacks, selection, answer)
        .await
}

/// Cuts the range to the last stored windows of the selection that together have at least this length.
///
/// `go tool pprof -seconds N` asks for the next N seconds, and does not wait until their windows are stored. The
/// latest stored profile of the same length is the answer.
fn keep_last(asked: &Asked<'_>, length_ms: i64) -> Result<TimeRange, StoreError> {
    let Selection { selector, range } = asked.selection;
    let mut range = *range;
    let nodes = list_nodes(asked.snapshot, selector)?;
    if let Some(end_ms) = nodes.iter().map(|node| node.end_ms).max() {
        let windows = (length_ms + STEP_UNIT_MS - 1) / STEP_UNIT_MS;
        range.from_ms = range.from_ms.max(end_ms - windows * STEP_UNIT_MS);
    }
    Ok(range)
}

fn is_go(headers: &HeaderMap) -> bool {
    headers
        .get(USER_AGENT)
        .is_some_and(|agent| agent.as_bytes().starts_with(b"Go-http-client"))
}

/// `go tool pprof` shows an error's text only if it is plain and has this header.
fn pprof_error(error: &ApiError) -> Response {
    let headers = [
        (CONTENT_TYPE.as_str(), "text/plain; charset=utf-8"),
        ("x-go-pprof", "1"),
    ];
    let retry = error.retry_after();
    (error.status(), headers, retry, error.line()).into_response()
}

/// `GET /api/v1/folded`
pub async fn folded(
    State(questions): State<Questions>,
    QueryRequest { parameters, asker }: QueryRequest,
) -> Answer {
    let parameters = parameters.allow(&[])?;
    let selection = parameters.selection(now_ms())?;
    let answer = move |asked: &Asked<'_>| {
        let tree = build_sampled_tree(asked.profiles(), asked.selection, &parameters)?;
        let options = FoldedOptions {
            unit: FoldedUnit::Samples,
            ns_min: 0,
        };
        let text = asked.bytes("text/plain; charset=utf-8", |mut out| {
            write_folded(&tree, options, &mut out)
        })?;
        Ok(tell_losses(
            text,
            asked.snapshot,
            &asked.selection.selector,
        )?)
    };
    questions.ask(asker, Work::Stacks, selection, answer).await
}

/// `GET /api/v1/nodes`
pub async fn nodes(
    State(questions): State<Questions>,
    QueryRequest { parameters, asker }: QueryRequest,
) -> Answer {
    let selection = parameters.allow(&[])?.selection(now_ms())?;
    let answer = move |asked: &Asked<'_>| {
        let mut nodes = list_nodes(asked.snapshot, &asked.selection.selector)?;
        add_reports(asked.store, asked.selection, &mut nodes)?;
        asked.json(NodesAnswer::new(nodes, now_ms()))
    };
    questions.ask(asker, Work::Sums, selection, answer).await
}

/// `GET /api/v1/containers`
pub async fn containers(
    State(questions): State<Questions>,
    QueryRequest { parameters, asker }: QueryRequest,
) -> Answer {
    let parameters = parameters.allow(&["sort", "limit"])?;
    let selection = parameters.selection(now_ms())?;
    let order = parameters.choice(
        "sort",
        &[
            ("kernel", ContainerOrder::Kernel),
            ("sampled", ContainerOrder::Sampled),
            ("ratio", ContainerOrder::Ratio),
            ("throttled", ContainerOrder::Throttled),
            ("excluded", ContainerOrder::Excluded),
        ],
    )?;
    let limit = parameters.number("limit", 1000, 0..=LIST_MAX)?;
    if let Some(name) = selection
        .selector
        .names()
        .find(|name| PROCESS_LABELS.contains(name))
    {
        let message = format!(
            "the kernel's accounts are of whole containers, and {name:?} is a label of processes"
        );
        let error = ApiError::in_parameter(ErrorKind::BadParameter, "query", message);
        return Err(
            error.with_hint("select by node, namespace, pod, container, container_id or unit")
        );
    }
    let answer = move |asked: &Asked<'_>| {
        let report = report_containers(asked.snapshot, &asked.selection.selector, order)?;
        asked.json(ContainersAnswer::new(&report, limit))
    };
    questions.ask(asker, Work::Sums, selection, answer).await
}

/// `GET /api/v1/versions`
pub async fn versions(
    State(questions): State<Questions>,
    QueryRequest { parameters, asker }: QueryRequest,
) -> Answer {
    let parameters = parameters.allow(&["limit"])?;
    let selection = parameters.selection(now_ms())?;
    let limit = parameters.number("limit", 1000, 0..=LIST_MAX)?;
    let is_known = |name: &&str| *name == PROGRAM_LABEL || WORKLOAD_LABELS.contains(name);
    if let Some(name) = selection.selector.names().find(|name| !is_known(name)) {
        let message =
            format!("versions are of workloads and programs, which have no label {name:?}");
        let error = ApiError::in_parameter(ErrorKind::BadParameter, "query", message);
        let hint = "select by namespace, workload, workload_kind, container or exe";
        return Err(error.with_hint(hint));
    }
    let answer = move |asked: &Asked<'_>| {
        let mut report = report_versions(asked.store, asked.selection);
        let unread = std::mem::take(&mut report.unread);
        asked.json_lacking(VersionsAnswer::new(report, limit), unread)
    };
    questions.ask(asker, Work::Labels, selection, answer).await
}

/// `GET /api/v1/status`
pub async fn status(
    State(state): State<HttpState>,
    parameters: Parameters,
) -> Result<Json<StatusAnswer>, ApiError> {
    parameters.allow(&[])?;
    let (kept, damage) = (state.store.kept(), state.store.damage());
    let store_state = state.store_state.borrow();
    Ok(Json(StatusAnswer::new(&store_state, kept, damage)))
}

/// `GET /api/v1/progress`
pub async fn progress(
    State(questions): State<Questions>,
    parameters: Parameters,
) -> Result<Json<ProgressAnswer>, ApiError> {
    let parameters = parameters.allow(&["question"])?;
    let Some(name) = parameters.text("question") else {
        let message = "the question is missing";
        let error = ApiError::in_parameter(ErrorKind::BadParameter, "question", message);
        return Err(
            error.with_hint("name it as in the header `pilotlight-question` of its request")
        );
    };
    Ok(Json(ProgressAnswer::new(questions.step(name))))
}

fn check_label_name(parameter: &str, name: &str) -> Result<(), ApiError> {
    if is_label_name(name) {
        return Ok(());
    }
    let message = format!("{name:?} is not a label's name");
    let error = ApiError::in_parameter(ErrorKind::BadParameter, parameter, message);
    Err(error.with_hint("a name has letters, digits and _, and does not begin with a digit"))
}

/// The server's clock in milliseconds since the Unix epoch; 0 if it lies before that.
pub fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |age| age.as_millis() as i64)
}
