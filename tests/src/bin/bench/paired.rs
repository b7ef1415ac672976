//! Interleaved rounds: each round takes one sample of every variant, in an order that rotates, so that what disturbs
//! the machine disturbs all of them.

use serde::{Deserialize, Serialize};

use crate::{
    scenario::Scenario,
    stage::{Family, Stage, Way},
    stats::Spread,
    variant::Variant,
    web,
};

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    pub rounds: usize,
    /// Of one sample.
    pub millis: u64,
}

/// A scenario on one way, all variants.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Paired {
    pub scenario: String,
    pub title: String,
    pub way: String,
    pub family: String,
    pub unit: String,
    pub rounds: usize,
    pub cells: Vec<Cell>,
}

/// A variant in it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cell {
    pub variant: String,
    pub figure: Spread,
    /// To the variant without anything, of the same round.
    pub ratio: Spread,
    /// One for each round.
    pub samples: Vec<f64>,
}

impl Paired {
    /// Ratio of two variants, round by round.
    pub fn ratio(&self, one: Variant, to: Variant) -> Option<Spread> {
        let samples = |variant: Variant| {
            let cell = self
                .cells
                .iter()
                .find(|cell| cell.variant == variant.name())?;
            Some(cell.samples.as_slice())
        };
        Some(Spread::of_ratios(samples(one)?, samples(to)?))
    }
}

/// The order in which a round takes that many stages: each time the next one begins.
pub fn turns(round: usize, stages: usize) -> impl Iterator<Item = usize> {
    (0..stages).map(move |step| (round + step) % stages)
}

/// Measures a scenario; the first round only warms up and is not kept.
pub fn measure(
    stages: &mut [Stage],
    scenario: Scenario,
    way: Way,
    family: Family,
    effort: Effort,
) -> Paired {
    let servers: Vec<_> = stages
        .iter()
        .filter(|_| scenario.is_foreign())
        .map(|stage| web::start(stage, scenario == Scenario::Http))
        .collect();
    let mut samples: Vec<Vec<f64>> = stages.iter().map(|_| Vec::new()).collect();
    let number = stages.len();
    for round in 0..=effort.rounds {
        for which in turns(round, number) {
            let (Some(stage), Some(kept)) = (stages.get_mut(which), samples.get_mut(which)) else {
                continue;
            };
            let figure = scenario.sample(stage, way, family, effort.millis);
            if round > 0 {
                kept.push(figure);
            }
        }
    }
    drop(servers);
    let bare = samples.first().cloned().unwrap_or_default();
    let cells = stages.iter().zip(samples).map(|(stage, samples)| Cell {
        variant: stage.variant.name(),
        figure: Spread::of(&samples),
        ratio: Spread::of_ratios(&samples, &bare),
        samples,
    });
    Paired {
        scenario: scenario.name().to_owned(),
        title: scenario.title().to_owned(),
        way: way.name().to_owned(),
        family: family.name().to_owned(),
        unit: scenario.unit().to_owned(),
        rounds: effort.rounds,
        cells: cells.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::turns;

    #[test]
    fn each_stage_begins_a_round_in_turn_and_follows_the_same_one() {
        let order = |round| turns(round, 3).collect::<Vec<_>>();
        let expected = [[0, 1, 2], [1, 2, 0], [2, 0, 1], [0, 1, 2], [1, 2, 0]];
        assert_eq!((0..5).map(order).collect::<Vec<_>>(), expected);
    }
}
