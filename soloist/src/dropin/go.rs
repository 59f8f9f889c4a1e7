//! How programs written in Go say things, and how they take them.

use std::net::{SocketAddr, ToSocketAddrs};

use crate::error::Failure;
use crate::serve::{self, Bound};
use crate::settings::{Address, Http};

/// The signal that ended a command.
pub fn signal(number: i32) -> String {
    let name = match number {
        1 => "hangup",
        2 => "interrupt",
        3 => "quit",
        6 => "aborted",
        9 => "killed",
        11 => "segmentation fault",
        15 => "terminated",
        _ => return format!("signal: signal {number}"),
    };
    format!("signal: {name}")
}

/// Takes the address; one without a host means all addresses of this host.
///
/// # Errors
/// No address, or one that cannot be had.
pub fn bind(text: &str) -> Result<Bound, String> {
    let candidates = addresses(text).map_err(|error| format!("listen tcp {text}: {error}"))?;
    let mut result = Err(format!("listen tcp {text}: no such address"));
    for address in candidates {
        let http = Http { address: Address::Tcp(address), token_file: None };
        result = serve::bind(&http).map_err(|failure: Failure| format!("listen tcp {text}: {}", failure.message));
        if result.is_ok() {
            break;
        }
    }
    result
}

fn addresses(text: &str) -> std::io::Result<Vec<SocketAddr>> {
    match text.strip_prefix(':') {
        // Where there is IPv6, its address takes both.
        Some(_) => {
            Ok([format!("[::]{text}"), format!("0.0.0.0{text}")].iter().filter_map(|a| a.parse().ok()).collect())
        }
        None => text.to_socket_addrs().map(Iterator::collect),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_as_the_other_program_takes_them() {
        let shown = |text: &str| addresses(text).map(|all| all.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(shown(":9999").unwrap(), ["[::]:9999", "0.0.0.0:9999"]);
        assert_eq!(shown("127.0.0.1:80").unwrap(), ["127.0.0.1:80"]);
        assert_eq!(shown("[::1]:80").unwrap(), ["[::1]:80"]);
        assert!(shown("localhost:80").unwrap().contains(&"127.0.0.1:80".to_owned()));
        for text in ["9999", ":", ":http", "127.0.0.1", ":99999"] {
            assert!(bind(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_address_in_use_is_refused() {
        let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let why = bind(&held.local_addr().unwrap().to_string()).map(drop).unwrap_err();
        assert!(why.starts_with("listen tcp 127.0.0.1:") && why.contains("in use"), "{why}");
    }
}
