//! Errors as answers: one table from what went wrong to a status.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::query::SelectorError;
use crate::store::StoreError;
use crate::symbol::convert::RefusalKind;
use crate::symbol::shelf::PlaceError;

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
    /// There is no such thing.
    NotFound,
    /// The answer would be too large.
    TooLarge,
    /// Too many queries at once.
    Busy,
    /// A file that is of another build than was said.
    WrongFile,
    /// A file that cannot be used.
    BadFile,
    /// A file that is larger than the server takes.
    FileTooLarge,
    /// A client that sends too slowly.
    TooSlow,
    /// No space is left on the server's disk.
    DiskFull,
    /// The server's own fault.
    Internal,
}

/// An error.
#[derive(Clone, Debug, Serialize)]
pub struct ApiError {
    /// Its kind.
    pub kind: ErrorKind,
    /// What is wrong, for people.
    pub message: String,
    /// The parameter that is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameter: Option<String>,
    /// Where in its value, in characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<usize>,
    /// The text there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub near: Option<String>,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
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

    /// Says what to do.
    pub fn with_hint(self, hint: impl Into<String>) -> Self {
        Self {
            hint: Some(hint.into()),
            ..self
        }
    }

    /// The status that fits.
    pub fn status(&self) -> StatusCode {
        match self.kind {
            ErrorKind::BadSelector
            | ErrorKind::BadTime
            | ErrorKind::BadParameter
            | ErrorKind::UnknownParameter => StatusCode::BAD_REQUEST,
            ErrorKind::NotFound => StatusCode::NOT_FOUND,
            ErrorKind::TooLarge => StatusCode::UNPROCESSABLE_ENTITY,
            ErrorKind::Busy => StatusCode::SERVICE_UNAVAILABLE,
            ErrorKind::WrongFile => StatusCode::CONFLICT,
            ErrorKind::BadFile => StatusCode::UNPROCESSABLE_ENTITY,
            ErrorKind::FileTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            ErrorKind::TooSlow => StatusCode::REQUEST_TIMEOUT,
            ErrorKind::DiskFull => StatusCode::INSUFFICIENT_STORAGE,
            ErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
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

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.status(), Json(Body { error: self })).into_response()
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
        tracing::error!(%err, "failed to answer a query");
        Self::new(ErrorKind::Internal, err.to_string())
    }
}

impl From<PlaceError> for ApiError {
    fn from(err: PlaceError) -> Self {
        let kind = match &err {
            PlaceError::Refused(refusal) if refusal.kind == RefusalKind::WrongBuildId => {
                ErrorKind::WrongFile
            }
            PlaceError::Refused(_) => ErrorKind::BadFile,
            PlaceError::DiskFull(_) => ErrorKind::DiskFull,
            PlaceError::Failed(_) => ErrorKind::Internal,
        };
        Self::new(kind, err.to_string())
    }
}
