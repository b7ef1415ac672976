//! What one run measures.

use std::path::PathBuf;

use clap::Args;

use crate::{
    changes, flat, hooks, load, markdown,
    paired::{self, Effort},
    process,
    report::{Machine, Report},
    scale,
    scenario::{self, Scenario},
    stage::{Family, Stage, Way},
    variant::{self, MANY, TEN, Variant},
    web,
};

/// The parts that are no scenario.
const PARTS: [&str; 5] = ["hooks", "load", "changes", "scale", "flat"];

#[derive(Args)]
pub struct Plan {
    /// Every kind of measurement in short form, in less than five minutes
    #[arg(long)]
    quick: bool,
    /// Only these, separated by commas: crr, rr, stream, udp-rr, parallel, accept, http, redis, hooks, load,
    /// changes, scale, flat
    #[arg(long, value_delimiter = ',', value_parser = known)]
    only: Vec<String>,
    /// Rounds of each scenario
    #[arg(long)]
    rounds: Option<usize>,
    /// Where to write all figures
    #[arg(long)]
    json: Option<PathBuf>,
    /// Of the code that is measured
    #[arg(long, default_value = "unknown", hide = true)]
    commit: String,
}

impl Plan {
    /// Measures, prints, and writes the file.
    pub fn run(&self) {
        // Other parts have many connections, too.
        let files = process::raise_open_files(scale::FILES);
        let mut report = Report {
            machine: Machine::read(&self.commit, self.quick),
            ..Report::default()
        };
        self.paired(&mut report);
        self.save(&report);
        self.parts(&mut report, files);
        self.save(&report);
        println!("\n{}\n{}", markdown::all(&report), markdown::bars(&report));
    }

    /// What one part measured is kept where a later one fails.
    fn save(&self, report: &Report) {
        if let Some(path) = &self.json {
            report.write(path);
        }
    }

    fn paired(&self, report: &mut Report) {
        let chosen = scenario::ALL.into_iter().filter(|it| self.wants(it.name()));
        let (foreign, own): (Vec<_>, Vec<_>) = chosen.partition(|it| it.is_foreign());
        let variants: &[Variant] = if self.quick {
            &variant::SHORT
        } else {
            &variant::ALL
        };
        let inside = self.wants("hooks") || self.wants("load");
        if own.is_empty() && foreign.is_empty() && !inside {
            return;
        }
        let mut stages = if own.is_empty() && foreign.is_empty() {
            stages(&[TEN, MANY])
        } else {
            stages(variants)
        };
        for scenario in own.into_iter().chain(foreign) {
            if scenario.is_foreign()
                && let Some(why) = web::missing(scenario == Scenario::Http)
            {
                report.left_out.push(format!("{}: {why}", scenario.name()));
                continue;
            }
            for (way, family) in self.ways(scenario) {
                println!("{} {} {}", scenario.name(), way.name(), family.name());
                let effort = self.effort(scenario);
                report
                    .paired
                    .push(paired::measure(&mut stages, scenario, way, family, effort));
            }
        }
        self.inside(&mut stages, report);
    }

    /// What is seen of the agent and the kernel while there is traffic.
    fn inside(&self, stages: &mut [Stage], report: &mut Report) {
        for stage in stages {
            if stage.variant == TEN && self.wants("hooks") {
                println!("hooks");
                report.hooks = hooks::costs(stage, self.millis() * 4);
                report.programs = hooks::sizes(stage);
            }
            if stage.variant == MANY && self.wants("hooks") {
                report.maps = hooks::maps(stage);
            }
            if [TEN, MANY].contains(&stage.variant) && self.wants("load") {
                println!("load");
                report.load.extend(load::measure(stage, self.millis() * 20));
            }
        }
        report.left_out.push(
            "flow records off: no setting turns them off, so every figure has them on".to_owned(),
        );
    }

    fn parts(&self, report: &mut Report, files: u64) {
        if self.wants("changes") {
            println!("changes");
            let times = if self.quick { 3 } else { 15 };
            report.changes = changes::measure(times, self.quick);
        }
        if self.wants("scale") {
            println!("scale");
            let why = self.short_scale(files);
            let size = if why.is_none() {
                scale::FULL
            } else {
                scale::SHORT
            };
            let why = why.map(|why| format!("the full scale: {why}"));
            report.left_out.extend(why);
            report.scale = scale::measure(size);
        }
        if self.wants("flat") {
            println!("flat");
            let effort = self.effort(Scenario::Crr);
            report.flat = flat::measure(effort, self.quick);
        }
    }

    /// Why the scale is not the full one, where it is not; `files` may a process open.
    fn short_scale(&self, files: u64) -> Option<String> {
        if self.quick {
            return Some("a short run".to_owned());
        }
        (files < scale::FILES).then(|| {
            let wanted = scale::FILES;
            format!("a process may open {files} files and would need {wanted} (`ulimit -n 20000`)")
        })
    }

    /// A short run takes all four ways for connections only.
    fn ways(&self, scenario: Scenario) -> Vec<(Way, Family)> {
        let all = [
            (Way::Loopback, Family::V4),
            (Way::Loopback, Family::V6),
            (Way::Veth, Family::V4),
            (Way::Veth, Family::V6),
        ];
        let number = if self.quick && scenario != Scenario::Crr {
            1
        } else {
            all.len()
        };
        all.into_iter().take(number).collect()
    }

    fn effort(&self, scenario: Scenario) -> Effort {
        let rounds = self.rounds.unwrap_or(if self.quick { 5 } else { 31 });
        // A sample of those takes a second, whatever one wants.
        let rounds = if scenario.is_foreign() {
            rounds.div_ceil(3)
        } else {
            rounds
        };
        Effort {
            rounds,
            millis: self.millis(),
        }
    }

    const fn millis(&self) -> u64 {
        if self.quick { 100 } else { 250 }
    }

    fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|it| it == name)
    }
}

fn stages(variants: &[Variant]) -> Vec<Stage> {
    variants
        .iter()
        .map(|variant| Stage::new(*variant))
        .collect()
}

fn known(name: &str) -> Result<String, String> {
    let all = scenario::ALL.map(Scenario::name);
    if all.iter().chain(&PARTS).any(|it| *it == name) {
        return Ok(name.to_owned());
    }
    Err(format!(
        "known are {}, {}",
        all.join(", "),
        PARTS.join(", ")
    ))
}
