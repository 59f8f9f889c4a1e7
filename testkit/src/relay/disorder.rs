//! A stream of lines that come out of order, and again.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame};

/// Lines in pairs, the later one first, and behind each pair the first line of all once more.
pub struct Disorder<B> {
    inner: B,
    /// The beginning of a line.
    rest: Vec<u8>,
    lines: Lines,
}

impl<B> Disorder<B> {
    pub fn new(inner: B) -> Self {
        Self { inner, rest: Vec::new(), lines: Lines::default() }
    }
}

#[derive(Default)]
struct Lines {
    first: Option<Bytes>,
    /// The first one of a pair.
    held: Option<Bytes>,
    /// What may go.
    ready: VecDeque<Bytes>,
}

impl Lines {
    fn take(&mut self, line: Bytes) {
        let first = self.first.get_or_insert_with(|| line.clone()).clone();
        match self.held.take() {
            Some(held) => self.ready.extend([line, held, first]),
            None => self.held = Some(line),
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Disorder<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        loop {
            if let Some(line) = self.lines.ready.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(line))));
            }
            let frame = match ready!(Pin::new(&mut self.inner).poll_frame(context)) {
                Some(Ok(frame)) => frame,
                end => return Poll::Ready(end),
            };
            let Ok(piece) = frame.into_data() else { continue };
            self.rest.extend_from_slice(&piece);
            while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                self.lines.take(line.into());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_in_pairs_the_later_one_first_and_the_first_one_again() {
        let mut lines = Lines::default();
        for line in ["1", "2", "3", "4", "5"] {
            lines.take(Bytes::from_static(line.as_bytes()));
        }
        assert_eq!(lines.ready, ["2", "1", "1", "4", "3", "1"]);
    }
}
