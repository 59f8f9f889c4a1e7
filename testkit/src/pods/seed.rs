//! The manifests of examples/controller/seed, as its readers have them, and what they leave in a cluster.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;
use tempfile::TempDir;

use super::{NAMESPACE, Pods};
use crate::documents::root;
use crate::kubectl::Kubectl;

/// Where they are, from the root of the repository.
pub const FOLDER: &str = "examples/controller/seed";

/// The image of the controller in them.
const CONTROLLER: &str = "registry.example/soloist-icr";

/// Copies of the manifests with the images of the tests. What is created of them is removed with this.
#[derive(Debug)]
pub struct Seed {
    kubectl: Kubectl,
    root: TempDir,
}

impl Seed {
    /// Copies them into a folder of this test's.
    pub fn new(pods: &Pods) -> Result<Self> {
        let seed = Self { kubectl: pods.client().clone(), root: tempfile::tempdir()? };
        fs::create_dir_all(seed.folder())?;
        for entry in fs::read_dir(root().join(FOLDER))? {
            let path = entry?.path();
            let name = path.file_name().context("a file without a name")?;
            fs::write(seed.folder().join(name), pods.fitted(&path, with_images_of_tests)?)?;
        }
        Ok(seed)
    }

    /// What the copies are beside, as the manifests are beside everything else in the repository.
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// Where the copies are.
    pub fn folder(&self) -> PathBuf {
        self.root.path().join(FOLDER)
    }

    /// Creates what one of the manifests says.
    pub fn create(&self, namespace: &str, manifest: &str) -> Result<()> {
        let path = self.folder().join(manifest).display().to_string();
        self.kubectl.run(&["--namespace", namespace, "create", "-f", &path]).map(drop)
    }

    fn remove(&self) -> Result<()> {
        let delete = |words: &[&str]| self.kubectl.run(&[&["delete", "--ignore-not-found"], words].concat()).map(drop);
        delete(&["replicasets", "--namespace", NAMESPACE, "myicrrset", "myharset"])?;
        // The application does not heed SIGTERM.
        delete(&["pods", "--namespace", NAMESPACE, "--selector=app in (icr,hapod)", "--force"])?;
        delete(&["clusterrolebinding/icr-crb", "clusterrole/icr-cr"])?;
        delete(&["serviceaccount", "--namespace", NAMESPACE, "icr-sa"])
    }
}

impl Drop for Seed {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            eprintln!("something is left in the cluster: {error:#}");
        }
    }
}

fn with_images_of_tests(object: &mut Value) {
    // The manifests name none; kubectl has filled in its own.
    object.pointer_mut("/metadata").and_then(Value::as_object_mut).map(|metadata| metadata.remove("namespace"));
    let containers = object.pointer_mut("/spec/template/spec/containers").and_then(Value::as_array_mut);
    for container in containers.into_iter().flatten() {
        let kind = if container["image"] == CONTROLLER { "icr" } else { "hapod" };
        container["image"] = format!("localhost/soloist-{kind}-test:testbed").into();
    }
}
