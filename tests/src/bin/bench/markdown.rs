//! The report as Markdown, for the terminal and for docs/benchmarks.md.

use std::{
    fmt::{Result, Write},
    fs,
    path::Path,
};

use crate::{bars, paired::Paired, report::Report};

const BEGIN: &str = "<!-- begin: written by `cargo xtask bench` -->";
const END: &str = "<!-- end: written by `cargo xtask bench` -->";

/// The table of bars.
pub fn bars(report: &Report) -> String {
    let mut text =
        String::from("| what | bar | measured: median (quartiles) | |\n|---|---|---|---|\n");
    for bar in bars::table(report) {
        let verdict = bar.verdict();
        let _ = writeln!(
            text,
            "| {} | {} | {} | {verdict} |",
            bar.what, bar.wanted, bar.measured
        );
    }
    text
}

/// Everything.
pub fn all(report: &Report) -> String {
    let mut text = String::new();
    write(&mut text, report).unwrap();
    text
}

/// Puts everything between the markers of the document at `path`.
pub fn replace(path: &Path, report: &Report) {
    let old = fs::read_to_string(path).unwrap();
    let new = between(&old, &all(report))
        .unwrap_or_else(|| panic!("{} has lost its markers {BEGIN} and {END}", path.display()));
    fs::write(path, new).unwrap();
}

fn between(old: &str, text: &str) -> Option<String> {
    let (before, rest) = old.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n\n{text}\n{END}{after}"))
}

fn write(text: &mut String, report: &Report) -> Result {
    let machine = &report.machine;
    writeln!(
        text,
        "{} processors ({}), {} MiB, Linux {}, commit {}{}; load average before the run {:.2}.\n\n{}",
        machine.processors,
        machine.model,
        machine.memory_mib,
        machine.kernel,
        machine.commit,
        if machine.quick { ", short run" } else { "" },
        machine.load,
        bars(report)
    )?;
    for paired in &report.paired {
        pair(text, paired)?;
    }
    hooks(text, report)?;
    agent(text, report)?;
    for left_out in &report.left_out {
        writeln!(text, "Left out: {left_out}.\n")?;
    }
    Ok(())
}

fn pair(text: &mut String, paired: &Paired) -> Result {
    writeln!(
        text,
        "### {}: {} {}\n\nMedian (quartiles) of {} rounds; ratios are to the first row, {} is better.\n\n\
         | variant | {} | ratio |\n|---|---|---|",
        paired.title,
        paired.way,
        paired.family,
        paired.rounds,
        better(&paired.unit),
        paired.unit
    )?;
    for cell in &paired.cells {
        let (figure, ratio) = (cell.figure, cell.ratio);
        writeln!(
            text,
            "| {} | {} ({}-{}) | {:.3} ({:.3}-{:.3}) |",
            cell.variant,
            digits(figure.median),
            digits(figure.q1),
            digits(figure.q3),
            ratio.median,
            ratio.q1,
            ratio.q3
        )?;
    }
    writeln!(text)
}

fn hooks(text: &mut String, report: &Report) -> Result {
    if !report.hooks.is_empty() {
        writeln!(
            text,
            "### Kernel programs\n\nBy `BPF_ENABLE_STATS`, which adds to each run. An operation is a connection (crr), an \
             exchange (rr) or 64 KiB (stream) over loopback.\n\n| program | traffic | ns a run | runs an operation | ns \
             an operation |\n|---|---|---|---|---|"
        )?;
    }
    for hook in &report.hooks {
        writeln!(
            text,
            "| {} | {} | {:.0} | {:.2} | {:.0} |",
            hook.program,
            hook.traffic,
            hook.run_ns,
            hook.runs,
            hook.run_ns * hook.runs
        )?;
    }
    if !report.programs.is_empty() {
        writeln!(
            text,
            "\n| program | instructions | verified | memory, KiB |\n|---|---|---|---|"
        )?;
    }
    for program in &report.programs {
        writeln!(
            text,
            "| {} | {} | {} | {} |",
            program.program,
            program.instructions,
            program.verified,
            program.memory / 1_024
        )?;
    }
    if !report.maps.is_empty() {
        writeln!(
            text,
            "\n| map | entries at most | memory, KiB |\n|---|---|---|"
        )?;
    }
    for map in &report.maps {
        writeln!(
            text,
            "| {} | {} | {} |",
            map.name,
            map.entries,
            map.memory.div_ceil(1_024)
        )?;
    }
    writeln!(text)
}

fn agent(text: &mut String, report: &Report) -> Result {
    if !report.load.is_empty() {
        writeln!(
            text,
            "### Agent\n\n| policy | connections | reached, 1/s | processor | resident, MiB | events lost |\n\
             |---|---|---|---|---|---|"
        )?;
    }
    for load in &report.load {
        writeln!(
            text,
            "| {} | {} | {:.0} | {:.1} % | {} | {} |",
            load.policy,
            load.what(),
            load.rate,
            load.processor * 100.0,
            load.resident_kib.div_ceil(1_024),
            load.lost
        )?;
    }
    if !report.changes.is_empty() {
        writeln!(
            text,
            "\n| what | ms | times | resident, MiB |\n|---|---|---|---|"
        )?;
    }
    for change in &report.changes {
        writeln!(
            text,
            "| {} | {:.1} ({:.1}-{:.1}) | {} | {} |",
            change.what,
            change.millis.median,
            change.millis.q1,
            change.millis.q3,
            change.times,
            change.resident_kib.div_ceil(1_024)
        )?;
    }
    if !report.scale.is_empty() {
        writeln!(text, "\n| at scale | |\n|---|---|")?;
    }
    for scale in &report.scale {
        writeln!(text, "| {} | {} |", scale.what, scale.figure)?;
    }
    if !report.flat.is_empty() {
        writeln!(text)?;
    }
    for series in &report.flat {
        writeln!(text, "![{}]({})\n", series.title(), series.file())?;
    }
    writeln!(text)
}

/// Which figures of that unit are: of times the lower, of rates the higher ones.
fn better(unit: &str) -> &'static str {
    if unit.ends_with("/s") {
        "higher"
    } else {
        "lower"
    }
}

/// Four digits or so.
fn digits(figure: f64) -> String {
    if figure >= 1_000.0 {
        format!("{figure:.0}")
    } else if figure >= 10.0 {
        format!("{figure:.1}")
    } else {
        format!("{figure:.2}")
    }
}

#[cfg(test)]
mod tests {
    use super::{BEGIN, END, better, between};
    use crate::scenario::Scenario;

    #[test]
    fn what_stands_outside_of_the_markers_stays() {
        let old = format!("before\n{BEGIN}\nold\n{END}\nafter\n");
        let new = between(&old, "new").unwrap_or_default();
        assert_eq!(new, format!("before\n{BEGIN}\n\nnew\n{END}\nafter\n"));
        assert!(between("no markers", "new").is_none());
    }

    #[test]
    fn of_times_the_lower_and_of_rates_the_higher_is_better() {
        let of = |scenario: Scenario| better(scenario.unit());
        assert_eq!([Scenario::Crr, Scenario::Rr].map(of), ["lower"; 2]);
        assert_eq!([Scenario::Stream, Scenario::Http].map(of), ["higher"; 2]);
    }
}
