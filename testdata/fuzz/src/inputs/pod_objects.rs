//! Properties of a pod made of any JSON, and the pods of `testdata/pods/`.

use k8s::{
    Decision, Labels, Pod, PodObject, PodTable, Policy, Relabeling, RuleFileError, Workload,
    add_meta_labels, add_pod_labels,
};

/// Real pods.
pub(crate) const PODS: [&str; 5] = [
    include_str!("../../../pods/deployment.json"),
    include_str!("../../../pods/job.json"),
    include_str!("../../../pods/static.json"),
    include_str!("../../../pods/containers.json"),
    include_str!("../../../pods/initializing.json"),
];

/// A file with rules of all actions.
pub(crate) const RULES: &str = "\
relabel_configs:
- {source_labels: [a, b], separator: '/', regex: '(.+)/(?P<x>.*)', target_label: 'c_${1}', replacement: '$x'}
- {action: hashmod, source_labels: [a], target_label: d, modulus: 8}
- {action: labelmap, regex: '__meta_kubernetes_pod_label_(.+)'}
- {action: keepequal, source_labels: [c], target_label: c}
- {action: dropequal, source_labels: [a], target_label: b}
- {action: lowercase, source_labels: [a], target_label: e}
- action: uppercase
  source_labels:
  - a
  target_label: e
- {action: drop, source_labels: [a], regex: '[a-f]{3,5}'}
- {action: keep, source_labels: [b], regex: '|x.*'}
- {action: labeldrop, regex: 'c_.*'}
- {action: labelkeep, regex: '[^_].*'}
";

/// A file with a policy that has all conditions.
pub(crate) const POLICY: &str = "\
rules:
- action: allow
  namespaces: [payments, 'a*b*c']
  workloads: [Deployment/cart, 'CronJob/*']
- {action: deny, pod_labels: {app: cart, tier: 'pci*'}}
- {action: deny, pod_annotations: {example.com/profile: \"false\"}, namespaces: ['*']}
- {action: deny, units: [vault.service, 'run-*.scope'], cgroups: ['/system.slice/*']}
- {action: allow, cgroups: [/machine.slice]}
default: deny
host: allow
";

/// Checks the limits of a pod, that its containers are found, and that its labels have valid names.
pub(crate) fn try_pod(json: &[u8]) {
    let Ok(object) = serde_json::from_slice::<PodObject>(json) else {
        return;
    };
    let pod = Pod::from(object);
    assert!(pod.containers.len() <= 64 && pod.name.len() <= 512);
    let pairs = pod.labels.iter().chain(pod.annotations.iter());
    let bytes: usize = pairs.map(|(name, value)| name.len() + value.len()).sum();
    assert!(bytes <= 16 * 1024);

    let mut table = PodTable::default();
    table.begin_list();
    table.apply(pod.clone(), 0);
    table.end_list(0);
    let request = table.next_owner(0);
    assert!(request.is_none() || pod.owner.is_some());
    let found = table.find(&pod.path_uid, None).expect("it was added");
    let mut labels = Labels::new();
    add_pod_labels(&found, None, &mut labels);
    assert_eq!(labels["pod"], *pod.name);
    for container in &pod.containers {
        let Some(id) = container.id() else { continue };
        let found = table.find(&pod.path_uid, Some(id)).expect("it was added");
        add_pod_labels(&found, Some(id), &mut labels);
        add_meta_labels(&found, Some(id), &mut labels);
        assert!(labels.contains_key("container"));
    }
    let is_name = |name: &str| {
        name.bytes()
            .all(|byte| byte == b'_' || byte.is_ascii_alphanumeric())
    };
    assert!(labels.keys().all(|name| is_name(name)));
    table.delete(pod, 1);
    table.maintain(u64::MAX);
    assert_eq!(table.stats(), Default::default());
}

/// Checks that a file's rules leave valid labels, and that a mistake's line is in the file.
pub(crate) fn try_rules(text: &str) {
    let rules = match Relabeling::parse(text) {
        Ok(rules) => rules,
        Err(err) => return check_mistake(&err, text),
    };
    let labels = [
        ("a", "abc"),
        ("b", "x"),
        ("__meta_kubernetes_pod_label_team", "shop"),
    ];
    let mut labels: Labels = labels
        .map(|(name, value)| (name.into(), value.to_owned()))
        .into();
    rules.apply(&mut labels);
    for (name, value) in &labels {
        let is_name = name
            .bytes()
            .all(|byte| byte == b'_' || byte.is_ascii_alphanumeric());
        assert!(
            is_name && !name.starts_with("__") && !value.is_empty(),
            "{name}={value}"
        );
    }
}

fn check_mistake(err: &RuleFileError, text: &str) {
    let lines = text.split(['\n', '\r']).count() as u64;
    assert!(err.line <= lines + 1, "{err}");
}

/// Checks that a policy decides each pod and unit, that it excludes only if it says that it may, that a pod whose workload is not
/// known is decided as with any workload, and that a mistake's line is in the file.
pub(crate) fn try_policy(text: &str) {
    let policy = match Policy::parse(text) {
        Ok(policy) => policy,
        Err(err) => return check_mistake(&err, text),
    };
    let is_excluded = |decision: Decision<'_>| match decision {
        Decision::Profile => false,
        Decision::Exclude { rule } => {
            assert!(!rule.is_empty() && rule.len() <= 256, "{rule}");
            true
        }
    };
    for json in PODS {
        let Ok(object) = serde_json::from_str::<PodObject>(json) else {
            panic!("a pod of testdata/pods");
        };
        let pod = Pod::from(object);
        let early = policy.decide_pod(&pod, None);
        for kind in ["Deployment", "Job"] {
            let workload = Workload { kind, name: "cart" };
            let decision = policy
                .decide_pod(&pod, Some(workload))
                .expect("a known workload");
            assert!(!is_excluded(decision) || policy.denies_pods());
            assert!(early.is_none_or(|early| early == decision));
        }
    }
    for unit in [None, Some("vault.service")] {
        let decision = policy.decide_host(unit, "/system.slice/vault.service");
        assert!(!is_excluded(decision) || policy.denies_host());
    }
}
