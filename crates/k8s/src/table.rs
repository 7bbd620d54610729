//! The pods of a node, by the uid in their cgroups' paths.
//!
//! In: a stream of pods and of their owners' owners. Out: pod, container and workload of a cgroup. Times are nanoseconds of any clock
//! that only goes forward.

use rustc_hash::FxHashMap;

use crate::{
    container::Container,
    pod::{Owner, Pod},
    workload::{OwnerKind, Workload, find_workload},
};

/// Memory of all pods. 110 pods, kubelet's limit by default, take 0.3 MB; one with all that a pod may have takes 100 kB.
const PODS_BYTES_MAX: usize = 16 << 20;

/// Lifetime of a pod that has ended or was deleted. Its last samples may be in a window of 30 s, behind four others that wait for their
/// names.
const ENDED_KEPT_NS: u64 = 180_000_000_000;

/// Owners to keep beside one for each pod before those that no pod names are forgotten: at 300 bytes each 20 KB.
const OWNERS_UNUSED_MAX: usize = 64;

/// Time until the owner of an owner is asked for again after a failure that may pass.
const OWNER_RETRY_NS: u64 = 30_000_000_000;

/// Counts of the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PodStats {
    /// Pods in the table, those that ended included.
    pub pods: usize,
    /// Their memory.
    pub bytes: usize,
    /// Pods evicted, or not taken, because the table was full.
    pub evicted: u64,
    /// Owners in the table.
    pub owners: usize,
    /// Labels, annotations and containers left out of the pods in the table.
    pub left_out: usize,
}

/// A request for the owner of a pod's owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnerRequest {
    /// Kind of the object to read.
    pub kind: OwnerKind,
    /// Its namespace.
    pub namespace: Box<str>,
    /// Its name.
    pub name: Box<str>,
    /// Its uid. An object with another uid is another object of the same name.
    pub uid: Box<str>,
}

/// The answer to an [`OwnerRequest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnerAnswer {
    /// It has this controlling owner.
    Owned {
        /// Kind of the owner.
        kind: Box<str>,
        /// Name of the owner.
        name: Box<str>,
    },
    /// It has no controlling owner, or is gone.
    Alone,
    /// It could not be read now.
    Failed,
}

#[derive(Debug)]
enum OwnerState {
    /// It is to be read at this time.
    Wanted { from_ns: u64 },
    /// It was read.
    Known(Option<(Box<str>, Box<str>)>),
}

#[derive(Debug)]
struct Entry {
    pod: Pod,
    /// When it ended or was deleted.
    ended_ns: Option<u64>,
    /// The list that had it last.
    list: u64,
}

/// The container of a cgroup in a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContainerMatch<'a> {
    /// The cgroup is the pod's own.
    None,
    /// A container of the pod.
    Named(&'a Container),
    /// All containers of the pod have other ids, so that this is the pod's sandbox (pause), which is in no list.
    Sandbox,
    /// Its name is not known (yet).
    Unknown,
}

/// A pod, as found by a cgroup.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// The container.
    pub container: ContainerMatch<'a>,
    /// The workload, as far as it is known.
    pub workload: Workload<'a>,
    /// Whether container and workload will not change. A sandbox is not settled: a container that has just restarted has an id that
    /// the API server does not know yet.
    pub is_settled: bool,
}

/// The pods of a node.
#[derive(Debug, Default)]
pub struct PodTable {
    pods: FxHashMap<Box<str>, Entry>,
    owners: FxHashMap<Box<str>, OwnerState>,
    bytes: usize,
    evicted: u64,
    list: u64,
    has_listed: bool,
    generation: u64,
}

impl PodTable {
    /// Whether a list of all pods was complete once.
    pub fn has_listed(&self) -> bool {
        self.has_listed
    }

    /// A number that grows with each change, for stages that judge pods again then.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The pods that have not ended, with their workloads as far as these are known.
    pub fn iter(&self) -> impl Iterator<Item = (&Pod, Option<Workload<'_>>)> {
        let pods = self.pods.values();
        let living = pods.filter(|entry| entry.ended_ns.is_none());
        living.map(|entry| (&entry.pod, self.known_workload(&entry.pod)))
    }

    /// The pod of a uid in cgroups' paths, and its workload if that is known.
    pub fn find_pod(&self, path_uid: &str) -> Option<(&Pod, Option<Workload<'_>>)> {
        let pod = &self.pods.get(path_uid)?.pod;
        Some((pod, self.known_workload(pod)))
    }

    fn known_workload<'a>(&'a self, pod: &'a Pod) -> Option<Workload<'a>> {
        let (workload, is_known) = self.workload(pod);
        is_known.then_some(workload)
    }

    /// A list of all pods begins.
    pub fn begin_list(&mut self) {
        self.list += 1;
    }

    /// A list of all pods is complete: pods that were not in it have been deleted.
    pub fn end_list(&mut self, now_ns: u64) {
        for entry in self.pods.values_mut() {
            if entry.list != self.list {
                entry.ended_ns.get_or_insert(now_ns);
            }
        }
        self.has_listed = true;
        self.generation += 1;
    }

    /// Adds or replaces a pod.
    pub fn apply(&mut self, mut pod: Pod, now_ns: u64) {
        self.generation += 1;
        let mut ended_ns = pod.has_ended().then_some(now_ns);
        if let Some(before) = self.pods.remove(&pod.path_uid) {
            self.bytes -= before.pod.bytes();
            pod.keep_ids(&before.pod);
            // A list repeats pods that ended: their time goes on.
            ended_ns = ended_ns.map(|now_ns| before.ended_ns.unwrap_or(now_ns));
        }
        let bytes = pod.bytes();
        if !self.make_room(bytes) {
            self.evicted += 1;
            return;
        }
        self.want_owner(&pod, now_ns);
        self.bytes += bytes;
        let list = self.list;
        let entry = Entry {
            pod,
            ended_ns,
            list,
        };
        self.pods.insert(entry.pod.path_uid.clone(), entry);
    }

    /// Evicts the pods that ended first until this many bytes fit.
    fn make_room(&mut self, bytes: usize) -> bool {
        while self.bytes + bytes > PODS_BYTES_MAX {
            let ended = self.pods.iter();
            let ended = ended.filter_map(|(uid, entry)| Some((entry.ended_ns?, uid)));
            let Some(uid) = ended.min().map(|(_, uid)| uid.clone()) else {
                return false;
            };
            self.remove(&uid);
            self.evicted += 1;
        }
        true
    }

    fn remove(&mut self, path_uid: &str) {
        if let Some(entry) = self.pods.remove(path_uid) {
            self.bytes -= entry.pod.bytes();
        }
    }

    /// A pod was deleted. It stays for its last samples.
    pub fn delete(&mut self, pod: Pod, now_ns: u64) {
        let path_uid = pod.path_uid.clone();
        let known = self.pods.get(&path_uid);
        // The mirror of a static pod comes again under another uid, maybe before the old one goes.
        if known.is_some_and(|known| known.pod.uid != pod.uid) {
            return;
        }
        self.apply(pod, now_ns);
        if let Some(entry) = self.pods.get_mut(&path_uid) {
            entry.ended_ns.get_or_insert(now_ns);
        }
    }

    /// Forgets pods whose last samples have been sent, and owners that no pod names.
    pub fn maintain(&mut self, now_ns: u64) {
        let is_over = |entry: &Entry| {
            let ended_ns = entry.ended_ns;
            ended_ns.is_some_and(|ended_ns| now_ns.saturating_sub(ended_ns) >= ENDED_KEPT_NS)
        };
        let over = self.pods.extract_if(|_, entry| is_over(entry));
        let bytes: usize = over.map(|(_, entry)| entry.pod.bytes()).sum();
        self.bytes -= bytes;
        self.forget_owners();
    }

    fn forget_owners(&mut self) {
        let mut owners = std::mem::take(&mut self.owners);
        for entry in self.pods.values() {
            let owner = entry.pod.owner.as_ref();
            let state = owner.and_then(|owner| owners.remove_entry(&owner.uid));
            self.owners.extend(state);
        }
    }

    fn want_owner(&mut self, pod: &Pod, now_ns: u64) {
        let Some(owner) = pod
            .owner
            .as_ref()
            .filter(|owner| OwnerKind::of(owner).is_some())
        else {
            return;
        };
        if self.owners.len() > self.pods.len() + OWNERS_UNUSED_MAX {
            self.forget_owners();
        }
        let uid = owner.uid.clone();
        let wanted = OwnerState::Wanted { from_ns: now_ns };
        self.owners.entry(uid).or_insert(wanted);
    }

    /// The next owner to read.
    pub fn next_owner(&self, now_ns: u64) -> Option<OwnerRequest> {
        let is_due = |owner: &&Owner| match self.owners.get(&owner.uid) {
            Some(OwnerState::Wanted { from_ns }) => *from_ns <= now_ns,
            Some(OwnerState::Known(_)) | None => false,
        };
        self.pods.values().find_map(|entry| {
            let owner = entry.pod.owner.as_ref().filter(is_due)?;
            Some(OwnerRequest {
                kind: OwnerKind::of(owner)?,
                namespace: entry.pod.namespace.clone(),
                name: owner.name.clone(),
                uid: owner.uid.clone(),
            })
        })
    }

    /// Takes the answer to a request.
    pub fn set_owner(&mut self, request: &OwnerRequest, answer: OwnerAnswer, now_ns: u64) {
        let Some(state) = self.owners.get_mut(&request.uid) else {
            return;
        };
        *state = match answer {
            OwnerAnswer::Owned { kind, name } => OwnerState::Known(Some((kind, name))),
            OwnerAnswer::Alone => OwnerState::Known(None),
            OwnerAnswer::Failed => OwnerState::Wanted {
                from_ns: now_ns.saturating_add(OWNER_RETRY_NS),
            },
        };
        self.generation += 1;
    }

    /// The workload of a pod, and whether its owners are known.
    fn workload<'a>(&'a self, pod: &'a Pod) -> (Workload<'a>, bool) {
        let owner = pod.owner.as_ref();
        let state = owner.and_then(|owner| self.owners.get(&owner.uid));
        let (above, is_known) = match state {
            Some(OwnerState::Known(above)) => (above.as_ref(), true),
            Some(OwnerState::Wanted { .. }) => (None, false),
            None => (None, true),
        };
        let above = above.map(|(kind, name)| (&**kind, &**name));
        (find_workload(pod, above), is_known)
    }

    /// The pod, the container and the workload of a cgroup: see [`Identity`](crate::Identity).
    pub fn find(&self, path_uid: &str, container_id: Option<&str>) -> Option<Found<'_>> {
        let pod = &self.pods.get(path_uid)?.pod;
        let (workload, is_workload_known) = self.workload(pod);
        let container = match container_id {
            None => ContainerMatch::None,
            Some(id) => match pod.find_container(id) {
                Some(container) => ContainerMatch::Named(container),
                None if pod.containers.iter().all(Container::is_accounted_for) => {
                    ContainerMatch::Sandbox
                }
                None => ContainerMatch::Unknown,
            },
        };
        let is_container_known =
            matches!(container, ContainerMatch::None | ContainerMatch::Named(_));
        Some(Found {
            pod,
            container,
            workload,
            is_settled: is_workload_known && is_container_known,
        })
    }

    /// The counts.
    pub fn stats(&self) -> PodStats {
        let pods = self.pods.values();
        PodStats {
            pods: self.pods.len(),
            bytes: self.bytes,
            evicted: self.evicted,
            owners: self.owners.len(),
            left_out: pods.map(|entry| entry.pod.left_out).sum(),
        }
    }
}
