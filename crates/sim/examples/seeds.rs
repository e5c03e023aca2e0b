//! Plays many seeds: `cargo run --release -p tidegate-sim --example seeds -- --count N --from S`.
#![expect(clippy::print_stdout, reason = "a program for a terminal")]
#![expect(clippy::disallowed_methods, reason = "measures how long it takes")]

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use tidegate_sim::seeds::{self, Failure, Probes};

fn argument(name: &str, default: u64) -> u64 {
    let mut arguments = std::env::args().skip_while(|a| a != name).skip(1);
    arguments.next().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn main() -> ExitCode {
    let (count, from) = (argument("--count", 1_000), argument("--from", 1));
    let begun = Instant::now();
    let next = AtomicU64::new(from);
    let failures: Mutex<Vec<Failure>> = Mutex::default();
    let probes: Mutex<Probes> = Mutex::default();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + count {
                        return;
                    }
                    match seeds::run(seed) {
                        Ok(seen) => {
                            if let Ok(mut probes) = probes.lock() {
                                for (name, times) in seen {
                                    *probes.entry(name).or_default() += times;
                                }
                            }
                        }
                        Err(failure) => {
                            if let Ok(mut failures) = failures.lock() {
                                failures.push(failure);
                            }
                        }
                    }
                }
            });
        }
    });
    let mut failures = failures.into_inner().unwrap_or_default();
    failures.sort_by_key(|failure| failure.seed);
    for (name, times) in probes.into_inner().unwrap_or_default() {
        println!("{times:>9} {name}");
    }
    for failure in failures.iter().take(10) {
        println!("{failure}");
    }
    if count == 1
        && let Err(failure) = seeds::run_logged(from)
    {
        for line in &failure.log {
            println!("{line}");
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!("{count} seeds from {from}: {} failed, {seconds:.1} s", failures.len());
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
