//! The labels of a series.

use std::fmt;

/// Bytes of a label's name or value in a message: a path has at most 4,096 (`PATH_MAX`).
pub const LABEL_BYTES_MAX: usize = 4096;

/// The labels of one series: sorted by name, names unique, values not empty.
///
/// A label that a series does not have equals `""`, as in Prometheus, so that an empty value cannot occur.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LabelSet {
    labels: Vec<(Box<str>, Box<str>)>,
}

/// Why a list of labels is not a label set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    /// The name does not have the form `[a-zA-Z_][a-zA-Z0-9_]*`.
    #[error("label name {0:?} does not have the form [a-zA-Z_][a-zA-Z0-9_]*")]
    Name(String),
    /// The value is empty.
    #[error("label {0:?} has an empty value")]
    EmptyValue(String),
    /// The names are not sorted, or one comes twice.
    #[error("label {1:?} comes after {0:?}: names must be sorted and unique")]
    Order(String, String),
}

impl LabelSet {
    /// Makes a label set of sorted pairs.
    ///
    /// # Errors
    /// The first label that breaks the form.
    pub fn from_sorted<N, V>(labels: impl IntoIterator<Item = (N, V)>) -> Result<Self, LabelError>
    where
        N: Into<Box<str>>,
        V: Into<Box<str>>,
    {
        let mut checked: Vec<(Box<str>, Box<str>)> = Vec::new();
        for (name, value) in labels {
            let (name, value) = (name.into(), value.into());
            if !is_label_name(&name) {
                return Err(LabelError::Name(name.into()));
            }
            if value.is_empty() {
                return Err(LabelError::EmptyValue(name.into()));
            }
            if let Some((before, _)) = checked.last()
                && *before >= name
            {
                return Err(LabelError::Order(before.to_string(), name.into()));
            }
            checked.push((name, value));
        }
        Ok(Self { labels: checked })
    }

    /// The value of a label, `""` if the series does not have it.
    pub fn value(&self, name: &str) -> &str {
        match self.labels.binary_search_by(|(n, _)| (**n).cmp(name)) {
            Ok(found) => &self.labels[found].1,
            Err(_) => "",
        }
    }

    /// The pairs, sorted by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.labels.iter().map(|(name, value)| (&**name, &**value))
    }

    /// Bytes on the heap, for bounded caches.
    pub fn heap_bytes(&self) -> usize {
        // Two fat pointers a pair, and the text behind them.
        self.labels
            .iter()
            .map(|(n, v)| 32 + n.len() + v.len())
            .sum()
    }
}

impl fmt::Display for LabelSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (i, (name, value)) in self.iter().enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            write!(f, "{comma}{name}={value:?}")?;
        }
        f.write_str("}")
    }
}

/// Says whether a label may have this name.
pub fn is_label_name(name: &str) -> bool {
    let starts = |b: u8| b.is_ascii_alphabetic() || b == b'_';
    name.bytes().next().is_some_and(starts) && name.bytes().all(|b| starts(b) || b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_label_is_empty() {
        let labels = LabelSet::from_sorted([("comm", "sort"), ("node", "a")]).unwrap();
        assert_eq!(labels.value("comm"), "sort");
        assert_eq!(labels.value("pod"), "");
        assert_eq!(labels.to_string(), r#"{comm="sort", node="a"}"#);
    }

    #[test]
    fn broken_forms_are_named() {
        let error =
            |pairs: &[(&str, &str)]| LabelSet::from_sorted(pairs.iter().copied()).unwrap_err();
        assert_eq!(error(&[("9a", "x")]), LabelError::Name("9a".into()));
        assert_eq!(error(&[("", "x")]), LabelError::Name("".into()));
        assert_eq!(error(&[("a", "")]), LabelError::EmptyValue("a".into()));
        assert_eq!(
            error(&[("b", "x"), ("a", "x")]),
            LabelError::Order("b".into(), "a".into())
        );
        assert_eq!(
            error(&[("a", "x"), ("a", "y")]),
            LabelError::Order("a".into(), "a".into())
        );
    }
}
