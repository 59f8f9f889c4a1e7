//! The store of the API server is put back to an older state, as from a backup, while a group uses it.

use testkit::lease_group::Pair;

testkit::state!(rewound, Pair);
