//! The routes below `/api/v1`: parameters in, a query, an answer out.

use std::time::SystemTime;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, USER_AGENT};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};

use super::HttpState;
use super::answer::{
    FlamegraphAnswer, LabelsAnswer, LinesAnswer, NodesAnswer, SeriesAnswer, StacksAnswer,
    TimeseriesAnswer, TopAnswer, Unit, UnknownAnswer, ValuesAnswer,
};
use super::error::{ApiError, ErrorKind};
use super::parameters::Parameters;
use crate::profile::labels::is_label_name;
use crate::query::functions::{FunctionOrder, list_functions};
use crate::query::label_values::{list_label_names, list_label_values};
use crate::query::lines::{FunctionFilter, report_lines};
use crate::query::nodes::list_nodes;
use crate::query::series::list_series;
use crate::query::stacks::report_stacks;
use crate::query::timeseries::{Steps, sum_over_time};
use crate::query::unknown::report_unknown;
use crate::query::{Selection, Tree, build_tree};
use crate::render::folded::{FoldedUnit, fold};
use crate::render::graph::lay_out;
use crate::render::pprof::render_pprof;
use crate::render::svg::{SvgOptions, draw_svg};
use crate::store::Store;

/// Nodes of a flame graph in one answer: a million are some 30 MB of JSON.
const NODES_MAX: usize = 1_000_000;

/// Entries of a list in one answer.
const LIST_MAX: usize = 100_000;

/// Steps of a time series: a day in steps of 10 s is 8,640.
const STEPS_MAX: usize = 11_000;

/// Steps that a time series has when none are asked for: about one for each two or three pixels of a page.
const STEPS_DEFAULT: usize = 360;

/// Lines of a time series.
const LINES_MAX: usize = 1000;

/// A window's usual length; steps are multiples of it.
const STEP_UNIT_MS: i64 = 10_000;

/// Frames of a path; a stack has at most 4,608 locations, each with inlined calls.
const PATH_FRAMES_MAX: usize = 16_384;

/// What inferno's script needs, and nothing else: no loading, no sending.
const SVG_POLICY: &str = "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'";

type Answer<T> = Result<Json<T>, ApiError>;

/// `GET /api/v1/labels`
pub async fn labels(
    State(state): State<HttpState>,
    parameters: Parameters,
) -> Answer<LabelsAnswer> {
    let selection = parameters.allow(&[])?.selection(now_ms())?;
    let store = state.store;
    state
        .gate
        .run(move || {
            Ok(Json(LabelsAnswer {
                labels: list_label_names(&*store, &selection)?,
            }))
        })
        .await
}

/// `GET /api/v1/label/{name}/values`
pub async fn label_values(
    State(state): State<HttpState>,
    Path(name): Path<String>,
    parameters: Parameters,
) -> Answer<ValuesAnswer> {
    let selection = parameters.allow(&[])?.selection(now_ms())?;
    check_label_name("name", &name)?;
    let store = state.store;
    state
        .gate
        .run(move || {
            Ok(Json(ValuesAnswer {
                values: list_label_values(&*store, &selection, &name)?,
            }))
        })
        .await
}

/// `GET /api/v1/series`
pub async fn series(
    State(state): State<HttpState>,
    parameters: Parameters,
) -> Answer<SeriesAnswer> {
    let parameters = parameters.allow(&["limit"])?;
    let selection = parameters.selection(now_ms())?;
    let limit = parameters.number("limit", 1000, 0..=LIST_MAX)?;
    let store = state.store;
    state
        .gate
        .run(move || {
            Ok(Json(SeriesAnswer::new(
                &list_series(&*store, &selection)?,
                limit,
            )))
        })
        .await
}

/// `GET /api/v1/timeseries`
pub async fn timeseries(
    State(state): State<HttpState>,
    parameters: Parameters,
) -> Answer<TimeseriesAnswer> {
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
    let store = state.store;
    let query = move || {
        let answer = sum_over_time(&*store, &selection, by.as_deref(), steps)?;
        Ok(Json(TimeseriesAnswer::new(
            answer,
            by.as_deref(),
            selection.range.to_ms,
            unit,
            limit,
        )))
    };
    state.gate.run(query).await
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
    State(state): State<HttpState>,
    parameters: Parameters,
) -> Answer<FlamegraphAnswer> {
    let parameters = parameters.allow(&["max_nodes", "path"])?;
    let selection = parameters.selection(now_ms())?;
    let nodes_max = parameters.number("max_nodes", 200_000, 2..=NODES_MAX)?;
    let path = read_path(&parameters)?;
    let store = state.store;
    let query = move || {
        let tree = build_tree(&*store, &selection)?;
        let answer = match path {
            None => FlamegraphAnswer::new(selection.range, &tree, lay_out(&tree, nodes_max), None),
            Some(path) => {
                let below = tree.subtree(&path).ok_or_else(|| {
                    let message = "no stack of the selection begins with this path";
                    ApiError::in_parameter(ErrorKind::NotFound, "path", message)
                })?;
                let total_ns = below.total().ns;
                FlamegraphAnswer::new(
                    selection.range,
                    &tree,
                    lay_out(&below, nodes_max),
                    Some(total_ns),
                )
            }
        };
        Ok(Json(answer))
    };
    state.gate.run(query).await
}

fn read_path(parameters: &Parameters) -> Result<Option<Vec<String>>, ApiError> {
    let Some(text) = parameters.text("path") else {
        return Ok(None);
    };
    let wrong = |message: String| {
        let error = ApiError::in_parameter(ErrorKind::BadParameter, "path", message);
        error.with_hint("write a JSON array of frame names from the root: [\"main\",\"work\"]")
    };
    let path: Vec<String> =
        serde_json::from_str(text).map_err(|err| wrong(format!("not an array of names: {err}")))?;
    match path.len() {
        1..=PATH_FRAMES_MAX => Ok(Some(path)),
        0 => Ok(None),
        length => Err(wrong(format!(
            "{length} frames, and at most {PATH_FRAMES_MAX} are taken"
        ))),
    }
}

/// `GET /api/v1/top`
pub async fn top(State(state): State<HttpState>, parameters: Parameters) -> Answer<TopAnswer> {
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
    let store = state.store;
    let query = move || {
        let tree = build_tree(&*store, &selection)?;
        Ok(Json(TopAnswer::new(
            &tree,
            &list_functions(&tree, order, &search),
            offset,
            limit,
        )))
    };
    state.gate.run(query).await
}

/// `GET /api/v1/lines`
pub async fn lines(State(state): State<HttpState>, parameters: Parameters) -> Answer<LinesAnswer> {
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
    let store = state.store;
    let query = move || {
        let report = report_lines(&*store, &selection, &function)?;
        Ok(Json(LinesAnswer::new(report, limit)))
    };
    state.gate.run(query).await
}

/// `GET /api/v1/stacks`
pub async fn stacks(
    State(state): State<HttpState>,
    parameters: Parameters,
) -> Answer<StacksAnswer> {
    let parameters = parameters.allow(&["limit"])?;
    let selection = parameters.selection(now_ms())?;
    let limit = parameters.number("limit", 200, 0..=LIST_MAX)?;
    let store = state.store;
    let query = move || {
        Ok(Json(StacksAnswer::new(
            &report_stacks(&*store, &selection)?,
            limit,
        )))
    };
    state.gate.run(query).await
}

/// `GET /api/v1/unknown`
pub async fn unknown(
    State(state): State<HttpState>,
    parameters: Parameters,
) -> Answer<UnknownAnswer> {
    let parameters = parameters.allow(&["limit"])?;
    let selection = parameters.selection(now_ms())?;
    let limit = parameters.number("limit", 200, 0..=LIST_MAX)?;
    let store = state.store;
    let query = move || {
        Ok(Json(UnknownAnswer::new(&report_unknown(
            &*store, &selection, limit,
        )?)))
    };
    state.gate.run(query).await
}

/// `GET /api/v1/flamegraph.svg`
pub async fn flamegraph_svg(
    State(state): State<HttpState>,
    parameters: Parameters,
) -> Result<Response, ApiError> {
    let parameters = parameters.allow(&["title", "width", "min_width"])?;
    let selection = parameters.selection(now_ms())?;
    let title = parameters.text("title").unwrap_or("CPU").to_owned();
    let width = parameters.number("width", 1200, 100..=20_000)?;
    let min_width = parameters.number("min_width", 0.1, 0.0..=100.0)?;
    let store = state.store;
    let query = move || {
        let tree = build_sampled_tree(&*store, &selection)?;
        draw_svg(
            &tree,
            SvgOptions {
                title,
                width,
                min_width,
            },
        )
        .map_err(|err| ApiError::new(ErrorKind::Internal, format!("{err:#}")))
    };
    let svg = state.gate.run(query).await?;
    Ok((
        [
            (CONTENT_TYPE, "image/svg+xml"),
            (CONTENT_SECURITY_POLICY, SVG_POLICY),
        ],
        svg,
    )
        .into_response())
}

fn build_sampled_tree(store: &dyn Store, selection: &Selection) -> Result<Tree, ApiError> {
    let tree = build_tree(store, selection)?;
    if tree.total().samples > 0 {
        return Ok(tree);
    }
    let error = ApiError::new(ErrorKind::NotFound, "the selection has no samples");
    Err(error
        .with_hint("choose a longer range or other labels; /api/v1/series lists what there is"))
}

/// `GET /api/v1/pprof`
pub async fn pprof(
    State(state): State<HttpState>,
    headers: HeaderMap,
    parameters: Parameters,
) -> Response {
    match answer_pprof(state, parameters).await {
        Ok(response) => response,
        Err(error) if is_go(&headers) => pprof_error(&error),
        Err(error) => error.into_response(),
    }
}

async fn answer_pprof(state: HttpState, parameters: Parameters) -> Result<Response, ApiError> {
    let selection = parameters.allow(&[])?.selection(now_ms())?;
    let store = state.store;
    let query = move || {
        render_pprof(&*store, &selection)
            .map_err(|err| ApiError::new(ErrorKind::Internal, err.to_string()))
    };
    let bytes = state.gate.run(query).await?;
    let name = "attachment; filename=\"profile.pb.gz\"";
    Ok((
        [
            (CONTENT_TYPE, "application/octet-stream"),
            (CONTENT_DISPOSITION, name),
        ],
        bytes,
    )
        .into_response())
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
    (error.status(), headers, error.line()).into_response()
}

/// `GET /api/v1/folded`
pub async fn folded(
    State(state): State<HttpState>,
    parameters: Parameters,
) -> Result<Response, ApiError> {
    let selection = parameters.allow(&[])?.selection(now_ms())?;
    let store = state.store;
    let query = move || Ok(fold(&build_tree(&*store, &selection)?, FoldedUnit::Samples));
    let text = state.gate.run(query).await?;
    Ok((
        StatusCode::OK,
        [(CONTENT_TYPE, "text/plain; charset=utf-8")],
        text,
    )
        .into_response())
}

/// `GET /api/v1/nodes`
pub async fn nodes(State(state): State<HttpState>, parameters: Parameters) -> Answer<NodesAnswer> {
    let selection = parameters.allow(&[])?.selection(now_ms())?;
    let store = state.store;
    state
        .gate
        .run(move || Ok(Json(NodesAnswer::new(list_nodes(&*store, &selection)?))))
        .await
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
