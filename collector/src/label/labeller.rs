//! The labels of a window's series.
//!
//! In: the series of a closed window, and the node's pods. Out: label sets, and which of them each series has. Runs on the thread that
//! names windows; the sampling thread never waits for labels.
//!
//! A pod is known a second before its program starts, the ids of its containers up to a second after. So a window with a container
//! that is not known yet waits for it, for some seconds after its end, and once for each container.

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use k8s::{Labels, PodTable, Relabeling, add_meta_labels, add_pod_labels};
use metrics::Figures;
use profile::{LABEL_BYTES_MAX, LabelSet};
use rustc_hash::FxHashMap;

use super::values::{LabelValues, ValueStats};
use crate::{aggregate::SeriesKey, clock::monotonic_ns, kubernetes::NodePods};

/// Time after a window's end in which the name of a container may come. The API server has it 0.1 to 0.9 s after the container's first
/// sample; a busy one takes longer.
const NAME_WAIT: Duration = Duration::from_secs(5);

/// Containers that have been waited for in vain. A node starts some hundred pods in [`MISSED_KEPT_NS`], each with a sandbox.
const MISSED_MAX: usize = 4096;

/// Time until a container that has no name is waited for again.
const MISSED_KEPT_NS: u64 = 600_000_000_000;

/// Labels of a series, the server's limit.
const LABELS_MAX: usize = 128;

/// Labels that the collector sets by itself.
pub const OWN_LABELS: [&str; 12] = [
    "comm",
    "container",
    "container_id",
    "exe",
    "image",
    "namespace",
    "node",
    "pod",
    "unit",
    "version",
    "workload",
    "workload_kind",
];

/// Bytes of a label's name. Kubernetes' have 317, and a prefix.
const NAME_BYTES_MAX: usize = 512;

/// The sources of labels, beside the series.
#[derive(Debug)]
pub struct LabelSources {
    /// The label `node`.
    pub node: String,
    /// Labels of all series that do not have them already.
    pub external: Vec<(String, String)>,
    /// Rules for all series.
    pub relabeling: Relabeling,
    /// Distinct values of a label in an hour.
    pub values_max: usize,
    /// The node's pods; `None` without Kubernetes.
    pub pods: Option<NodePods>,
    /// Length of a window.
    pub window: Duration,
    /// Whether the collector stops: then nothing is waited for.
    pub is_stopping: Arc<AtomicBool>,
}

#[cfg(test)]
impl LabelSources {
    /// The node `n1`, without pods.
    pub(crate) fn for_test() -> Self {
        Self {
            node: "n1".into(),
            external: Vec::new(),
            relabeling: Relabeling::default(),
            values_max: 100,
            pods: None,
            window: Duration::from_secs(10),
            is_stopping: Arc::default(),
        }
    }
}

/// The labels of a window.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct WindowLabels {
    /// Distinct label sets.
    pub sets: Vec<LabelSet>,
    /// The place in `sets` of each series; `None` for those that relabelling drops.
    pub places: Vec<Option<u32>>,
}

/// Counts since the start.
#[derive(Clone, Debug, Default)]
pub struct LabelStats {
    /// Containers that were waited for.
    waited: u64,
    /// Containers without a name after the wait.
    missed: u64,
    /// Time that windows waited.
    waited_ns: u64,
    /// Labels that were cut or left out because they are too long or too many.
    cut: u64,
    values: ValueStats,
}

impl LabelStats {
    /// Writes the figures.
    pub fn show(&self, figures: &mut Figures<'_>) {
        figures.counter(
            "container_names_awaited",
            "Containers whose names a window waited for",
            self.waited,
        );
        figures.counter(
            "container_names_missed",
            "Containers without a name after the wait: sandboxes, and containers that the API server tells of too late",
            self.missed,
        );
        figures.counter(
            "label_wait_seconds",
            "Time that windows waited for the names of containers",
            crate::metrics::seconds(self.waited_ns),
        );
        figures.counter(
            "labels_cut",
            "Labels cut or left out because they are too long, or a series has too many",
            self.cut,
        );
        self.values.show(figures);
    }
}

/// Makes the labels of windows.
pub struct Labeller {
    sources: LabelSources,
    name_wait_ns: u64,
    hasher: RandomState,
    /// Hashes of containers that were waited for in vain, and until when they are not waited for again.
    missed: FxHashMap<u64, u64>,
    values: LabelValues,
    stats: LabelStats,
}

impl Labeller {
    /// A labeller that has seen no window.
    pub fn new(sources: LabelSources) -> Self {
        // Four windows may wait for their names: waiting for two lengths never fills the queue.
        let name_wait = NAME_WAIT.min(2 * sources.window);
        Self {
            name_wait_ns: name_wait.as_nanos() as u64,
            hasher: RandomState::new(),
            missed: FxHashMap::default(),
            values: LabelValues::new(sources.values_max),
            stats: LabelStats::default(),
            sources,
        }
    }

    /// The counts.
    pub fn stats(&self) -> LabelStats {
        LabelStats {
            values: self.values.stats(),
            ..self.stats.clone()
        }
    }

    /// Makes the labels of a window that ended at this time of CLOCK_MONOTONIC. Waits for containers without a name.
    pub fn label(&mut self, series: &[SeriesKey], end_ns: u64) -> WindowLabels {
        self.wait_for_names(series, end_ns);
        let mut labels = WindowLabels::default();
        let mut places: FxHashMap<LabelSet, u32> = FxHashMap::default();
        for series in series {
            let set = self
                .make_labels(series)
                .map(|made| self.limit(made, end_ns));
            let place = set.map(|set| {
                *places.entry(set).or_insert_with_key(|set| {
                    labels.sets.push(set.clone());
                    labels.sets.len() as u32 - 1
                })
            });
            labels.places.push(place);
        }
        self.values.end_window(end_ns);
        labels
    }

    fn wait_for_names(&mut self, series: &[SeriesKey], end_ns: u64) {
        let Some(pods) = self.sources.pods.clone() else {
            return;
        };
        let now_ns = monotonic_ns();
        self.missed.retain(|_, until_ns| now_ns < *until_ns);
        let pending = series.iter().filter_map(|series| {
            let uid = series.pod_uid.as_deref()?;
            let id = series.container_id.as_deref();
            Some((self.hasher.hash_one((uid, id)), uid, id))
        });
        let mut pending: Vec<_> = pending
            .filter(|(hash, ..)| !self.missed.contains_key(hash))
            .collect();
        pending.sort_unstable();
        pending.dedup();
        let is_stopping = &self.sources.is_stopping;
        let deadline_ns = end_ns.saturating_add(self.name_wait_ns);
        let mut awaited = None;
        let has_waited = pods.wait_until(
            deadline_ns,
            || is_stopping.load(Ordering::Relaxed),
            |table| {
                pending
                    .retain(|(_, uid, id)| !table.find(uid, *id).is_some_and(|pod| pod.is_settled));
                awaited.get_or_insert(pending.len());
                pending.is_empty()
            },
        );
        let awaited = awaited.unwrap_or_default() as u64;
        if awaited == 0 || !has_waited {
            return;
        }
        self.stats.waited += awaited;
        self.stats.missed += pending.len() as u64;
        self.stats.waited_ns += monotonic_ns().saturating_sub(now_ns);
        if self.missed.len() + pending.len() > MISSED_MAX {
            self.missed.clear();
        }
        let until_ns = monotonic_ns().saturating_add(MISSED_KEPT_NS);
        let missed = pending.into_iter().take(MISSED_MAX);
        self.missed
            .extend(missed.map(|(hash, ..)| (hash, until_ns)));
    }

    /// The labels of a series; `None` if relabelling drops it.
    fn make_labels(&self, series: &SeriesKey) -> Option<Labels> {
        // Every field must be thought of: a new one is a compile error here.
        let SeriesKey {
            comm,
            exe,
            pod_uid,
            container_id,
            unit,
        } = series;
        let LabelSources {
            node,
            external,
            relabeling,
            pods,
            ..
        } = &self.sources;
        let mut labels = Labels::new();
        let fields = [
            ("comm", Some(&**comm)),
            ("exe", exe.as_deref()),
            ("node", Some(&**node)),
            ("unit", unit.as_deref()),
        ];
        for (name, value) in fields {
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                labels.insert(name.into(), value.to_owned());
            }
        }
        let id = container_id.as_deref();
        let mut add_known = |table: &PodTable, uid: &str| {
            let found = table.find(uid, id)?;
            add_pod_labels(&found, id, &mut labels);
            if !relabeling.is_empty() {
                add_meta_labels(&found, id, &mut labels);
            }
            Some(())
        };
        let pods = pods.as_ref().zip(pod_uid.as_deref());
        let known = pods.and_then(|(pods, uid)| pods.read(|table| add_known(table, uid)));
        if let (None, Some(id)) = (known, id) {
            labels.insert("container_id".into(), id.to_owned());
        }
        if !relabeling.apply(&mut labels) {
            return None;
        }
        for (name, value) in external {
            let name = name.clone().into();
            labels.entry(name).or_insert_with(|| value.clone());
        }
        // The server refuses series of another node than their window's.
        labels.insert("node".into(), node.clone());
        Some(labels)
    }

    /// Bounds the labels of a series by length, number and distinct values.
    fn limit(&mut self, labels: Labels, now_ns: u64) -> LabelSet {
        let mut limited = Vec::with_capacity(labels.len().min(LABELS_MAX));
        let mut left = LABELS_MAX - OWN_LABELS.len();
        for (name, value) in &labels {
            let cut = &value[..value.floor_char_boundary(LABEL_BYTES_MAX)];
            let is_own = OWN_LABELS.contains(&&**name);
            let is_left_out = !is_own && (left == 0 || name.len() > NAME_BYTES_MAX);
            self.stats.cut += u64::from(is_left_out || cut.len() < value.len());
            if is_left_out {
                continue;
            }
            if let Some(value) = self.values.admit(name, cut, now_ns) {
                left -= usize::from(!is_own);
                limited.push((&**name, value));
            }
        }
        // SANITY: relabelling leaves valid names, the map sorts them, and no value is empty.
        LabelSet::from_sorted(limited).expect("a series' labels form a label set")
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use k8s::{Pod, PodObject};

    use super::*;

    const POD: &str = include_str!("../../../testdata/pods/deployment.json");
    const UID: &str = "00000001-0000-4000-8000-000000000000";

    fn series(pod_uid: Option<&str>, container_id: Option<&str>, unit: Option<&str>) -> SeriesKey {
        SeriesKey {
            comm: "sh".into(),
            exe: Some("/bin/sh".into()),
            pod_uid: pod_uid.map(Into::into),
            container_id: container_id.map(Into::into),
            unit: unit.map(Into::into),
        }
    }

    /// Shows the labels of each series, without `comm` and `exe`.
    fn label(labeller: &mut Labeller, series: &[SeriesKey]) -> Vec<String> {
        let labels = labeller.label(series, monotonic_ns());
        let show = |place: &Option<u32>| {
            let Some(place) = place else {
                return "dropped".to_owned();
            };
            let labels = labels.sets[*place as usize].iter();
            let labels = labels.filter(|(name, _)| !["comm", "exe"].contains(name));
            let labels = labels.map(|(name, value)| format!("{name}={value}"));
            labels.collect::<Vec<_>>().join(" ")
        };
        labels.places.iter().map(show).collect()
    }

    /// A pod, with another id of its first container if one is given.
    fn pod(id: Option<&str>) -> Pod {
        let json = POD.replace(&"a".repeat(64), id.unwrap_or(&"a".repeat(64)));
        let object: PodObject = serde_json::from_str(&json).unwrap();
        object.into()
    }

    /// The pods of a node whose watch works.
    fn node_pods(pods: impl IntoIterator<Item = Pod>) -> NodePods {
        let node = NodePods::default();
        node.change(|state| {
            state.stats.is_connected = true;
            state.table.begin_list();
            for pod in pods {
                state.table.apply(pod, 0);
            }
            state.table.end_list(0);
            let owner = state.table.next_owner(0);
            let answer = k8s::OwnerAnswer::Owned {
                kind: "Deployment".into(),
                name: "cart".into(),
            };
            if let Some(owner) = owner {
                state.table.set_owner(&owner, answer, 0);
            }
        });
        node
    }

    /// Check the labels outside of pods, and those of a pod before the API server told of it.
    #[test]
    fn without_kubernetes() {
        let mut labeller = Labeller::new(LabelSources::for_test());
        let labels = label(
            &mut labeller,
            &[
                series(None, None, None),
                series(None, Some("ab"), Some("c.service")),
                series(Some(UID), Some("ab"), None),
            ],
        );
        let expected = [
            "node=n1",
            "container_id=ab node=n1 unit=c.service",
            "container_id=ab node=n1",
        ];
        assert_eq!(labels, expected);
        let mut kernel = series(None, None, None);
        kernel.exe = None;
        kernel.comm = "\u{fffd}".repeat(4096).into();
        let labels = labeller.label(&[kernel], 0);
        assert_eq!(labels.sets[0].value("exe"), "");
        assert_eq!(labels.sets[0].value("comm").len(), 4095);
        assert_eq!(labeller.stats().cut, 1);
    }

    /// Check the labels of a pod's containers, that series whose containers differ only by their ids are one, and that nothing is
    /// waited for.
    #[test]
    fn pods() {
        let [old, new] = ["a", "7"].map(|digit| digit.repeat(64));
        let node = node_pods([pod(None)]);
        node.change(|state| state.table.apply(pod(Some(&new)), 0));
        let mut labeller = Labeller::new(LabelSources {
            pods: Some(node),
            ..LabelSources::for_test()
        });
        let all = [
            series(Some(UID), Some(&old), None),
            series(Some(UID), Some(&new), None),
            series(Some(UID), None, None),
        ];
        let labels = label(&mut labeller, &all);
        let container = "container=app image=shop/cart:1.2.3@sha256:0123456789ab ";
        let pod = "namespace=shop node=n1 pod=cart-6d4f9c7b5-x2x7q version=1.2.3 workload=cart \
                   workload_kind=Deployment";
        assert_eq!(
            labels,
            [
                &format!("{container}{pod}"),
                &format!("{container}{pod}"),
                pod
            ]
        );
        assert_eq!(labeller.label(&all, 0).places, [Some(0), Some(0), Some(1)]);
        assert_eq!(labeller.stats().waited, 0);
    }

    /// Check that a window waits for a container until its name is known.
    #[test]
    fn names_are_waited_for() {
        let id = "7".repeat(64);
        let node = node_pods([pod(None)]);
        let mut labeller = Labeller::new(LabelSources {
            pods: Some(node.clone()),
            ..LabelSources::for_test()
        });
        let later = {
            let id = id.clone();
            thread::spawn(move || {
                thread::sleep(Duration::from_secs(1));
                node.change(|state| state.table.apply(pod(Some(&id)), 0));
            })
        };
        let labels = label(&mut labeller, &[series(Some(UID), Some(&id), None)]);
        later.join().unwrap();
        assert!(labels[0].starts_with("container=app "), "{labels:?}");
        let stats = labeller.stats();
        assert_eq!((stats.waited, stats.missed), (1, 0));
        assert!(stats.waited_ns > 0, "{stats:?}");
    }

    /// Check that a container whose name does not come is waited for once, and that an unknown pod travels with its container's id.
    #[test]
    fn names_that_do_not_come() {
        let mut labeller = Labeller::new(LabelSources {
            pods: Some(node_pods([pod(None)])),
            window: Duration::from_millis(100),
            ..LabelSources::for_test()
        });
        let id = "7".repeat(64);
        let all = [
            series(Some(UID), Some(&id), None),
            series(Some("other"), Some(&id), None),
        ];
        for _ in 0..2 {
            let labels = label(&mut labeller, &all);
            // All containers of the first pod have ids: this is its sandbox.
            assert!(labels[0].starts_with("namespace=shop "), "{labels:?}");
            assert_eq!(labels[1], format!("container_id={id} node=n1"));
            let stats = labeller.stats();
            assert_eq!((stats.waited, stats.missed), (2, 2));
            assert!(stats.waited_ns < 10_000_000_000, "{stats:?}");
        }
    }

    /// Check that nothing is waited for while the watch does not work, and when the collector stops.
    #[test]
    fn no_wait_without_a_watch() {
        let node = node_pods([]);
        let all = [series(Some(UID), Some("ab"), None)];
        let mut labeller = Labeller::new(LabelSources {
            pods: Some(node.clone()),
            ..LabelSources::for_test()
        });
        node.change(|state| state.stats.is_connected = false);
        assert_eq!(label(&mut labeller, &all), ["container_id=ab node=n1"]);
        node.change(|state| state.stats.is_connected = true);
        labeller.sources.is_stopping.store(true, Ordering::Relaxed);
        label(&mut labeller, &all);
        assert_eq!(labeller.stats().waited_ns, 0);
    }

    /// Check rules, external labels, and that the node stays.
    #[test]
    fn rules_and_external_labels() {
        let rules = "relabel_configs:\n\
             - {action: drop, source_labels: [unit], regex: 'secret.*'}\n\
             - {source_labels: [__meta_kubernetes_pod_label_app_kubernetes_io_name], target_label: app}\n\
             - {action: labeldrop, regex: 'pod|node|image|version|workload.*|container'}\n";
        let mut labeller = Labeller::new(LabelSources {
            relabeling: Relabeling::parse(rules).unwrap(),
            external: vec![
                ("app".into(), "none".into()),
                ("cluster".into(), "eu".into()),
            ],
            pods: Some(node_pods([pod(None)])),
            ..LabelSources::for_test()
        });
        let id = "a".repeat(64);
        let labels = label(
            &mut labeller,
            &[
                series(Some(UID), Some(&id), None),
                series(None, None, Some("secret.service")),
                series(None, None, Some("c.service")),
            ],
        );
        let expected = [
            "app=cart cluster=eu namespace=shop node=n1",
            "dropped",
            "app=none cluster=eu node=n1 unit=c.service",
        ];
        assert_eq!(labels, expected);
    }

    /// Check that a series with too many labels keeps its own, and that values beyond the limit are replaced.
    #[test]
    fn limits() {
        let copies: String = (0..200)
            .map(|number| format!("{{replacement: x, target_label: a{number}}}\n"))
            .map(|rule| format!("- {rule}"))
            .take(128)
            .collect();
        let rules = format!("relabel_configs:\n{copies}");
        let mut labeller = Labeller::new(LabelSources {
            relabeling: Relabeling::parse(&rules).unwrap(),
            values_max: 1,
            ..LabelSources::for_test()
        });
        let mut other = series(None, None, None);
        other.comm = "bash".into();
        let labels = labeller.label(&[series(None, None, None), other], 0);
        let [first, second] = labels.sets.as_slice() else {
            panic!("{labels:?}")
        };
        assert_eq!(first.iter().len(), LABELS_MAX - OWN_LABELS.len() + 3);
        assert_eq!((first.value("node"), first.value("exe")), ("n1", "/bin/sh"));
        assert_eq!(
            (first.value("comm"), second.value("comm")),
            ("sh", "[other]")
        );
        assert_eq!(labeller.stats().cut, 2 * 12);
    }
}
