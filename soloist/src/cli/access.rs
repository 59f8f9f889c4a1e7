//! How a store is reached: the same for members and verbs.

use std::path::PathBuf;

use clap::Args;

use crate::lock::kubernetes::Access;

#[derive(Clone, Debug, Args)]
#[group(skip)]
pub(super) struct Arguments {
    /// For a lock on Kubernetes: the kubeconfig file [default: KUBECONFIG, else the pod's own credentials, else the one
    /// in the home folder]
    #[arg(long, env = "SOLOIST_KUBECONFIG", value_name = "PATH")]
    kubeconfig: Option<PathBuf>,
    /// For a lock on Kubernetes: the context in the kubeconfig [default: its current one]
    #[arg(long, env = "SOLOIST_CONTEXT", value_name = "NAME")]
    context: Option<String>,
    /// For a lock on Consul: send its token without TLS to another host
    #[arg(long, env = "SOLOIST_ALLOW_PLAINTEXT")]
    pub(super) allow_plaintext: bool,
}

impl From<Arguments> for Access {
    fn from(arguments: Arguments) -> Self {
        let Arguments { kubeconfig, context, .. } = arguments;
        Self { kubeconfig, context, pod_only: false }
    }
}
