//! Containers of a pod: names from the spec, ids from the status, joined by name.

use crate::object::{ContainerSpec, ContainerStatus, cut_text};

/// Ids to keep of one container: the current one, and those before its last restarts. kubelet waits 10 s before the second restart
/// and doubles this time (`CrashLoopBackOff`), so that four ids are from 10 + 20 + 40 = 70 s at least.
const IDS_MAX: usize = 4;

/// The list of the pod's spec that has the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContainerKind {
    /// `containers`.
    Regular,
    /// `initContainers`, and ends before the regular containers start.
    Init,
    /// `initContainers` with `restartPolicy: Always`: it runs beside the regular containers.
    Sidecar,
    /// `ephemeralContainers`: added to the running pod, as by `kubectl debug`.
    Ephemeral,
}

/// A container of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// Its name, unique in the pod.
    pub name: Box<str>,
    /// The list that has it.
    pub kind: ContainerKind,
    /// The image as in the spec: `registry/path:tag`.
    pub image: Box<str>,
    /// The first 12 hexadecimal digits of the image's digest, once it has been pulled.
    pub digest: Option<Box<str>>,
    /// The runtime, as in the prefix of the id: `containerd`.
    pub runtime: Box<str>,
    /// Its ids without the prefix, the current one first.
    ids: Vec<Box<str>>,
    /// Whether the status says that it waits for init containers to end, so that it has no id yet.
    is_held: bool,
}

impl Container {
    pub(crate) fn new(
        spec: ContainerSpec,
        kind: ContainerKind,
        status: Option<&ContainerStatus>,
    ) -> Self {
        let is_restarted = spec.restart_policy.as_deref() == Some("Always");
        let kind = match kind {
            ContainerKind::Init if is_restarted => ContainerKind::Sidecar,
            kind => kind,
        };
        let mut container = Self {
            name: cut_text(spec.name),
            kind,
            image: cut_text(spec.image.unwrap_or_default()),
            digest: None,
            runtime: "".into(),
            ids: Vec::new(),
            is_held: false,
        };
        if let Some(status) = status {
            container.digest = status.image_id.as_deref().and_then(read_digest);
            container.is_held = status.is_held();
            for id in status.ids() {
                container.add_id(id);
            }
        }
        container
    }

    fn add_id(&mut self, id: &str) {
        let (runtime, id) = id.split_once("://").unwrap_or(("", id));
        let is_known = self.ids.iter().any(|known| **known == *id);
        if id.is_empty() || is_known || self.ids.len() >= IDS_MAX {
            return;
        }
        if self.ids.is_empty() {
            self.runtime = cut_text(runtime.to_owned());
        }
        self.ids.push(cut_text(id.to_owned()));
    }

    /// Keeps the ids that the same container had before.
    pub(crate) fn keep_ids(&mut self, before: &Self) {
        for id in &before.ids {
            self.add_id(id);
        }
    }

    /// Its id, without the runtime's prefix; `None` before it was created.
    pub fn id(&self) -> Option<&str> {
        self.ids.first().map(|id| &**id)
    }

    /// Whether this is or was its id.
    pub fn has_id(&self, id: &str) -> bool {
        self.ids.iter().any(|known| **known == *id)
    }

    /// Whether an unknown id cannot be its own: it has one, or is not to be created yet.
    pub(crate) fn is_accounted_for(&self) -> bool {
        !self.ids.is_empty() || self.is_held
    }

    /// The image for a label: `registry/path:tag@sha256:` and 12 digits of the digest, which tell two builds with one tag apart.
    pub fn image_label(&self) -> String {
        let name = self.image.split("@sha256:").next().unwrap_or_default();
        match &self.digest {
            Some(digest) => format!("{name}@sha256:{digest}"),
            None => name.to_owned(),
        }
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        let Self {
            name,
            kind: _,
            image,
            digest,
            runtime,
            ids,
            is_held: _,
        } = self;
        let ids = ids.iter().map(|id| size_of::<Box<str>>() + id.len());
        name.len()
            + image.len()
            + digest.as_ref().map_or(0, |digest| digest.len())
            + runtime.len()
            + ids.sum::<usize>()
    }
}

/// The first 12 digits of the digest in `registry/path@sha256:…`, `docker-pullable://…@sha256:…` or `sha256:…`.
fn read_digest(image_id: &str) -> Option<Box<str>> {
    const DIGITS: usize = 12;
    let (_, digest) = image_id.rsplit_once("sha256:")?;
    let digits = digest.get(..DIGITS)?;
    digits
        .bytes()
        .all(|digit| digit.is_ascii_hexdigit())
        .then(|| digits.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check the forms of image ids of containerd, Docker and CRI-O, and of an image that was loaded and never pulled.
    #[test]
    fn digests() {
        let hash = "0123456789abcdef".repeat(4);
        for id in [
            format!("docker.io/library/nginx@sha256:{hash}"),
            format!("docker-pullable://nginx@sha256:{hash}"),
            format!("sha256:{hash}"),
        ] {
            assert_eq!(read_digest(&id).as_deref(), Some("0123456789ab"), "{id}");
        }
        for id in [
            "",
            "nginx",
            "sha256:0123",
            "sha256:0123456789äb",
            "sha256:ghijklmnopqr",
        ] {
            assert_eq!(read_digest(id), None, "{id}");
        }
    }

    /// Check that a label has tag and digest, also for an image that the spec names by its digest.
    #[test]
    fn images() {
        let container = |image: &str, image_id: &str| {
            let spec = ContainerSpec {
                image: Some(image.into()),
                ..ContainerSpec::default()
            };
            let status = ContainerStatus {
                image_id: Some(image_id.into()),
                ..ContainerStatus::default()
            };
            Container::new(spec, ContainerKind::Regular, Some(&status)).image_label()
        };
        let hash = "0123456789abcdef".repeat(4);
        let id = format!("registry.example/shop/cart@sha256:{hash}");
        assert_eq!(
            container("shop/cart:1.2", &id),
            "shop/cart:1.2@sha256:0123456789ab"
        );
        assert_eq!(
            container(&format!("shop/cart:1.2@sha256:{hash}"), &id),
            "shop/cart:1.2@sha256:0123456789ab"
        );
        assert_eq!(container("shop/cart:1.2", ""), "shop/cart:1.2");
    }

    /// Check that a container keeps the ids of its last restarts, and forgets older ones.
    #[test]
    fn ids_of_restarts() {
        let with_id = |id: String| {
            let status = ContainerStatus {
                container_id: Some(format!("containerd://{id}")),
                ..ContainerStatus::default()
            };
            Container::new(
                ContainerSpec::default(),
                ContainerKind::Regular,
                Some(&status),
            )
        };
        let mut container = with_id("id0".into());
        for restart in 1..6 {
            let before = container;
            container = with_id(format!("id{restart}"));
            container.keep_ids(&before);
        }
        assert_eq!(container.id(), Some("id5"));
        assert!(container.has_id("id2") && !container.has_id("id1"));
        assert_eq!(&*container.runtime, "containerd");
    }
}
