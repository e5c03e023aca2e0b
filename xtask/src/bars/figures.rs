//! Figures with their bounds.

use std::fmt;

use serde::{Serialize, Serializer};

/// One measured value.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Figure {
    /// What was measured.
    pub name: String,
    /// How much.
    pub value: f64,
    /// Of what; empty for plain numbers.
    pub unit: &'static str,
    /// What it has to be.
    pub bound: Bound,
    /// Whether it is; none where there is no bound.
    pub holds: Option<bool>,
}

/// What a figure has to be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bound {
    /// Reported only.
    None,
    /// Exactly this.
    Exactly(f64),
    /// This or less.
    AtMost(f64),
    /// This or more.
    AtLeast(f64),
}

impl Bound {
    fn holds(self, value: f64) -> Option<bool> {
        match self {
            Self::None => None,
            Self::Exactly(bound) => Some((value - bound).abs() < 1e-9),
            Self::AtMost(bound) => Some(value <= bound),
            Self::AtLeast(bound) => Some(value >= bound),
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => Ok(()),
            Self::Exactly(bound) => write!(f, "= {bound}"),
            Self::AtMost(bound) => write!(f, "<= {bound}"),
            Self::AtLeast(bound) => write!(f, ">= {bound}"),
        }
    }
}

impl Serialize for Bound {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::None => serializer.serialize_none(),
            Self::Exactly(_) | Self::AtMost(_) | Self::AtLeast(_) => serializer.collect_str(self),
        }
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rounded = (self.value * 1000.0).round() / 1000.0;
        write!(f, "{:<46} {rounded} {}", self.name, self.unit)?;
        match self.holds {
            None => Ok(()),
            Some(true) => write!(f, "  ({}: holds)", self.bound),
            Some(false) => write!(f, "  ({}: DOES NOT HOLD)", self.bound),
        }
    }
}

/// The figures of a bar, in the order in which they were measured.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Figures(Vec<Figure>);

impl Figures {
    /// Adds one. A value that is not a number never holds.
    pub fn add(&mut self, name: &str, value: f64, unit: &'static str, bound: Bound) {
        let holds = bound.holds(value);
        self.0.push(Figure { name: name.to_owned(), value, unit, bound, holds });
    }

    /// A number of things that has to be exactly this.
    pub fn exactly(&mut self, name: &str, value: usize, bound: usize) {
        self.add(name, value as f64, "", Bound::Exactly(bound as f64));
    }

    /// A number of things that has to be this or more.
    pub fn at_least(&mut self, name: &str, value: usize, bound: usize) {
        self.add(name, value as f64, "", Bound::AtLeast(bound as f64));
    }

    /// A number without a bound.
    pub fn note(&mut self, name: &str, value: f64, unit: &'static str) {
        self.add(name, value, unit, Bound::None);
    }

    /// All of them.
    #[must_use]
    pub fn list(&self) -> &[Figure] {
        &self.0
    }

    /// Whether there is a figure with a bound and every one of those lies within it.
    #[must_use]
    pub fn hold(&self) -> bool {
        let bounded: Vec<bool> = self.0.iter().filter_map(|figure| figure.holds).collect();
        !bounded.is_empty() && bounded.iter().all(|holds| *holds)
    }
}

#[cfg(test)]
mod tests {
    use super::{Bound, Figures};

    #[test]
    fn nothing_measured_does_not_hold() {
        let mut figures = Figures::default();
        assert!(!figures.hold());
        figures.note("seen", 3.0, "s");
        assert!(!figures.hold());
    }

    #[test]
    fn one_figure_out_of_bounds_is_enough() {
        let mut figures = Figures::default();
        figures.exactly("failed", 0, 0);
        figures.add("took", 1.0, "s", Bound::AtMost(1.0));
        figures.at_least("rounds", 5, 5);
        assert!(figures.hold());
        figures.exactly("held", 1, 0);
        assert!(!figures.hold());
    }

    #[test]
    fn what_is_not_a_number_does_not_hold() {
        for bound in [Bound::Exactly(1.0), Bound::AtMost(1.0), Bound::AtLeast(1.0)] {
            let mut figures = Figures::default();
            figures.add("ratio", f64::NAN, "", bound);
            assert!(!figures.hold());
        }
    }

    #[test]
    fn a_figure_as_json_names_its_bound() {
        let mut figures = Figures::default();
        figures.add("took", 1.5, "s", Bound::AtMost(2.0));
        let json = serde_json::to_value(figures.list()).unwrap();
        let expected = serde_json::json!([
            {"name": "took", "value": 1.5, "unit": "s", "bound": "<= 2", "holds": true}
        ]);
        assert_eq!(json, expected);
    }
}
