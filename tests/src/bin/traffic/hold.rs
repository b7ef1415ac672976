//! A connection that is used until somebody cuts it.
//!
//! Each message is given back by the peer before the next is sent, so that the count says exactly what
//! passed in both directions.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    thread,
    time::Duration,
};

use ringfence_tests::Outcome;

use super::{Failed, Result, at, done, failure, print};

/// Bytes of one message.
const MESSAGE: usize = 64;
/// Between two messages.
const PAUSE: Duration = Duration::from_millis(5);
/// A message that isn't answered by then never will be.
const SILENCE: Duration = Duration::from_secs(4);

/// Prints one line when connected, one after the first message, and returns the last.
pub fn hold(address: SocketAddr, wait: bool) -> Result<Outcome> {
    let stream = TcpStream::connect(address).map_err(at("connect"))?;
    let connected = Outcome {
        local: stream.local_addr().ok(),
        peer: stream.peer_addr().ok(),
        ..done("connect")
    };
    print(&connected);
    if wait {
        let mut line = String::new();
        let _end = io::stdin().read_line(&mut line);
    }
    let mut passed = 0;
    let cut = exchange(stream, &mut passed, &connected);
    Ok(Outcome {
        sent: passed,
        received: passed,
        local: connected.local,
        peer: connected.peer,
        ..failure(&Failed("send", cut))
    })
}

/// Goes on until it fails.
fn exchange(mut stream: TcpStream, passed: &mut u64, connected: &Outcome) -> io::Error {
    let prepared = stream
        .set_read_timeout(Some(SILENCE))
        .and_then(|()| stream.set_nodelay(true));
    if let Err(error) = prepared {
        return error;
    }
    let mut message = [b'h'; MESSAGE];
    loop {
        let answered = stream
            .write_all(&message)
            .and_then(|()| stream.read_exact(&mut message));
        if let Err(error) = answered {
            return error;
        }
        *passed += 64;
        if *passed == 64 {
            print(&Outcome {
                sent: *passed,
                step: "send".to_owned(),
                ..connected.clone()
            });
        }
        thread::sleep(PAUSE);
    }
}
