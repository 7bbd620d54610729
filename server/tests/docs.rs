//! The pages under docs/ agree with the server: its flags, and its reasons for refusals.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use clap::CommandFactory as _;
use metrics::{Exposition, Registry};
use model::WhyNot;
use model::outcome::OUTCOMES;
use server::config::Typed;
use server::receive::RefusalReason;
use server::serve::http::error::{ApiError, ErrorKind};
use server::store_state::register_numbers;
use store::embedded::report::RecoveryReport;
use store::{MemoryStore, StoreMetrics};
use symbolize::index::RefusalKind;

#[path = "../../testdata/docs/tables.rs"]
mod tables;

use tables::{assert_limits_name_flags, codes, compare_flags, rows};

fn set<'a>(names: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
    names.into_iter().map(str::to_owned).collect()
}

/// Check that configuration.md has each flag with its variable and its default, and no other.
#[test]
fn flags() {
    compare_flags("## Server", &Typed::command());
}

/// Check that the flags in limits.md exist.
#[test]
fn limits() {
    for heading in [
        "## Server: receiving",
        "## Server: storing",
        "## Server: answering",
        "## Server: symbols",
    ] {
        assert_limits_name_flags(heading, &Typed::command());
    }
}

/// Check that troubleshooting.md has each outcome that the server knows.
#[test]
fn outcomes() {
    let documented = codes("troubleshooting.md", "## Stacks");
    for (outcome, _) in OUTCOMES {
        assert!(documented.contains(outcome), "{outcome}");
    }
}

/// Check that troubleshooting.md has each reason for which a frame has no name, and no other.
#[test]
fn reasons() {
    assert_eq!(
        codes("troubleshooting.md", "## Frames without a name"),
        set(WhyNot::all().map(WhyNot::code))
    );
}

/// Check that troubleshooting.md has each reason for which a window is refused, and no other.
#[test]
fn refused_windows() {
    assert_eq!(
        codes(
            "troubleshooting.md",
            "`pilotlight_server_windows_refused_total`, at"
        ),
        set(RefusalReason::ALL.map(RefusalReason::name))
    );
}

/// Check that troubleshooting.md has each kind of recovery, and no other.
#[test]
fn recovery() {
    let metrics = expose_store_metrics();
    let kinds = metrics.lines().filter_map(|line| {
        let kind = line.strip_prefix("pilotlight_server_recovery{kind=\"")?;
        kind.split('"').next()
    });
    assert_eq!(
        codes("troubleshooting.md", "`pilotlight_server_recovery` has"),
        set(kinds)
    );
}

/// Check that troubleshooting.md has the store's metrics, and no other.
#[test]
fn store_metrics() {
    let metrics = expose_store_metrics();
    let exposed = metrics.lines().filter_map(|line| {
        let name = line.strip_prefix("# TYPE pilotlight_server_")?;
        name.split(' ').next()
    });
    let mut documented = codes("troubleshooting.md", "## Stored profiles");
    documented.insert("recovery".to_owned());
    let documented = documented.iter().map(|name| {
        name.trim_start_matches("pilotlight_server_")
            .trim_start_matches("…_")
    });
    assert_eq!(set(documented), set(exposed));
}

/// All metrics of a store.
fn expose_store_metrics() -> String {
    let mut registry = Registry::with_prefix("pilotlight_server");
    let metrics = StoreMetrics::default();
    metrics.register(&mut registry);
    metrics.note_recovery(&RecoveryReport::default());
    register_numbers(&mut registry, Arc::new(MemoryStore::default()));
    Exposition::Text
        .encode(&registry)
        .expect("the types are supported")
}

/// Check that troubleshooting.md has each reason for which a file with symbols is refused.
#[test]
fn refused_files() {
    let documented = codes(
        "troubleshooting.md",
        "## Symbols that the server did not take",
    );
    for kind in RefusalKind::ALL {
        assert!(documented.contains(kind.name()), "{}", kind.name());
    }
}

/// Check that troubleshooting.md has each kind of error, and the status that it is answered with.
#[test]
fn errors() {
    let mut documented = BTreeSet::new();
    for row in rows("troubleshooting.md", "## Requests that are refused") {
        let kinds = tables::quoted(&row[0]);
        let mut statuses: Vec<_> = row[1].split(", ").collect();
        if statuses.len() == 1 {
            statuses = vec![statuses[0]; kinds.len()];
        }
        documented.extend(
            kinds
                .into_iter()
                .zip(statuses.into_iter().map(str::to_owned)),
        );
    }
    let actual: BTreeSet<_> = ErrorKind::ALL
        .map(|kind| {
            let name = serde_json::to_value(kind).unwrap();
            let status = ApiError::new(kind, "").status().as_u16().to_string();
            (name.as_str().unwrap().to_owned(), status)
        })
        .into();
    assert_eq!(documented, actual);
}

/// Check that each link from one page to another leads to a file, and to a heading in it.
#[test]
fn links() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut pages: Vec<_> = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"]
        .map(|name| root.join(name))
        .into();
    let docs = std::fs::read_dir(root.join("docs")).unwrap();
    pages.extend(
        docs.map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "md")),
    );
    for page in pages {
        let text = std::fs::read_to_string(&page).unwrap();
        for link in text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
            .filter(|link| !link.contains("://"))
        {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() {
                page.clone()
            } else {
                page.with_file_name(file)
            };
            assert!(target.exists(), "{}: {link}", page.display());
            if !anchor.is_empty() {
                let text = std::fs::read_to_string(&target).unwrap();
                let found = text
                    .lines()
                    .filter(|line| line.starts_with('#'))
                    .any(|line| anchor_of(line) == anchor);
                assert!(found, "{}: {link}", page.display());
            }
        }
    }
}

/// The anchor that a heading gets: letters, digits and hyphens in lower case, spaces as hyphens.
fn anchor_of(heading: &str) -> String {
    heading
        .trim_start_matches('#')
        .trim()
        .chars()
        .filter_map(|char| match char {
            ' ' => Some('-'),
            '-' | '_' => Some(char),
            _ => char.is_alphanumeric().then(|| char.to_ascii_lowercase()),
        })
        .collect()
}
