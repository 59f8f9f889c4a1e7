//! Asks a server by HTTP: any answer of 200 to 299 is a success. The answer's body is not read.

use std::fmt::Display;
use std::time::Duration;

use hyper::client::conn::http1;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::judge::Finding;
use super::short;
use crate::settings::health::{Address, Target};

/// The largest head of an answer.
const HEAD_MAX: usize = 16 << 10;

/// Asks once.
pub async fn ask(target: &Target, limit: Duration) -> Finding {
    let why = match timeout(limit, status(target)).await {
        Ok(Ok(status)) if status.is_success() => return Finding::Pass,
        Ok(Ok(status)) if status.is_redirection() => format!("the answer is {status}; redirections are not followed"),
        Ok(Ok(status)) => format!("the answer is {status}"),
        Ok(Err(why)) => why,
        Err(_) => format!("no answer within {limit:?}"),
    };
    Finding::Fail(short(&why))
}

async fn status(target: &Target) -> Result<StatusCode, String> {
    match &target.address {
        Address::Tcp(host, port) => {
            let stream = TcpStream::connect((host.as_str(), *port)).await;
            exchange(stream.map_err(failed("connect"))?, target).await
        }
        Address::Unix(path) => {
            let stream = UnixStream::connect(path).await;
            exchange(stream.map_err(failed("connect"))?, target).await
        }
    }
}

async fn exchange(stream: impl AsyncRead + AsyncWrite + Unpin, target: &Target) -> Result<StatusCode, String> {
    let request = Request::get(&target.path)
        .header(header::HOST, &target.host)
        .header(header::USER_AGENT, concat!("soloist/", env!("CARGO_PKG_VERSION")))
        .header(header::CONNECTION, "close")
        .body(String::new())
        .map_err(failed("make the request"))?;
    let mut builder = http1::Builder::new();
    builder.max_buf_size(HEAD_MAX);
    let (mut sender, connection) =
        builder.handshake(TokioIo::new(stream)).await.map_err(failed("begin the conversation"))?;
    let answer = sender.send_request(request);
    tokio::pin!(answer, connection);
    let answer = tokio::select! {
        biased;
        answer = &mut answer => answer,
        // An end of the connection is the end of the question, too; what came before it counts.
        _ = &mut connection => answer.await,
    };
    answer.map(|answer| answer.status()).map_err(failed("understand the answer"))
}

fn failed<E: Display + std::error::Error>(what: &'static str) -> impl Fn(E) -> String {
    move |error| {
        let causes: Vec<_> =
            std::iter::successors(error.source(), |cause| cause.source()).map(|c| c.to_string()).collect();
        let error = [vec![error.to_string()], causes].concat().join(": ");
        format!("failed to {what}: {error}")
    }
}

#[cfg(test)]
mod tests;
