//! Prometheus' own tool reads the page of a real member, and knows every metric that rules and documents speak of.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use testkit::documents::{OF_A_CONTROLLER, root};
use testkit::group::Group;
use testkit::http::Server;
use testkit::member::Member;
use testkit::scenario::LIMIT;
use testkit::wait::{wait_until, within};

/// What a scrape may take.
const SCRAPE_MAX: Duration = Duration::from_millis(2);
const SCRAPES: usize = 501;

fn promtool() -> Result<Command> {
    let built = std::env::var_os("PROMTOOL").map(PathBuf::from).context("no PROMTOOL: make alerts")?;
    Ok(Command::new(built))
}

fn with_input(mut command: Command, input: &str) -> Result<Output> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    child.stdin.take().context("no stdin")?.write_all(input.as_bytes())?;
    child.wait_with_output().context("failed to wait for promtool")
}

/// An active member and a standby, with what a scrape of each says.
struct Stand {
    group: Group,
    _members: [Member; 2],
    active: Server,
    pages: [String; 2],
}

fn stand() -> Result<Stand> {
    let group = Group::new()?;
    let serve = ["--http", "127.0.0.1:0"];
    let a = Member::spawn(&group, "a", &serve, &[])?;
    a.wait_active(&group, LIMIT)?;
    let b = Member::spawn(&group, "b", &serve, &[])?;
    b.wait_standby(LIMIT)?;
    let servers = [Server::of(&a)?, Server::of(&b)?];
    let knows_token =
        |server: &Server| server.get("/metrics").is_ok_and(|page| page.body.contains("\nsoloist_fencing_token 1\n"));
    wait_until("both to know the holder", LIMIT, || servers.iter().all(knows_token))?;
    let page = |server: &Server| server.get("/metrics").map(|answer| answer.body);
    let pages = [page(&servers[0])?, page(&servers[1])?];
    let [active, _] = servers;
    Ok(Stand { group, _members: [a, b], active, pages })
}

/// Whether promtool's parser of OpenMetrics takes the page. It wants a time behind each sample.
fn is_openmetrics(page: &str, folder: &Path) -> Result<bool> {
    let timed: String = page
        .lines()
        .map(|line| if line.starts_with('#') { format!("{line}\n") } else { format!("{line} 1700000000\n") })
        .collect();
    let file = folder.join("page");
    std::fs::write(&file, timed)?;
    let mut command = promtool()?;
    command.args(["tsdb", "create-blocks-from", "openmetrics"]).arg(&file).arg(folder.join("blocks"));
    Ok(with_input(command, "")?.status.success())
}

#[test]
fn promtool_reads_the_page_as_openmetrics() -> Result<()> {
    let stand = stand()?;
    for page in &stand.pages {
        ensure!(is_openmetrics(page, stand.group.folder())?, "{page}");
    }
    // It does tell what is none.
    for broken in [stand.pages[0].replace("# EOF\n", ""), stand.pages[0].replacen(" counter\n", " count\n", 1)] {
        ensure!(!is_openmetrics(&broken, stand.group.folder())?, "{broken}");
    }
    Ok(())
}

/// The same page in the older format, the only one that is linted: a counter's family has the suffix of its sample there,
/// and an info is a gauge.
fn in_the_older_format(page: &str) -> String {
    let kind = |name: &str| {
        let line = page.lines().find_map(|line| line.strip_prefix(&format!("# TYPE {name} ")));
        line.unwrap_or_default().to_owned()
    };
    let older = |line: &str| {
        let Some((head, name)) = ["# HELP ", "# TYPE "].iter().find_map(|head| Some((*head, line.strip_prefix(head)?)))
        else {
            return line.to_owned();
        };
        let (name, rest) = name.split_once(' ').unwrap_or((name, ""));
        match kind(name).as_str() {
            "counter" => format!("{head}{name}_total {rest}"),
            "info" => format!("{head}{name}_info {}", rest.replace("info", "gauge")),
            _ => line.to_owned(),
        }
    };
    page.lines().filter(|line| !line.starts_with("# UNIT")).map(|line| older(line) + "\n").collect()
}

#[test]
fn promtool_finds_nothing_to_complain_about_names_and_units() -> Result<()> {
    let stand = stand()?;
    for page in &stand.pages {
        let mut command = promtool()?;
        command.args(["check", "metrics"]);
        let output = with_input(command, &in_the_older_format(page))?;
        ensure!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    }
    Ok(())
}

/// Every word that begins like a metric of ours.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("soloist_")).map(str::to_owned).collect()
}

#[test]
fn rules_and_documents_know_the_metrics_that_there_are() -> Result<()> {
    let stand = stand()?;
    let samples: String =
        stand.pages[0].lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")).collect();
    // What a controller shows besides is tried beside one.
    let mut shown = metrics_in(&samples);
    shown.extend(OF_A_CONTROLLER.map(str::to_owned));
    let rules = std::fs::read_to_string(root().join("examples/prometheus/soloist-alerts.yml"))?;
    let asked = metrics_in(&rules);
    ensure!(asked.len() > 10 && asked.is_subset(&shown), "no such metric: {:?}", asked.difference(&shown));
    let suffixes = ["_bucket", "_sum", "_count"];
    let families: BTreeSet<String> = shown
        .iter()
        .map(|name| suffixes.iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name).to_owned())
        .collect();
    let document = std::fs::read_to_string(root().join("docs/http.md"))?;
    let rows: String = document.lines().filter(|line| line.starts_with("| `soloist_")).collect();
    let described = metrics_in(&rows);
    assert_eq!(described, families, "docs/http.md on the left, the page on the right");
    Ok(())
}

#[test]
fn every_alert_has_its_entry_in_the_runbook() -> Result<()> {
    let rules = std::fs::read_to_string(root().join("examples/prometheus/soloist-alerts.yml"))?;
    let runbook = std::fs::read_to_string(root().join("docs/alerts.md"))?;
    let alerts: BTreeSet<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    let entries: BTreeSet<&str> = runbook
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .filter(|title| title.starts_with("Soloist"))
        .collect();
    assert_eq!(alerts, entries);
    for alert in alerts {
        let link = format!("runbook: docs/alerts.md#{}", alert.to_lowercase());
        ensure!(rules.contains(&link), "{alert} does not name its entry");
    }
    Ok(())
}

#[test]
fn a_scrape_takes_at_most_two_milliseconds() -> Result<()> {
    let stand = stand()?;
    let mut connection = stand.active.connect()?;
    let mut took: Vec<Duration> = Vec::with_capacity(SCRAPES);
    for _ in 0..SCRAPES {
        let since = Instant::now();
        connection.get("/metrics")?;
        took.push(since.elapsed());
    }
    took.sort();
    let (median, late) = (took[SCRAPES / 2], took[SCRAPES * 99 / 100]);
    println!("a scrape: p50 {median:?}, p99 {late:?}, n = {SCRAPES}");
    within("the median scrape", median, SCRAPE_MAX)
}
