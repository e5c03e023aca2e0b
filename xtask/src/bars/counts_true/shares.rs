//! Part 4: exact shares, and no client sees only one version because of its rhythm.

use anyhow::Result;
use tidegate_wire::switch::EndpointState;

use super::super::{Bound, Context, Figures};
use super::fates::Service;
use super::rig::{HOST, Instance, Rig};
use crate::load::{Load, LoadOptions, LoadReport};
use crate::stage::wait_until;

const REQUESTS: u64 = 10_000;
const PERIODS: [usize; 3] = [2, 3, 5];

pub(super) fn run(context: &Context, figures: &mut Figures) -> Result<()> {
    let weights: &[u32] = if context.short { &[1_000, 5_000] } else { &[1_000, 5_000, 3_330] };
    for v2 in weights.iter().copied() {
        let name = |end: &str| context.folder.join(format!("shares-{v2}{end}"));
        let mut rig = Rig::start(&context.binaries, &name("-switch.log"))?;
        let (a, b) = (
            Service::start(&context.binaries, rig.folder(), "a", "v1")?,
            Service::start(&context.binaries, rig.folder(), "b", "v2")?,
        );
        let one = |name: &str, version, address| Instance {
            name: name.into(),
            generation: 1,
            version,
            address,
            state: EndpointState::Ready,
        };
        rig.instances(&[one("a", "v1", a.address), one("b", "v2", b.address)])?;
        rig.weights(v2, 5_000)?;
        // One connection, so that the order at the switch is that of the numbers.
        let load = Load::start(LoadOptions {
            rate: 2_000.0,
            host: HOST.into(),
            connections: 1,
            max_requests: REQUESTS,
            timeout: std::time::Duration::from_secs(60),
            ..LoadOptions::new(rig.listen, name(".log"))
        })?;
        wait_until(std::time::Duration::from_secs(100), "all requests are answered", || {
            let text = std::fs::read_to_string(name(".log")).ok()?;
            text.lines().last()?.starts_with("# sent=").then_some(())
        })?;
        let report = load.stop()?;
        let counted: u64 = rig
            .records()?
            .iter()
            .filter(|record| record.version == "v2")
            .map(|record| u64::from(record.n))
            .sum();
        judge(&report, f64::from(v2) / 100.0, counted, figures);
    }
    Ok(())
}

fn judge(report: &LoadReport, wanted: f64, counted: u64, figures: &mut Figures) {
    let what = |text: &str| format!("4: {wanted} %: {text}");
    let new: Vec<bool> = report.lines.iter().map(|line| line.answered_by("v2")).collect();
    let hits = new.iter().filter(|new| **new).count();
    figures.exactly(&what("requests"), new.len(), usize::try_from(REQUESTS).unwrap_or(0));
    let off = (hits as f64 / new.len() as f64 * 100.0 - wanted).abs();
    figures.add(&what("share is off by"), off, "points", Bound::AtMost(0.1));
    figures.add(
        &what("counted less answered"),
        counted as f64 - hits as f64,
        "",
        Bound::Exactly(0.0),
    );
    let mut blind = 0;
    let mut worst = 0.0_f64;
    for period in PERIODS {
        for phase in 0..period {
            let mine: Vec<bool> = new.iter().skip(phase).step_by(period).copied().collect();
            let hits = mine.iter().filter(|new| **new).count();
            if hits == 0 || hits == mine.len() {
                blind += 1;
            }
            worst = worst.max((hits as f64 / mine.len() as f64 * 100.0 - wanted).abs());
        }
    }
    figures.exactly(&what("clients of period 2, 3, 5 that see one version"), blind, 0);
    figures.note(&what("worst share of such a client is off by"), worst, "points");
}

#[cfg(test)]
mod tests {
    use super::super::super::Figures;
    use super::judge;
    use crate::load::{Line, LoadReport};

    fn report(new: impl Fn(u64) -> bool) -> LoadReport {
        let line = |n| Line {
            n,
            sent_us: n,
            answered_us: n,
            status: 200,
            version: if new(n) { "v2".into() } else { "v1".into() },
            method: "GET",
            error: None,
            due_us: n,
        };
        LoadReport { lines: (0..10_000).map(line).collect() }
    }

    #[test]
    fn round_robin_has_the_share_and_does_not_hold() {
        let mut figures = Figures::default();
        judge(&report(|n| n % 2 == 0), 50.0, 5_000, &mut figures);
        let failing: Vec<&str> = figures
            .list()
            .iter()
            .filter(|f| f.holds == Some(false))
            .map(|f| f.name.as_str())
            .collect();
        assert_eq!(failing, ["4: 50 %: clients of period 2, 3, 5 that see one version"]);
    }

    #[test]
    fn a_share_that_is_off_or_counted_otherwise_does_not_hold() {
        let mixed = |n: u64| n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32 & 1 == 0;
        let hits = report(mixed).lines.iter().filter(|line| line.version == "v2").count() as u64;
        for (wanted, counted) in [(70.0, hits), (50.0, hits + 1)] {
            let mut figures = Figures::default();
            judge(&report(mixed), wanted, counted, &mut figures);
            assert!(!figures.hold());
        }
    }
}
