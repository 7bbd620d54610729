//! How the API server is reached.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use kube::{
    Client,
    config::{Config, KubeConfigOptions, Kubeconfig},
};
use tokio::runtime::{Builder, Runtime};

/// Set by kubelet in each container.
const HOST_VARIABLE: &str = "KUBERNETES_SERVICE_HOST";

/// Mounted by kubelet in each container, unless `automountServiceAccountToken` is false.
const TOKEN_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// Whether this process runs in a pod.
pub fn is_in_pod() -> bool {
    env::var_os(HOST_VARIABLE).is_some()
}

/// Whether this process has the service account of its pod.
pub fn has_service_account() -> bool {
    is_in_pod() && Path::new(TOKEN_PATH).exists()
}

/// How the API server is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClusterAccess {
    /// With the service account of the collector's pod.
    ServiceAccount,
    /// With the current context of a kubeconfig file.
    Kubeconfig(PathBuf),
}

impl ClusterAccess {
    /// A client, and the runtime of the thread that uses it. The API server is not asked.
    ///
    /// # Errors
    /// A file with address or credentials is missing or invalid.
    pub(super) fn connect(&self) -> Result<(Runtime, Client)> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.context("failed to start a runtime for the API server")?;
        let mut config = runtime.block_on(self.read())?;
        // The watches tell the reason at once and wait by themselves; kube would try an overloaded API server again for five minutes first.
        config.default_retry = false;
        let context = runtime.enter();
        let client = Client::try_from(config)
            .context("failed to prepare the connection to the API server")?;
        drop(context);
        Ok((runtime, client))
    }

    async fn read(&self) -> Result<Config> {
        match self {
            Self::ServiceAccount => Config::incluster()
                .context("failed to read the pod's service account (--kubernetes off goes without pods' labels)"),
            Self::Kubeconfig(path) => {
                let context =
                    || format!("failed to read the kubeconfig file `{}` (--kubeconfig)", path.display());
                let kubeconfig = Kubeconfig::read_from(path).with_context(context)?;
                let options = KubeConfigOptions::default();
                let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
                config.with_context(context)
            }
        }
    }
}
