//! However the active member of a group on Consul ends, the next one is active in time, and never while the old one
//! still is.

use testkit::consul_group::Pair;

testkit::state!(ends, Pair);
