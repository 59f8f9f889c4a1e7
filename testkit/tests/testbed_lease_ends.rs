//! However the active member of a group on a Lease ends, the next one is active in time, and never while the old one
//! still is.

use testkit::lease_group::Pair;

testkit::state!(ends, Pair);
