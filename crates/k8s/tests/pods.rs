//! Check pods, their owners and their labels, by the objects of `testdata/pods/`.

use k8s::{
    ContainerKind, ContainerMatch, Labels, OwnerAnswer, OwnerKind, Pod, PodObject, PodTable,
    add_meta_labels, add_pod_labels,
};

const SECOND: u64 = 1_000_000_000;

macro_rules! pod {
    ($name:literal) => {
        parse(include_str!(concat!(
            "../../../testdata/pods/",
            $name,
            ".json"
        )))
    };
}

fn parse(json: &str) -> Pod {
    let object: PodObject = serde_json::from_str(json).expect("a pod");
    object.into()
}

fn table(pods: impl IntoIterator<Item = Pod>) -> PodTable {
    let mut table = PodTable::default();
    table.begin_list();
    for pod in pods {
        table.apply(pod, 0);
    }
    table.end_list(0);
    table
}

/// The id that the objects have as so many times one digit.
fn id(digit: char) -> String {
    std::iter::repeat_n(digit, 64).collect()
}

/// Shows the labels of a cgroup as "name=value …".
fn labels(table: &PodTable, uid: &str, container_id: Option<&str>) -> String {
    let found = table.find(uid, container_id).expect("a known pod");
    let mut labels = Labels::new();
    add_pod_labels(&found, container_id, &mut labels);
    show(&labels)
}

fn show(labels: &Labels) -> String {
    let labels = labels.iter().map(|(name, value)| format!("{name}={value}"));
    labels.collect::<Vec<_>>().join(" ")
}

/// Answers all requests for owners, as a cluster does that has these.
fn read_owners(table: &mut PodTable) -> usize {
    let mut requests = 0;
    while let Some(request) = table.next_owner(0) {
        let answer = match (request.kind, &*request.name) {
            (OwnerKind::ReplicaSet, "cart-6d4f9c7b5") => owned("Deployment", "cart"),
            (OwnerKind::Job, "report-29012345") => owned("CronJob", "report"),
            (OwnerKind::Job, "import") => OwnerAnswer::Alone,
            other => panic!("nobody has {other:?}"),
        };
        table.set_owner(&request, answer, 0);
        requests += 1;
    }
    requests
}

fn owned(kind: &str, name: &str) -> OwnerAnswer {
    OwnerAnswer::Owned {
        kind: kind.into(),
        name: name.into(),
    }
}

/// Check workload and container of pods with each kind of owner.
#[test]
fn workloads() {
    const DIGEST: &str = "@sha256:0123456789ab";
    let mut table = table([
        pod!("deployment"),
        pod!("statefulset"),
        pod!("daemonset"),
        pod!("job"),
        pod!("cronjob"),
        pod!("bare"),
        pod!("static"),
        pod!("custom-resource"),
    ]);
    assert_eq!(read_owners(&mut table), 3);
    let of = |number: u8, digit: char| {
        let uid = format!("{number:08}-0000-4000-8000-000000000000");
        labels(&table, &uid, Some(&id(digit)))
    };
    let expected = |container, image, rest| {
        format!("container={container} image={image}{DIGEST} namespace=shop {rest}")
    };
    assert_eq!(
        of(1, 'a'),
        expected(
            "app",
            "shop/cart:1.2.3",
            "pod=cart-6d4f9c7b5-x2x7q version=1.2.3 workload=cart workload_kind=Deployment"
        )
    );
    assert_eq!(
        of(2, 'c'),
        expected(
            "db",
            "postgres:17",
            "pod=db-0 workload=db workload_kind=StatefulSet"
        )
    );
    assert_eq!(
        of(3, 'd'),
        expected(
            "logs",
            "logs:3",
            "pod=logs-kk2vq workload=logs workload_kind=DaemonSet"
        )
    );
    assert_eq!(
        of(4, 'e'),
        expected(
            "import",
            "import:1",
            "pod=import-8jk2p workload=import workload_kind=Job"
        )
    );
    assert_eq!(
        of(5, 'f'),
        expected(
            "report",
            "report:1",
            "pod=report-29012345-zzv5r workload=report workload_kind=CronJob"
        )
    );
    assert_eq!(
        of(6, '2'),
        expected(
            "shell",
            "busybox:1",
            "pod=shell workload=shell workload_kind=Pod"
        )
    );
    assert_eq!(
        of(8, '4'),
        expected(
            "kafka",
            "kafka:4",
            "pod=analytics-broker-2 workload=analytics-broker workload_kind=KafkaNodePool"
        )
    );
}

/// Check that a static pod is found by the hash in its paths and is one workload on all nodes, and that an annotation alone does
/// not give a pod another's uid.
#[test]
fn static_pods() {
    let hash = "0123456789abcdef".repeat(2);
    let table = table([pod!("static")]);
    assert_eq!(
        labels(&table, &hash, None),
        "namespace=kube-system pod=kube-apiserver-node-1 workload=kube-apiserver workload_kind=Pod"
    );
    assert!(
        table
            .find("00000007-0000-4000-8000-000000000000", None)
            .is_none()
    );
    let mut forged: serde_json::Value =
        serde_json::from_str(include_str!("../../../testdata/pods/bare.json")).unwrap();
    forged["metadata"]["annotations"] = serde_json::json!({"kubernetes.io/config.hash": hash});
    let forged = parse(&forged.to_string());
    assert!(!forged.is_static());
    assert_eq!(&*forged.path_uid, "00000006-0000-4000-8000-000000000000");
}

/// Check that init, sidecar and ephemeral containers are found by their ids, and the sandbox by being none of them.
#[test]
fn containers_of_all_lists() {
    let pod = pod!("containers");
    let uid = pod.path_uid.clone();
    let table = table([pod]);
    let of = |digit| match table.find(&uid, Some(&id(digit))).unwrap().container {
        ContainerMatch::Named(container) => format!("{} {:?}", container.name, container.kind),
        other => format!("{other:?}"),
    };
    assert_eq!(of('5'), "migrate Init");
    assert_eq!(of('6'), format!("mesh {:?}", ContainerKind::Sidecar));
    assert_eq!(of('7'), "web Regular");
    assert_eq!(of('8'), "debugger Ephemeral");
    assert_eq!(of('0'), "Sandbox");
    let pod_only = "namespace=shop pod=web workload=web workload_kind=Pod";
    assert_eq!(labels(&table, &uid, Some(&id('0'))), pod_only);
    assert_eq!(labels(&table, &uid, None), pod_only);
    assert!(!table.find(&uid, Some(&id('0'))).unwrap().is_settled);
    assert!(table.find(&uid, None).unwrap().is_settled);
}

/// Check that an unknown id keeps its label while a container of the pod could have it, and is the sandbox's while the other
/// containers wait for init containers.
#[test]
fn containers_that_have_no_id_yet() {
    let (initializing, creating) = (pod!("initializing"), pod!("creating"));
    let [held, starting] = [&initializing, &creating].map(|pod| pod.path_uid.clone());
    let table = table([initializing, creating]);
    let unknown = id('0');
    let of = |uid| table.find(uid, Some(&unknown)).unwrap().container;
    assert_eq!(of(&held), ContainerMatch::Sandbox);
    assert_eq!(of(&starting), ContainerMatch::Unknown);
    assert_eq!(
        labels(&table, &starting, Some(&unknown)),
        format!("container_id={unknown} namespace=shop pod=web workload=web workload_kind=Pod")
    );
}

/// Check that a container is found by the id before its restart, whether the status still has it or not.
#[test]
fn restarts() {
    let pod = pod!("bare");
    let uid = pod.path_uid.clone();
    let mut table = table([pod.clone()]);
    let name = |table: &PodTable, digit| match table.find(&uid, Some(&id(digit))).unwrap().container
    {
        ContainerMatch::Named(container) => container.name.to_string(),
        other => format!("{other:?}"),
    };
    assert_eq!(name(&table, '1'), "shell");
    let restarted = include_str!("../../../testdata/pods/bare.json")
        .replace(&id('2'), &id('3'))
        .replace(&id('1'), &id('2'));
    table.apply(parse(&restarted), SECOND);
    for digit in ['1', '2', '3'] {
        assert_eq!(name(&table, digit), "shell", "{digit}");
    }
    assert_eq!(table.stats().pods, 1);
}

/// Check that pods that were deleted, that ended, or that a later list does not have are known for some minutes, and that the table
/// forgets them and their owners then.
#[test]
fn pods_that_end() {
    let pods = || {
        [
            pod!("deployment"),
            pod!("job"),
            pod!("bare"),
            pod!("statefulset"),
        ]
    };
    let [deleted, ended, unlisted, living] = pods().map(|pod| pod.path_uid);
    let mut table = table(pods());
    read_owners(&mut table);
    assert_eq!(table.stats().owners, 2);
    table.delete(pod!("deployment"), 10 * SECOND);
    table.begin_list();
    table.apply(pod!("statefulset"), 20 * SECOND);
    table.apply(pod!("job"), 20 * SECOND);
    assert!(table.find(&unlisted, None).is_some());
    table.end_list(20 * SECOND);
    let known = |table: &mut PodTable, now_s: u64| {
        table.maintain(now_s * SECOND);
        let known = [&deleted, &ended, &unlisted, &living].map(|uid| table.find(uid, None));
        known.map(|found| found.is_some())
    };
    assert_eq!(known(&mut table, 179), [true; 4]);
    // The job had ended in the first list.
    assert_eq!(known(&mut table, 185), [true, false, true, true]);
    assert_eq!(known(&mut table, 190), [false, false, true, true]);
    assert_eq!(known(&mut table, 200), [false, false, false, true]);
    let stats = table.stats();
    assert_eq!((stats.pods, stats.owners, stats.evicted), (1, 0, 0));
    assert!(table.has_listed());
}

/// Check that the mirror of a static pod that comes again under another uid is not deleted with the old one.
#[test]
fn mirrors_come_again() {
    let mut table = table([pod!("static")]);
    let old = pod!("static");
    let mut new = old.clone();
    new.uid = "00000077-0000-4000-8000-000000000000".into();
    table.apply(new, SECOND);
    table.delete(old, 2 * SECOND);
    table.maintain(1000 * SECOND);
    assert_eq!(table.stats().pods, 1);
}

/// Check that the owner of an owner is asked for once for all its pods, that a failed request is repeated later, and what the
/// workload is meanwhile.
#[test]
fn owners_are_read_once() {
    let mut second = pod!("deployment");
    second.uid = "00000012-0000-4000-8000-000000000000".into();
    second.path_uid = second.uid.clone();
    let uid = second.path_uid.clone();
    let mut table = table([pod!("deployment"), second]);
    let request = table.next_owner(0).unwrap();
    assert_eq!(request.kind, OwnerKind::ReplicaSet);
    assert_eq!(
        (&*request.namespace, &*request.name),
        ("shop", "cart-6d4f9c7b5")
    );
    table.set_owner(&request, OwnerAnswer::Failed, 0);
    assert_eq!(table.next_owner(29 * SECOND), None);
    let found = table.find(&uid, None).unwrap();
    assert_eq!(
        (found.workload.kind, found.is_settled),
        ("ReplicaSet", false)
    );
    assert_eq!(table.next_owner(30 * SECOND), Some(request.clone()));
    table.set_owner(&request, owned("Rollout", "cart"), 30 * SECOND);
    let found = table.find(&uid, None).unwrap();
    assert_eq!((found.workload.kind, found.is_settled), ("Rollout", true));
    assert_eq!(table.next_owner(u64::MAX), None);
}

/// Check that a table full of large pods evicts those that ended, and then takes no more.
#[test]
fn the_table_is_bounded() {
    let mut table = PodTable::default();
    let mut insert = |number: u32, phase: &str| {
        let mut pod = pod!("deployment");
        pod.path_uid = format!("{number}").into();
        pod.phase = phase.into();
        pod.host_ip = "x".repeat(100_000).into();
        table.apply(pod, u64::from(number));
        table.stats()
    };
    for number in 0..100 {
        insert(number, "Succeeded");
    }
    for number in 100..400 {
        insert(number, "Running");
    }
    let stats = insert(400, "Running");
    assert!(stats.bytes <= 16 << 20, "{stats:?}");
    assert!((150..170).contains(&stats.pods), "{stats:?}");
    assert_eq!(stats.evicted as usize + stats.pods, 401);
    assert!(table.find("0", None).is_none() && table.find("100", None).is_some());
}

/// Check that labels, annotations and containers beyond the limits are left out and counted, and that long texts are cut.
#[test]
fn large_pods_are_cut() {
    let mut object: serde_json::Value =
        serde_json::from_str(include_str!("../../../testdata/pods/bare.json")).unwrap();
    object["metadata"]["annotations"] = serde_json::json!({"long": "x".repeat(1025), "short": "x"});
    let labels = (0..1000).map(|number| (format!("label{number:04}"), "x".repeat(55).into()));
    object["metadata"]["labels"] = serde_json::Value::Object(labels.collect());
    let container = serde_json::json!({"name": "c", "image": "ä".repeat(400)});
    object["spec"]["containers"] = vec![container; 100].into();
    let pod = parse(&object.to_string());
    assert_eq!(pod.labels.iter().count(), 16 * 1024 / 64);
    assert_eq!(pod.annotations.iter().count(), 0);
    assert_eq!(pod.containers.len(), 64);
    assert_eq!(pod.left_out, 744 + 2 + 36);
    assert_eq!(pod.containers[0].image.len(), 512);
}

/// Check that missing and null fields are no errors.
#[test]
fn sparse_objects() {
    for json in [
        "{}",
        r#"{"metadata":null,"spec":null,"status":null}"#,
        r#"{"metadata":{"labels":null,"ownerReferences":null},"spec":{"containers":null},"status":{"containerStatuses":[{"state":null}]}}"#,
    ] {
        let pod = parse(json);
        assert!(pod.uid.is_empty() && pod.containers.is_empty(), "{json}");
    }
}

/// Check the labels that Prometheus gives to the same container.
#[test]
fn labels_for_relabelling() {
    let pod = pod!("deployment");
    let uid = pod.path_uid.clone();
    let table = table([pod]);
    let id = id('a');
    let mut labels = Labels::new();
    let found = table.find(&uid, Some(&id)).unwrap();
    add_meta_labels(&found, Some(&id), &mut labels);
    let expected = [
        ("namespace", "shop"),
        ("pod_annotation_prometheus_io_port", "8080"),
        ("pod_annotationpresent_prometheus_io_port", "true"),
        ("pod_container_id", &format!("containerd://{id}")),
        ("pod_container_image", "shop/cart:1.2.3"),
        ("pod_container_init", "false"),
        ("pod_container_name", "app"),
        ("pod_controller_kind", "ReplicaSet"),
        ("pod_controller_name", "cart-6d4f9c7b5"),
        ("pod_host_ip", "192.0.2.10"),
        ("pod_ip", "198.51.100.7"),
        ("pod_label_app_kubernetes_io_name", "cart"),
        ("pod_label_app_kubernetes_io_version", "1.2.3"),
        ("pod_label_pod_template_hash", "6d4f9c7b5"),
        ("pod_labelpresent_app_kubernetes_io_name", "true"),
        ("pod_labelpresent_app_kubernetes_io_version", "true"),
        ("pod_labelpresent_pod_template_hash", "true"),
        ("pod_name", "cart-6d4f9c7b5-x2x7q"),
        ("pod_node_name", "node-1"),
        ("pod_phase", "Running"),
        ("pod_ready", "true"),
        ("pod_uid", "00000001-0000-4000-8000-000000000000"),
    ];
    let expected: Vec<String> = expected
        .iter()
        .map(|(name, value)| format!("__meta_kubernetes_{name}={value}"))
        .collect();
    assert_eq!(show(&labels), expected.join(" "));
}
