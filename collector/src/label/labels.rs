//! Label sets.

use proto::v1::{Label, LabelSet};

use crate::aggregate::SeriesKey;

/// Bytes of a label's value: a path has at most 4,096 (PATH_MAX), and the server
/// takes no more. Bytes that are no UTF-8 become three, so that a path can be longer here.
const VALUE_BYTES_MAX: usize = 4096;

/// The labels of a series on this node, sorted by name. Labels without a value are left out.
pub fn make_label_set(node: &str, series: &SeriesKey) -> LabelSet {
    // Every field must be thought of: a new one is a compile error here.
    let SeriesKey {
        comm,
        exe,
        container_id,
    } = series;
    let labels = [
        ("comm", Some(&**comm)),
        ("container_id", container_id.as_deref()),
        ("exe", exe.as_deref()),
        ("node", Some(node)),
    ];
    LabelSet {
        labels: labels
            .into_iter()
            .filter_map(|(name, value)| {
                let value = value.filter(|value| !value.is_empty())?;
                let value = &value[..value.floor_char_boundary(VALUE_BYTES_MAX)];
                Some(Label {
                    name: name.into(),
                    value: value.into(),
                })
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(exe: Option<&str>, container_id: Option<&str>) -> Vec<String> {
        let series = SeriesKey {
            comm: "sh".into(),
            exe: exe.map(Into::into),
            container_id: container_id.map(Into::into),
        };
        make_label_set("n1", &series)
            .labels
            .into_iter()
            .map(|label| format!("{}={}", label.name, label.value))
            .collect()
    }

    /// Check that labels are sorted and that those without a value are left out.
    #[test]
    fn sets() {
        assert_eq!(
            labels(Some("/bin/sh"), Some("ab")),
            ["comm=sh", "container_id=ab", "exe=/bin/sh", "node=n1"]
        );
        assert_eq!(labels(None, None), ["comm=sh", "node=n1"]);
        let long = "\u{fffd}".repeat(4096);
        assert_eq!(labels(Some(&long), None)[1].len(), "exe=".len() + 4095);
    }
}
