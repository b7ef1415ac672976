//! Connections of clients: how many there are, who is at the other end, and who has to go.
//!
//! A flood of connections can't lock an operator out: who comes when all places are taken gets the place of one that has not
//! said what it wants, else of the one that has been silent for the longest time. One that connects and says nothing is closed
//! after a while, so that its place and its descriptor are free again.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use async_stream::stream;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{UnixListener, UnixStream},
    time::{Instant, Sleep, sleep},
};
use tokio_stream::Stream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;

/// Connections at a time.
pub(super) const MAX_CONNECTIONS: usize = 64;
/// How long a client may take to say that it speaks HTTP/2.
pub(super) const GREETING: Duration = Duration::from_secs(5);
/// Bytes of the connection preface (RFC 9113, section 3.4).
const PREFACE: usize = 24;
/// Pause after a failed accept (out of file descriptors).
const PAUSE: Duration = Duration::from_millis(100);

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer {
    /// User; `None` where the kernel does not say.
    pub uid: Option<u32>,
    /// Number of the connection, used once.
    pub connection: u64,
}

/// A connection that counts.
pub(super) struct Connection {
    stream: UnixStream,
    uid: Option<u32>,
    line: Arc<Line>,
    book: Book,
    greeting: Pin<Box<Sleep>>,
    /// Bytes of the preface that are there.
    greeted: usize,
    evicted: Pin<Box<WaitForCancellationFutureOwned>>,
}

/// What is known of a connection.
#[derive(Debug)]
struct Line {
    number: u64,
    greeted: AtomicBool,
    /// Milliseconds from the book's beginning to the last byte.
    last: AtomicU64,
    evict: CancellationToken,
}

/// The connections that there are.
#[derive(Clone, Debug)]
struct Book {
    began: Instant,
    lines: Arc<Mutex<Vec<Arc<Line>>>>,
}

/// Connections as they come.
pub(super) fn incoming(listener: UnixListener) -> impl Stream<Item = io::Result<Connection>> {
    let book = Book {
        began: Instant::now(),
        lines: Arc::default(),
    };
    stream! {
        for number in 1.. {
            let stream = accept(&listener).await;
            yield Ok(book.enter(stream, number));
        }
    }
}

/// The next one. What fails is tried again.
async fn accept(listener: &UnixListener) -> UnixStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) => {
                tracing::warn!(%error, "a connection to the agent's socket could not be accepted");
                sleep(PAUSE).await;
            }
        }
    }
}

impl Book {
    fn enter(&self, stream: UnixStream, number: u64) -> Connection {
        let line = Arc::new(Line {
            number,
            greeted: AtomicBool::new(false),
            last: AtomicU64::new(self.now()),
            evict: CancellationToken::new(),
        });
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() >= MAX_CONNECTIONS {
            let places = lines.iter().enumerate();
            let weakest = places.min_by_key(|(_, line)| {
                let greeted = line.greeted.load(Ordering::Relaxed);
                (greeted, line.last.load(Ordering::Relaxed), line.number)
            });
            if let Some(place) = weakest.map(|(place, _)| place) {
                lines.swap_remove(place).evict.cancel();
            }
        }
        lines.push(Arc::clone(&line));
        drop(lines);
        Connection {
            uid: stream.peer_cred().ok().map(|peer| peer.uid()),
            stream,
            book: self.clone(),
            greeting: Box::pin(sleep(GREETING)),
            greeted: 0,
            evicted: Box::pin(line.evict.clone().cancelled_owned()),
            line,
        }
    }

    fn leave(&self, number: u64) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.retain(|line| line.number != number);
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Connection {
    fn note(&self) {
        self.line.last.store(self.book.now(), Ordering::Relaxed);
    }

    /// Why it must end now.
    fn fault(&mut self, context: &mut Context<'_>) -> Option<io::Error> {
        if self.evicted.as_mut().poll(context).is_ready() {
            let text = "another client has its place";
            return Some(io::Error::new(io::ErrorKind::ConnectionAborted, text));
        }
        let silent = self.greeted < PREFACE && self.greeting.as_mut().poll(context).is_ready();
        silent.then(|| io::ErrorKind::TimedOut.into())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.book.leave(self.line.number);
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        Peer {
            uid: self.uid,
            connection: self.line.number,
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(fault) = self.fault(context) {
            return Poll::Ready(Err(fault));
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        let more = buffer.filled().len().saturating_sub(before);
        if more > 0 {
            self.note();
            self.greeted = self.greeted.saturating_add(more);
            if self.greeted >= PREFACE {
                self.line.greeted.store(true, Ordering::Relaxed);
            }
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        if matches!(written, Poll::Ready(Ok(_))) {
            self.note();
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
