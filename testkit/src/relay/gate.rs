//! Holds the bytes of a connection: to whoever uses it, the other side has fallen silent.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;

/// Which ways are closed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gates {
    /// From the member to the server.
    pub in_closed: bool,
    /// From the server to the member.
    pub out_closed: bool,
    /// All connections are ended.
    pub cut: bool,
    /// How often all connections that there were have been ended.
    pub ended: u64,
}

/// One way of a connection.
struct Way {
    gates: watch::Receiver<Gates>,
    is_closed: fn(&Gates) -> bool,
    waiting: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Way {
    fn new(gates: &watch::Receiver<Gates>, is_closed: fn(&Gates) -> bool) -> Self {
        Self { gates: gates.clone(), is_closed, waiting: None }
    }

    fn poll_open(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while (self.is_closed)(&self.gates.borrow()) {
            let waiting = self.waiting.get_or_insert_with(|| {
                let (mut gates, is_closed) = (self.gates.clone(), self.is_closed);
                Box::pin(async move {
                    if gates.wait_for(|gates| !is_closed(gates)).await.is_err() {
                        // The relay is about to end.
                        std::future::pending().await
                    }
                })
            });
            ready!(waiting.as_mut().poll(context));
            self.waiting = None;
        }
        self.waiting = None;
        Poll::Ready(())
    }
}

/// A connection that can be held.
pub struct Gate<S> {
    inner: S,
    reads: Way,
    writes: Way,
}

impl<S> Gate<S> {
    /// Around `inner`, the connection to the member.
    pub fn new(inner: S, gates: &watch::Receiver<Gates>) -> Self {
        Self {
            inner,
            reads: Way::new(gates, |gates| gates.in_closed),
            writes: Way::new(gates, |gates| gates.out_closed),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gate<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.reads.poll_open(context));
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gate<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.writes.poll_open(context));
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // What is to be flushed has passed already; held here, it would hold up requests too.
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.writes.poll_open(context));
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}
