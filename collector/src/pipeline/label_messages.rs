//! Label sets of series, and the accounts of containers and systemd units by their labels, as messages.
//!
//! In: label sets, and what the thread `accounts` read at a window's end. Out: messages, one account for each label set.

use std::{sync::mpsc::Receiver, time::Duration};

use profile::LabelSet;
use proto::v1::{self, ContainerAccount};

use super::container_accounts::ContainerUsage;
use crate::{
    aggregate::SeriesKey,
    cgroup::CgroupIdentity,
    label::{Labeller, WindowLabels},
};

/// Wait for the accounts of containers: 8,192 take 80 ms, and longer where readings wait for the kernel.
const USAGE_DEADLINE: Duration = Duration::from_secs(2);

/// A label set as a message.
pub(super) fn label_set_message(labels: &LabelSet) -> v1::LabelSet {
    let label = |(name, value): (&str, &str)| v1::Label {
        name: name.to_owned(),
        value: value.to_owned(),
    };
    v1::LabelSet {
        labels: labels.iter().map(label).collect(),
    }
}

/// The accounts of containers and units, by their labels: cgroups with the same labels are one. One that relabelling drops is left out,
/// and so is one without labels of its own, such as that of an unknown pod without its containers.
pub(super) fn label_containers(
    labeller: &mut Labeller,
    usages: &Receiver<Vec<ContainerUsage>>,
    end_ns: u64,
) -> Vec<ContainerAccount> {
    // Without an answer the window has no accounts; the next one has the CPU time of both.
    let usages = usages.recv_timeout(USAGE_DEADLINE).unwrap_or_default();
    let series: Vec<SeriesKey> = usages
        .iter()
        .map(|usage| {
            let CgroupIdentity {
                pod_uid,
                container_id,
                unit,
            } = usage.identity.clone();
            SeriesKey {
                comm: "".into(),
                exe: None,
                pod_uid,
                container_id,
                unit,
            }
        })
        .collect();
    let WindowLabels { sets, places } = labeller.label(&series, end_ns);
    let mut accounts: Vec<ContainerAccount> = sets
        .iter()
        .map(|labels| ContainerAccount {
            labels: Some(label_set_message(labels)),
            ..ContainerAccount::default()
        })
        .collect();
    for (usage, place) in usages.iter().zip(places) {
        if let Some(place) = place {
            let account = &mut accounts[place as usize];
            account.kernel_ns += usage.kernel.used_ns;
            account.throttled_ns += usage.kernel.throttled_ns;
            account.unread_ns += usage.unread_ns;
            account.excluded_samples += usage.excluded;
        }
    }
    let mut sets = sets.iter();
    accounts.retain(|_| {
        let labels = sets.next();
        let has_value = |name| labels.is_some_and(|labels| !labels.value(name).is_empty());
        ["pod", "container_id", "unit"].into_iter().any(has_value)
    });
    accounts
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;
    use crate::{cgroup::CpuTime, label::LabelSources};

    /// Check that accounts have the labels of their series without those of processes, that cgroups with equal labels are one account,
    /// and that a window without an answer has none.
    #[test]
    fn accounts_by_labels() {
        let usage = |container_id: Option<&str>, unit: Option<&str>, used_ns| ContainerUsage {
            identity: CgroupIdentity {
                pod_uid: Some("a".into()),
                container_id: container_id.map(Into::into),
                unit: unit.map(Into::into),
            },
            kernel: CpuTime {
                used_ns,
                throttled_ns: 1,
            },
            unread_ns: 2,
            excluded: 4,
        };
        let (sender, usages) = channel();
        let all = vec![
            usage(Some("ab"), None, 7),
            usage(None, Some("run-*.scope"), 10),
            usage(None, Some("run-*.scope"), 20),
            usage(None, None, 99),
        ];
        sender.send(all).unwrap();
        let mut labeller = Labeller::new(LabelSources::for_test());
        let messages = label_containers(&mut labeller, &usages, 0);
        let shown: Vec<String> = messages
            .iter()
            .map(|account| {
                let labels = account.labels.iter().flat_map(|set| &set.labels);
                let labels = labels.map(|label| format!("{}={} ", label.name, label.value));
                let labels: String = labels.collect();
                let ContainerAccount {
                    kernel_ns,
                    throttled_ns,
                    unread_ns,
                    excluded_samples,
                    ..
                } = account;
                format!("{labels}{kernel_ns} {throttled_ns} {unread_ns} {excluded_samples}")
            })
            .collect();
        assert_eq!(
            shown,
            [
                "container_id=ab node=n1 7 1 2 4",
                "node=n1 unit=run-*.scope 30 2 4 8"
            ]
        );
        drop(sender);
        assert!(label_containers(&mut labeller, &usages, 0).is_empty());
    }
}
