//! Groups of this process.

use std::{net::SocketAddr, num::ParseIntError, str::FromStr, time::Duration};

use nix::unistd::{Gid, setgroups};
use ringfence_tests::Outcome;
use socket2::{Domain, Socket, Type};

use super::{Result, at, done, failure, print};

/// Group ids between commas; nothing is no group.
#[derive(Clone, Debug)]
pub struct Gids(Vec<Gid>);

impl FromStr for Gids {
    type Err = ParseIntError;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        let numbers = text.split(',').filter(|number| !number.is_empty());
        let gids = numbers.map(|number| number.parse().map(Gid::from_raw));
        Ok(Self(gids.collect::<std::result::Result<_, _>>()?))
    }
}

impl Gids {
    /// Makes them the supplementary groups.
    pub fn take(&self) -> Result<()> {
        setgroups(&self.0).map_err(at("setgroups"))
    }
}

/// Calls with one socket under one list of groups after the other; prints each outcome but the last.
pub fn call(address: SocketAddr, groups: &[Gids]) -> Result<Outcome> {
    let socket =
        Socket::new(Domain::for_address(address), Type::STREAM, None).map_err(at("socket"))?;
    let mut last = done("done");
    for (round, groups) in groups.iter().enumerate() {
        if round > 0 {
            print(&last);
        }
        groups.take()?;
        last = match socket.connect_timeout(&address.into(), Duration::from_secs(5)) {
            Ok(()) => done("connect"),
            Err(error) => failure(&super::Failed("connect", error)),
        };
    }
    Ok(last)
}
