//! Check policies: which pods and processes they exclude, by which rule, and mistakes in files.

use k8s::{Decision, Identity, Pod, PodObject, Policy, Workload};

fn parse(text: &str) -> Policy {
    Policy::parse(text).unwrap_or_else(|err| panic!("{err}: {text}"))
}

fn mistake(text: &str) -> String {
    Policy::parse(text).expect_err(text).to_string()
}

/// A pod of the namespace `shop` with a label and an annotation.
fn pod() -> Pod {
    let json = r#"{"metadata": {"name": "cart-1", "namespace": "shop", "uid": "u", "labels": {"team": "web"},
        "annotations": {"example.com/profile": "false"}}}"#;
    let object: PodObject = serde_json::from_str(json).expect("a pod");
    object.into()
}

const DEPLOYMENT: Workload<'_> = Workload {
    kind: "Deployment",
    name: "cart",
};

/// What becomes of the pod: "profile", or the rule that excludes it.
fn decide(text: &str) -> String {
    let policy = parse(text);
    let decision = policy.decide_pod(&pod(), Some(DEPLOYMENT));
    show(decision.expect("a known workload"))
}

fn show(decision: Decision<'_>) -> String {
    match decision {
        Decision::Profile => "profile".into(),
        Decision::Exclude { rule } => rule.into(),
    }
}

/// Check each condition on pods, with and without a match.
#[test]
fn conditions_on_pods() {
    for (condition, text) in [
        ("namespaces: [shop]", "namespaces shop"),
        ("namespaces: [other, 'sh*']", "namespaces other, sh*"),
        ("pod_labels: {team: web}", "pod_labels team=web"),
        ("pod_labels: {team: 'w*'}", "pod_labels team=w*"),
        (
            "pod_annotations: {example.com/profile: false}",
            "pod_annotations example.com/profile=false",
        ),
        ("workloads: [Deployment/cart]", "workloads Deployment/cart"),
        (
            "workloads: [Job/*, deployment/c*]",
            "workloads Job/*, deployment/c*",
        ),
        (
            "workloads: ['*/cart'], namespaces: [shop]",
            "namespaces shop; workloads */cart",
        ),
    ] {
        let rules = format!("rules: [{{action: deny, {condition}}}]");
        assert_eq!(decide(&rules), format!("rule 1: deny {text}"));
    }
    for condition in [
        "namespaces: [shops]",
        "pod_labels: {team: db}",
        "pod_labels: {team: web, tier: front}",
        "pod_annotations: {example.com/profile: 'true'}",
        "workloads: [StatefulSet/cart]",
        "namespaces: [shop], workloads: [Deployment/other]",
        "namespaces: [other], workloads: [Deployment/cart]",
        // For other processes alone.
        "units: ['*']",
        "cgroups: ['/*']",
    ] {
        assert_eq!(
            decide(&format!("rules: [{{action: deny, {condition}}}]")),
            "profile",
            "{condition}"
        );
    }
}

/// Check that the first rule that matches decides, and `default` where none does.
#[test]
fn the_first_match_decides() {
    let deny = "{action: deny, namespaces: ['*']}";
    let allow = "{action: allow, pod_labels: {team: web}}";
    assert_eq!(decide(&format!("rules: [{allow}, {deny}]")), "profile");
    let rule = "rule 1: deny namespaces *";
    assert_eq!(decide(&format!("rules: [{deny}, {allow}]")), rule);
    assert_eq!(decide("default: deny"), "default: deny");
    assert_eq!(
        decide(&format!("{{default: deny, rules: [{allow}]}}")),
        "profile"
    );
    assert_eq!(decide("default: allow"), "profile");
    assert_eq!(decide("host: deny"), "profile");
}

/// Check that a pod whose workload is not known is undecided only where a rule needs it.
#[test]
fn unknown_workloads() {
    let decide = |text: &str| {
        let policy = parse(text);
        policy.decide_pod(&pod(), None).map(show)
    };
    let workload = "{action: deny, workloads: [Job/*]}";
    assert_eq!(decide(&format!("rules: [{workload}]")), None);
    let first = "{action: deny, namespaces: [shop]}";
    let rules = format!("rules: [{first}, {workload}]");
    assert_eq!(
        decide(&rules).as_deref(),
        Some("rule 1: deny namespaces shop")
    );
    let elsewhere = "rules: [{action: deny, workloads: [Job/*], namespaces: [other]}]";
    assert_eq!(decide(elsewhere).as_deref(), Some("profile"));
}

/// Check the rules for processes outside of pods, by the units and paths that identities have.
#[test]
fn conditions_on_other_processes() {
    let decide = |text: &str, path: &str| {
        let policy = parse(text);
        let identity = Identity::of_path(path);
        show(policy.decide_host(identity.unit.as_deref(), path))
    };
    let rules = "rules:\n\
        - {action: deny, units: ['vault@*.service', 'run-*.scope']}\n\
        - {action: allow, cgroups: [/machine.slice/a.scope]}\n\
        - {action: deny, cgroups: [/machine.slice]}\n\
        - {action: deny, units: [a.service], cgroups: [/other.slice]}\n\
        - {action: deny, namespaces: ['*']}\n";
    for (path, expected) in [
        (
            "/system.slice/vault@1.service/x",
            "rule 1: deny units vault@*.service, run-*.scope",
        ),
        (
            "/system.slice/run-r9c2ddf9594bbf4a1986439b594f89eb0.scope",
            "rule 1: deny units vault@*.service, run-*.scope",
        ),
        ("/machine.slice/a.scope/below", "profile"),
        (
            "/machine.slice/b.scope",
            "rule 3: deny cgroups /machine.slice",
        ),
        ("/system.slice/a.service", "profile"),
        (
            "/other.slice/a.service",
            "rule 4: deny units a.service; cgroups /other.slice",
        ),
        ("/", "profile"),
    ] {
        assert_eq!(decide(rules, path), expected, "{path}");
    }
    assert_eq!(decide("host: deny", "/a"), "host: deny");
    let kubelet = "{host: deny, rules: [{action: allow, units: [kubelet.service]}]}";
    assert_eq!(decide(kubelet, "/system.slice/kubelet.service"), "profile");
    assert_eq!(decide("default: deny", "/a"), "profile");
}

/// Check whether a policy can exclude pods, and other processes.
#[test]
fn who_may_be_denied() {
    let denies = |text: &str| {
        let policy = parse(text);
        (policy.denies_pods(), policy.denies_host())
    };
    assert_eq!(denies("default: allow"), (false, false));
    assert_eq!(denies("{default: deny, host: deny}"), (true, true));
    let rule = |text: &str| format!("rules: [{{{text}}}]");
    assert_eq!(
        denies(&rule("action: deny, namespaces: [a]")),
        (true, false)
    );
    assert_eq!(denies(&rule("action: deny, units: [a]")), (false, true));
    assert_eq!(
        denies(&rule("action: allow, namespaces: [a]")),
        (false, false)
    );
}

/// Check that each mistake has its line, its rule and the remedy.
#[test]
fn mistakes() {
    let good = "rules:\n- {action: allow, namespaces: [a]}\n- ";
    for (text, expected) in [
        (
            "",
            "no policy: the file has the keys rules (a list), default",
        ),
        ("# later\n---\n", "no policy: "),
        ("rulez: []", "line 1: unknown field `rulez`"),
        ("default: maybe", "line 1: unknown variant `maybe`"),
        ("rules: []\nhost: [", "line "),
        (
            &format!("{good}{{namespaces: [a]}}"),
            "line 3, rule 2: missing field `action`",
        ),
        (
            &format!("{good}{{action: block, namespaces: [a]}}"),
            "line 3, rule 2: unknown variant `block`, expected one of allow, deny",
        ),
        (
            &format!("{good}{{action: deny, namespace: [a]}}"),
            "line 3, rule 2: unknown field `namespace`",
        ),
        (
            &format!("{good}{{action: deny}}"),
            "line 3, rule 2: a rule without a condition; use `default`",
        ),
        (
            &format!("{good}action: deny\n  namespaces: []"),
            "line 4, rule 2: namespaces is empty or has an empty entry",
        ),
        (
            &format!("{good}action: deny\n  pod_labels: {{}}"),
            "line 4, rule 2: pod_labels is empty",
        ),
        (
            &format!("{good}action: deny\n  workloads: [cart]"),
            "line 4, rule 2: workloads has \"cart\": expected KIND/NAME, like Deployment/cart",
        ),
        (
            &format!("{good}action: deny\n  cgroups: [machine.slice]"),
            "line 4, rule 2: cgroups has \"machine.slice\": expected a path below /sys/fs/cgroup",
        ),
        (
            &format!("{good}{{action: deny, units: [a], namespaces: [a]}}"),
            "line 3, rule 2: a rule is for pods (namespaces, pod_labels, pod_annotations, workloads) or",
        ),
    ] {
        let found = mistake(text);
        assert!(found.starts_with(expected), "{text}: {found}");
    }
}

/// Check the limits of a file, and that a long rule is cut for people.
#[test]
fn limits() {
    let rules = |count: usize| {
        let rule = "- {action: deny, namespaces: [a]}\n";
        format!("rules:\n{}", rule.repeat(count))
    };
    assert_eq!(parse(&rules(256)).rules(), 256);
    assert_eq!(mistake(&rules(257)), "257 rules, and at most 256 are taken");
    let long = format!("default: deny\n#{}", "x".repeat(64 * 1024));
    assert_eq!(mistake(&long), "65551 bytes, and at most 65536 are read");
    let name = "é".repeat(200);
    let text = format!("rules: [{{action: deny, namespaces: ['{name}', shop]}}]");
    assert_eq!(decide(&text).len(), 256);
}
