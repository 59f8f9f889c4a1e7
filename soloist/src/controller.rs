//! Active and standby pods by label, for applications that have no member of their own in them: a controller watches all
//! pods of a group, decides who is active, and moves label and traffic. It is itself one of several members, of which one
//! is active.
//!
//! News go one way round, in the order of this list:
//!
//! | module | what it does |
//! |---|---|
//! | `lead` | the loop of a term: hears news, begins rounds of writes, takes in what became of them |
//! | `watch` with `pods`, `node`, `service`, `declared` | tells of all objects of a kind, list and watch |
//! | `census` with `roster` | whose each pod is |
//! | `cache` | one group: what is known of it, and what is to be done next |
//! | `plan` with `critical` | what to write, from what is there: pure |
//! | `apply` with `record` | sends the writes, and says what became of each |
//! | `status`, `gallery` | what people see of it |

pub mod apply;
mod cache;
mod census;
pub mod critical;
pub mod declared;
pub mod gallery;
pub mod group;
mod lead;
pub mod node;
pub mod notice;
mod pace;
pub mod plan;
pub mod pod;
pub mod pods;
pub mod record;
mod roster;
pub mod service;
mod status;
pub mod watch;

use std::path::PathBuf;
use std::sync::Arc;

use crate::lock::kubernetes::Access;
use crate::member::Deed;
use crate::workload::task::Terms;

use self::gallery::Gallery;
use self::group::Group;
use self::pods::Eye;

/// What a controller is to do while it leads.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How the API server is reached.
    pub access: Access,
    /// Where its groups are, each namespace once; all of them where none is named.
    pub namespaces: Vec<String>,
    /// Which groups there are.
    pub groups: Groups,
    /// What is seen of a pod.
    pub eye: Eye,
    /// Whether it looks at nodes and Services, which takes rules of their own.
    pub looks_around: bool,
    /// Where groups are shown, if somebody may look.
    pub gallery: Option<Arc<Gallery>>,
}

/// Which groups there are.
#[derive(Clone, Debug)]
pub enum Groups {
    /// One in each namespace that has pods of it; all are like this, but for the namespace.
    Each(Box<Group>),
    /// Those that somebody has declared.
    Declared {
        /// The file with the bearer token of notices by HTTP.
        token_file: Option<PathBuf>,
    },
}

/// What a member does with its terms: it leads.
pub fn deed(settings: Settings) -> Deed {
    Box::new(|terms| Box::pin(lead_whenever(settings, terms)))
}

async fn lead_whenever(settings: Settings, mut terms: Terms) -> anyhow::Result<()> {
    while let Some(mandate) = terms.next().await {
        lead::lead(&settings, mandate.clone()).await;
        mandate.finish();
    }
    // The elector has ended, and ends everything around it.
    std::future::pending().await
}
