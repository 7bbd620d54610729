//! A thousand pods and their cgroups that come and go under the real collector, while twenty processes move through them.
//!
//! In `make test` this takes a minute, and the pods must be seen under their names. `testdata/bench/pods` runs it in full: when the
//! tables have forgotten the first pods, as many others come and go in two minutes, and all must be back at the level before.

use std::{
    collections::BTreeSet,
    env, fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener as StdListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use collector::{kubernetes::ClusterAccess, sample::CgroupHierarchy};
use proto::v1::{
    PushRequest, PushResponse, ReportRequest, ReportResponse,
    ingest_server::{Ingest, IngestServer},
};
use serde_json::json;
use tokio::{net::TcpListener, runtime::Builder};
use tonic::{Request, Response, Status, transport::server::TcpIncoming};

use crate::{fake_api::FakeApi, numbered, uid, wait_until, write_kubeconfig};

/// Seconds in which the pods come and go. Without this variable, the test is short, and does not wait until they are forgotten.
const SECONDS_VARIABLE: &str = "PILOTLIGHT_CHURN_SECONDS";

const SHORT_SECONDS: u64 = 30;

/// Pods that come and go, and those that stay, with the processes in them before and after.
const PODS: usize = 1000;
const PROCESSES: usize = 20;

/// Resident memory that a thousand pods may take.
const PODS_BYTES_MAX: f64 = 16e6;

/// The tables keep pods for 3 minutes after their end, cgroups and processes for one.
const FORGET_TIMEOUT: Duration = Duration::from_secs(420);

/// Some per cent of a processor, without other processes.
const SCRIPT: &str = "exec {fd}<> <(:); while :; do for ((i = 0; i < 1500; i++)); do :; done; read -t 0.1 -u $fd; done";

/// Every fourth pod is excluded. So are all other programs of this machine, whose names would take memory too.
const POLICY: &str =
    "rules: [{action: deny, pod_labels: {profiled: never}}]\ndefault: allow\nhost: deny\n";

const EXCLUDED_ONE_IN: usize = 4;

/// Sizes that must come back to the start's level.
const LEVELS: [&str; 6] = [
    "kubernetes_pods",
    "cgroups",
    POLICY_ENTRIES,
    NAME_BYTES,
    "resident_bytes{part=\"namer\"}",
    COLLECTOR_BYTES,
];

const NAME_BYTES: &str = "name_cache_bytes";

/// Names come as long as a program runs: a second thousand pods of the same programs had 93 bytes each. A file that was left behind for
/// each pod would take more than this.
const NAME_BYTES_MORE_MAX: f64 = 160.0 * PODS as f64;

const POLICY_ENTRIES: &str = "policy_entries";

const COLLECTOR_BYTES: &str = "resident_bytes{part=\"collector\"}";

/// Check that a thousand pods have their names, take little memory, and leave nothing behind.
#[test]
fn a_thousand_pods_come_and_go() {
    let Some(cgroups) = Cgroups::make() else {
        eprintln!("not checked: needs root, a kernel with BTF, and a cgroup hierarchy");
        return;
    };
    let full_seconds = env::var(SECONDS_VARIABLE)
        .ok()
        .map(|text| text.parse().unwrap());
    let api = FakeApi::start();
    let (sink, server) = Sink::start();
    let enter = |number: usize, process: &Child| {
        cgroups.make_pod(number);
        let mut pod = numbered(number);
        if number.is_multiple_of(EXCLUDED_ONE_IN) {
            pod["metadata"]["labels"] = json!({"profiled": "never"});
        }
        let status = &mut pod["status"]["containerStatuses"][0];
        status["containerID"] = json!(format!("containerd://{}", container_id(number)));
        api.cluster().apply(pod);
        cgroups.enter(number, process.id());
    };
    let processes = Processes::start();
    for (number, process) in processes.0.iter().enumerate() {
        enter(number, process);
    }
    let mut collector = Program::start(api.address, server);
    let place = |name: &str| LEVELS.iter().position(|level| *level == name).unwrap();
    let levels = |collector: &mut Program| {
        let mut levels = collector.levels();
        levels[place("cgroups")] -= cgroups.count_others() as f64;
        levels
    };
    wait_until("the first windows", || sink.windows() >= 2);
    let is_back = |levels: &[f64], start: &[f64], name: &str| {
        let (level, start) = (levels[place(name)], start[place(name)]);
        let more_max = match name {
            NAME_BYTES => NAME_BYTES_MORE_MAX,
            _ => 0.05 * start,
        };
        level <= start + more_max
    };
    // So many pods more, from this number on, come and go. Returns the levels before, and with them.
    let come_and_go = |collector: &mut Program, first: usize, seconds: u64| {
        let before = levels(collector);
        let step = Duration::from_secs(seconds) / (2 * PODS as u32);
        let mut turn = Instant::now();
        let mut wait_turn = || {
            turn += step;
            thread::sleep(turn.saturating_duration_since(Instant::now()));
        };
        for number in first..first + PODS {
            enter(number, &processes.0[number % PROCESSES]);
            wait_turn();
        }
        wait_until("all pods", || {
            collector.level("kubernetes_pods") >= (PODS + PROCESSES) as f64
        });
        let with = levels(collector);
        for (number, process) in processes.0.iter().enumerate() {
            cgroups.enter(number, process.id());
        }
        for number in first..first + PODS {
            api.cluster().delete(&format!("shell-{number:05}"));
            cgroups.remove_pod(number);
            wait_turn();
        }
        wait_until("the end of the cgroups", || {
            is_back(&levels(collector), &before, "cgroups")
        });
        [before, with]
    };
    // Waits until these are as before.
    let forget = |collector: &mut Program, start: &[f64], names: &[&str]| {
        let until = Instant::now() + FORGET_TIMEOUT;
        loop {
            let levels = levels(collector);
            let is_over = names.iter().all(|name| is_back(&levels, start, name));
            if is_over || Instant::now() >= until {
                return levels;
            }
            thread::sleep(Duration::from_secs(1));
        }
    };
    let [fresh, with] = come_and_go(&mut collector, PROCESSES, SHORT_SECONDS);
    let windows = sink.windows();
    wait_until("the last windows", || sink.windows() >= windows + 2);
    println!("{LEVELS:?}: {fresh:?}, with {PODS} more pods {with:?}");
    // The first pods fill the caches and the heap, so it is the second ones that must leave nothing behind.
    let ends = full_seconds.map(|seconds| {
        forget(&mut collector, &fresh, &["kubernetes_pods"]);
        let [start, _] = come_and_go(&mut collector, PROCESSES + PODS, seconds);
        let end = forget(&mut collector, &start, &LEVELS);
        println!("before as many others {start:?}, after them {end:?}");
        (start, end)
    });
    let (named, mut unnamed) = sink.pods();
    // Other containers of this machine are in no pod of the test.
    let own: BTreeSet<String> = (0..PROCESSES + 2 * PODS).map(container_id).collect();
    unnamed.retain(|id| own.contains(id));
    println!(
        "peak of resident memory: {} bytes; {named} pods had samples",
        collector.level("resident_peak_bytes")
    );
    assert_eq!(unnamed, BTreeSet::new(), "containers without a pod");
    // A process is in each for a hundredth of the time; how many are sampled there depends on what else runs.
    assert!(named >= PODS / 10, "{named} pods had samples");
    // Pods that are profiled need a verdict where the host's processes are excluded.
    assert!(with[place(POLICY_ENTRIES)] >= (PODS / 2) as f64, "{with:?}");
    let more = with[place(COLLECTOR_BYTES)] - fresh[place(COLLECTOR_BYTES)];
    assert!(more < PODS_BYTES_MAX, "{fresh:?} {with:?}");
    if let Some((start, end)) = ends {
        for name in LEVELS {
            assert!(is_back(&end, &start, name), "{name}: {start:?} {end:?}");
        }
    }
}

fn container_id(number: usize) -> String {
    format!("{number:064x}")
}

/// Directories of pods in the hierarchies that the collector reads; dropping removes them.
struct Cgroups(Vec<PathBuf>);

impl Cgroups {
    fn make() -> Option<Self> {
        let hierarchy = CgroupHierarchy::detect();
        let mount = hierarchy.mount()?;
        let accounts = hierarchy
            .v1_controller()
            .map(|_| mount.with_file_name("cpuacct"));
        let name = format!("pilotlight-pods-{}", std::process::id());
        let tops = [Some(mount.to_owned()), accounts].into_iter().flatten();
        let made = Self(tops.map(|mount| mount.join(&name)).collect());
        let is_made = made.0.iter().all(|top| fs::create_dir(top).is_ok());
        (is_made && Path::new("/sys/kernel/btf/vmlinux").exists()).then_some(made)
    }

    /// The cgroups of other programs in the hierarchy that the collector follows.
    fn count_others(&self) -> usize {
        fn count(directory: &Path, without: &Path) -> usize {
            let entries = fs::read_dir(directory).into_iter().flatten().flatten();
            let directories = entries
                .map(|entry| entry.path())
                .filter(|path| path.is_dir());
            let others = directories.filter(|path| path != without);
            1 + others.map(|path| count(&path, without)).sum::<usize>()
        }
        let top = &self.0[0];
        count(top.parent().unwrap(), top)
    }

    fn pods(&self, number: usize) -> impl Iterator<Item = PathBuf> {
        let path = format!("kubepods/besteffort/pod{}", uid(number));
        self.0.iter().map(move |top| top.join(&path))
    }

    fn make_pod(&self, number: usize) {
        for pod in self.pods(number) {
            fs::create_dir_all(pod.join(container_id(number))).unwrap();
        }
    }

    fn enter(&self, number: usize, pid: u32) {
        for pod in self.pods(number) {
            let procs = pod.join(container_id(number)).join("cgroup.procs");
            fs::write(procs, pid.to_string()).unwrap();
        }
    }

    fn remove_pod(&self, number: usize) {
        for pod in self.pods(number) {
            fs::remove_dir(pod.join(container_id(number))).unwrap();
            fs::remove_dir(pod).unwrap();
        }
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        fn remove(directory: &Path) {
            let entries = fs::read_dir(directory).into_iter().flatten().flatten();
            for entry in entries.filter(|entry| entry.path().is_dir()) {
                remove(&entry.path());
            }
            let _ = fs::remove_dir(directory);
        }
        // The kernel keeps a process in its cgroup for a moment after its end.
        let until = Instant::now() + Duration::from_secs(10);
        while self.0.iter().any(|top| top.exists()) && Instant::now() < until {
            self.0.iter().for_each(|top| remove(top));
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Processes that use some CPU time until they are dropped.
struct Processes(Vec<Child>);

impl Processes {
    fn start() -> Self {
        let start = |_| Command::new("bash").args(["-c", SCRIPT]).spawn().unwrap();
        Self((0..PROCESSES).map(start).collect())
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The collector's program, with an API server and a server of the test; killed when dropped.
struct Program {
    child: Child,
    metrics: SocketAddr,
    _directory: tempfile::TempDir,
}

impl Program {
    fn start(api: SocketAddr, server: SocketAddr) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let ClusterAccess::Kubeconfig(kubeconfig) = write_kubeconfig(&directory, api) else {
            panic!("a file was written");
        };
        let metrics = StdListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let policy = directory.path().join("policy.yaml");
        fs::write(&policy, POLICY).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_pilotlight-collector"))
            .args(["--node=node-1", "--kubernetes=on", "--cache-dir=none"])
            // All pods of the full test, in less than an hour.
            .arg("--label-values-max=4000")
            .arg(format!("--server=http://{server}"))
            .arg(format!("--metrics-listen={metrics}"))
            .arg(format!("--kubeconfig={}", kubeconfig.display()))
            .arg(format!("--policy-file={}", policy.display()))
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Self {
            child,
            metrics,
            _directory: directory,
        }
    }

    /// The sum of a metric's values.
    fn level(&mut self, name: &str) -> f64 {
        assert_eq!(self.child.try_wait().unwrap(), None, "the collector ended");
        let prefix = format!("pilotlight_collector_{name}");
        let ask = || {
            let mut stream = TcpStream::connect(self.metrics)?;
            write!(stream, "GET /metrics HTTP/1.0\r\n\r\n")?;
            let mut text = String::new();
            stream.read_to_string(&mut text).map(|_| text)
        };
        let text = ask().unwrap_or_default();
        let values = text.lines().filter_map(|line| {
            let rest = line.strip_prefix(&prefix)?;
            let is_it = rest.starts_with([' ', '{']);
            is_it.then(|| rest.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
        });
        values.sum()
    }

    fn levels(&mut self) -> [f64; LEVELS.len()] {
        LEVELS.map(|name| self.level(name))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A server that takes all windows, and keeps the names of the pods in them.
#[derive(Default)]
struct Sink(Mutex<Taken>);

#[derive(Default)]
struct Taken {
    windows: usize,
    /// Pods with samples.
    pods: BTreeSet<String>,
    /// Containers with samples whose pod is not known.
    unnamed: BTreeSet<String>,
}

#[tonic::async_trait]
impl Ingest for Sink {
    async fn push(&self, request: Request<PushRequest>) -> Result<Response<PushResponse>, Status> {
        let mut taken = self.0.lock().unwrap();
        taken.windows += 1;
        for set in request.into_inner().series {
            let find = |name: &str| set.labels.iter().find(|label| label.name == name);
            match (find("pod"), find("container_id")) {
                (Some(pod), _) => taken.pods.insert(pod.value.clone()),
                (None, Some(id)) => taken.unnamed.insert(id.value.clone()),
                (None, None) => false,
            };
        }
        Ok(Response::new(PushResponse::default()))
    }

    async fn report(&self, _: Request<ReportRequest>) -> Result<Response<ReportResponse>, Status> {
        Ok(Response::new(ReportResponse::default()))
    }
}

impl Sink {
    /// Serves until the end of the test's process.
    fn start() -> (Arc<Self>, SocketAddr) {
        let sink = Arc::new(Self::default());
        let service = IngestServer::from_arc(sink.clone()).max_decoding_message_size(64 << 20);
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            let server = tonic::transport::Server::builder().add_service(service);
            runtime.block_on(server.serve_with_incoming(TcpIncoming::from(listener)))
        });
        (sink, address)
    }

    fn windows(&self) -> usize {
        self.0.lock().unwrap().windows
    }

    /// The number of pods with samples, and the containers without a pod.
    fn pods(&self) -> (usize, BTreeSet<String>) {
        let taken = self.0.lock().unwrap();
        (taken.pods.len(), taken.unnamed.clone())
    }
}
