//! What is released, as far as it can be told without running it: the images, the list of parts, the checksums.

#![allow(clippy::expect_used, reason = "helpers of tests fail where they stand")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use testkit::documents::root as repository;

fn packages() -> PathBuf {
    std::env::var_os("SOLOIST_PACKAGES").map(PathBuf::from).expect("SOLOIST_PACKAGES is a folder: make packages")
}

fn only(suffix: &str) -> Result<PathBuf> {
    let files = fs::read_dir(packages())?.collect::<std::io::Result<Vec<_>>>()?;
    let found = files.into_iter().map(|file| file.path()).find(|path| path.display().to_string().ends_with(suffix));
    found.with_context(|| format!("there is no file that ends with {suffix}"))
}

/// One file of an archive.
fn inside(archive: &Path, name: &str) -> Result<Vec<u8>> {
    let output = Command::new("tar").arg("-xOf").arg(archive).arg(name).output()?;
    ensure!(output.status.success(), "{name}: {output:?}");
    Ok(output.stdout)
}

fn json(archive: &Path, name: &str) -> Result<Value> {
    Ok(serde_json::from_slice(&inside(archive, name)?)?)
}

fn blob(described: &Value) -> Result<String> {
    let digest = described["digest"].as_str().context("a digest")?;
    Ok(format!("blobs/{}", digest.replace(':', "/")))
}

#[test]
fn there_is_a_tag_for_each_entry_point_and_none_of_them_is_root_or_has_a_shell() -> Result<()> {
    let archive = only("-image.tar")?;
    let index = json(&archive, "index.json")?;
    let mut entry_points = Vec::new();
    for image in index["manifests"].as_array().context("manifests")? {
        let manifest = json(&archive, &blob(image)?)?;
        let config = json(&archive, &blob(&manifest["config"])?)?;
        ensure!(config["config"]["User"] == "65532:65532", "{config}");
        let name = image["annotations"]["io.containerd.image.name"].as_str().context("a name")?;
        let tag = name.rsplit_once(':').context("a tag")?.1.trim_start_matches(env!("CARGO_PKG_VERSION")).to_owned();
        entry_points.push((tag, config["config"]["Entrypoint"][0].as_str().context("an entry point")?.to_owned()));

        let layer = packages().join("layer");
        fs::write(&layer, inside(&archive, &blob(&manifest["layers"][0])?)?)?;
        let listed = Command::new("tar").arg("-tf").arg(&layer).output()?;
        fs::remove_file(layer)?;
        let files = String::from_utf8(listed.stdout)?;
        let programs: Vec<&str> = files.lines().filter(|line| !line.ends_with('/')).collect();
        ensure!(
            programs == ["k8s-await-election", "leader-elector", "usr/bin/consul", "usr/bin/icr", "usr/bin/soloist"],
            "{files}"
        );
    }
    let shown: Vec<(&str, &str)> = entry_points.iter().map(|(tag, path)| (tag.as_str(), path.as_str())).collect();
    ensure!(
        shown
            == [
                ("", "/usr/bin/soloist"),
                ("-k8s-await-election", "/k8s-await-election"),
                ("-leader-elector", "/leader-elector"),
                ("-icr", "/usr/bin/icr"),
                ("-consul-lock", "/usr/bin/consul"),
            ],
        "{shown:?}"
    );
    Ok(())
}

#[test]
fn the_list_of_parts_has_every_crate_that_is_shipped_with_licence_and_checksum() -> Result<()> {
    let list: Value = serde_json::from_slice(&fs::read(only(".cdx.json")?)?)?;
    ensure!(list["bomFormat"] == "CycloneDX", "{}", list["bomFormat"]);
    let parts = list["components"].as_array().context("components")?;
    for part in parts {
        let is_own = part["name"] == "election";
        ensure!(part["licenses"][0]["expression"].is_string(), "{part}");
        ensure!(is_own || part["hashes"][0]["content"].as_str().is_some_and(|hash| hash.len() == 64), "{part}");
    }
    // What is linked, by the compiler's own word.
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--offline", "--package", "soloist", "--edges", "no-dev,no-build,no-proc-macro"])
        .args(["--prefix", "none", "--format", "{p}", "--target", "x86_64-unknown-linux-gnu"])
        .current_dir(repository())
        .output()?;
    ensure!(tree.status.success(), "{tree:?}");
    for line in String::from_utf8(tree.stdout)?.lines() {
        let name = line.split(' ').next().unwrap_or_default();
        ensure!(name == "soloist" || parts.iter().any(|part| part["name"] == name), "{name} is missing");
    }
    Ok(())
}

#[test]
fn the_binary_names_no_folder_of_this_machine() -> Result<()> {
    let binary = fs::read(packages().join("soloist"))?;
    let home = std::env::var("HOME")?;
    for folder in [repository().canonicalize()?.display().to_string(), format!("{home}/.cargo")] {
        let found = binary.windows(folder.len()).position(|bytes| bytes == folder.as_bytes());
        let around = found.map(|at| String::from_utf8_lossy(&binary[at..binary.len().min(at + 120)]));
        ensure!(around.is_none(), "{folder}: {around:?}");
    }
    Ok(())
}

#[test]
fn the_checksums_are_those_of_the_files() -> Result<()> {
    let checked =
        Command::new("sha256sum").args(["--check", "--quiet", "SHA256SUMS"]).current_dir(packages()).output()?;
    ensure!(checked.status.success(), "{checked:?}");
    let sums = fs::read_to_string(packages().join("SHA256SUMS"))?;
    ensure!(sums.lines().count() == 5, "{sums}");
    Ok(())
}
