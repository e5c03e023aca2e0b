//! What an event costs beside 10, 1,000 and 10,000 rollouts in progress, as JSON lines:
//! `cargo run --release -p tidegate-sim --example flat`. The same questions to the same ten
//! rollouts, in turns, so that all sizes see the same machine; the median of the turns counts. Beside it, what the
//! passing of a second costs for each rollout.
#![expect(clippy::print_stdout, reason = "a program for a terminal")]
#![expect(clippy::disallowed_methods, reason = "measures how long it takes")]

use std::time::Instant;

use serde_json::json;
use tidegate_sim::flat::{Many, Stuck};

const SIZES: [usize; 3] = [10, 1_000, 10_000];
const AMONG: usize = 10;
const TURNS: usize = 9;
const OFTEN: usize = 1_000;

fn main() -> Result<(), Stuck> {
    let mut all = Vec::new();
    for rollouts in SIZES {
        all.push((rollouts, Many::new(rollouts)?, Vec::new(), 0));
    }
    for turn in 0..=TURNS {
        for (_, many, micros, events) in &mut all {
            let begun = Instant::now();
            let made = many.steer(AMONG, OFTEN)?;
            let took = begun.elapsed();
            // The first turn warms up.
            if turn > 0 {
                #[expect(clippy::cast_precision_loss, reason = "a rate")]
                micros.push(took.as_secs_f64() * 1e6 / made as f64);
                *events += made;
            }
        }
    }
    for (rollouts, mut many, mut micros, events) in all {
        micros.sort_by(f64::total_cmp);
        let median = micros.get(micros.len() / 2).copied().unwrap_or(f64::NAN);
        let begun = Instant::now();
        for _ in 0..TURNS {
            many.tick()?;
        }
        #[expect(clippy::cast_precision_loss, reason = "a rate")]
        let tick = begun.elapsed().as_secs_f64() * 1e6 / (TURNS * rollouts) as f64;
        let line = json!({
            "microsPerTickAndRollout": tick,
            "rollouts": rollouts, "events": events, "microsPerEvent": median, "turns": micros,
        });
        println!("{line}");
    }
    Ok(())
}
