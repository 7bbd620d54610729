//! A request's parameters. An unknown parameter is an error, so that a typing error never changes an answer in
//! silence.

use std::error::Error;
use std::fmt::{self, Display, Formatter};
use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::Method;
use axum::http::request::Parts;
use http_body_util::LengthLimitError;
use listen::slots::Client;
use model::TimeRange;
use query::time::{DURATION_FORMS, TIME_FORMS, parse_duration, parse_time};
use query::{Selection, parse_selector};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use tokio::time::timeout;
use tonic::transport::server::TcpConnectInfo;

use super::encoding::{Encoding, Form};
use super::error::{ApiError, ErrorKind};
use super::progress::read_name;
use super::questions::Asker;

/// The parameters that all queries have.
const SHARED: [&str; 3] = ["query", "from", "to"];

/// Hint for a value with a space that was typed as `+`: a `+` in a URL is a space, as in HTML forms.
pub const PLUS_HINT: &str = "a + in a URL is a space: if it was one, write %2B";

/// Bytes of a body: a path of 16,384 names of 128 bytes. All 512 connections together hold 1 GiB of them at most.
const BODY_BYTES_MAX: usize = 2 << 20;

/// Time for a body to arrive: as long as a client may be silent.
const BODY_TIME: Duration = Duration::from_secs(30);

/// Number types of parameters.
pub trait Number: FromStr + PartialOrd + Display {
    /// Name in errors.
    const KIND: &str;
}

impl Number for usize {
    const KIND: &str = "whole number";
}

impl Number for f64 {
    const KIND: &str = "number";
}

/// The parameters as received.
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

/// A query: its parameters from the URL, and with POST from a JSON object in the body too.
pub struct QueryRequest {
    /// The parameters.
    pub parameters: Parameters,
    /// Client and form of the answer.
    pub asker: Asker,
}

impl<S: Send + Sync> FromRequest<S> for QueryRequest {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let (mut parts, body) = request.into_parts();
        let mut parameters = Parameters::from_request_parts(&mut parts, state).await?;
        if parts.method == Method::POST {
            let body = read_body(body).await?;
            parameters.pairs.extend(parse_body(&body)?);
        }
        let asker = Asker {
            client: client_of(&parts),
            path: parts.uri.path().to_owned(),
            parameters: parameters.without_range(),
            encoding: Encoding::accepted(&parts.headers),
            form: Form::accepted(&parts.headers),
            name: read_name(&parts.headers)?,
        };
        Ok(Self { parameters, asker })
    }
}

/// The client of a request.
fn client_of(parts: &Parts) -> Client {
    let connection: Option<&TcpConnectInfo> = parts.extensions.get();
    let address = connection.and_then(TcpConnectInfo::remote_addr);
    Client::new(address.map_or(IpAddr::from(Ipv4Addr::UNSPECIFIED), |address| address.ip()))
}

async fn read_body(body: Body) -> Result<Bytes, ApiError> {
    let Ok(read) = timeout(BODY_TIME, to_bytes(body, BODY_BYTES_MAX)).await else {
        let message = format!("the body did not arrive within {} s", BODY_TIME.as_secs());
        return Err(ApiError::new(ErrorKind::TooSlow, message));
    };
    read.map_err(|err| {
        if err
            .source()
            .is_some_and(|source| source.is::<LengthLimitError>())
        {
            let message = format!("the body has more than {BODY_BYTES_MAX} bytes");
            return ApiError::new(ErrorKind::BodyTooLarge, message);
        }
        ApiError::new(ErrorKind::BadParameter, format!("the body is cut: {err}"))
    })
}

/// Reads the parameters of a JSON object: strings, numbers, and arrays, which become the JSON that the URL has.
fn parse_body(body: &[u8]) -> Result<Vec<(String, String)>, ApiError> {
    let JsonPairs(pairs) = serde_json::from_slice(body).map_err(|err| {
        let message = format!("the body is not a JSON object: {err}");
        ApiError::new(ErrorKind::BadParameter, message)
            .with_hint(r#"write {"query": "{comm=\"sort\"}", "from": "now-1h"}"#)
    })?;
    let text = |(name, value): (String, Value)| match value {
        Value::String(text) => Ok((name, text)),
        Value::Number(_) | Value::Array(_) => Ok((name, value.to_string())),
        Value::Null | Value::Bool(_) | Value::Object(_) => {
            let message = format!("{value} is neither a text, nor a number, nor a list");
            Err(ApiError::in_parameter(
                ErrorKind::BadParameter,
                &name,
                message,
            ))
        }
    };
    pairs.into_iter().map(text).collect()
}

/// The entries of a JSON object, also those that come twice.
struct JsonPairs(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for JsonPairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;

        impl<'de> Visitor<'de> for Pairs {
            type Value = JsonPairs;

            fn expecting(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object with the parameters")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<JsonPairs, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(JsonPairs(pairs))
            }
        }

        deserializer.deserialize_map(Pairs)
    }
}

impl Parameters {
    /// All but the range, sorted.
    fn without_range(&self) -> Vec<(String, String)> {
        let is_range = |name: &str| matches!(name, "from" | "to");
        let pairs = self.pairs.iter().filter(|(name, _)| !is_range(name));
        let mut pairs: Vec<_> = pairs.cloned().collect();
        pairs.sort();
        pairs
    }

    /// Checks that all parameters are in `known`, or are common to all queries.
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

    /// One of these words; the first is the default.
    ///
    /// # Errors
    /// The value is none of them.
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
            let text = self.text(name).unwrap_or(default);
            parse_time(text, now_ms).map_err(|message| {
                let error = ApiError::in_parameter(ErrorKind::BadTime, name, message);
                if text.contains(' ') {
                    error.with_hint(format!("{PLUS_HINT}; {TIME_FORMS}"))
                } else {
                    error.with_hint(TIME_FORMS)
                }
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
