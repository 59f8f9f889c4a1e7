//! Who is compared, and how each is started.

use std::ffi::OsString;

use anyhow::Result;
use serde::Serialize;
use testkit::cluster::program;
use testkit::group::binary;

use super::access::Access;
use crate::duel::arena::{self, Start};
use crate::peer::Peer;

/// A program that runs a command while it leads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(into = "String")]
pub enum Contender {
    /// `soloist run`.
    Soloist,
    /// `soloist k8s-await-election`.
    StandIn,
    /// A member of client-go's election that stops its command and releases when it is asked to stop.
    ClientGo,
    /// The same, built as k8s-await-election is: SIGTERM is nothing that it handles.
    Deaf,
    /// Any program that takes what k8s-await-election takes.
    Peer(Peer),
}

impl std::fmt::Display for Contender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Soloist => "soloist run",
            Self::StandIn => "soloist k8s-await-election",
            Self::ClientGo => "client-go",
            Self::Deaf => "client-go, SIGTERM not handled",
            Self::Peer(peer) => &peer.name,
        })
    }
}

impl From<Contender> for String {
    fn from(contender: Contender) -> Self {
        contender.to_string()
    }
}

impl arena::Contender for Contender {
    fn is_ours(&self) -> bool {
        matches!(self, Self::Soloist | Self::StandIn)
    }

    fn tells_a_token(&self) -> bool {
        !matches!(self, Self::Peer(_))
    }
}

impl Contender {
    /// The variables and the command line of a member.
    pub fn words(&self, namespace: &str, start: &Start<'_>, access: &Access) -> Result<Vec<OsString>> {
        let (lease, name) = (start.lock, start.name());
        let mut words: Vec<OsString> = vec!["env".into()];
        match self {
            Self::Soloist => {
                words.extend([binary("soloist")?.into_os_string(), "run".into(), "--name".into(), name.into()]);
                words.extend(["--lock".into(), format!("kubernetes://{namespace}/{lease}").into()]);
                words.extend(["--kubeconfig".into(), access.kubeconfig().into(), "--".into()]);
            }
            Self::StandIn => {
                words.extend(variables(namespace, start, access));
                words.extend([binary("soloist")?.into_os_string(), "k8s-await-election".into()]);
            }
            Self::ClientGo | Self::Deaf => {
                words.push(program("client-go-member")?.into());
                words.extend(["-kubeconfig".into(), access.kubeconfig().into(), "-release-on-cancel".into()]);
                words.extend(["-namespace", namespace, "-name", lease, "-identity", name].map(Into::into));
                words.extend((*self == Self::Deaf).then(|| "-deaf".into()));
            }
            Self::Peer(peer) => {
                words.extend(variables(namespace, start, access));
                words.push(peer.path.clone().into());
            }
        }
        words.extend(start.workload.iter().map(Into::into));
        Ok(words)
    }
}

/// What k8s-await-election is told, and what a container is told of its API server.
fn variables(namespace: &str, start: &Start<'_>, access: &Access) -> Vec<OsString> {
    let (lease, address) = (start.lock, access.address());
    let settings = [
        ("ENABLED", "1"),
        ("NAME", lease),
        ("LOCK_NAME", lease),
        ("LOCK_NAMESPACE", namespace),
        ("IDENTITY", start.name()),
    ];
    let mut words: Vec<OsString> =
        settings.map(|(name, value)| format!("K8S_AWAIT_ELECTION_{name}={value}").into()).into();
    words.push(format!("KUBERNETES_SERVICE_HOST={}", address.ip()).into());
    words.push(format!("KUBERNETES_SERVICE_PORT={}", address.port()).into());
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_a_name_and_a_file() {
        assert!("old=/bin/true".parse::<Peer>().is_ok());
        assert!("/bin/true".parse::<Peer>().is_err());
        assert!("old=/no/such/file".parse::<Peer>().is_err());
        assert!("=/bin/true".parse::<Peer>().is_err());
    }
}
