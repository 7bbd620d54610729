//! Common parts of files with rules: their errors, which name the line and the rule, and the check of each rule.

use serde_saphyr::Spanned;

/// A mistake in a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{message}", show_place(*line, *rule))]
pub struct RuleFileError {
    /// The line, from 1; 0 if the mistake has none.
    pub line: u64,
    /// The number of the rule, from 1; 0 if it is in none.
    pub rule: usize,
    /// The mistake.
    pub message: String,
}

fn show_place(line: u64, rule: usize) -> String {
    match (line, rule) {
        (0, _) => String::new(),
        (_, 0) => format!("line {line}: "),
        _ => format!("line {line}, rule {rule}: "),
    }
}

/// The line of a mistake in a rule, and its text.
pub(crate) type Mistake = (u64, String);

impl RuleFileError {
    /// A mistake of the whole file.
    pub(crate) fn of_file(message: String) -> Self {
        Self {
            line: 0,
            rule: 0,
            message,
        }
    }

    /// An error of the YAML reader, with the one of these rules whose lines have it.
    pub(crate) fn of_yaml<T>(err: &serde_saphyr::Error, rules: &[Spanned<T>]) -> Self {
        let line = err.location().map_or(0, |location| location.line());
        let before = rules.iter();
        let before = before.take_while(|rule| rule.referenced.line() <= line);
        let message = err.without_snippet().to_string();
        // Its own words for the line.
        let message = message
            .rsplit_once(" at line ")
            .map_or(&*message, |(message, _)| message);
        Self {
            line,
            rule: before.count(),
            message: message.to_owned(),
        }
    }
}

/// Checks the size of a file before it is parsed.
pub(crate) fn check_size(text: &str, bytes_max: usize) -> Result<(), RuleFileError> {
    let bytes = text.len();
    if bytes > bytes_max {
        let message = format!("{bytes} bytes, and at most {bytes_max} are read");
        return Err(RuleFileError::of_file(message));
    }
    Ok(())
}

/// Checks each rule, with its line; the error has its number.
pub(crate) fn check_rules<T, Rule>(
    rules: Vec<Spanned<T>>,
    rules_max: usize,
    mut check: impl FnMut(T, u64) -> Result<Rule, Mistake>,
) -> Result<Vec<Rule>, RuleFileError> {
    if rules.len() > rules_max {
        let count = rules.len();
        let message = format!("{count} rules, and at most {rules_max} are taken");
        return Err(RuleFileError::of_file(message));
    }
    let numbered = rules.into_iter().zip(1..);
    let checked = numbered.map(|(rule, number)| {
        let line = rule.referenced.line();
        check(rule.value, line).map_err(|(line, message)| RuleFileError {
            line,
            rule: number,
            message,
        })
    });
    checked.collect()
}
