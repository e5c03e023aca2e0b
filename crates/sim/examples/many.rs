//! What a rollout costs: `cargo run --release -p tidegate-sim --example many -- 10 1000 10000`.
#![expect(clippy::print_stdout, reason = "a program for a terminal")]

use std::process::ExitCode;

use tidegate_sim::many;

fn main() -> ExitCode {
    let mut counts: Vec<usize> =
        std::env::args().skip(1).filter_map(|text| text.parse().ok()).collect();
    if counts.is_empty() {
        counts = vec![10, 1_000, 10_000];
    }
    for n in counts {
        match many::run(n) {
            Ok(figures) => println!("{figures:#?}"),
            Err(error) => {
                println!("with {n} rollouts the engine ended: {error}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}
