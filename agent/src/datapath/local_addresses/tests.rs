use std::{
    collections::BTreeSet,
    error::Error,
    net::Ipv6Addr,
    thread,
    time::{Duration, Instant},
};

use ringfence_common::{
    abi::settings::{BROADCAST, OWN_ADDRESS},
    logic::address::{self, is_loopback},
};

use super::{super::netns::testing::Guest, room::Bounds, *};

type TestResult = Result<(), Box<dyn Error>>;

#[test]
fn addresses_of_another_namespace_come_and_go() -> TestResult {
    let guest = Guest::start()?;
    guest.run("ip addr add 10.77.1.2/24 dev lo; ip -6 addr add fd77::2/64 dev lo")?;
    let netns = guest.inside(netns::cookie)?;
    let theirs = |all: OrdMap<LocalKey, u8>| -> Vec<_> {
        let theirs = all.into_iter().filter(|(key, _)| key.netns == netns);
        theirs.map(|(key, kind)| (key.address, kind)).collect()
    };
    let v4 = address::map_v4([10, 77, 1, 2]);
    let v6 = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 2).octets();
    let v6 = (v6, OWN_ADDRESS);
    let all = (address::map_v4([10, 77, 1, 255]), BROADCAST);
    assert_eq!(
        theirs(snapshot()?.addresses),
        vec![(v4, OWN_ADDRESS), all, v6]
    );

    guest.run("ip addr del 10.77.1.2/24 dev lo")?;
    assert_eq!(theirs(snapshot()?.addresses), vec![v6]);
    drop(guest);
    assert_eq!(theirs(snapshot()?.addresses), []);
    Ok(())
}

#[test]
fn own_addresses_are_listed_without_loopback() -> TestResult {
    let own = netns::cookie()?;
    let found = snapshot()?.addresses;
    assert!(found.keys().all(|key| !is_loopback(&key.address)));
    let listed = found.keys().filter(|key| key.netns == own);
    let listed: BTreeSet<[u8; 16]> = listed.map(|key| key.address).collect();
    for interface in nix::ifaddrs::getifaddrs()? {
        let Some(address) = interface.address else {
            continue;
        };
        let v4 = address.as_sockaddr_in();
        let v6 = address.as_sockaddr_in6().map(|it| it.ip().octets());
        let bytes = v4.map(|it| address::map_v4(it.ip().octets())).or(v6);
        if let Some(bytes) = bytes.filter(|bytes| !is_loopback(bytes)) {
            assert!(listed.contains(&bytes), "{address}");
        }
    }
    Ok(())
}

fn changes_within(watch: &Watch, limit: Duration) -> io::Result<bool> {
    let end = Instant::now() + limit;
    loop {
        if watch.drain()? {
            return Ok(true);
        }
        if Instant::now() > end {
            return Ok(false);
        }
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn watch_notices_new_and_removed_addresses_of_its_namespace() -> TestResult {
    let guest = Guest::start()?;
    let watch = guest.inside(|| Watch::new().map_err(io::Error::other))?;
    // What making the namespace brought.
    while changes_within(&watch, Duration::from_millis(100))? {}
    for command in [
        "ip addr add 10.77.3.4/24 dev lo",
        "ip addr del 10.77.3.4/24 dev lo",
        "ip -6 addr add fd77::4/64 dev lo",
    ] {
        guest.run(command)?;
        assert!(changes_within(&watch, Duration::from_secs(5))?, "{command}");
    }
    Ok(())
}

fn bounds(all: usize, of_user: usize) -> Room {
    Room::new(Bounds {
        all,
        of_user,
        namespaces: 100,
    })
}

/// 2,000 addresses.
const MANY: &str = "for n in $(seq 0 9); do for m in $(seq 1 200); do echo addr add 10.$n.$m.1/32 dev lo; done; done \
                    | ip -batch -";

#[test]
fn no_more_of_a_users_namespace_is_read_than_he_has_room_for() -> TestResult {
    let guest = Guest::of_user(4001)?;
    guest.run(MANY)?;
    let netns = guest.inside(netns::cookie)?;
    let snapshot = look(bounds(10_000, 300), &Subordinates::default())?;
    let listed = snapshot.addresses.keys().filter(|key| key.netns == netns);
    // Loopback counts as read.
    assert!((298..=300).contains(&listed.count()));
    assert_eq!((snapshot.left_out, snapshot.owner), (1, Some(4001)));

    let mut part = bounds(10_000, 300);
    let mut messages = 0;
    guest.inside(|| {
        let mut part = part.part(Some(4001));
        Netlink::open(libc::NETLINK_ROUTE)?.converse(RTM_GETADDR, ALL, &[0; 4], |message| {
            messages += 1;
            part.take(netns, &message::addresses(message))
        })
    })?;
    assert_eq!(messages, 301, "the kernel is not asked for more");
    Ok(())
}

#[test]
fn what_a_user_nests_or_does_as_a_user_of_his_range_counts_as_his() -> TestResult {
    let guest = Guest::of_user(4000)?;
    let nested = Guest::nested(4000, 100_006)?;
    // By a file of his with that user's rights.
    let other = Guest::of_user(100_005)?;
    let owners = [guest.owner()?, nested.owner()?, other.owner()?];
    assert_eq!(owners, [Some(4000), Some(4000), Some(100_005)]);
    let mut netns = BTreeSet::new();
    for guest in [&guest, &nested, &other] {
        guest.run("for n in $(seq 1 40); do ip addr add 10.0.0.$n/32 dev lo; done")?;
        let _ = netns.insert(guest.inside(netns::cookie)?);
    }
    let listed = |subordinates| -> Result<usize, LocalAddressesError> {
        let found = look(bounds(10_000, 50), &Subordinates::parse(subordinates))?;
        assert_eq!(found.owner, Some(4000));
        let theirs = found.addresses.keys();
        Ok(theirs.filter(|key| netns.contains(&key.netns)).count())
    };
    assert!(listed("4000:100000:65536\n")? <= 50);
    assert!(listed("")? > 50, "nobody knows whose he is");
    Ok(())
}
