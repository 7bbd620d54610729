//! A watch of one ConfigMap.

use std::{collections::BTreeMap, pin::pin, time::Duration};

use anyhow::Result;
use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api,
    runtime::watcher::{DefaultBackoff, watch_object},
};
use tokio::{sync::oneshot, time::sleep};

use super::{
    access::ClusterAccess,
    error::{is_start_gone, reason_of},
};
use crate::threads::spawn;

/// Wait before a watch begins anew.
const RESTART_WAIT: Duration = Duration::from_secs(1);

/// News of a ConfigMap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigMapEvent {
    /// Its texts, by their keys.
    Present(BTreeMap<String, String>),
    /// It was deleted, or does not exist.
    Absent,
    /// It cannot be read now.
    Failed {
        /// The reason, as in `kubernetes_errors`.
        reason: &'static str,
        /// The error.
        error: String,
    },
}

/// The thread. It ends when this is dropped.
#[derive(Debug)]
pub struct ConfigMapWatch {
    _stop: oneshot::Sender<()>,
}

impl ConfigMapWatch {
    /// Starts the thread `policy`, which passes on what it hears. The API server need not be there yet.
    ///
    /// # Errors
    /// The credentials cannot be read, or the thread not be started.
    pub fn start(
        access: &ClusterAccess,
        namespace: &str,
        name: &str,
        mut on_event: impl FnMut(ConfigMapEvent) + Send + 'static,
    ) -> Result<Self> {
        let (runtime, client) = access.connect()?;
        let api = Api::<ConfigMap>::namespaced(client, namespace);
        let name = name.to_owned();
        let (stop, stopped) = oneshot::channel();
        spawn("policy", move || {
            runtime.block_on(async {
                tokio::select! {
                    () = watch(&api, &name, &mut on_event) => {}
                    _ = stopped => {}
                }
            });
        })?;
        Ok(Self { _stop: stop })
    }
}

async fn watch(api: &Api<ConfigMap>, name: &str, on_event: &mut impl FnMut(ConfigMapEvent)) {
    let mut waits = DefaultBackoff::default();
    loop {
        let mut events = pin!(watch_object(api.clone(), name));
        let mut wait = RESTART_WAIT;
        while let Some(event) = events.next().await {
            match event {
                Ok(Some(map)) => on_event(ConfigMapEvent::Present(map.data.unwrap_or_default())),
                Ok(None) => on_event(ConfigMapEvent::Absent),
                // kube's watcher would ask for the same version again and again.
                Err(err) if is_start_gone(&err) => break,
                Err(err) => {
                    on_event(ConfigMapEvent::Failed {
                        reason: reason_of(&err),
                        error: err.to_string().replace('\n', " "),
                    });
                    // kube's watcher would go on without news that the ConfigMap can be read again.
                    wait = waits.next().unwrap_or(RESTART_WAIT);
                    break;
                }
            }
        }
        sleep(wait).await;
    }
}
