//! Names and values of labels.

use std::collections::BTreeSet;

use store::{Snapshot, StoreError};

use super::selector::Selector;

/// The names of labels that the selected series have, sorted.
///
/// # Errors
/// The store failed.
pub fn list_label_names(
    snapshot: &dyn Snapshot,
    selector: &Selector,
) -> Result<Vec<String>, StoreError> {
    let mut names = BTreeSet::new();
    for labels in selector.list_series(snapshot)?.iter() {
        names.extend(labels.iter().map(|(name, _)| name.to_owned()));
    }
    Ok(names.into_iter().collect())
}

/// The values that a label has among the selected series, sorted.
///
/// # Errors
/// The store failed.
pub fn list_label_values(
    snapshot: &dyn Snapshot,
    selector: &Selector,
    name: &str,
) -> Result<Vec<String>, StoreError> {
    let mut values = BTreeSet::new();
    for labels in selector.list_series(snapshot)?.iter() {
        match labels.value(name) {
            "" => {}
            value => drop(values.insert(value.to_owned())),
        }
    }
    Ok(values.into_iter().collect())
}
