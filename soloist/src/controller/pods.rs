//! The pods that are watched, and what is seen of them.

use serde_json::Value;

use super::pod::{Pod, Raw};
use super::watch::{Place, Scope};

/// A pod, and the text of the whole object where that is kept: it is written as a whole then, and else by a patch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// What decides.
    pub pod: Pod,
    /// Everything.
    pub object: Option<String>,
}

/// What is seen of a pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Eye {
    /// Whether whole objects are kept, because the Role has no `patch`.
    pub keeps_objects: bool,
}

impl Eye {
    /// Reads one object.
    ///
    /// # Errors
    /// It is no pod.
    pub fn read(self, object: Value) -> Result<Shown, String> {
        let text = self.keeps_objects.then(|| {
            let mut whole = object.clone();
            if let Some(metadata) = whole["metadata"].as_object_mut() {
                metadata.remove("managedFields");
            }
            whole.to_string()
        });
        let raw: Raw = serde_json::from_value(object).map_err(|error| format!("a pod cannot be read: {error}"))?;
        Ok(Shown { pod: Pod::read(raw)?, object: text })
    }
}

/// Which pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pods {
    /// The namespace; all of them where there is none.
    pub namespace: Option<String>,
    /// Labels that they have; empty for all pods.
    pub selector: String,
    /// What is seen of them.
    pub eye: Eye,
}

impl Scope for Pods {
    type Item = Shown;

    fn name(&self) -> String {
        match self.selector.as_str() {
            "" => "pods".to_owned(),
            selector => format!("pods with {selector}"),
        }
    }

    fn place(&self) -> Place {
        let (namespace, selector) = (self.namespace.clone(), self.selector.clone());
        Place { root: "/api/v1", namespace, plural: "pods", selector }
    }

    fn missing(&self) -> &'static str {
        "the verbs list and watch on pods, in a ClusterRole where the namespace is not given"
    }

    fn read(&self, object: Value) -> Result<Shown, String> {
        self.eye.read(object)
    }
}
