//! Where the API server is and who we are: in a pod, or from a kubeconfig. Read anew for every fresh connection, so that
//! rotated tokens, certificates and authorities are noticed.

use std::path::{Path, PathBuf};

use kube::Config;
use kube::config::KubeConfigOptions;

use super::kubeconfig;
use crate::error::chain;
use crate::lock::LockError;

/// Where a pod finds the files of its service account.
const POD_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// What the user said about it.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// A kubeconfig file; else `KUBECONFIG`, else the pod's own credentials, else the one in the home folder.
    pub kubeconfig: Option<PathBuf>,
    /// The context in the kubeconfig; else its current one.
    pub context: Option<String>,
    /// The pod's own credentials and nothing else, whatever `KUBECONFIG` says.
    pub pod_only: bool,
}

impl Access {
    /// Reads the settings, and refuses those under which nobody could be trusted.
    ///
    /// # Errors
    /// Files that are missing or unreadable, TLS that is not to be verified, a proxy.
    pub async fn load(&self) -> Result<Config, LockError> {
        let config = self.read().await?;
        let refuse = |what: &str| Err(LockError::Denied(format!("{what}, which is not allowed")));
        if config.accept_invalid_certs {
            return refuse("the kubeconfig says insecure-skip-tls-verify");
        }
        if config.proxy_url.is_some() {
            return refuse("the kubeconfig names a proxy");
        }
        let host = config.cluster_url.host().unwrap_or_default();
        let is_local = matches!(host, "127.0.0.1" | "localhost" | "[::1]");
        match config.cluster_url.scheme_str() {
            Some("https") => Ok(config),
            Some("http") if is_local => Ok(config),
            _ => refuse(&format!(
                "the API server's address is {:?} instead of https://...",
                config.cluster_url.to_string()
            )),
        }
    }

    async fn read(&self) -> Result<Config, LockError> {
        let options = KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
        let denied = |error: &dyn std::error::Error| LockError::Denied(format!("the credentials: {}", chain(error)));
        let from_files = async |path: Option<&Path>| {
            let file =
                kubeconfig::read(path).map_err(|error| LockError::Denied(format!("the credentials: {error}")))?;
            Config::from_custom_kubeconfig(file, &options).await.map_err(|error| denied(&error))
        };
        if let Some(path) = &self.kubeconfig {
            return from_files(Some(path)).await;
        }
        let in_the_pod = || {
            let refuse = |error| LockError::Denied(format!("the credentials in {POD_ACCOUNT}: {}", chain(&error)));
            Config::incluster().map_err(refuse)
        };
        if self.pod_only {
            return in_the_pod();
        }
        let is_named = self.context.is_some() || std::env::var_os("KUBECONFIG").is_some_and(|value| !value.is_empty());
        if !is_named && std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() {
            return in_the_pod();
        }
        from_files(None).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn load(cluster: &str) -> Result<Config, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config");
        let text = format!(
            "{{apiVersion: v1, kind: Config, current-context: a, clusters: [{{name: c, cluster: {{{cluster}}}}}], \
             users: [{{name: u, user: {{token: t}}}}], contexts: [{{name: a, context: {{cluster: c, user: u, \
             namespace: prod}}}}]}}"
        );
        std::fs::write(&path, text).unwrap();
        let access = Access { kubeconfig: Some(path), ..Access::default() };
        access.load().await.map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn only_verified_tls_is_allowed() {
        let config = load("server: 'https://10.0.0.1:6443'").await.unwrap();
        assert_eq!(config.default_namespace, "prod");
        load("server: 'http://127.0.0.1:8001'").await.unwrap();
        for (cluster, expected) in [
            ("server: 'http://10.0.0.1:6443'", "instead of https"),
            ("server: 'https://10.0.0.1', insecure-skip-tls-verify: true", "insecure-skip-tls-verify"),
            ("server: 'https://10.0.0.1', proxy-url: 'http://10.0.0.2:1'", "proxy"),
            ("server: ''", ""),
        ] {
            let why = load(cluster).await.unwrap_err();
            assert!(why.contains(expected), "{cluster}: {why}");
        }
    }

    #[tokio::test]
    async fn what_is_missing_is_named() {
        let access = Access { kubeconfig: Some("/does/not/exist".into()), ..Access::default() };
        let why = access.load().await.unwrap_err().to_string();
        assert!(why.contains("/does/not/exist"), "{why}");
        let access = Access { context: Some("other".into()), ..access };
        assert!(access.load().await.is_err());
    }
}
