//! The chart on a real API server: what it refuses, what it installs, and what its admission policies let pass.

#![allow(clippy::expect_used, reason = "helpers of tests fail where they stand")]

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::cluster::Cluster;
use testkit::documents::root;
use testkit::helm::{Chart, MODES, values};
use testkit::kubeconfig::Server;
use testkit::scenario::LIMIT;
use testkit::wait::wait_until;

fn all_values(more: &Value) -> Vec<Value> {
    (0..MODES.len()).map(|number| values(number, more).expect("values")).collect()
}

fn find<'a>(objects: &'a [Value], kinds: &[&str]) -> Result<&'a Value> {
    let is_one = |object: &&Value| kinds.iter().any(|kind| object["kind"] == **kind);
    objects.iter().find(is_one).with_context(|| format!("no {kinds:?}"))
}

/// Rules without an order.
fn rules(objects: &[Value]) -> Result<Vec<String>> {
    let rules = find(objects, &["Role", "ClusterRole"])?["rules"].as_array().context("no rules")?;
    let mut texts: Vec<String> = rules
        .iter()
        .map(|rule| {
            let mut rule = rule.clone();
            let verbs = rule["verbs"].as_array_mut().expect("verbs");
            verbs.sort_by_key(Value::to_string);
            rule.to_string()
        })
        .collect();
    texts.sort();
    Ok(texts)
}

#[test]
fn the_chart_has_the_version_of_the_program_and_no_fault() -> Result<()> {
    let text = fs::read_to_string(root().join("charts/soloist/Chart.yaml"))?;
    for field in ["version", "appVersion"] {
        ensure!(text.contains(&format!("\n{field}: {}\n", env!("CARGO_PKG_VERSION"))), "{field}: {text}");
    }
    for values in all_values(&json!({})) {
        Chart::new("default", "app")?.helm("lint", &values, &["--strict"])?;
    }
    Ok(())
}

#[test]
fn the_chart_in_a_file_is_the_one_in_the_folder() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("chart.tgz");
    let made = std::process::Command::new(root().join("scripts/chart")).arg(&file).output()?;
    ensure!(made.status.success(), "{made:?}");
    let chart = Chart::new("default", "app")?;
    for values in all_values(&json!({})) {
        ensure!(chart.at(&file).helm("template", &values, &[])? == chart.helm("template", &values, &[])?);
    }
    Ok(())
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_is_installed() -> Result<()> {
    let chart = Chart::new("default", "app")?;
    for (number, wrong, named) in [
        (0, json!({"replicas": 1}), "/replicas"),
        (0, json!({"lease": "3s"}), "/lease"),
        (0, json!({"lease": 15}), "/lease"),
        (0, json!({"application": {"image": ""}}), "/application/image"),
        (0, json!({"application": {"command": []}}), "/application/command"),
        (0, json!({"application": {"port": 0}}), "/application/port"),
        (0, json!({"runAsUser": 0}), "/runAsUser"),
        (0, json!({"mode": "both"}), "/mode"),
        (0, json!({"repliccas": 3}), "repliccas"),
        (1, json!({"application": {"healthPath": "ready"}}), "/application/healthPath"),
        (0, json!({"stopGrace": "1m"}), "terminationGracePeriodSeconds has to be more"),
        (1, json!({"label": "it's"}), "/label"),
        (2, json!({"controller": {"selector": "hapod"}}), "/controller"),
        (2, json!({"controller": {"selector": "app = hapod"}}), "/controller"),
        (2, json!({"controller": {"selector": ""}}), "/controller"),
        (2, json!({"controller": {"declared": true}}), "/controller"),
    ] {
        let refused = chart.helm("template", &values(number, &wrong)?, &[]);
        let why = refused.err().map(|error| error.to_string()).unwrap_or_default();
        ensure!(why.contains(named), "{wrong}: {why}");
    }
    for release in ["1app", "app.v1"] {
        let refused = Chart::new("default", release)?.helm("template", &values(0, &json!({}))?, &[]);
        let why = refused.err().map(|error| error.to_string()).unwrap_or_default();
        ensure!(why.contains("set name"), "{release}: {why}");
    }
    Ok(())
}

#[test]
fn its_accounts_may_do_what_the_examples_say_and_nothing_more() -> Result<()> {
    let cluster = Cluster::connect()?;
    let examples = [
        ("my-app", "kubernetes/role.yml"),
        ("my-warm", "sidecar/asked.yml"),
        ("soloist-controller", "controller/controller.yml"),
        ("soloist-controller", "controller/cluster.yml"),
    ];
    for ((name, file), values) in examples.into_iter().zip(all_values(&json!({}))) {
        let example = cluster.client().objects(&root().join("examples").join(file))?;
        let rendered = Chart::new("default", name)?.objects(cluster.client(), &values)?;
        ensure!(rules(&rendered)? == rules(&example)?, "{file}: {:?}", rules(&rendered)?);
    }
    Ok(())
}

#[test]
fn its_pods_are_let_in_where_only_restricted_ones_are_and_openshift_chooses_their_user() -> Result<()> {
    let cluster = Cluster::connect()?;
    cluster.define()?;
    for openshift in [false, true] {
        for (number, values) in all_values(&json!({"openshift": openshift})).into_iter().enumerate() {
            let namespace = cluster.namespace()?;
            let label = "pod-security.kubernetes.io/enforce=restricted";
            cluster.kubectl(&["label", "namespace", &namespace, label])?;
            let chart = Chart::new(&namespace, &format!("app-{number}"))?;
            chart.helm("install", &values, &[])?;
            let objects = chart.objects(cluster.client(), &values)?;
            let mut pod = find(&objects, &["Deployment"])?["spec"]["template"].clone();
            ensure!(pod.to_string().contains("runAsUser") != openshift, "{pod}");
            ensure!(!pod.to_string().contains("fsGroup"), "{pod}");
            (pod["apiVersion"], pod["kind"]) = ("v1".into(), "Pod".into());
            pod["metadata"]["name"] = "try".into();
            let options = ["create", "--dry-run=server", "-n", &namespace, "-f", "-"];
            cluster.client().run_with(&options, &pod.to_string())?;
            chart.uninstall()?;
        }
    }
    Ok(())
}

/// A release with pods that nobody runs: there are no nodes here.
struct Release {
    cluster: Cluster,
    namespace: String,
    chart: Chart,
    folder: TempDir,
}

impl Release {
    fn install(number: usize) -> Result<Self> {
        let cluster = Cluster::connect()?;
        let namespace = cluster.namespace()?;
        let chart = Chart::new(&namespace, "app")?;
        chart.helm("install", &values(number, &json!({}))?, &[])?;
        let label = if number == 2 { "hapod" } else { "app" };
        for name in ["a", "b"] {
            let container = json!({"name": "c", "image": "registry.example/c", "securityContext":
                {"allowPrivilegeEscalation": false}});
            cluster.apply(&json!({"apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": name, "namespace": namespace, "labels": {"app": label, "role": "standby"}},
                "spec": {"serviceAccountName": "app", "containers": [container]}}))?;
        }
        // Who may do anything but is no member and no operator.
        let everything = json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]);
        cluster.grant(&namespace, "somebody", &everything)?;
        // Members have no rule for what is tried here: it is the policies that are to refuse it.
        let account = format!("--serviceaccount={namespace}:app");
        cluster.kubectl(&[
            "create",
            "rolebinding",
            "more",
            "-n",
            &namespace,
            "--clusterrole=cluster-admin",
            &account,
        ])?;
        let release = Self { cluster, namespace, chart, folder: tempfile::tempdir()? };
        release.wait_in_force()?;
        Ok(release)
    }

    /// Policies take a moment: until then what they refuse is let in.
    fn wait_in_force(&self) -> Result<()> {
        let somebody = self.somebody()?;
        let tries = [("lease/app", json!({"spec": {"holderIdentity": "x"}})), ("pod/a", labelled("active"))];
        wait_until("the policies to be in force", LIMIT, || {
            tries.iter().all(|(object, patch)| {
                self.patch(&somebody, object, patch, true).is_err_and(|why| why.to_string().contains("denied request"))
            })
        })
    }

    fn kubeconfig(&self, name: &str, options: &[&str]) -> Result<PathBuf> {
        let account = if name == "somebody" { "somebody" } else { "app" };
        let mut words = vec!["create", "token", account, "-n", &self.namespace];
        words.extend(options);
        let path = self.folder.path().join(name);
        let token = self.cluster.kubectl(&words)?;
        Server::of_testbed()?.write_kubeconfig(&path, &json!({"token": token.trim()}))?;
        Ok(path)
    }

    fn somebody(&self) -> Result<PathBuf> {
        self.kubeconfig("somebody", &[])
    }

    /// Who has the token of a pod, as the kubelet gives it to its containers.
    fn member(&self, pod: &str) -> Result<PathBuf> {
        self.kubeconfig(pod, &["--bound-object-kind=Pod", "--bound-object-name", pod])
    }

    fn patch(&self, who: &Path, object: &str, patch: &Value, only_try: bool) -> Result<String> {
        let (config, patch) = (format!("--kubeconfig={}", who.display()), patch.to_string());
        let mut words = vec![&*config, "patch", object, "-n", &self.namespace, "--type=merge", "-p", &patch];
        words.extend(only_try.then_some("--dry-run=server"));
        self.cluster.kubectl(&words)
    }

    fn is_let(&self, who: &Path, object: &str, patch: Value) -> Result<()> {
        self.patch(who, object, &patch, false).map(drop).with_context(|| patch.to_string())
    }

    fn is_refused(&self, who: &Path, object: &str, patch: Value, why: &str) -> Result<()> {
        let refused = self.patch(who, object, &patch, false);
        let said = refused.err().map(|error| error.to_string()).unwrap_or_default();
        ensure!(said.contains(why), "{patch}: {said:?}");
        Ok(())
    }
}

impl Drop for Release {
    fn drop(&mut self) {
        // Its policies are of the whole cluster.
        if let Err(error) = self.chart.uninstall() {
            eprintln!("something is left in the cluster: {error:#}");
        }
    }
}

fn held_by(pod: &str) -> Value {
    json!({"spec": {"holderIdentity": pod, "leaseDurationSeconds": 15}})
}

fn labelled(role: &str) -> Value {
    json!({"metadata": {"labels": {"role": role}}})
}

#[test]
fn the_lock_is_written_by_members_alone_and_by_each_in_its_own_name() -> Result<()> {
    let release = Release::install(1)?;
    let (somebody, a, b) = (release.somebody()?, "a", "b");
    let (member_a, member_b) = (release.member(a)?, release.member(b)?);
    let unbound = release.kubeconfig("unbound", &[])?;
    let only_members = "only members of the group";
    let own_name = "in the name of its own pod";

    release.is_refused(&somebody, "lease/app", held_by("x"), only_members)?;
    release.is_refused(&somebody, "lease/app", held_by(a), only_members)?;
    release.is_refused(&unbound, "lease/app", held_by(a), own_name)?;
    release.is_refused(&member_b, "lease/app", held_by(a), own_name)?;
    release.is_let(&member_a, "lease/app", held_by(a))?;
    // Nobody else takes it away; a request is not in the record, and may be made.
    release.is_refused(&member_b, "lease/app", held_by(""), own_name)?;
    release.is_refused(&somebody, "lease/app", held_by(""), only_members)?;
    let request = |name: &str| json!({"metadata": {"annotations": {format!("soloist.dev/{name}"): "x"}}});
    release.is_let(&somebody, "lease/app", request("request"))?;
    release.is_let(&member_b, "lease/app", request("members"))?;
    release.is_refused(&somebody, "lease/app", request("record"), only_members)?;
    // It takes over when it may, and lets go of what is its own.
    release.is_let(&member_b, "lease/app", held_by(b))?;
    release.is_let(&member_b, "lease/app", held_by(""))?;

    // An upgrade leaves alone what members wrote.
    release.is_let(&member_a, "lease/app", held_by(a))?;
    release.chart.helm("upgrade", &values(1, &json!({"replicas": 3}))?, &[])?;
    let holder = ["get", "lease", "app", "-n", &release.namespace, "-o", "jsonpath={.spec.holderIdentity}"];
    ensure!(release.cluster.kubectl(&holder)? == a);
    // Nor does the end of the release take it away: who holds it may still be stopping when it is installed again.
    release.chart.uninstall()?;
    release.chart.helm("install", &values(1, &json!({}))?, &[])?;
    ensure!(release.cluster.kubectl(&holder)? == a);
    // Operators are not asked.
    release.cluster.kubectl(&[
        "patch",
        "lease",
        "app",
        "-n",
        &release.namespace,
        "--type=merge",
        "-p",
        &held_by("").to_string(),
    ])?;
    Ok(())
}

#[test]
fn the_label_is_written_by_soloist_alone_and_soloist_writes_nothing_else() -> Result<()> {
    for number in [1, 2] {
        let release = Release::install(number)?;
        let (somebody, soloist) = (release.somebody()?, release.member("a")?);
        let only_soloist = "only soloist writes the label";

        release.is_refused(&somebody, "pod/a", labelled("active"), only_soloist)?;
        release.is_refused(&somebody, "pod/a", json!({"metadata": {"labels": {"role": null}}}), only_soloist)?;
        release.is_let(&somebody, "pod/a", json!({"metadata": {"labels": {"team": "x"}}}))?;
        release.is_let(
            &somebody,
            "pod/a",
            json!({"metadata": {"annotations": {"soloist.dev/become-active": "true"}}}),
        )?;

        let own = json!({"metadata": {"labels": {"role": "active"}, "annotations": {"soloist.dev/lock": "x"}}});
        release.is_let(&soloist, "pod/a", own)?;
        let labels = |labels: Value| json!({"metadata": {"labels": labels}});
        release.is_refused(&soloist, "pod/a", labels(json!({"app": "other"})), "no label but role")?;
        release.is_refused(&soloist, "pod/a", labels(json!({"team": null})), "no label but role")?;
        let annotated = json!({"metadata": {"annotations": {"else": "x"}}});
        release.is_refused(&soloist, "pod/a", annotated, "no annotation but its own")?;
        let deadline = json!({"spec": {"activeDeadlineSeconds": 100}});
        release.is_refused(&soloist, "pod/a", deadline, "nothing of a pod's spec")?;
        release.cluster.kubectl(&["label", "pod", "a", "-n", &release.namespace, "--overwrite", "role=standby"])?;
    }
    Ok(())
}
