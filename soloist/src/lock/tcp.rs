//! TCP to a store: a peer that is gone is noticed, and of several addresses another one is tried.

use std::sync::Arc;
use std::time::Duration;

use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use tower::service_fn;

use super::addresses::{Addresses, List};

/// Part of every limit on a call: a server that cannot even be connected to leaves time for the next one.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// When an idle connection is asked whether it still exists, and how often.
const KEEPALIVE: Duration = Duration::from_secs(2);
const KEEPALIVE_TRIES: u32 = 3;
/// How long sent bytes may stay without acknowledgement.
const USER_TIMEOUT: Duration = Duration::from_secs(6);

/// TCP as this needs it.
pub fn connector(
    addresses: Arc<Addresses>,
) -> HttpConnector<impl tower::Service<Name, Response = List, Error = std::io::Error, Future: Send> + Clone + Send> {
    let turn = addresses.next_turn();
    let resolve = service_fn(move |name: Name| {
        let addresses = Arc::clone(&addresses);
        async move { addresses.of(name.as_str(), turn).await }
    });
    let mut connector = HttpConnector::new_with_resolver(resolve);
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(CONNECT_LIMIT));
    connector.set_keepalive(Some(KEEPALIVE));
    connector.set_keepalive_interval(Some(KEEPALIVE));
    connector.set_keepalive_retries(Some(KEEPALIVE_TRIES));
    connector.set_tcp_user_timeout(Some(USER_TIMEOUT));
    connector
}
