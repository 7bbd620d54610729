//! Files with rules of relabelling.
//!
//! In: YAML with the key `relabel_configs`, a list of rules as in Prometheus' configuration. Out: checked rules, or the first mistake
//! with its line and the number of its rule, from 1. Defaults and checks are those of Prometheus.

use regex::{Regex, RegexBuilder};
use serde::{Deserialize, de::IgnoredAny};
use serde_saphyr::Spanned;

use super::rule::{Action, Rule, is_label_name};
use crate::rule_file::{Mistake, RuleFileError, check_rules, check_size};

/// Size of a file. A rule has some 200 bytes.
const FILE_BYTES_MAX: usize = 256 * 1024;

/// Rules of a file. Each series of a window passes all of them, on the thread that names windows.
const RULES_MAX: usize = 128;

/// Memory of a compiled expression and of its cache: 128 rules take 48 MB at most. Common ones have some 10 KB.
const REGEX_BYTES_MAX: usize = 256 * 1024;
const REGEX_CACHE_BYTES_MAX: usize = 128 * 1024;

/// Depth of nested groups in an expression.
const REGEX_DEPTH_MAX: u32 = 64;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File<T> {
    relabel_configs: Vec<Spanned<T>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleText {
    action: Option<Spanned<String>>,
    source_labels: Option<Spanned<Vec<String>>>,
    separator: Option<Spanned<String>>,
    target_label: Option<Spanned<String>>,
    regex: Option<Spanned<String>>,
    replacement: Option<Spanned<String>>,
    modulus: Option<Spanned<u64>>,
}

/// Reads the rules of a file.
pub(super) fn parse_rules(text: &str) -> Result<Vec<Rule>, RuleFileError> {
    check_size(text, FILE_BYTES_MAX)?;
    let file: File<RuleText> =
        serde_saphyr::from_str(text).map_err(|err| locate_error(text, &err))?;
    check_rules(file.relabel_configs, RULES_MAX, check_rule)
}

/// An error of the YAML reader, with the rule whose lines have it.
fn locate_error(text: &str, err: &serde_saphyr::Error) -> RuleFileError {
    let rules = serde_saphyr::from_str::<File<IgnoredAny>>(text);
    let rules = rules.map_or_else(|_| Vec::new(), |file| file.relabel_configs);
    let mut err = RuleFileError::of_yaml(err, &rules);
    if !text.contains("relabel_configs:") {
        err.message += ": the file has one key, relabel_configs, with a list of rules";
    }
    err
}

fn check_rule(text: RuleText, line: u64) -> Result<Rule, Mistake> {
    let line_of = |field: Option<u64>| field.unwrap_or(line);
    let action = read_action(text.action.as_ref())?;
    check_fields(action, &text)?;

    let source_labels = text.source_labels.as_ref();
    for name in source_labels.map_or(&[][..], |names| &names.value) {
        if !is_label_name(name) {
            let at = source_labels.map(|names| names.referenced.line());
            return Err((line_of(at), not_a_name("source_labels", name)));
        }
    }
    let target = text.target_label.as_ref();
    let target_line = line_of(target.map(|target| target.referenced.line()));
    let target_label = target.map_or("", |target| &target.value);
    let wants_target = matches!(
        action,
        Action::Replace
            | Action::HashMod
            | Action::Lowercase
            | Action::Uppercase
            | Action::KeepEqual
            | Action::DropEqual
    );
    if wants_target {
        let is_template = action == Action::Replace && target_label.contains('$');
        if target_label.is_empty() {
            return Err((target_line, "target_label is missing".into()));
        } else if !is_template && !is_label_name(target_label) {
            return Err((target_line, not_a_name("target_label", target_label)));
        } else if target_label == "node" && !matches!(action, Action::KeepEqual | Action::DropEqual)
        {
            let message = "the label node cannot be changed: the server refuses windows whose series \
                           name another node than their collector; set --node";
            return Err((target_line, message.into()));
        }
    }
    let modulus = text.modulus.as_ref().map_or(0, |modulus| modulus.value);
    if action == Action::HashMod && modulus == 0 {
        let at = text
            .modulus
            .as_ref()
            .map(|modulus| modulus.referenced.line());
        return Err((line_of(at), "hashmod needs a modulus above 0".into()));
    }
    let value = |text: Option<Spanned<String>>, default: &str| {
        text.map_or_else(|| default.to_owned(), |text| text.value)
    };
    let target_label = target_label.to_owned();
    Ok(Rule {
        regex: compile(text.regex.as_ref(), line)?,
        source_labels: text
            .source_labels
            .map_or_else(Vec::new, |names| names.value),
        separator: value(text.separator, ";"),
        replacement: value(text.replacement, "$1"),
        action,
        target_label,
        modulus,
    })
}

fn not_a_name(field: &str, name: &str) -> String {
    format!("{field} has {name:?}: a label name has the form [a-zA-Z_][a-zA-Z0-9_]*")
}

fn read_action(text: Option<&Spanned<String>>) -> Result<Action, Mistake> {
    let Some(text) = text else {
        return Ok(Action::Replace);
    };
    let name = text.value.to_ascii_lowercase();
    let known = Action::ALL.into_iter().find(|(known, _)| *known == name);
    known.map(|(_, action)| action).ok_or_else(|| {
        let names = Action::ALL.map(|(name, _)| name).join(", ");
        let message = format!("action is {:?}: expected one of {names}", text.value);
        (text.referenced.line(), message)
    })
}

/// Checks that a rule has no fields that its action does not use.
fn check_fields(action: Action, text: &RuleText) -> Result<(), Mistake> {
    let RuleText {
        action: _,
        source_labels,
        separator,
        target_label,
        regex,
        replacement,
        modulus,
    } = text;
    let line = |text: &Option<Spanned<String>>| text.as_ref().map(|text| text.referenced.line());
    let sources = source_labels.as_ref().map(|names| names.referenced.line());
    let modulus = modulus.as_ref().map(|modulus| modulus.referenced.line());
    let (separator, target_label) = (line(separator), line(target_label));
    let (regex, replacement) = (line(regex), line(replacement));
    let (name, unused): (_, &[_]) = match action {
        Action::LabelDrop | Action::LabelKeep => (
            "labeldrop and labelkeep use regex alone",
            &[sources, separator, target_label, replacement, modulus],
        ),
        Action::KeepEqual | Action::DropEqual => (
            "keepequal and dropequal use source_labels and target_label alone",
            &[separator, regex, replacement, modulus],
        ),
        Action::Lowercase | Action::Uppercase => (
            "lowercase and uppercase do not use replacement",
            &[replacement],
        ),
        _ => return Ok(()),
    };
    match unused.iter().flatten().next() {
        Some(line) => Err((*line, name.into())),
        None => Ok(()),
    }
}

/// Compiles an expression that matches whole texts, also those with line breaks.
fn compile(text: Option<&Spanned<String>>, line: u64) -> Result<Regex, Mistake> {
    let line = text.map_or(line, |text| text.referenced.line());
    let expression = text.map_or("(.*)", |text| &text.value);
    // Alone at first, so that `a)(b` is a mistake.
    let parsed = RegexBuilder::new(expression)
        .size_limit(REGEX_BYTES_MAX)
        .nest_limit(REGEX_DEPTH_MAX)
        .build();
    let anchored = parsed.and_then(|_| {
        RegexBuilder::new(&format!("^(?s:{expression})$"))
            .size_limit(REGEX_BYTES_MAX)
            .dfa_size_limit(REGEX_CACHE_BYTES_MAX)
            .nest_limit(REGEX_DEPTH_MAX + 1)
            .build()
    });
    anchored.map_err(|err| {
        let message = match err {
            regex::Error::CompiledTooBig(bytes) => format!(
                "regex {expression:?} takes more than {bytes} bytes of memory: [a-z] instead of \\w, and fewer \
                 repetitions, make it smaller"
            ),
            // The last line has the cause, those before it a drawing.
            err => {
                let err = err.to_string();
                let cause = err.lines().last().unwrap_or_default();
                format!("regex {expression:?}: {}", cause.trim_start_matches("error: "))
            }
        };
        (line, message)
    })
}
