//! What to say when something is not allowed: the rule that is missing, ready to be put into a Role.

use std::fmt;

use super::ObjectName;

/// What is asked of the API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// One look.
    Get,
    /// One look at what may be somebody else's, and is not written.
    Peek,
    /// A first write.
    Create,
    /// Every other write.
    Update,
    /// Change notices.
    Watch,
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verb::Get | Verb::Peek => "get",
            Verb::Create => "create",
            Verb::Update => "update",
            Verb::Watch => "watch",
        })
    }
}

/// The rule that allows `verb` on `place`, on one line.
pub fn missing(verb: Verb, place: &ObjectName) -> String {
    let ObjectName { kind, namespace, name } = place;
    let (group, resource) = (kind.group(), kind.resource());
    let verbs =
        |verbs| format!("{{apiGroups: [{group}], resources: [{resource}], resourceNames: [{name}], verbs: [{verbs}]}}");
    let role = match verb {
        // The name of what does not exist yet cannot be part of a rule.
        Verb::Create => format!(
            "{{apiGroups: [{group}], resources: [{resource}], verbs: [create]}}; or apply a manifest with the {}",
            kind.word()
        ),
        Verb::Peek => verbs("get, watch"),
        _ => verbs("get, watch, update"),
    };
    format!("missing: verb {verb} on {resource} {name:?} in namespace {namespace:?}; add to the member's Role: {role}")
}

/// The rule that allows `verb` on what is no Lease, on one line.
pub fn missing_beside(verb: Verb, resource: &str, namespace: &str) -> String {
    format!(
        "missing: verb {verb} on {resource} in namespace {namespace:?}; add to the member's Role: \
         {{apiGroups: [\"\"], resources: [{resource}], verbs: [{verb}]}}"
    )
}
