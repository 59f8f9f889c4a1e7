//! What a contender costs while nothing happens: memory, and requests to the API server.

use std::thread::sleep;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;
use testkit::audit::{AUDITED, Audit, Requests};
use testkit::cluster::Cluster;

use super::contender::Contender;
use super::round::Pair;

/// After this, what a start needed once is given back.
const CALM: Duration = Duration::from_secs(5);

/// What one contender costs.
#[derive(Debug, Serialize)]
pub struct Cost {
    /// Who.
    pub contender: Contender,
    /// Memory of the active one without its command.
    pub pss_active_kb: u64,
    /// The same of a standby.
    pub pss_standby_kb: u64,
    /// How long requests were counted.
    pub watched_seconds: u64,
    /// What the active one asked for.
    pub active: Requests,
    /// What the standby asked for.
    pub standby: Requests,
}

impl Cost {
    /// Measures two members for `watch`.
    pub fn measure(cluster: &Cluster, contender: &Contender, watch: Duration) -> Result<Self> {
        let accounts = [super::account(cluster, AUDITED)?, super::account(cluster, AUDITED)?];
        let [active, standby] = &accounts;
        let tokens = [active.token.as_str(), standby.token.as_str()];
        let pair = Pair::start(cluster, contender, AUDITED, tokens, false)?;
        sleep(CALM);
        let audit = Audit::begin()?;
        sleep(watch);
        let pss = |is_active| pair.member(is_active)?.pss_kb(pair.workload());
        Ok(Self {
            contender: contender.clone(),
            pss_active_kb: pss(true)?,
            pss_standby_kb: pss(false)?,
            watched_seconds: watch.as_secs(),
            active: audit.requests_of(&active.name)?,
            standby: audit.requests_of(&standby.name)?,
        })
    }
}
