//! The processes that talk: a server for all kinds of traffic, and a client that does what lines on its standard
//! input tell it, `KIND ADDRESS MILLISECONDS [RATE]`, and answers `FIGURE OPERATIONS`.

use std::{
    io::{self, BufRead as _, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use crate::{crowd, stats::float};

/// TCP, one connection at a time.
pub const PLAIN: u16 = 7000;
/// TCP, any number of connections.
pub const CROWD: u16 = 7001;
/// UDP.
pub const DATAGRAMS: u16 = 7002;

const CHUNK: usize = 1 << 18;
/// What a client of datagrams waits for one answer.
const LOST: Duration = Duration::from_millis(200);

/// Serves until standard input ends: everything, or what `role` says in the form `crowd:PORT` or
/// `listen:ADDRESS:PORTS`.
pub fn serve(role: &str) {
    match role.split(':').collect::<Vec<_>>()[..] {
        ["crowd", port] => {
            let crowd = listen(&format!("0.0.0.0:{port}"));
            let _ = thread::spawn(move || crowd::serve(crowd));
            wait(&());
        }
        ["listen", address, ports] => {
            let ports = 10_000..10_000 + ports.parse::<u16>().unwrap();
            wait(
                &ports
                    .map(|port| listen(&format!("{address}:{port}")))
                    .collect::<Vec<_>>(),
            );
        }
        _ => everything(),
    }
}

/// Holds `_held` until standard input ends.
fn wait<T>(_held: &T) {
    println!("ready");
    let _ = io::stdin().read_to_end(&mut Vec::new());
}

fn everything() {
    for host in ["0.0.0.0", "[::]"] {
        let plain = listen(&format!("{host}:{PLAIN}"));
        let _ = thread::spawn(move || {
            for stream in plain.incoming() {
                // Whoever goes away in the midst has said so himself.
                let _gone = answer(stream.unwrap());
            }
        });
        let crowd = listen(&format!("{host}:{CROWD}"));
        let _ = thread::spawn(move || crowd::serve(crowd));
        let datagrams = bind(&format!("{host}:{DATAGRAMS}"));
        let _ = thread::spawn(move || {
            let mut buffer = [0; 64];
            loop {
                let (length, from) = datagrams.recv_from(&mut buffer).unwrap();
                // A client that was refused in between gets none.
                let _refused = datagrams.send_to(buffer.get(..length).unwrap_or_default(), from);
            }
        });
    }
    wait(&());
}

/// Does what it is told until standard input ends.
pub fn call() {
    println!("ready");
    let mut held = Vec::new();
    for line in io::stdin().lock().lines().map_while(Result::ok) {
        match one(&line, &mut held) {
            Ok((figure, operations)) => println!("{figure} {operations}"),
            Err(error) => println!("error {line}: {error}"),
        }
    }
}

fn one(line: &str, held: &mut Vec<TcpStream>) -> io::Result<(f64, u64)> {
    let words: Vec<&str> = line.split(' ').collect();
    let (kind, address, millis, rate) = match words[..] {
        [kind, address, millis] => (kind, address, millis, "0"),
        [kind, address, millis, rate] => (kind, address, millis, rate),
        _ => return Err(io::Error::other("not a command")),
    };
    let address: SocketAddr = address.parse().map_err(io::Error::other)?;
    let time = Duration::from_millis(millis.parse().map_err(io::Error::other)?);
    let rate: u32 = rate.parse().map_err(io::Error::other)?;
    match kind {
        "crr" => micros(time, || exchange(&mut connect(address)?)),
        "rr" => {
            let mut stream = connect(address)?;
            micros(time, || exchange(&mut stream))
        }
        "udp-rr" => {
            let socket = bind(if address.is_ipv4() {
                "0.0.0.0:0"
            } else {
                "[::]:0"
            });
            socket.connect(address)?;
            socket.set_read_timeout(Some(LOST))?;
            micros(time, || {
                let _ = socket.send(&[1])?;
                let _ = socket.recv(&mut [0; 64])?;
                Ok(())
            })
        }
        "stream" => stream(address, time),
        "parallel" => crowd::parallel(address, time),
        "accept" => crowd::accept(address, time),
        "paced" => paced(address, time, rate),
        "hold" => hold(address, time),
        "idle" => idle(address, rate, held),
        "drained" => drained(time, held),
        _ => Err(io::Error::other("no such kind")),
    }
}

/// Microseconds of one operation, and how many there were.
fn micros(time: Duration, mut operation: impl FnMut() -> io::Result<()>) -> io::Result<(f64, u64)> {
    let began = Instant::now();
    let mut operations = 0;
    while began.elapsed() < time {
        operation()?;
        operations += 1;
    }
    Ok((
        began.elapsed().as_secs_f64() * 1e6 / float(operations),
        operations,
    ))
}

/// GiB a second, counted once the server has read all; and bytes.
fn stream(address: SocketAddr, time: Duration) -> io::Result<(f64, u64)> {
    let mut stream = connect(address)?;
    let buffer = vec![0; CHUNK];
    let began = Instant::now();
    let mut bytes = 0;
    while began.elapsed() < time {
        stream.write_all(&buffer)?;
        bytes += CHUNK as u64;
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    let _ = stream.read_to_end(&mut Vec::new())?;
    let per_second = float(bytes) / began.elapsed().as_secs_f64();
    Ok((per_second / float(1 << 30), bytes))
}

/// Connections a second where `rate` are asked for, and how many there were.
fn paced(address: SocketAddr, time: Duration, rate: u32) -> io::Result<(f64, u64)> {
    let began = Instant::now();
    let mut operations: u32 = 0;
    while began.elapsed() < time {
        let due = Duration::from_secs(1) * operations / rate;
        thread::sleep(due.saturating_sub(began.elapsed()));
        exchange(&mut connect(address)?)?;
        operations += 1;
    }
    let per_second = f64::from(operations) / began.elapsed().as_secs_f64();
    Ok((per_second, operations.into()))
}

/// Exchanges on one connection until it is cut, `time` at most: the moment of the end in seconds since 1970, and
/// how many there were.
fn hold(address: SocketAddr, time: Duration) -> io::Result<(f64, u64)> {
    let mut stream = connect(address)?;
    stream.set_read_timeout(Some(time))?;
    let mut operations = 0;
    while exchange(&mut stream).is_ok() {
        operations += 1;
        thread::sleep(Duration::from_millis(1));
    }
    Ok((now()?, operations))
}

/// Opens connections and keeps them; how many it has then.
fn idle(address: SocketAddr, number: u32, held: &mut Vec<TcpStream>) -> io::Result<(f64, u64)> {
    for _ in 0..number {
        let mut stream = connect(address)?;
        exchange(&mut stream)?;
        stream.set_nonblocking(true)?;
        held.push(stream);
    }
    Ok((0.0, held.len() as u64))
}

/// Waits until all that it keeps are cut: the moment of the end in seconds since 1970, and how many were.
fn drained(time: Duration, held: &mut Vec<TcpStream>) -> io::Result<(f64, u64)> {
    let began = Instant::now();
    let before = held.len();
    while !held.is_empty() && began.elapsed() < time {
        held.retain_mut(|stream| {
            let answer = stream.read(&mut [0]);
            answer.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
        });
        thread::sleep(Duration::from_millis(1));
    }
    Ok((now()?, (before - held.len()) as u64))
}

fn now() -> io::Result<f64> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Ok(now.map_err(io::Error::other)?.as_secs_f64())
}

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn exchange(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(&[1])?;
    stream.read_exact(&mut [0])
}

/// Gives single bytes back and swallows the rest.
fn answer(mut stream: TcpStream) -> io::Result<()> {
    thread_local! {
        static BUFFER: std::cell::RefCell<Vec<u8>> = std::cell::RefCell::new(vec![0; CHUNK]);
    }
    stream.set_nodelay(true)?;
    BUFFER.with_borrow_mut(|buffer| {
        while let Ok(length @ 1..) = stream.read(buffer) {
            if length == 1 {
                stream.write_all(&[1])?;
            }
        }
        Ok(())
    })
}

fn listen(address: &str) -> TcpListener {
    let socket = socket(address, socket2::Type::STREAM);
    socket.listen(1_024).unwrap();
    socket.into()
}

fn bind(address: &str) -> UdpSocket {
    socket(address, socket2::Type::DGRAM).into()
}

/// A bound socket; of IPv6 only, so that both families have their own.
fn socket(address: &str, kind: socket2::Type) -> socket2::Socket {
    let address: SocketAddr = address.parse().unwrap();
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), kind, None).unwrap();
    if address.is_ipv6() {
        socket.set_only_v6(true).unwrap();
    }
    if kind == socket2::Type::STREAM {
        socket.set_reuse_address(true).unwrap();
    }
    socket.bind(&address.into()).unwrap();
    socket
}
