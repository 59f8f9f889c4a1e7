//! The example of the library, as two processes over a Lease of a real API server.

use anyhow::Result;
use testkit::cluster::Cluster;
use testkit::service::Service;

#[test]
fn a_service_that_ends_in_order_hands_over_without_a_wait() -> Result<()> {
    let cluster = Cluster::connect()?;
    let namespace = cluster.namespace()?;
    cluster.initial_lease(&namespace, "app")?;
    Service::hand_over(format!("kubernetes://{namespace}/app"))
}
