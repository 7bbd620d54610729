//! Errors as answers: one table from kinds of errors to statuses.

use axum::Json;
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use query::SelectorError;
use serde::Serialize;
use store::StoreError;
use symbolize::index::RefusalKind;

use crate::symbol::error::AddError;

/// Seconds after which a client that was refused may ask again: as long as a long query takes.
const RETRY_SECONDS: &str = "5";

/// Kinds of errors, as the answer names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// `query` is not a selector.
    BadSelector,
    /// A time or duration.
    BadTime,
    /// Another parameter's value.
    BadParameter,
    /// A parameter that the route does not have.
    UnknownParameter,
    /// The requested thing does not exist.
    NotFound,
    /// A method that the path does not have.
    MethodNotAllowed,
    /// The URL of a request is too long.
    UriTooLong,
    /// The header of a request is too large.
    HeaderTooLarge,
    /// The body of a query is too large.
    BodyTooLarge,
    /// The answer would be too large.
    TooLarge,
    /// Too many queries at once.
    Busy,
    /// A file of another build than stated.
    WrongFile,
    /// A file that cannot be used.
    BadFile,
    /// A file above the size limit.
    FileTooLarge,
    /// A client that sends too slowly.
    TooSlow,
    /// A query that takes too long.
    TimedOut,
    /// No space is left on the server's disk.
    DiskFull,
    /// A failure of the server.
    Internal,
}

/// An error.
#[derive(Clone, Debug, Serialize)]
pub struct ApiError {
    /// Its kind.
    pub kind: ErrorKind,
    /// Message for people.
    pub message: String,
    /// The wrong parameter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameter: Option<String>,
    /// Position in its value, in characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<usize>,
    /// The text at the position.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub near: Option<String>,
    /// The remedy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl ErrorKind {
    /// All kinds.
    pub const ALL: [Self; 18] = [
        Self::BadSelector,
        Self::BadTime,
        Self::BadParameter,
        Self::UnknownParameter,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::UriTooLong,
        Self::HeaderTooLarge,
        Self::BodyTooLarge,
        Self::TooLarge,
        Self::Busy,
        Self::WrongFile,
        Self::BadFile,
        Self::FileTooLarge,
        Self::TooSlow,
        Self::TimedOut,
        Self::DiskFull,
        Self::Internal,
    ];
}

#[derive(Serialize)]
struct Body {
    error: ApiError,
}

impl ApiError {
    /// An error without further parts.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            parameter: None,
            position: None,
            near: None,
            hint: None,
        }
    }

    /// An error in a parameter.
    pub fn in_parameter(kind: ErrorKind, parameter: &str, message: impl Into<String>) -> Self {
        Self {
            parameter: Some(parameter.to_owned()),
            ..Self::new(kind, message)
        }
    }

    /// Adds a remedy.
    pub fn with_hint(self, hint: impl Into<String>) -> Self {
        Self {
            hint: Some(hint.into()),
            ..self
        }
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        match self.kind {
            ErrorKind::BadSelector
            | ErrorKind::BadTime
            | ErrorKind::BadParameter
            | ErrorKind::UnknownParameter => StatusCode::BAD_REQUEST,
            ErrorKind::NotFound => StatusCode::NOT_FOUND,
            ErrorKind::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            ErrorKind::UriTooLong => StatusCode::URI_TOO_LONG,
            ErrorKind::HeaderTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            ErrorKind::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            ErrorKind::TooLarge => StatusCode::UNPROCESSABLE_ENTITY,
            ErrorKind::Busy | ErrorKind::TimedOut => StatusCode::SERVICE_UNAVAILABLE,
            ErrorKind::WrongFile => StatusCode::CONFLICT,
            ErrorKind::BadFile => StatusCode::UNPROCESSABLE_ENTITY,
            ErrorKind::FileTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            ErrorKind::TooSlow => StatusCode::REQUEST_TIMEOUT,
            ErrorKind::DiskFull => StatusCode::INSUFFICIENT_STORAGE,
            ErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The header that says when to ask again, if that helps.
    pub fn retry_after(&self) -> Option<[(HeaderName, &'static str); 1]> {
        (self.kind == ErrorKind::Busy).then_some([(RETRY_AFTER, RETRY_SECONDS)])
    }

    /// The error as one line, for tools that do not read JSON.
    pub fn line(&self) -> String {
        let mut line = self.message.clone();
        if let Some(parameter) = &self.parameter {
            line = format!("{parameter}: {line}");
        }
        if let (Some(position), Some(near)) = (self.position, &self.near) {
            line += &format!(" at character {position}, near {near:?}");
        }
        if let Some(hint) = &self.hint {
            line += &format!("; {hint}");
        }
        line
    }
}

/// The JSON of the answer to a request that is refused by its head, before a route.
pub fn refuse_head(status: StatusCode) -> String {
    let error = if status == StatusCode::URI_TOO_LONG {
        ApiError::new(
            ErrorKind::UriTooLong,
            "the URL has 65,535 characters or more",
        )
        .with_hint("send the parameters of a query with POST, as a JSON object")
    } else {
        ApiError::new(
            ErrorKind::HeaderTooLarge,
            "the header has more than 400 KiB or 100 fields",
        )
        .with_hint(
            "send fewer or shorter header fields; a proxy or cookies of other servers may add some",
        )
    };
    // Texts have a form in JSON.
    serde_json::to_string(&Body { error }).unwrap_or_default()
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let retry = self.retry_after();
        (self.status(), retry, Json(Body { error: self })).into_response()
    }
}

impl From<SelectorError> for ApiError {
    fn from(err: SelectorError) -> Self {
        let SelectorError {
            message,
            position,
            near,
            hint,
        } = err;
        let near = (!near.is_empty()).then_some(near);
        Self {
            position: Some(position),
            near,
            hint,
            ..Self::in_parameter(ErrorKind::BadSelector, "query", message)
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(err: StoreError) -> Self {
        if !matches!(err, StoreError::Stopped(_)) {
            tracing::error!(%err, "failed to answer a query");
        }
        Self::new(ErrorKind::Internal, err.to_string())
    }
}

impl From<AddError> for ApiError {
    fn from(err: AddError) -> Self {
        let kind = match &err {
            AddError::Refused(refusal) if refusal.kind == RefusalKind::WrongBuildId => {
                ErrorKind::WrongFile
            }
            AddError::Refused(_) => ErrorKind::BadFile,
            AddError::DiskFull(_) => ErrorKind::DiskFull,
            AddError::Failed(_) => ErrorKind::Internal,
        };
        Self::new(kind, err.to_string())
    }
}
