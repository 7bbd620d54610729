use std::collections::BTreeMap;

use k8s::{Pod as PodFacts, PodObject, Policy};

use super::*;

const SECOND: u64 = 1_000_000_000;

const DENY_SECRET: &str = "rules: [{action: deny, namespaces: [secret]}]";

/// A table, the tree that it hears of, and the kernel's map that it writes.
struct Fixture {
    table: VerdictTable,
    pods: PodTable,
    /// The cgroups that exist.
    tree: BTreeMap<String, u64>,
    paths: FxHashMap<u64, String>,
    map: FxHashMap<u64, bool>,
    last_id: u64,
    now_ns: u64,
}

impl Fixture {
    fn new(policy: &str) -> Self {
        Self::with_entries(policy, VERDICTS_MAX as usize)
    }

    fn with_entries(policy: &str, entries_max: usize) -> Self {
        let mut fixture = Self {
            table: VerdictTable::with_entries(entries_max),
            pods: PodTable::default(),
            tree: BTreeMap::new(),
            paths: FxHashMap::default(),
            map: FxHashMap::default(),
            last_id: 0,
            now_ns: 0,
        };
        fixture.make("");
        if !policy.is_empty() {
            fixture.set_policy(policy);
        }
        fixture
    }

    fn set_policy(&mut self, text: &str) {
        let known = KnownPolicy {
            policy: Policy::parse(text).unwrap(),
            revision: String::new(),
        };
        self.table
            .set_policy(Some(Arc::new(known)), &self.pods, self.now_ns);
        self.write();
    }

    /// The API server tells of a pod.
    fn tell(&mut self, number: u32, namespace: &str) {
        let json = format!(
            r#"{{"metadata": {{"name": "pod-{number}", "namespace": "{namespace}", "uid": "{}"}}}}"#,
            uid(number)
        );
        let object: PodObject = serde_json::from_str(&json).unwrap();
        self.pods.apply(PodFacts::from(object), self.now_ns);
        self.table.set_pods(&self.pods, self.now_ns);
        self.write();
    }

    /// Makes a cgroup and those above it that are missing.
    fn make(&mut self, path: &str) -> u64 {
        if let Some(id) = self.tree.get(path) {
            return *id;
        }
        if let Some((parent, _)) = path.rsplit_once('/') {
            self.make(parent);
        }
        self.last_id += 1;
        self.tree.insert(path.to_owned(), self.last_id);
        self.paths.insert(self.last_id, path.to_owned());
        let cgroup = Arc::new(Cgroup::new(self.last_id, Path::new(path)));
        self.apply(&CgroupChange::Appeared(cgroup));
        self.last_id
    }

    fn remove(&mut self, id: u64) {
        let path = self.paths.remove(&id).unwrap();
        self.tree.remove(&path);
        let cgroup = Arc::new(Cgroup::new(id, Path::new(&path)));
        self.apply(&CgroupChange::Gone(cgroup));
    }

    fn apply(&mut self, change: &CgroupChange) {
        self.table.apply(change, &self.pods, self.now_ns);
        self.write();
    }

    fn write(&mut self) {
        for write in self.table.take_writes() {
            match write {
                VerdictWrite::Exclude(id) => drop(self.map.insert(id, true)),
                VerdictWrite::Take(id) => drop(self.map.insert(id, false)),
                VerdictWrite::Remove(id) => assert!(self.map.remove(&id).is_some()),
            }
            assert!(self.map.len() <= self.table.entries_max);
        }
        assert_eq!(self.map, self.table.entries);
    }

    /// Whether the kernel excludes the samples of a cgroup, as its program finds out.
    fn is_excluded(&self, id: u64) -> bool {
        let path = Path::new(&self.paths[&id]);
        let ids = path
            .ancestors()
            .map(|path| self.tree[path.to_str().unwrap()]);
        let mut found = ids.take(LEVELS).filter_map(|id| self.map.get(&id));
        found.next().copied().unwrap_or(false)
    }

    /// Check that the kernel excludes what the table does.
    #[track_caller]
    fn check_kernel(&self) {
        for (path, id) in &self.tree {
            let is_excluded = self.table.verdict(*id) == Verdict::Exclude;
            assert_eq!(self.is_excluded(*id), is_excluded, "{path}");
        }
    }
}

fn uid(number: u32) -> String {
    format!("{number:08x}-0000-4000-8000-000000000000")
}

fn pod_path(number: u32) -> String {
    format!("kubepods/burstable/pod{}", uid(number))
}

fn container_path(number: u32) -> String {
    format!("{}/{:064x}", pod_path(number), number)
}

fn until(ns: u64) -> Verdict {
    Verdict::Undecided { until_ns: ns }
}

/// Check that a pod that the API server has told of has one entry from the moment when its directory is made, before there is a
/// container, and that the entry goes with the directory.
#[test]
fn a_pod_is_excluded_before_its_containers() {
    let mut fixture = Fixture::new(DENY_SECRET);
    fixture.tell(1, "secret");
    fixture.tell(2, "shop");
    let (denied, allowed) = (fixture.make(&pod_path(1)), fixture.make(&pod_path(2)));
    assert_eq!(fixture.map, [(denied, true)].into_iter().collect());
    let container = fixture.make(&container_path(1));
    let other = fixture.make(&container_path(2));
    assert_eq!(fixture.map.len(), 1);
    assert_eq!(fixture.table.verdict(container), Verdict::Exclude);
    assert_eq!(fixture.table.verdict(other), Verdict::Take);
    assert_eq!(fixture.table.verdict(allowed), Verdict::Take);
    fixture.check_kernel();
    assert_eq!(fixture.table.stats().excluded_pods, 1);

    fixture.remove(container);
    fixture.remove(denied);
    assert!(fixture.map.is_empty());
    assert_eq!(fixture.table.stats().excluded_pods, 0);
    assert_eq!(
        fixture.table.verdict(container),
        Verdict::Exclude,
        "its last samples may still come"
    );
    fixture.table.maintain(ENDED_KEPT_NS);
    assert_eq!(fixture.table.verdict(container), until(u64::MAX));
    assert_eq!(fixture.table.pods.len(), 1);
}

/// Check that a pod that the API server has not told of is undecided for two seconds, and is not excluded in the kernel meanwhile; and
/// that pods are not held where no rule could exclude one.
#[test]
fn unknown_pods_are_undecided() {
    let mut fixture = Fixture::new(DENY_SECRET);
    fixture.now_ns = SECOND;
    let container = fixture.make(&container_path(1));
    let unknown = until(SECOND + HELD_NS);
    assert_eq!(fixture.table.verdict(container), unknown);
    assert_eq!(fixture.table.stats().undecided_pods, 1);
    fixture.now_ns = 9 * SECOND;
    fixture.tell(2, "shop");
    assert_eq!(fixture.table.verdict(container), unknown, "it stays so");
    fixture.check_kernel();
    fixture.tell(1, "secret");
    assert_eq!(fixture.table.verdict(container), Verdict::Exclude);
    fixture.check_kernel();
    fixture.set_policy("host: deny");
    assert_eq!(fixture.table.verdict(container), Verdict::Take);
    let late = fixture.make(&container_path(3));
    assert_eq!(fixture.table.verdict(late), Verdict::Take);
    fixture.check_kernel();
}

/// Check that without a policy that was read all pods are undecided and the host is sampled, and that each new policy holds for what
/// runs.
#[test]
fn policies_come_later() {
    let mut fixture = Fixture::new("");
    fixture.tell(1, "secret");
    let container = fixture.make(&container_path(1));
    let unit = fixture.make("system.slice/a.service");
    assert_eq!(fixture.table.verdict(container), until(HELD_NS));
    assert_eq!(fixture.table.verdict(unit), Verdict::Take);
    assert!(fixture.map.is_empty());
    for (policy, is_pod_excluded, is_unit_excluded) in [
        (DENY_SECRET, true, false),
        ("default: allow", false, false),
        ("rules: [{action: deny, units: [a.service]}]", false, true),
        ("{default: deny, host: deny}", true, true),
        (
            "rules: [{action: allow, cgroups: [/system.slice/a.service]}]\nhost: deny",
            false,
            false,
        ),
    ] {
        fixture.set_policy(policy);
        let excluded = [container, unit].map(|id| fixture.table.verdict(id) == Verdict::Exclude);
        assert_eq!(excluded, [is_pod_excluded, is_unit_excluded], "{policy}");
        fixture.check_kernel();
    }
}

/// Check that a cgroup that is not known is taken only where nothing is excluded.
#[test]
fn unknown_cgroups() {
    let mut fixture = Fixture::new("");
    assert_eq!(fixture.table.verdict(99), until(u64::MAX));
    for (policy, verdict) in [
        (DENY_SECRET, until(u64::MAX)),
        ("host: deny", until(u64::MAX)),
        (
            "rules: [{action: allow, namespaces: [shop]}]",
            Verdict::Take,
        ),
    ] {
        fixture.set_policy(policy);
        assert_eq!(fixture.table.verdict(99), verdict, "{policy}");
    }
}

/// Check that a pod which the API server has forgotten keeps its verdict while it has a cgroup, until there is another policy.
#[test]
fn forgotten_pods_keep_their_verdict() {
    let mut fixture = Fixture::new(DENY_SECRET);
    fixture.tell(1, "secret");
    let container = fixture.make(&container_path(1));
    fixture.pods = PodTable::default();
    fixture.tell(2, "shop");
    assert_eq!(fixture.table.verdict(container), Verdict::Exclude);
    fixture.set_policy(DENY_SECRET);
    assert_eq!(fixture.table.verdict(container), until(HELD_NS));
    fixture.check_kernel();
}

/// Check that cgroups far below an excluded one are excluded in the kernel, with an entry in each fourth level, and that a pod which is
/// allowed on an excluded host is not.
#[test]
fn deep_trees() {
    let mut fixture = Fixture::new(&format!("{DENY_SECRET}\nhost: deny"));
    fixture.tell(1, "secret");
    fixture.tell(2, "shop");
    let below = "/a/b/c/d/e/f/g/h";
    for number in [1, 2] {
        fixture.make(&format!("{}{below}", container_path(number)));
    }
    fixture.make(&format!("user.slice{below}"));
    fixture.check_kernel();
    // The denied pod is four levels below the root, and so continues its count.
    let denied = fixture.map.values().filter(|excludes| **excludes).count();
    let allowed = fixture.map.len() - denied;
    assert_eq!(allowed, 1);
    fixture.set_policy(DENY_SECRET);
    fixture.check_kernel();
    // The pod, and below it levels 4 and 8.
    assert_eq!(fixture.map.len(), 3);
}

/// Check that at the limit samples are still judged right, that what was left out is counted, and that it gets its entry when there is
/// room.
#[test]
fn a_full_map() {
    let mut fixture = Fixture::with_entries(DENY_SECRET, 2);
    let ids = [1, 2, 3].map(|number| {
        fixture.tell(number, "secret");
        fixture.make(&container_path(number))
    });
    assert_eq!(fixture.map.len(), 2);
    for id in ids {
        assert_eq!(fixture.table.verdict(id), Verdict::Exclude);
    }
    let stats = fixture.table.stats();
    assert_eq!((stats.entries, stats.left_out, stats.limited), (2, 1, 1));
    assert!(!fixture.is_excluded(ids[2]));
    fixture.remove(ids[0]);
    let pod = fixture.make(&pod_path(1));
    fixture.remove(pod);
    fixture.table.maintain(0);
    fixture.write();
    fixture.check_kernel();
    assert_eq!(fixture.table.stats().left_out, 0);

    // When the map has no room for all, an allowed cgroup below an excluded one gets its entry first.
    let mut fixture = Fixture::with_entries("", 2);
    for number in 1..=3 {
        fixture.tell(number, if number == 3 { "shop" } else { "secret" });
        fixture.make(&container_path(number));
    }
    fixture.set_policy(&format!("{DENY_SECRET}\nhost: deny"));
    let allowed = fixture.make(&pod_path(3));
    assert_eq!(fixture.map.get(&allowed), Some(&false));
}

/// Check that an entry which the kernel refuses is tried again.
#[test]
fn refused_writes() {
    let mut fixture = Fixture::new(DENY_SECRET);
    fixture.tell(1, "secret");
    let id = fixture.make(&pod_path(1));
    fixture.map.clear();
    fixture.table.refuse(VerdictWrite::Exclude(id));
    assert_eq!(fixture.table.stats().left_out, 1);
    fixture.table.maintain(0);
    fixture.write();
    fixture.check_kernel();
    assert_eq!((fixture.table.stats().left_out, fixture.map.len()), (0, 1));
}

/// Check, with a thousand pods, containers and units that come and go while policies change, that the kernel always excludes what
/// the table does, and that nothing is left behind.
#[test]
fn the_kernel_follows() {
    let policies = [
        DENY_SECRET,
        "host: deny",
        "default: deny",
        "rules: [{action: deny, cgroups: ['/u1.service']}, {action: deny, namespaces: [secret]}]",
    ];
    let mut fixture = Fixture::new(DENY_SECRET);
    let mut random = 1_u64;
    let mut draw = |below: u64| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (random >> 33) % below
    };
    for round in 0..4000 {
        let number = draw(1000) as u32;
        match draw(8) {
            0 => fixture.tell(number, ["secret", "shop"][number as usize % 2]),
            1 | 2 => drop(fixture.make(&container_path(number))),
            3 => drop(fixture.make(&format!("{}/a/b/c/d/e", container_path(number)))),
            4 => drop(fixture.make(&format!("u{}.service/x/y/z/{number}", draw(3)))),
            5 if round % 50 == 0 => fixture.set_policy(policies[draw(4) as usize]),
            _ => {
                let top = ["kubepods", "u0.service", "u1.service"][draw(3) as usize];
                let below = fixture.tree.range(top.to_owned()..format!("{top}0"));
                // The last one has none below it.
                let leaf = below.map(|(_, id)| *id).next_back();
                leaf.into_iter().for_each(|id| fixture.remove(id));
            }
        }
        if round % 100 == 0 {
            fixture.check_kernel();
        }
    }
    while let Some(id) = fixture.tree.last_key_value().map(|(_, id)| *id) {
        fixture.remove(id);
    }
    fixture.table.maintain(u64::MAX);
    let VerdictTable {
        nodes,
        ids,
        ended,
        pods,
        ..
    } = &fixture.table;
    assert!(nodes.is_empty() && ids.is_empty() && ended.is_empty() && pods.is_empty());
    assert!(fixture.map.is_empty());
    assert_eq!(fixture.table.stats().left_out, 0);
}

/// Check that cgroups that ended are bounded.
#[test]
fn ended_cgroups_are_bounded() {
    let mut fixture = Fixture::new("host: deny");
    for _ in 0..ENDED_MAX + 10 {
        let id = fixture.make("x.service");
        fixture.remove(id);
        fixture.table.maintain(0);
    }
    assert_eq!(fixture.table.nodes.len(), ENDED_MAX + 1);
}
