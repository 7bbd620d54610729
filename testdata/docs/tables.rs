//! Reads tables of the pages under docs/, for tests that compare them with the code. Included by
//! path, since collector and server have no common crate for it.

use std::collections::BTreeSet;
use std::path::Path;

/// The rows of the tables below a heading, without the head rows, up to the next heading of the
/// same or a higher level.
pub(crate) fn rows(page: &str, heading: &str) -> Vec<Vec<String>> {
    let text = read(page);
    let level = heading.chars().take_while(|char| *char == '#').count();
    let is_end = |line: &str| {
        let marks = line.chars().take_while(|char| *char == '#').count();
        (1..=level).contains(&marks)
    };
    let mut lines = text.lines().skip_while(|line| *line != heading);
    assert!(
        lines.next().is_some(),
        "docs/{page} has no heading `{heading}`"
    );
    let mut rows: Vec<Vec<String>> = Vec::new();
    for line in lines.take_while(|line| !is_end(line)) {
        if line.starts_with("| ---") {
            // The line above it is the head row.
            rows.pop();
        } else if let Some(cells) = line.strip_prefix('|') {
            let cells = cells.trim_end().trim_end_matches('|').split(" | ");
            rows.push(cells.map(|cell| cell.trim().to_owned()).collect());
        }
    }
    rows
}

/// The codes (texts in backticks) in the first column of the table that follows the first line with
/// `introduction`.
pub(crate) fn codes(page: &str, introduction: &str) -> BTreeSet<String> {
    let text = read(page);
    let table = text
        .lines()
        .skip_while(|line| !line.contains(introduction))
        .skip_while(|line| !line.starts_with("| ---"))
        .skip(1)
        .take_while(|line| line.starts_with('|'));
    let first_cells = table.filter_map(|line| line.split('|').nth(1));
    first_cells.flat_map(quoted).collect()
}

/// The texts in backticks.
pub(crate) fn quoted(text: &str) -> Vec<String> {
    text.split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

/// The text of a page.
pub(crate) fn read(page: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../docs")
        .join(page);
    std::fs::read_to_string(&path).unwrap_or_else(|err| panic!("{}: {err}", path.display()))
}

/// Compares the flags of a program with the table below `heading` in docs/configuration.md: names, variables and defaults.
pub(crate) fn compare_flags(heading: &str, command: &clap::Command) {
    let documented: BTreeSet<_> = rows("configuration.md", heading)
        .into_iter()
        .map(|row| (row[0].clone(), row[1].clone(), row[2].clone()))
        .collect();
    let arguments = command.get_arguments().filter_map(|argument| {
        let long = argument.get_long()?;
        let variable = argument.get_env()?.to_string_lossy();
        let defaults = argument.get_default_values();
        // A flag without a default has a description in this column.
        let default = match defaults.first() {
            Some(value) => format!("`{}`", value.to_string_lossy()),
            None => documented
                .iter()
                .find(|(flag, _, words)| *flag == format!("`--{long}`") && !words.starts_with('`'))
                .map(|(_, _, words)| words.clone())?,
        };
        Some((format!("`--{long}`"), format!("`{variable}`"), default))
    });
    let actual: BTreeSet<_> = arguments.collect();
    assert_eq!(documented, actual, "docs/configuration.md, {heading}");
}

/// Checks that the flags in docs/limits.md below a heading are flags of the program.
pub(crate) fn assert_limits_name_flags(heading: &str, command: &clap::Command) {
    let known: BTreeSet<_> = command
        .get_arguments()
        .filter_map(clap::Arg::get_long)
        .map(|long| format!("--{long}"))
        .collect();
    for row in rows("limits.md", heading) {
        for flag in quoted(&row[2])
            .into_iter()
            .filter(|text| text.starts_with("--"))
        {
            assert!(
                known.contains(&flag),
                "docs/limits.md, {heading}: there is no flag {flag}"
            );
        }
    }
}
