//! Real sockets, on loopback of this namespace and of another one.

use std::{
    error::Error,
    io::{self, Read, Write},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsFd,
};

use ringfence_common::abi::tuple::{TCP, UDP};
use socket2::{Domain, SockRef, Socket, Type};

use super::{
    super::{
        fds::SocketFacts,
        netns::{held::IDLE, testing::Guest},
    },
    *,
};

type TestResult = Result<(), Box<dyn Error>>;

const V4: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
const V6: SocketAddr = SocketAddr::new(std::net::IpAddr::V6(Ipv6Addr::LOCALHOST), 0);
const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0);

/// Client and server.
fn pair(listen: SocketAddr, to: SocketAddr) -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind(listen)?;
    let port = listener.local_addr()?.port();
    let client = TcpStream::connect(SocketAddr::new(to.ip(), port))?;
    Ok((client, listener.accept()?.0))
}

/// Namespace, tuple and cookie.
fn of(socket: &impl AsFd, protocol: u8) -> Result<(u64, Tuple, u64), Box<dyn Error>> {
    let facts = SocketFacts::of(socket.as_fd())?;
    let (local, local_port) = facts.local.ok_or("not bound")?;
    let (remote, remote_port) = facts.remote.ok_or("not connected")?;
    let tuple = Tuple {
        local,
        remote,
        local_port,
        remote_port,
        protocol,
        pad: [0; 3],
    };
    Ok((facts.netns, tuple, facts.cookie))
}

fn error_of(socket: &mut TcpStream) -> io::Result<Option<io::ErrorKind>> {
    socket.set_nonblocking(true)?;
    Ok(socket.read(&mut [0; 8]).err().map(|error| error.kind()))
}

#[test]
fn tcp_socket_of_either_family_is_aborted_once() -> TestResult {
    let mut destroyer = Destroyer::new()?;
    // The second one's server is an IPv6 socket with mapped addresses.
    for (listen, to) in [(V4, V4), (ANY, V4), (V6, V6)] {
        for server in [true, false] {
            let (one, other) = pair(listen, to)?;
            let (mut victim, mut peer) = if server { (other, one) } else { (one, other) };
            let (netns, tuple, cookie) = of(&victim, TCP)?;
            let outcome = destroyer.destroy(netns, &tuple, cookie)?;
            assert_eq!(outcome, Outcome::Destroyed, "{listen} {server}");
            let victim = error_of(&mut victim)?;
            assert_eq!(victim, Some(io::ErrorKind::ConnectionAborted), "{listen}");
            let peer = error_of(&mut peer)?;
            assert_eq!(peer, Some(io::ErrorKind::ConnectionReset), "{listen}");
            let again = destroyer.destroy(netns, &tuple, cookie)?;
            assert_eq!(again, Outcome::NotFound);
        }
    }
    Ok(())
}

#[test]
fn another_socket_with_the_same_addresses_is_left_alone() -> TestResult {
    let mut destroyer = Destroyer::new()?;
    let (mut client, mut server) = pair(V4, V4)?;
    let (netns, tuple, cookie) = of(&client, TCP)?;
    for wrong in [cookie + 1_000_000, 0, u64::MAX] {
        let outcome = destroyer.destroy(netns, &tuple, wrong)?;
        assert_eq!(outcome, Outcome::NotFound, "{wrong}");
    }
    server.write_all(b"x")?;
    client.read_exact(&mut [0])?;
    Ok(())
}

#[test]
fn socket_bound_to_an_interface_is_found() -> TestResult {
    let mut destroyer = Destroyer::new()?;
    let listener = TcpListener::bind(V4)?;
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind_device(Some(b"lo"))?;
    socket.connect(&listener.local_addr()?.into())?;
    let (netns, tuple, cookie) = of(&socket, TCP)?;
    let outcome = destroyer.destroy(netns, &tuple, cookie)?;
    assert_eq!(outcome, Outcome::Destroyed);
    Ok(())
}

#[test]
fn connected_udp_socket_is_aborted() -> TestResult {
    let mut destroyer = Destroyer::new()?;
    for address in [V4, V6] {
        let peer = UdpSocket::bind(address)?;
        let socket = UdpSocket::bind(address)?;
        socket.connect(peer.local_addr()?)?;
        let (netns, tuple, cookie) = of(&socket, UDP)?;
        let outcome = destroyer.destroy(netns, &tuple, cookie)?;
        assert_eq!(outcome, Outcome::Destroyed);
        let error = SockRef::from(&socket).take_error()?;
        let code = error.and_then(|error| error.raw_os_error());
        assert_eq!(code, Some(libc::ECONNABORTED));
    }
    Ok(())
}

#[test]
fn socket_in_another_namespace_is_aborted_and_the_namespace_let_go() -> TestResult {
    let guest = Guest::start()?;
    let mut destroyer = Destroyer::new()?;
    let (mut first, _first_peer) = guest.inside(|| pair(V4, V4))?;
    let (netns, tuple, cookie) = of(&first, TCP)?;
    assert_ne!(netns, destroyer.channels.own_cookie);
    let outcome = destroyer.destroy(netns, &tuple, cookie)?;
    assert_eq!(outcome, Outcome::Destroyed);
    let error = error_of(&mut first)?;
    assert_eq!(error, Some(io::ErrorKind::ConnectionAborted));

    let (second, _second_peer) = guest.inside(|| pair(V6, V6))?;
    let (netns, tuple, cookie) = of(&second, TCP)?;
    let outcome = destroyer.destroy(netns, &tuple, cookie)?;
    assert_eq!(outcome, Outcome::Destroyed);

    assert!(destroyer.channels.held.contains_key(&netns));
    for held in destroyer.channels.held.values_mut() {
        held.used = Instant::now().checked_sub(IDLE).ok_or("young clock")?;
    }
    destroyer.release_unused();
    assert!(destroyer.channels.held.is_empty());
    Ok(())
}

#[test]
fn socket_of_unknown_namespace_is_searched_everywhere() -> TestResult {
    let guest = Guest::start()?;
    let mut destroyer = Destroyer::new()?;
    let (victim, _peer) = guest.inside(|| pair(V4, V4))?;
    let (_, tuple, cookie) = of(&victim, TCP)?;
    assert_eq!(destroyer.destroy(0, &tuple, cookie)?, Outcome::Destroyed);
    assert_eq!(destroyer.destroy(0, &tuple, cookie)?, Outcome::NotFound);
    Ok(())
}

#[test]
fn namespace_that_does_not_exist_is_said_and_not_searched_again_at_once() -> TestResult {
    let mut destroyer = Destroyer::new()?;
    let (client, _server) = pair(V4, V4)?;
    let (_, tuple, cookie) = of(&client, TCP)?;
    let nowhere = u64::MAX - 1;
    let outcome = destroyer.destroy(nowhere, &tuple, cookie)?;
    assert_eq!(outcome, Outcome::NoNamespace);
    let absent = destroyer.channels.absent.clone();
    let outcome = destroyer.destroy(nowhere, &tuple, cookie)?;
    assert_eq!(outcome, Outcome::NoNamespace);
    assert_eq!(destroyer.channels.absent, absent);
    Ok(())
}

#[test]
fn running_kernel_supports_it() -> TestResult {
    assert!(supported()?);
    Ok(())
}
