//! A request's parameters. A parameter that the route does not have is an error, so that a typing error never
//! changes an answer in silence.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;

use super::error::{ApiError, ErrorKind};
use crate::query::time::{DURATION_FORMS, TIME_FORMS, parse_duration, parse_time};
use crate::query::{Selection, parse_selector};
use crate::store::TimeRange;

/// The parameters that all queries have.
const SHARED: [&str; 3] = ["query", "from", "to"];

/// What a parameter can be a number of.
pub trait Number: FromStr + PartialOrd + Display {
    /// What an error calls it.
    const KIND: &str;
}

impl Number for usize {
    const KIND: &str = "whole number";
}

impl Number for f64 {
    const KIND: &str = "number";
}

/// The parameters as they came.
pub struct Parameters {
    pairs: Vec<(String, String)>,
}

impl<S: Send + Sync> FromRequestParts<S> for Parameters {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let query = Query::<Vec<(String, String)>>::from_request_parts(parts, state).await;
        let Query(pairs) =
            query.map_err(|err| ApiError::new(ErrorKind::BadParameter, err.body_text()))?;
        Ok(Self { pairs })
    }
}

impl Parameters {
    /// Checks that the route knows all of them, besides those that all queries have.
    ///
    /// # Errors
    /// The first one that is unknown or comes twice.
    pub fn allow(self, own: &[&str]) -> Result<Self, ApiError> {
        for (i, (name, _)) in self.pairs.iter().enumerate() {
            let known = || SHARED.iter().chain(own);
            if !known().any(|known| known == name) {
                let names: Vec<_> = known().copied().collect();
                let message = format!("this route has no parameter {name:?}");
                let error = ApiError::in_parameter(ErrorKind::UnknownParameter, name, message);
                return Err(error.with_hint(format!("it has {}", names.join(", "))));
            }
            if self.pairs[..i].iter().any(|(before, _)| before == name) {
                return Err(ApiError::in_parameter(
                    ErrorKind::BadParameter,
                    name,
                    "the parameter comes twice",
                ));
            }
        }
        Ok(self)
    }

    /// A parameter's value.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.pairs
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    /// A number: a whole one or one with decimals, as the default is.
    ///
    /// # Errors
    /// It is not one, or outside its range.
    pub fn number<T: Number>(
        &self,
        name: &str,
        default: T,
        range: RangeInclusive<T>,
    ) -> Result<T, ApiError> {
        let Some(text) = self.text(name) else {
            return Ok(default);
        };
        text.parse()
            .ok()
            .filter(|number| range.contains(number))
            .ok_or_else(|| {
                let (kind, first, last) = (T::KIND, range.start(), range.end());
                let message = format!("{text:?} is not a {kind} from {first} to {last}");
                ApiError::in_parameter(ErrorKind::BadParameter, name, message)
            })
    }

    /// One of some words; the first is the default.
    ///
    /// # Errors
    /// It is none of them.
    pub fn choice<T: Copy>(&self, name: &str, choices: &[(&str, T)]) -> Result<T, ApiError> {
        let text = self.text(name).unwrap_or(choices[0].0);
        let found = choices.iter().find(|(word, _)| *word == text);
        found.map(|(_, choice)| *choice).ok_or_else(|| {
            let words: Vec<_> = choices.iter().map(|(word, _)| *word).collect();
            let message = format!("{text:?} is not one of {}", words.join(", "));
            ApiError::in_parameter(ErrorKind::BadParameter, name, message)
        })
    }

    /// A duration in milliseconds.
    ///
    /// # Errors
    /// It is not one.
    pub fn duration_ms(&self, name: &str) -> Result<Option<i64>, ApiError> {
        let parse = |text| {
            parse_duration(text).map_err(|message| {
                ApiError::in_parameter(ErrorKind::BadTime, name, message).with_hint(DURATION_FORMS)
            })
        };
        self.text(name).map(parse).transpose()
    }

    /// The labels and the range; `now_ms` is the server's clock.
    ///
    /// # Errors
    /// One of them is wrong.
    pub fn selection(&self, now_ms: i64) -> Result<Selection, ApiError> {
        let selector = parse_selector(self.text("query").unwrap_or_default())?;
        let time = |name: &str, default: &str| {
            parse_time(self.text(name).unwrap_or(default), now_ms).map_err(|message| {
                ApiError::in_parameter(ErrorKind::BadTime, name, message).with_hint(TIME_FORMS)
            })
        };
        let (from_ms, to_ms) = (time("from", "now-15m")?, time("to", "now")?);
        if from_ms >= to_ms {
            let message = format!("the range is empty: from is {from_ms} ms and to is {to_ms} ms");
            return Err(ApiError::in_parameter(ErrorKind::BadTime, "from", message)
                .with_hint("from must lie before to"));
        }
        Ok(Selection {
            selector,
            range: TimeRange { from_ms, to_ms },
        })
    }
}
