//! What networks and busy servers do between a member and Consul: never two are active, and the role moves only when it
//! must.

use testkit::consul_group::Pair;

testkit::state!(network, Pair);
