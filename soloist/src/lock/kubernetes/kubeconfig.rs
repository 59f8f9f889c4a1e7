//! Kubeconfig files: YAML is read as JSON values first. kube's own reader makes a YAML reader of each of its types, which
//! are 0.4 MB of the binary, and its errors quote the lines of the file, tokens included.

use std::path::{Path, PathBuf};

use kube::config::Kubeconfig;
use serde_json::Value;

/// What names a file or a program, which is where it is seen from the kubeconfig's folder: the list, the object in each
/// entry, and the way to the name in it.
const PATHS: [(&str, &str, &str); 5] = [
    ("clusters", "cluster", "/certificate-authority"),
    ("users", "user", "/client-certificate"),
    ("users", "user", "/client-key"),
    ("users", "user", "/tokenFile"),
    ("users", "user", PROGRAM),
];
const PROGRAM: &str = "/exec/command";

/// Reads `path`, or all that `KUBECONFIG` names, or the file in the home folder.
///
/// # Errors
/// A file that cannot be read or is none, files that contradict each other, no home folder.
pub fn read(path: Option<&Path>) -> Result<Kubeconfig, String> {
    let named = std::env::var_os("KUBECONFIG").unwrap_or_default();
    let mut paths: Vec<PathBuf> = std::env::split_paths(&named).filter(|path| !path.as_os_str().is_empty()).collect();
    if let Some(path) = path {
        paths = vec![path.to_owned()];
    } else if paths.is_empty() {
        let home = std::env::home_dir().ok_or("there is no home folder with a kubeconfig")?;
        paths = vec![home.join(".kube").join("config")];
    }
    paths.iter().try_fold(Kubeconfig::default(), |whole, path| {
        let told = |what: String| format!("failed to read the kubeconfig {}: {what}", path.display());
        let text = std::fs::read_to_string(path).map_err(|error| told(error.to_string()))?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let mut parts = documents(&text, folder).map_err(told)?.into_iter();
        parts.try_fold(whole, Kubeconfig::merge).map_err(|error| told(error.to_string()))
    })
}

fn documents(text: &str, folder: &Path) -> Result<Vec<Kubeconfig>, String> {
    // `yes` and `on` are words here.
    let options = serde_saphyr::options! { with_snippet: false, strict_booleans: true };
    let documents: Vec<Value> =
        serde_saphyr::from_multiple_with_options(text, options).map_err(|error| error.to_string())?;
    let typed = |mut document: Value| {
        numbers_as_text(&mut document);
        for (list, object, way) in PATHS {
            for entry in document.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
                if let Some(Value::String(name)) = entry.get_mut(object).and_then(|object| object.pointer_mut(way)) {
                    resolve(name, folder, way);
                }
            }
        }
        // The error would quote the value, which may be a secret.
        serde_json::from_value(document).map_err(|_| "expected what `kubectl config view` shows".to_owned())
    };
    documents.into_iter().filter(|document| !document.is_null()).map(typed).collect()
}

/// Nothing in such a file is a number, though a name, a port of a program or a token may look like one.
fn numbers_as_text(value: &mut Value) {
    match value {
        Value::Number(number) => *value = Value::String(number.to_string()),
        Value::Array(items) => items.iter_mut().for_each(numbers_as_text),
        Value::Object(fields) => fields.values_mut().for_each(numbers_as_text),
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

/// The same from everywhere. A program without a slash is looked for in PATH.
fn resolve(name: &mut String, folder: &Path, way: &str) {
    if way != PROGRAM || name.contains('/') {
        *name = folder.join(&*name).display().to_string();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_are_those_of_the_folder_and_programs_those_of_path() {
        let text = r#"
apiVersion: v1
kind: Config
clusters:
- name: c
  cluster: { server: "https://10.0.0.1", certificate-authority: ca.pem }
- name: bare
users:
- name: u
  user: { client-certificate: /abs/cert.pem, client-key: key.pem, tokenFile: ../token, exec: { command: aws } }
- name: v
  user: { exec: { command: bin/login, args: [8000, yes], apiVersion: client.authentication.k8s.io/v1 } }
contexts: null
---
current-context: later
"#;
        let [first, second] = &documents(text, Path::new("/conf/kube")).unwrap()[..] else { panic!("two documents") };
        assert_eq!(
            first.clusters[0].cluster.as_ref().unwrap().certificate_authority.as_deref(),
            Some("/conf/kube/ca.pem")
        );
        let user = |at: usize| first.auth_infos[at].auth_info.clone().unwrap();
        assert_eq!(user(0).client_certificate.as_deref(), Some("/abs/cert.pem"));
        assert_eq!(user(0).client_key.as_deref(), Some("/conf/kube/key.pem"));
        assert_eq!(user(0).token_file.as_deref(), Some("/conf/kube/../token"));
        assert_eq!(user(0).exec.unwrap().command.as_deref(), Some("aws"));
        let exec = user(1).exec.unwrap();
        assert_eq!(exec.command.as_deref(), Some("/conf/kube/bin/login"));
        assert_eq!(exec.args.unwrap(), ["8000", "yes"]);
        assert_eq!(second.current_context.as_deref(), Some("later"));
    }

    #[test]
    fn a_refusal_quotes_nothing_of_the_file() {
        for text in ["users: [{name: u, user: {token: [s3cret]}}]", "token: s3cret\n  - s3cret: [", "s3cret"] {
            let why = documents(text, Path::new("/")).unwrap_err();
            assert!(!why.is_empty() && !why.contains("s3cret"), "{why}");
        }
    }

    #[test]
    fn several_files_are_one_and_the_first_word_counts() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let path = write("a", "current-context: a\n---\n{current-context: b, clusters: [{name: c}]}\n");
        let whole = read(Some(&path)).unwrap();
        assert_eq!((whole.current_context.as_deref(), whole.clusters.len()), (Some("a"), 1));
        let why = read(Some(&folder.path().join("missing"))).unwrap_err();
        assert!(why.contains("missing: No such file"), "{why}");
    }
}
