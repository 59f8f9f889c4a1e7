//! `--route consul-service:NAME`, and what the flags beside it say of the instance.

use std::net::IpAddr;
use std::time::Duration;

use super::lock_url::{Place, is_label};
use super::{duration, route};
use crate::error::{Code, Failure};
use crate::lock::consul::{Access, Server};
use crate::route::consul_service::{Check, Definition};

/// The shortest interval of a check that Consul takes.
const INTERVAL_MIN: Duration = Duration::from_secs(1);
const INTERVAL_DEFAULT: &str = "10s";

/// What the user said.
#[derive(Clone, Debug, Default)]
pub struct Raw {
    /// `--consul-check-http`.
    pub check_http: Option<String>,
    /// `--consul-check-interval`.
    pub check_interval: Option<String>,
    /// `--consul-service-port`.
    pub port: Option<u16>,
    /// `--consul-service-address`.
    pub address: Option<String>,
}

/// The instance of `member` in `service`. Consul is the one of the lock, or the one of the environment.
///
/// # Errors
/// What was got, what is allowed.
pub(super) fn definition(
    raw: &Raw,
    service: &str,
    member: &str,
    place: &Place,
    variables: route::Variables<'_>,
) -> Result<Definition, Failure> {
    let refuse = |what: String, cure: &str| Err(Failure::new(Code::Usage, what).hint(cure.to_owned()));
    if !is_label(service) {
        let what = format!("--route \"consul-service:{service}\" does not name a service");
        return refuse(what, "a-z, 0-9 and '-', at most 63, first and last no '-'");
    }
    let access = match place {
        Place::Consul(consul) => consul.access.clone(),
        _ => Access::new(&Server::default(), variables).map_err(|why| Failure::new(Code::Configuration, why))?,
    };
    let given = raw.address.clone().or_else(|| variables("POD_IP").filter(|address| !address.is_empty()));
    if let Some(address) = given.as_ref().filter(|address| address.parse::<IpAddr>().is_err()) {
        return refuse(format!("--consul-service-address {address:?} is not an address"), "such as 10.1.2.3");
    }
    let check = check(raw)?;
    if check.is_some() && raw.port.is_none() {
        return refuse("--consul-check-http needs a port".into(), "--consul-service-port 8080");
    }
    let (service, member) = (service.to_owned(), member.to_owned());
    Ok(Definition { access, service, member, address: given, port: raw.port, check })
}

fn check(raw: &Raw) -> Result<Option<Check>, Failure> {
    let interval = duration("--consul-check-interval", raw.check_interval.as_deref().unwrap_or(INTERVAL_DEFAULT))?;
    if interval < INTERVAL_MIN {
        let what = format!("--consul-check-interval {interval:?} is too short");
        return Err(Failure::new(Code::Usage, what).hint("1s or more"));
    }
    let Some(path) = &raw.check_http else { return Ok(None) };
    let is_path = path.starts_with('/') && !path.chars().any(|c| c.is_control() || c.is_whitespace());
    if !is_path {
        let what = format!("--consul-check-http {path:?} is no path");
        return Err(Failure::new(Code::Usage, what).hint("such as /health"));
    }
    Ok(Some(Check { path: path.clone(), interval }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::place;

    fn read(raw: &Raw, service: &str) -> Result<Definition, Failure> {
        let place = place(Some("consul://10.0.0.1:8500/app"), None).unwrap();
        definition(raw, service, "a", &place, &|name| (name == "POD_IP").then(|| "10.0.0.7".to_owned()))
    }

    fn whole() -> Raw {
        Raw { check_http: Some("/health".into()), port: Some(8080), ..Raw::default() }
    }

    #[test]
    fn the_flags_describe_the_instance() {
        let definition = read(&whole(), "capi-drs").unwrap();
        assert_eq!((definition.address.as_deref(), definition.port), (Some("10.0.0.7"), Some(8080)));
        assert_eq!(definition.check, Some(Check { path: "/health".into(), interval: Duration::from_secs(10) }));
        assert_eq!(definition.access.address.to_string(), "10.0.0.1:8500", "the Consul of the lock");
        assert_eq!(read(&Raw::default(), "x").unwrap().check, None);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let table = [
            (whole(), "Capi"),
            (whole(), ""),
            (Raw { port: None, ..whole() }, "x"),
            (Raw { check_http: Some("health".into()), ..whole() }, "x"),
            (Raw { check_interval: Some("10".into()), ..whole() }, "x"),
            (Raw { check_interval: Some("500ms".into()), ..whole() }, "x"),
            (Raw { address: Some("nowhere".into()), ..whole() }, "x"),
        ];
        for (raw, service) in table {
            let failure = read(&raw, service).unwrap_err();
            assert_eq!(failure.code, Code::Usage, "{raw:?}");
            assert!(failure.hint.is_some());
        }
    }
}
