//! Asks a server by HTTP: any answer of 200 to 299 is a success. The answer's body is not read.

use std::time::Duration;

use hyper::Request;

use super::judge::Finding;
use super::short;
use crate::patience::within;
use crate::settings::target::Target;

/// Asks once.
pub async fn ask(target: &Target, limit: Duration) -> Finding {
    match within(limit, crate::ask::ask(target, Request::builder(), String::new())).await {
        Ok(()) => Finding::Pass,
        Err(why) => Finding::Fail(short(&why)),
    }
}

#[cfg(test)]
mod tests;
