//! Whom members believe to be Consul, and what they say about everybody else.

use std::fs;

use anyhow::{Context, Result, ensure};
use testkit::consul::Consul;
use testkit::consul_group::{Choice, ConsulGroup, Pair};
use testkit::group::Group;
use testkit::relay::{Authority, NAME};
use testkit::scenario::{LIMIT, check, follow};
use testkit::stamp;

testkit::state!(authority, Pair);

/// What a member with these variables says with `--fail-fast`, once it has ended.
fn refused(prepare: impl FnOnce(&ConsulGroup) -> Result<()>, variables: &[(&str, &str)]) -> Result<String> {
    let consul = Consul::connect()?;
    let mut group = ConsulGroup::new(&consul)?;
    group.add_relay(&consul, "a")?;
    prepare(&group)?;
    let mut member = group.spawn(&consul, "a", Choice { options: &["--fail-fast"], variables, ..Choice::default() })?;
    assert_eq!(member.wait_exit_code(LIMIT)?, 69, "{}", member.log());
    ensure!(group.group.history().spans.is_empty(), "it was active");
    ensure!(group.relay("a")?.requests().is_empty(), "it asked: {:?}", group.relay("a")?.requests());
    Ok(member.log())
}

#[test]
fn an_authority_that_is_not_trusted_is_refused_with_a_sentence() -> Result<()> {
    let other = |group: &ConsulGroup| Ok(fs::write(group.authority("a"), Authority::new()?.pem())?);
    let log = refused(other, &[])?;
    ensure!(log.contains("no TLS with Consul at 127.0.0.1") && log.contains("certificate"), "{log}");
    Ok(())
}

#[test]
fn a_certificate_of_another_name_is_refused_with_a_sentence() -> Result<()> {
    let log = refused(|_| Ok(()), &[("CONSUL_TLS_SERVER_NAME", "consul.example")])?;
    ensure!(log.contains("no TLS with Consul at 127.0.0.1") && log.contains("consul.example"), "{log}");
    Ok(())
}

#[test]
fn an_authority_that_cannot_be_read_is_named() -> Result<()> {
    let log = refused(|group| Ok(fs::remove_file(group.authority("a"))?), &[]);
    let log = log?;
    ensure!(log.contains("a.ca"), "{log}");
    Ok(())
}

#[test]
fn another_name_or_no_verification_is_believed_where_it_is_asked_for() -> Result<()> {
    let consul = Consul::connect()?;
    for variables in [("CONSUL_TLS_SERVER_NAME", NAME), ("CONSUL_HTTP_SSL_VERIFY", "false")] {
        let mut group = ConsulGroup::new(&consul)?;
        let choice = Choice { variables: &[variables], ..Choice::default() };
        group.spawn(&consul, "a", choice)?.wait_active(&group.group, LIMIT)?;
    }
    Ok(())
}

#[test]
fn consuls_own_tls_is_spoken() -> Result<()> {
    let consul = Consul::connect()?;
    let address = std::env::var("TESTBED_CONSUL_HTTPS").context("no TESTBED_CONSUL_HTTPS")?;
    let authority = std::env::var("TESTBED_CONSUL_CA").context("no TESTBED_CONSUL_CA")?;
    let mut group = Group::new()?;
    group.set("--lease", "5s");
    group.set_lock_url(&format!("consul:///{}", consul.prefix()));
    let starter =
        |name: &str| group.member(name).variable("CONSUL_HTTP_ADDR", &address).variable("CONSUL_CACERT", &authority);
    let a = starter("a").probe::<&str>(&[])?;
    let active = a.wait_active(&group, LIMIT)?;
    let b = starter("b").probe::<&str>(&[])?;
    b.wait_standby(LIMIT)?;
    a.signal(rustix::process::Signal::TERM)?;
    follow(&group, &active, stamp::now())?.was_proved()?;
    check(&group, 2, &active)
}
