//! Typed values -> values, one method a type. Wrong ones are collected.

use std::{
    fmt::Display,
    net::SocketAddr,
    ops::{RangeBounds, RangeInclusive},
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use listen::hosts::read_name;
use thiserror::Error;

/// An invalid value.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{flag} is `{value}`: {want}")]
pub struct BadValue {
    flag: &'static str,
    value: String,
    want: String,
}

/// Collects the invalid values.
#[derive(Debug, Default)]
pub(super) struct Checks {
    pub(super) bad: Vec<BadValue>,
}

impl Checks {
    /// A value that `parse` accepts; `None` if it is invalid.
    pub(super) fn value<T>(
        &mut self,
        flag: &'static str,
        value: &str,
        want: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let parsed = parse(value);
        if parsed.is_none() {
            self.bad.push(BadValue {
                flag,
                value: value.to_owned(),
                want: format!("expected {want}"),
            });
        }
        parsed
    }

    pub(super) fn boolean(&mut self, flag: &'static str, value: &str) -> bool {
        let parsed = self.value(flag, value, "true or false", |text| text.parse().ok());
        parsed.unwrap_or_default()
    }

    pub(super) fn number<T: Copy + Default + Display + FromStr + PartialOrd>(
        &mut self,
        flag: &'static str,
        value: &str,
        range: RangeInclusive<T>,
    ) -> T {
        let (min, max) = (range.start(), range.end());
        let want = format!("a whole number from {min} to {max}");
        let parse = |text: &str| text.parse().ok().filter(|number| range.contains(number));
        self.value(flag, value, &want, parse).unwrap_or_default()
    }

    pub(super) fn bytes(
        &mut self,
        flag: &'static str,
        value: &str,
        range: impl RangeBounds<u64>,
        want: &str,
    ) -> u64 {
        let parse = |text: &str| parse_bytes(text).filter(|bytes| range.contains(bytes));
        self.value(flag, value, want, parse).unwrap_or_default()
    }

    /// A part of 1, from a percentage in a range.
    pub(super) fn percentage(
        &mut self,
        flag: &'static str,
        value: &str,
        range: RangeInclusive<f64>,
    ) -> f64 {
        let (min, max) = (range.start(), range.end());
        let want = format!("a percentage from {min} to {max}");
        let parse = |text: &str| Some(parse_percent(text, &range)? / 100.0);
        self.value(flag, value, &want, parse).unwrap_or_default()
    }

    /// The choice with this word.
    pub(super) fn choice<T: Copy>(
        &mut self,
        flag: &'static str,
        value: &str,
        choices: [(&str, T); 2],
    ) -> T {
        let want = choices.map(|(word, _)| word).join(" or ");
        let parse = |text: &str| {
            let mut choices = choices.iter();
            let (_, choice) = choices.find(|(word, _)| *word == text)?;
            Some(*choice)
        };
        let found = self.value(flag, value, &want, parse);
        found.unwrap_or(choices[0].1)
    }

    pub(super) fn server(&mut self, flag: &'static str, value: &str) -> String {
        let want = if value.starts_with("https://") {
            "http://…: the collector has no TLS yet. Profiles cross the network in clear, so use a private network, or a tunnel \
             that encrypts"
        } else {
            "a URL like http://server:7071"
        };
        let parsed = self.value(flag, value, want, |text| {
            let host = text.strip_prefix("http://")?;
            let is_host = !host.is_empty() && !host.contains(char::is_whitespace);
            is_host.then(|| text.to_owned())
        });
        parsed.unwrap_or_default()
    }

    pub(super) fn address(&mut self, flag: &'static str, value: &str) -> SocketAddr {
        let want = "an address like 127.0.0.1:7072";
        let parsed = self.value(flag, value, want, |text| text.parse().ok());
        parsed.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 7072)))
    }

    pub(super) fn hosts(&mut self, flag: &'static str, values: &[String]) -> Vec<String> {
        let want = "a name without a port, like node1.example.com";
        let parse = |name: &String| self.value(flag, name, want, read_name);
        values.iter().filter_map(parse).collect()
    }

    /// The length of a window. Windows begin at multiples of their length, and a minute begins one.
    pub(super) fn window(&mut self, flag: &'static str, value: &str) -> Duration {
        let want = "whole seconds from 1s to 30s that divide a minute, like 10s";
        let parsed = self.value(flag, value, want, |text| {
            let seconds: u64 = text.strip_suffix('s')?.parse().ok()?;
            let is_valid = (1..=30).contains(&seconds) && 60 % seconds == 0;
            is_valid.then(|| Duration::from_secs(seconds))
        });
        parsed.unwrap_or_default()
    }

    /// An absolute path, or `none`.
    pub(super) fn folder(&mut self, flag: &'static str, value: &str) -> Option<PathBuf> {
        let want = "an absolute path like /var/cache/pilotlight, or none";
        let parsed = self.value(flag, value, want, |text| match text {
            "none" => Some(None),
            path => path.starts_with('/').then(|| Some(path.into())),
        });
        parsed.flatten()
    }

    pub(super) fn log_filter(&mut self, flag: &'static str, value: &str) -> String {
        let want = "a filter like info or info,collector::name=debug";
        let parsed = self.value(flag, value, want, |text| {
            let filter = text.parse::<tracing_subscriber::EnvFilter>().ok();
            filter.map(|_| text.to_owned())
        });
        parsed.unwrap_or_default()
    }
}

/// Parses `5` and `0.8%`.
fn parse_percent(text: &str, range: &RangeInclusive<f64>) -> Option<f64> {
    let percent: f64 = text.strip_suffix('%').unwrap_or(text).parse().ok()?;
    range.contains(&percent).then_some(percent)
}

/// Parses `512`, `64MiB`, `1GiB`, `10MB`.
pub(super) fn parse_bytes(text: &str) -> Option<u64> {
    const UNITS: [(&str, u64); 6] = [
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("kB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
    ];
    let (number, unit) = UNITS
        .into_iter()
        .find_map(|(name, unit)| Some((text.strip_suffix(name)?, unit)))
        .unwrap_or((text, 1));
    number.parse::<u64>().ok()?.checked_mul(unit)
}
