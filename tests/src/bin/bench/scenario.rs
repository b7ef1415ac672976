//! The kinds of traffic.

use crate::{
    stage::{Family, Stage, Way},
    web,
    worker::{CROWD, DATAGRAMS, PLAIN},
};

/// One kind of traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    Crr,
    Rr,
    Stream,
    UdpRr,
    Parallel,
    Accept,
    Http,
    Redis,
}

pub const ALL: [Scenario; 8] = [
    Scenario::Crr,
    Scenario::Rr,
    Scenario::Stream,
    Scenario::UdpRr,
    Scenario::Parallel,
    Scenario::Accept,
    Scenario::Http,
    Scenario::Redis,
];

impl Scenario {
    /// As it is chosen by `--only` and as JSON has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Crr => "crr",
            Self::Rr => "rr",
            Self::Stream => "stream",
            Self::UdpRr => "udp-rr",
            Self::Parallel => "parallel",
            Self::Accept => "accept",
            Self::Http => "http",
            Self::Redis => "redis",
        }
    }

    /// For people.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Crr => "TCP connect, request, response, close",
            Self::Rr => "TCP request, response on one connection",
            Self::Stream => "TCP stream",
            Self::UdpRr => "UDP request, response on one socket",
            Self::Parallel => "TCP request, response on 1,000 connections",
            Self::Accept => "TCP connect and close, 64 at a time",
            Self::Http => "HTTP, one request a connection (wrk, nginx)",
            Self::Redis => "GET, one request a connection (redis-benchmark, redis-server)",
        }
    }

    /// Of its figure.
    pub const fn unit(self) -> &'static str {
        match self {
            Self::Crr | Self::Rr | Self::UdpRr | Self::Parallel => "us",
            Self::Stream => "GiB/s",
            Self::Accept | Self::Http | Self::Redis => "1/s",
        }
    }

    /// Whether it needs programs that not every machine has.
    pub const fn is_foreign(self) -> bool {
        matches!(self, Self::Http | Self::Redis)
    }

    /// One sample of about `millis`.
    pub fn sample(self, stage: &mut Stage, way: Way, family: Family, millis: u64) -> f64 {
        let port = match self {
            Self::Crr | Self::Rr | Self::Stream => PLAIN,
            Self::UdpRr => DATAGRAMS,
            Self::Parallel | Self::Accept => CROWD,
            Self::Http => return web::http(stage, way, family),
            Self::Redis => return web::redis(stage, way, family),
        };
        let address = way.address(family, port);
        let line = format!("{} {address} {millis}", self.name());
        stage.client(way).ask(&line).0
    }
}
