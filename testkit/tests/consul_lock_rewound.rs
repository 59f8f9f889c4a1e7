//! Consul is put back to an older state, as from a backup, while a group uses it.

use testkit::consul_group::Pair;

testkit::state!(rewound, Pair);
