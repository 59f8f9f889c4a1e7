//! Active and standby pods by label, for applications that have no member of their own in them: a controller watches all
//! pods of a group, decides who is active, and moves label and traffic. It is itself one of several members, of which one
//! is active.

pub mod apply;
mod cache;
pub mod critical;
pub mod group;
mod lead;
pub mod notice;
pub mod plan;
pub mod pod;
pub mod record;
pub mod watch;

use crate::lock::kubernetes::Access;
use crate::member::Deed;
use crate::workload::task::Terms;

use self::apply::Form;
use self::group::Group;
use self::notice::Notice;
use self::watch::Scope;

/// What a controller is to do while it leads.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How the API server is reached.
    pub access: Access,
    /// Which pods it looks after. All of one scope in a namespace are a group.
    pub scopes: Vec<Scope>,
    /// What every group wants, but for its namespace.
    pub group: Group,
    /// How pods are changed.
    pub form: Form,
    /// How a pod hears that it is active.
    pub notice: Option<Notice>,
}

impl Settings {
    fn group_in(&self, namespace: &str) -> Group {
        Group { namespace: namespace.to_owned(), ..self.group.clone() }
    }
}

/// What a member does with its terms: it leads.
pub fn deed(settings: Settings) -> Deed {
    Box::new(|terms| Box::pin(lead_whenever(settings, terms)))
}

async fn lead_whenever(settings: Settings, mut terms: Terms) -> anyhow::Result<()> {
    while let Some(mandate) = terms.next().await {
        lead::lead(&settings, mandate.clone()).await;
        terms.finish(&mandate);
    }
    // The elector has ended, and ends everything around it.
    std::future::pending().await
}
