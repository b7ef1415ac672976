//! Many connections at once, on one thread.

use std::{
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    runtime::{Builder, Runtime},
    task::JoinSet,
};

use crate::stats::float;

/// Connections that stay open.
const PARALLEL: usize = 1_000;
/// Clients that connect and go.
const CALLERS: usize = 64;

/// Gives back what comes on each connection.
pub fn serve(listener: std::net::TcpListener) {
    listener.set_nonblocking(true).unwrap();
    runtime().unwrap().block_on(async {
        let listener = TcpListener::from_std(listener).unwrap();
        loop {
            // Too many open files, or a client that is gone again.
            let Ok((mut stream, _)) = listener.accept().await else {
                continue;
            };
            let _task = tokio::spawn(async move {
                let _ = stream.set_nodelay(true);
                let mut buffer = [0; 64];
                while let Ok(length @ 1..) = stream.read(&mut buffer).await {
                    let bytes = buffer.get(..length).unwrap_or_default();
                    if stream.write_all(bytes).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
}

/// Microseconds of one exchange, and how many there were, on connections that were open before the clock began.
pub fn parallel(address: SocketAddr, time: Duration) -> io::Result<(f64, u64)> {
    runtime()?.block_on(async {
        let mut streams = Vec::new();
        for _ in 0..PARALLEL {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            streams.push(stream);
        }
        let began = Instant::now();
        let mut tasks = JoinSet::new();
        for mut stream in streams {
            let _ = tasks.spawn(async move {
                let mut operations = 0;
                while began.elapsed() < time {
                    stream.write_all(&[1]).await?;
                    let _ = stream.read_exact(&mut [0]).await?;
                    operations += 1;
                }
                Ok(operations)
            });
        }
        let operations = sum(tasks).await?;
        let micros = began.elapsed().as_secs_f64() * 1e6;
        Ok((micros / float(operations), operations))
    })
}

/// Connections a second that were taken and closed, and how many there were.
pub fn accept(address: SocketAddr, time: Duration) -> io::Result<(f64, u64)> {
    runtime()?.block_on(async {
        let began = Instant::now();
        let mut tasks = JoinSet::new();
        for _ in 0..CALLERS {
            let _ = tasks.spawn(async move {
                let mut operations = 0;
                while began.elapsed() < time {
                    let mut stream = TcpStream::connect(address).await?;
                    stream.shutdown().await?;
                    let _ = stream.read(&mut [0]).await?;
                    operations += 1;
                }
                Ok(operations)
            });
        }
        let operations = sum(tasks).await?;
        Ok((
            float(operations) / began.elapsed().as_secs_f64(),
            operations,
        ))
    })
}

async fn sum(mut tasks: JoinSet<io::Result<u64>>) -> io::Result<u64> {
    let mut operations = 0;
    while let Some(done) = tasks.join_next().await {
        operations += done.map_err(io::Error::other)??;
    }
    Ok(operations)
}

fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}
