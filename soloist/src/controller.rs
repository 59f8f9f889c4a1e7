//! Active and standby pods by label, for applications that have no member of their own in them: a controller watches all
//! pods of a group, decides who is active, and moves label and traffic. It is itself one of several members, of which one
//! is active.

pub mod critical;
pub mod group;
pub mod plan;
pub mod pod;
pub mod record;
