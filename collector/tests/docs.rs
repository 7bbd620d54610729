//! The pages under docs/ say what the collector does: its flags, its outcomes and its reasons.

use std::collections::BTreeSet;

use clap::CommandFactory as _;
use collector::config::Arguments;
use collector::file::UnnamedReason;
use collector::locate::StackOutcome;
use collector::send::{DropReason, UploadEnd};
use profiler_bpf::outcome::Outcome;

#[path = "../../testdata/docs/tables.rs"]
mod tables;

use tables::{assert_limits_name_flags, codes, compare_flags, read};

fn set<'a>(names: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
    names.into_iter().map(str::to_owned).collect()
}

/// Check that configuration.md has each flag with its variable and its default, and no other.
#[test]
fn flags() {
    compare_flags("## Collector", &Arguments::command());
}

/// Check that the flags in limits.md exist.
#[test]
fn limits() {
    assert_limits_name_flags("## Collector", &Arguments::command());
}

/// Check that troubleshooting.md has each way in which a stack's walk can end.
#[test]
fn outcomes() {
    let later = [
        StackOutcome::StaleRows,
        StackOutcome::BadReturnAddress,
        StackOutcome::ProcessUnknown,
        StackOutcome::Copied,
    ];
    // A new variant is an error here until it is listed above and on the page.
    for outcome in later {
        match outcome {
            StackOutcome::Walked(_)
            | StackOutcome::StaleRows
            | StackOutcome::BadReturnAddress
            | StackOutcome::ProcessUnknown
            | StackOutcome::Copied => {}
        }
    }
    let names = Outcome::ALL
        .map(Outcome::name)
        .into_iter()
        .chain(later.map(StackOutcome::name));
    assert_eq!(codes("troubleshooting.md", "## Stacks"), set(names));
}

/// Check that troubleshooting.md has each reason for which a frame has no name.
#[test]
fn reasons() {
    let documented = codes("troubleshooting.md", "## Frames without a name");
    for reason in UnnamedReason::ALL {
        assert!(documented.contains(reason.as_str()), "{}", reason.as_str());
    }
}

/// Check that troubleshooting.md has each reason for which a window is dropped, and each end of an upload.
#[test]
fn ends() {
    assert_eq!(
        codes(
            "troubleshooting.md",
            "`pilotlight_collector_windows_dropped_total`, at"
        ),
        set(DropReason::ALL.map(DropReason::as_str))
    );
    let page = read("troubleshooting.md");
    for end in UploadEnd::ALL {
        assert!(
            page.contains(&format!("`{}`", end.as_str())),
            "{}",
            end.as_str()
        );
    }
}
