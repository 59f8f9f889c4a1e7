//! How a pod hears that it is active.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::group::Group;
use super::pod::Pod;
use crate::notify::{self, http, udp};
use crate::patience::within;
use crate::settings::target::{Address, Target};

/// For one attempt.
const LIMIT: Duration = Duration::from_secs(2);

/// Where a pod listens, and for what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// On a UDP port: for a text, or for the whole notice.
    Udp {
        /// The port.
        port: u16,
        /// Sent as it is, once a promotion.
        payload: Option<String>,
    },
    /// For a POST, until it answers with 2xx.
    Http {
        /// The port.
        port: u16,
        /// The path.
        path: String,
        /// The file with the bearer token that it expects.
        token_file: Option<PathBuf>,
    },
}

impl Notice {
    /// Tells one pod once.
    ///
    /// # Errors
    /// Why it was not understood, as far as that is known.
    pub async fn tell(&self, group: &Group, pod: &Pod, token: u64) -> Result<(), String> {
        let Some(ip) = pod.ip else { return Err("the pod has no address".to_owned()) };
        let notice = notify::Notice {
            schema: 1,
            group: group.to_string(),
            member: pod.name.clone(),
            role: "active",
            fencing_token: Some(token),
            activation: None,
            valid_until_unix_ms: None,
        };
        match self {
            Self::Udp { port, payload } => {
                within(LIMIT, udp::tell((&ip.to_string(), *port), payload.as_deref(), &notice)).await
            }
            Self::Http { port, path, token_file } => {
                let address = Address::Tcp(ip.to_string(), *port);
                let target = Target { address, host: SocketAddr::new(ip, *port).to_string(), path: path.clone() };
                within(LIMIT, http::tell(&target, token_file.as_deref(), &notice)).await
            }
        }
    }
}
