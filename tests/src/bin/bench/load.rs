//! What the agent itself takes: at rest and while connections come and go.

use std::{
    thread,
    time::{Duration, Instant},
};

use ringfence_tests::usage::Usage;
use serde::{Deserialize, Serialize};

use crate::{
    process::check,
    stage::{Family, Stage, Way},
    stats::float,
    worker::{CROWD, PLAIN},
};

/// The agent while something happens.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Load {
    pub policy: String,
    /// Connections a second that were asked for; 0 = as many as the machine makes.
    pub asked: Option<u32>,
    /// Connections a second that came about.
    pub rate: f64,
    /// Share of one processor.
    pub processor: f64,
    pub resident_kib: u64,
    /// Events that the kernel had no room for.
    pub lost: u64,
}

/// At rest, at 1,000, at 20,000 connections a second and at as many as there can be, `millis` each.
pub fn measure(stage: &mut Stage, millis: u64) -> Vec<Load> {
    let rates = [None, Some(1_000), Some(20_000), Some(0)];
    rates
        .into_iter()
        .map(|asked| one(stage, asked, millis))
        .collect()
}

fn one(stage: &mut Stage, asked: Option<u32>, millis: u64) -> Load {
    let (pid, lost) = watched(stage);
    // What came before is read.
    thread::sleep(Duration::from_millis(300));
    let before = Usage::of(pid);
    let began = Instant::now();
    let rate = match asked {
        None => {
            thread::sleep(Duration::from_millis(millis));
            0.0
        }
        Some(0) => {
            let address = Way::Loopback.address(Family::V4, CROWD);
            stage
                .client(Way::Loopback)
                .ask(&format!("accept {address} {millis}"))
                .0
        }
        Some(rate) => {
            let address = Way::Loopback.address(Family::V4, PLAIN);
            let line = format!("paced {address} {millis} {rate}");
            stage.client(Way::Loopback).ask(&line).0
        }
    };
    check();
    let after = Usage::of(pid);
    let took = began.elapsed();
    Load {
        policy: stage.variant.name(),
        asked,
        rate,
        processor: after
            .processor
            .saturating_sub(before.processor)
            .as_secs_f64()
            / took.as_secs_f64(),
        resident_kib: after.resident_kib,
        lost: watched(stage).1 - lost,
    }
}

/// Process of the agent, and what was lost up to now.
fn watched(stage: &mut Stage) -> (u32, u64) {
    let agent = stage.agent.as_mut().unwrap();
    let counts = agent.status().counts;
    let lost = counts.get("event-lost").copied().unwrap_or(0);
    (agent.daemon().pid(), lost)
}

impl Load {
    /// Of which rate.
    pub fn what(&self) -> String {
        match self.asked {
            None => "at rest".to_owned(),
            Some(0) => "as many as there can be".to_owned(),
            Some(rate) => format!("{} connections/s asked for", float(rate.into())),
        }
    }
}
