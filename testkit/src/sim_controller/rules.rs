//! What the loop around the plan must do. Each can be left out, to show that it is needed.

/// The rules of a controller's loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// It sends nothing once its term is over.
    pub checks_its_term: bool,
    /// Every write to a pod is for the version that it knows.
    pub quotes_the_version: bool,
    /// Every write of the record is for the version that it knows.
    pub quotes_the_record: bool,
    /// Every write to a pod writes the term on it, and one without the own term counts as open.
    pub settles: bool,
    /// After an unknown outcome it looks, and the pod counts as open until another write to it is answered.
    pub distrusts_unknown: bool,
}

impl Rules {
    /// All of them.
    pub const ALL: Rules = Rules {
        checks_its_term: true,
        quotes_the_version: true,
        quotes_the_record: true,
        settles: true,
        distrusts_unknown: true,
    };
}
