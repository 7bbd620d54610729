//! The section of label sets.

#[cfg(any(test, feature = "test-support"))]
use model::ContainerAccount;
use model::LabelSet;

#[cfg(any(test, feature = "test-support"))]
use super::super::columns::ColumnWriter;
use super::super::columns::{ColumnReader, Damaged};

#[cfg(any(test, feature = "test-support"))]
pub(super) fn encode_labels(series: &[LabelSet], containers: &[ContainerAccount]) -> Vec<u8> {
    let mut out = ColumnWriter::default();
    out.put(series.len() as u64);
    series
        .iter()
        .for_each(|labels| put_label_set(&mut out, labels));
    out.put(containers.len() as u64);
    containers
        .iter()
        .for_each(|account| put_label_set(&mut out, &account.labels));
    out.into_bytes()
}

/// Writes one label set; the catalog uses the same form.
#[cfg(any(test, feature = "test-support"))]
fn put_label_set(out: &mut ColumnWriter, labels: &LabelSet) {
    out.put(labels.iter().len() as u64);
    for (name, value) in labels.iter() {
        out.put_text(name);
        out.put_text(value);
    }
}

/// Reads one label set.
///
/// # Errors
/// The bytes are damaged.
fn take_label_set(from: &mut ColumnReader<'_>) -> Result<LabelSet, Damaged> {
    let pairs: Vec<_> = from.take_list(|from| Ok((from.take_text()?, from.take_text()?)))?;
    LabelSet::from_sorted(pairs).map_err(|_| Damaged("a label set is not valid"))
}

/// The label sets of a window.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WindowLabels {
    /// Those of the series.
    pub series: Vec<LabelSet>,
    /// Those of the accounts of containers.
    pub containers: Vec<LabelSet>,
}

/// Reads [`Section::Labels`](super::Section::Labels).
///
/// # Errors
/// The bytes are damaged.
pub fn decode_labels(bytes: &[u8]) -> Result<WindowLabels, Damaged> {
    let mut from = ColumnReader::new(bytes);
    let series = from.take_list(take_label_set)?;
    // Records of earlier versions end here.
    let containers = if from.is_empty() {
        Vec::new()
    } else {
        from.take_list(take_label_set)?
    };
    from.finish()?;
    Ok(WindowLabels { series, containers })
}
