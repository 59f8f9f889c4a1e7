//! The ports of an Endpoints object, from JSON as the API has it.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::settings::is_label;

/// A Service with more of them could not be mirrored.
const PORTS_MAX: usize = 100;
const PROTOCOLS: [&str; 3] = ["TCP", "UDP", "SCTP"];

/// Reads an array of core/v1 EndpointPort. Spelling is as free as in programs that use the API's own types: keys in any
/// case, unknown ones without effect, `null` for what is left out.
///
/// # Errors
/// What was got and what is allowed, in one sentence.
pub fn parse(text: &str) -> Result<Vec<Value>, String> {
    let value: Value = serde_json::from_str(text).map_err(|error| format!("it is not JSON: {error}"))?;
    let items = match value {
        Value::Null => Vec::new(),
        Value::Array(items) => items,
        _ => return Err("it is not an array".to_owned()),
    };
    if items.len() > PORTS_MAX {
        return Err(format!("it has {} ports, and at most {PORTS_MAX} are allowed", items.len()));
    }
    let alone = items.len() == 1;
    let mut names = BTreeSet::new();
    items
        .iter()
        .enumerate()
        .map(|(at, item)| {
            let (name, port) = port(item, alone).map_err(|why| format!("port {at} {why}"))?;
            if names.insert(name) { Ok(port) } else { Err(format!("port {at} has a name that another one has")) }
        })
        .collect()
}

/// One port with its name.
fn port(item: &Value, alone: bool) -> Result<(String, Value), String> {
    let fields = item.as_object().ok_or("is not an object")?;
    let number = match field(fields, "port") {
        Some(Value::Number(number)) => number.as_u64().filter(|number| (1..=65535).contains(number)),
        Some(_) => return Err("has a port that is not a number".to_owned()),
        None => return Err("has no port".to_owned()),
    };
    let number = number.ok_or("has a number that is not between 1 and 65535")?;
    let name = text(fields, "name")?;
    if name.is_empty() && !alone {
        return Err("has no name, and with several ports each needs one".to_owned());
    }
    if !name.is_empty() && !is_label(name) {
        return Err(format!("has the name {name:?}, which is not a-z, 0-9 and '-', at most 63 long"));
    }
    let protocol = match text(fields, "protocol")? {
        "" => PROTOCOLS[0],
        given => given,
    };
    if !PROTOCOLS.contains(&protocol) {
        return Err(format!("has the protocol {protocol:?} instead of one of {}", PROTOCOLS.join(", ")));
    }
    let mut port = json!({"port": number, "protocol": protocol});
    if !name.is_empty() {
        port["name"] = name.into();
    }
    match text(fields, "appProtocol")? {
        "" => {}
        application => port["appProtocol"] = application.into(),
    }
    Ok((name.to_owned(), port))
}

/// The value of a key in any case; nothing for `null`.
fn field<'a>(fields: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    let exact = fields.get(name);
    let found = exact.or_else(|| Some(fields.iter().find(|(key, _)| key.eq_ignore_ascii_case(name))?.1));
    found.filter(|value| !value.is_null())
}

fn text<'a>(fields: &'a Map<String, Value>, name: &str) -> Result<&'a str, String> {
    match field(fields, name) {
        None => Ok(""),
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(format!("has a {name} that is not text")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_of_the_api_are_taken() {
        let table = [
            (r#"[{"name":"http","port":8080}]"#, json!([{"name": "http", "port": 8080, "protocol": "TCP"}])),
            (r#"[{"port":53,"protocol":"UDP"}]"#, json!([{"port": 53, "protocol": "UDP"}])),
            (
                r#" [{"name":"a","port":1,"appProtocol":"h2c"},{"name":"b","port":1}] "#,
                json!([{"name": "a", "port": 1, "protocol": "TCP", "appProtocol": "h2c"},
                       {"name": "b", "port": 1, "protocol": "TCP"}]),
            ),
            ("[]", json!([])),
            ("null", json!([])),
            (
                r#"[{"Name":"x","PORT":65535,"protocol":null}]"#,
                json!([{"name": "x", "port": 65535, "protocol": "TCP"}]),
            ),
            (r#"[{"name":"x","port":1,"targetPort":2}]"#, json!([{"name": "x", "port": 1, "protocol": "TCP"}])),
        ];
        for (text, expected) in table {
            assert_eq!(parse(text).map(Value::Array), Ok(expected), "{text}");
        }
    }

    #[test]
    fn everything_else_is_refused_with_a_reason() {
        let many = format!("[{}]", vec![r#"{"port":1}"#; 101].join(","));
        let long = format!(r#"[{{"port":1,"name":"{}"}}]"#, "x".repeat(64));
        let table = [
            ("", "not JSON"),
            ("8080", "not an array"),
            ("{}", "not an array"),
            ("[8080]", "not an object"),
            ("[{}]", "no port"),
            (r#"[{"port":null}]"#, "no port"),
            (r#"[{"port":"8080"}]"#, "not a number"),
            (r#"[{"port":0}]"#, "between 1 and 65535"),
            (r#"[{"port":65536}]"#, "between 1 and 65535"),
            (r#"[{"port":-1}]"#, "between 1 and 65535"),
            (r#"[{"port":80.5}]"#, "between 1 and 65535"),
            (r#"[{"port":1e300}]"#, "between 1 and 65535"),
            (r#"[{"port":1,"protocol":"tcp"}]"#, "protocol"),
            (r#"[{"port":1,"protocol":6}]"#, "not text"),
            (r#"[{"port":1,"name":"-a"}]"#, "name"),
            (r#"[{"port":1,"name":"$(PORT)"}]"#, "name"),
            (r#"[{"port":1},{"port":2}]"#, "each needs one"),
            (r#"[{"port":1,"name":"a"},{"port":2,"name":"a"}]"#, "another one"),
            ("[{\"port\":1}", "not JSON"),
            (&many, "at most 100"),
            (&long, "at most 63"),
        ];
        for (text, part) in table {
            let why = parse(text).unwrap_err();
            assert!(why.contains(part), "{text}: {why}");
            assert!(!why.contains('\n'), "{why}");
        }
    }

    #[test]
    fn deep_nesting_is_an_error_and_no_crash() {
        assert!(parse(&"[".repeat(100_000)).is_err());
    }
}
