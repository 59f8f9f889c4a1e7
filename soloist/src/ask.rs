//! One request to a server of the user's, over a connection of its own. Only the head of the answer is read.

use std::fmt::Display;

use hyper::client::conn::http1;
use hyper::http::request::Builder;
use hyper::{StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use crate::settings::target::{Address, Target};

/// The largest head of an answer.
const HEAD_MAX: usize = 16 << 10;

/// Sends one request; the target's address and path are added to what `request` has. The caller bounds it in time.
///
/// # Errors
/// Any answer but 200 to 299, or none, in one sentence.
pub async fn ask(target: &Target, request: Builder, body: String) -> Result<(), String> {
    let status = match &target.address {
        Address::Tcp(host, port) => {
            let stream = TcpStream::connect((host.as_str(), *port)).await;
            exchange(stream.map_err(failed("connect"))?, target, request, body).await
        }
        Address::Unix(path) => {
            let stream = UnixStream::connect(path).await;
            exchange(stream.map_err(failed("connect"))?, target, request, body).await
        }
    }?;
    match status {
        status if status.is_success() => Ok(()),
        status if status.is_redirection() => Err(format!("the answer is {status}; redirections are not followed")),
        status => Err(format!("the answer is {status}")),
    }
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    target: &Target,
    request: Builder,
    body: String,
) -> Result<StatusCode, String> {
    let request = request
        .uri(&target.path)
        .header(header::HOST, &target.host)
        .header(header::USER_AGENT, concat!("soloist/", env!("CARGO_PKG_VERSION")))
        .header(header::CONNECTION, "close")
        .body(body)
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
    move |error| format!("failed to {what}: {}", crate::error::chain(&error))
}
