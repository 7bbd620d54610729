//! One rule of relabelling.

use md5::{Digest as _, Md5};
use regex::Regex;

use crate::labels::Labels;

/// Action of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Replace,
    Keep,
    Drop,
    KeepEqual,
    DropEqual,
    HashMod,
    LabelMap,
    LabelDrop,
    LabelKeep,
    Lowercase,
    Uppercase,
}

impl Action {
    /// All actions, by their names in files.
    pub(super) const ALL: [(&str, Self); 11] = [
        ("replace", Self::Replace),
        ("keep", Self::Keep),
        ("drop", Self::Drop),
        ("keepequal", Self::KeepEqual),
        ("dropequal", Self::DropEqual),
        ("hashmod", Self::HashMod),
        ("labelmap", Self::LabelMap),
        ("labeldrop", Self::LabelDrop),
        ("labelkeep", Self::LabelKeep),
        ("lowercase", Self::Lowercase),
        ("uppercase", Self::Uppercase),
    ];
}

/// Result for a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Keep,
    Drop,
}

/// A rule whose fields were checked.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) action: Action,
    pub(super) source_labels: Vec<String>,
    pub(super) separator: String,
    pub(super) target_label: String,
    /// Matches whole texts only.
    pub(super) regex: Regex,
    pub(super) replacement: String,
    pub(super) modulus: u64,
}

impl Rule {
    /// Applies the rule.
    pub(super) fn apply(&self, labels: &mut Labels) -> Verdict {
        let value = self.source_value(labels);
        let is_kept = match self.action {
            Action::Keep => self.regex.is_match(&value),
            Action::Drop => !self.regex.is_match(&value),
            Action::KeepEqual => find(labels, &self.target_label) == value,
            Action::DropEqual => find(labels, &self.target_label) != value,
            _ => {
                self.change(labels, &value);
                true
            }
        };
        if is_kept {
            Verdict::Keep
        } else {
            Verdict::Drop
        }
    }

    /// The values of the source labels, `""` for one that the series does not have.
    fn source_value(&self, labels: &Labels) -> String {
        let values = self.source_labels.iter().map(|name| find(labels, name));
        values.collect::<Vec<_>>().join(&self.separator)
    }

    fn change(&self, labels: &mut Labels, value: &str) {
        match self.action {
            Action::Replace => self.replace(labels, value),
            Action::HashMod => {
                let hash = hash(value) % self.modulus;
                set(labels, &self.target_label, hash.to_string());
            }
            Action::Lowercase => set(labels, &self.target_label, value.to_lowercase()),
            Action::Uppercase => set(labels, &self.target_label, value.to_uppercase()),
            Action::LabelMap => self.map_names(labels),
            Action::LabelDrop => labels.retain(|name, _| !self.regex.is_match(name)),
            Action::LabelKeep => labels.retain(|name, _| self.regex.is_match(name)),
            Action::Keep | Action::Drop | Action::KeepEqual | Action::DropEqual => {}
        }
    }

    fn replace(&self, labels: &mut Labels, value: &str) {
        let Some(captures) = self.regex.captures(value) else {
            return;
        };
        let expand = |template: &str| {
            let mut expanded = String::new();
            captures.expand(template, &mut expanded);
            expanded
        };
        let target = expand(&self.target_label);
        if is_label_name(&target) {
            set(labels, &target, expand(&self.replacement));
        }
    }

    fn map_names(&self, labels: &mut Labels) {
        let mapped: Vec<(String, String)> = labels
            .iter()
            .filter(|(name, _)| self.regex.is_match(name))
            .map(|(name, value)| {
                let name = self.regex.replace(name, &self.replacement).into_owned();
                (name, value.clone())
            })
            .collect();
        for (name, value) in mapped {
            // Prometheus checks the name when it stores the series.
            if is_label_name(&name) {
                set(labels, &name, value);
            }
        }
    }
}

fn find<'a>(labels: &'a Labels, name: &str) -> &'a str {
    labels.get(name).map_or("", String::as_str)
}

/// Sets a label; one without a value is removed.
fn set(labels: &mut Labels, name: &str, value: String) {
    if value.is_empty() {
        labels.remove(name);
    } else if let Some(known) = labels.get_mut(name) {
        *known = value;
    } else {
        labels.insert(name.to_owned().into(), value);
    }
}

/// The last eight bytes of the MD5 sum.
fn hash(value: &str) -> u64 {
    let sum: [u8; 16] = Md5::digest(value).into();
    sum[8..]
        .iter()
        .fold(0, |hash, byte| hash << 8 | u64::from(*byte))
}

/// Whether a label may have this name: `[a-zA-Z_][a-zA-Z0-9_]*`.
pub(super) fn is_label_name(name: &str) -> bool {
    let can_start = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
    name.bytes().next().is_some_and(can_start)
        && name
            .bytes()
            .all(|byte| can_start(byte) || byte.is_ascii_digit())
}
