//! Consul with access control: the documented policy is enough, what is missing is named, and tokens come and go.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};
use testkit::consul::Consul;
use testkit::consul_group::{Choice, ConsulGroup, Pair};
use testkit::member::Member;
use testkit::relayed::{LEASE, settle};
use testkit::scenario::{LIMIT, check, follow};
use testkit::stamp;
use testkit::wait::{holds_for, wait_until};

/// The first half of the documented policy.
fn key_rule(prefix: &str) -> String {
    format!("key_prefix \"{prefix}/\" {{ policy = \"write\" }}")
}

/// The other half.
const SESSION_RULE: &str = "session_prefix \"\" { policy = \"write\" }";

/// A token with a policy of its own.
struct Token {
    policy: String,
    accessor: String,
    secret: String,
}

impl Token {
    fn new(consul: &Consul, name: &str, rules: &[&str]) -> Result<Self> {
        let policy = consul.put("/v1/acl/policy", &json!({"Name": name, "Rules": rules.join("\n")}))?;
        let policy = policy["ID"].as_str().context("a policy without an id")?;
        let token = consul.put("/v1/acl/token", &json!({"Policies": [{"ID": policy}]}))?;
        let text = |field: &str| token[field].as_str().map(str::to_owned).context("a token without its parts");
        Ok(Self { policy: policy.to_owned(), accessor: text("AccessorID")?, secret: text("SecretID")? })
    }

    /// One that may do what is documented.
    fn documented(consul: &Consul, group: &ConsulGroup, name: &str) -> Result<Self> {
        let name = format!("{}-{name}", group.prefix.replace('/', "-"));
        Self::new(consul, &name, &[&key_rule(&group.prefix), SESSION_RULE])
    }

    /// From now on nobody is let in by it.
    fn revoke(&self, consul: &Consul) -> Result<()> {
        let answer = consul.call("DELETE", &format!("/v1/acl/token/{}", self.accessor), &Value::Null)?;
        ensure!(answer.status.is_success(), "not revoked: {}", answer.status);
        Ok(())
    }
}

fn token_file(group: &ConsulGroup, name: &str) -> PathBuf {
    group.group.folder().join(format!("{name}.token"))
}

/// As kubelet does it: the new file takes the place of the old one.
fn put_file(path: &Path, text: &str) -> Result<()> {
    let new = path.with_extension("new");
    fs::write(&new, text)?;
    fs::rename(new, path).context("failed to replace a token")
}

fn spawn(consul: &Consul, group: &mut ConsulGroup, name: &str, token: &Token) -> Result<Member> {
    let file = token_file(group, name);
    put_file(&file, &token.secret)?;
    let file = file.display().to_string();
    group.spawn(consul, name, Choice { variables: &[("CONSUL_HTTP_TOKEN_FILE", &file)], ..Choice::default() })
}

/// Two members, with a token each.
fn with_tokens() -> Result<(Pair, Vec<Token>)> {
    let mut tokens = Vec::new();
    let pair = Pair::by(|group, consul| {
        settle(group, &["a", "b"], |group, name| {
            let token = Token::documented(consul, group, name)?;
            let member = spawn(consul, group, name, &token);
            tokens.push(token);
            member
        })
    })?;
    Ok((pair, tokens))
}

#[test]
fn the_documented_policy_is_enough() -> Result<()> {
    let (pair, _tokens) = &with_tokens()?;
    let group = &pair.group;
    group.stays(pair.active.token, LEASE)?;
    pair.members[0].signal(Signal::TERM)?;
    let handover = follow(&group.group, &pair.active, stamp::now())?;
    handover.was_proved()?;
    for member in &pair.members {
        ensure!(!member.log().contains("does not permit"), "denied something:\n{}", member.log());
    }
    check(&group.group, 2, &pair.active)
}

#[test]
fn the_documented_policy_is_enough_to_take_over_from_a_session_that_still_lives() -> Result<()> {
    let (pair, _tokens) = &with_tokens()?;
    pair.group.relay("a")?.black_hole();
    let handover = follow(&pair.group.group, &pair.active, stamp::now())?;
    pair.group.came_after_a_lease(&handover, LEASE)?;
    pair.group.relay("a")?.heal();
    pair.members[0].wait_standby(LIMIT)?;
    check(&pair.group.group, 2, &pair.active)
}

/// A member whose token has these rules alone names `missing` in its log, and is not active.
fn is_named(rules: impl Fn(&str) -> Vec<String>, missing: impl Fn(&str) -> String) -> Result<()> {
    let consul = &Consul::connect()?;
    let mut group = ConsulGroup::new(consul)?;
    let rules = rules(&group.prefix);
    let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
    let token = Token::new(consul, &group.prefix.replace('/', "-"), &rules)?;
    let member = spawn(consul, &mut group, "a", &token)?;
    let named = format!("the token needs the rule {}", missing(&group.prefix));
    wait_until("the missing rule in the log", LIMIT, || member.log().contains(&named))
        .with_context(|| format!("{named}\n{}", member.log()))?;
    holds_for("it is not active", LEASE * 2, || group.group.history().spans.is_empty())
}

#[test]
fn a_missing_rule_for_the_keys_is_named() -> Result<()> {
    is_named(|_| vec![SESSION_RULE.to_owned()], key_rule)
}

#[test]
fn a_rule_that_only_lets_read_is_not_enough_and_the_missing_one_is_named() -> Result<()> {
    let read = |prefix: &str| vec![SESSION_RULE.to_owned(), key_rule(prefix).replace("write", "read")];
    is_named(read, key_rule)
}

#[test]
fn a_missing_rule_for_sessions_is_named() -> Result<()> {
    is_named(|prefix| vec![key_rule(prefix)], |_| SESSION_RULE.to_owned())
}

#[test]
fn a_rule_that_is_taken_away_ends_the_holder_in_time_and_is_named() -> Result<()> {
    let (pair, tokens) = &with_tokens()?;
    let policy = format!("/v1/acl/policy/{}", tokens[0].policy);
    let name = format!("{}-a", pair.group.prefix.replace('/', "-"));
    pair.consul.put(&policy, &json!({"Name": name, "Rules": SESSION_RULE}))?;
    let handover = follow(&pair.group.group, &pair.active, stamp::now())?;
    pair.group.came_after_a_lease(&handover, LEASE)?;
    let (log, rule) = (pair.members[0].log(), key_rule(&pair.group.prefix));
    ensure!(log.contains(&rule), "the missing rule is not named:\n{log}");
    let rules = [&rule, SESSION_RULE].join("\n");
    pair.consul.put(&policy, &json!({"Name": name, "Rules": rules}))?;
    pair.members[0].wait_standby(LIMIT)?;
    check(&pair.group.group, 2, &pair.active)
}

#[test]
fn a_rotated_token_stops_nobody() -> Result<()> {
    let (pair, tokens) = &with_tokens()?;
    let group = &pair.group;
    let fresh = Token::documented(&pair.consul, group, "a-second")?;
    put_file(&token_file(group, "a"), &fresh.secret)?;
    let before = group.relay("a")?.answered(403);
    tokens[0].revoke(&pair.consul)?;
    wait_until("Consul to refuse the old token", LIMIT, || {
        group.relay("a").is_ok_and(|relay| relay.answered(403) > before)
    })?;
    group.stays(pair.active.token, LEASE * 2)?;
    group.group.check(1, 2)
}

#[test]
fn a_revoked_token_ends_the_holder_in_time_and_a_new_one_brings_it_back() -> Result<()> {
    let (pair, tokens) = &with_tokens()?;
    let group = &pair.group;
    tokens[0].revoke(&pair.consul)?;
    let handover = follow(&group.group, &pair.active, stamp::now())?;
    group.came_after_a_lease(&handover, LEASE)?;
    put_file(&token_file(group, "a"), &Token::documented(&pair.consul, group, "a-second")?.secret)?;
    // It tries again every ten seconds.
    wait_until("a to stand by", LIMIT, || pair.members[0].is_standby())?;
    let next = handover.new.token;
    group.stays(next, Duration::from_secs(11))?;
    pair.members[1].signal(Signal::TERM)?;
    ensure!(group.group.wait_active_after(next, LIMIT)?.member == "a", "a did not come back");
    check(&group.group, 3, &pair.active)
}
