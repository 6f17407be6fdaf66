//! The table that a run prints.

use std::fmt;
use std::time::Duration;

use crate::carrier::{Carrier, Run};

/// Several measurements of one value.
#[derive(Default)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    pub(crate) fn take(count: usize, sample: impl FnMut() -> f64) -> Self {
        Self(std::iter::repeat_with(sample).take(count).collect())
    }

    pub(crate) fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    fn percentile(&self, percent: usize) -> f64 {
        let mut values = self.0.clone();
        values.sort_by(f64::total_cmp);
        values[((values.len() - 1) * percent).div_ceil(100)]
    }

    fn median(&self) -> f64 {
        self.percentile(50)
    }
}

/// A row for each measured value, a column for each carrier.
pub(crate) struct Table {
    columns: Vec<&'static str>,
    rows: Vec<(String, Vec<(&'static str, String)>)>,
}

impl Table {
    pub(crate) fn new(carriers: &[Carrier]) -> Self {
        let columns =
            ["TCP", "limit"].into_iter().chain(carriers.iter().map(|carrier| carrier.name)).collect();
        Self { columns, rows: Vec::new() }
    }

    /// The median, and the extremes.
    pub(crate) fn add(&mut self, row: &str, column: &'static str, samples: &Samples) {
        let [median, least, most] = [50, 0, 100].map(|percent| number(samples.percentile(percent)));
        self.set(row, column, format!("{median} ({least} to {most})"));
    }

    /// The median and the 99th percentile, in milliseconds.
    pub(crate) fn add_each(&mut self, row: &str, column: &'static str, times: &[Duration]) {
        let samples = Samples(times.iter().map(|time| time.as_secs_f64() * 1e3).collect());
        let [median, tail] = [50, 99].map(|percent| number(samples.percentile(percent)));
        self.set(&format!("{row}, median and 99th, ms"), column, format!("{median}, {tail}"));
    }

    /// Three rows for transfers, with the number of failed ones.
    pub(crate) fn add_runs(&mut self, what: &str, column: &'static str, runs: &[Option<Run>]) {
        let failed = runs.iter().filter(|run| run.is_none()).count();
        let whole: Vec<Run> = runs.iter().flatten().copied().collect();
        if whole.is_empty() {
            return self.set(&format!("{what}, MiB/s"), column, format!("failed, {failed} of {failed}"));
        }
        let of = |value: fn(&Run) -> f64| Samples(whole.iter().map(value).collect());
        let rate = of(|run| run.rate);
        let mut text = format!(
            "{} ({} to {})",
            number(rate.median()),
            number(rate.percentile(0)),
            number(rate.percentile(100))
        );
        if failed > 0 {
            text += &format!(", failed {failed} of {}", runs.len());
        }
        self.set(&format!("{what}, MiB/s"), column, text);
        self.set(&format!("{what}, CPU s a GiB"), column, number(of(|run| run.cpu).median()));
        self.set(&format!("{what}, peak memory, MiB"), column, number(of(|run| run.memory).percentile(100)));
    }

    fn set(&mut self, row: &str, column: &'static str, text: String) {
        eprintln!("{row}: {column}: {text}");
        let index = self.rows.iter().position(|(name, _)| name == row).unwrap_or_else(|| {
            self.rows.push((row.to_owned(), Vec::new()));
            self.rows.len() - 1
        });
        self.rows[index].1.push((column, text));
    }
}

/// Markdown.
impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| | {} |", self.columns.join(" | "))?;
        writeln!(f, "|---{}|", "|---:".repeat(self.columns.len()))?;
        for (row, cells) in &self.rows {
            let text = |column: &&str| {
                let cell = cells.iter().find(|(name, _)| name == column);
                cell.map_or("", |(_, text)| text.as_str())
            };
            let cells: Vec<_> = self.columns.iter().map(text).collect();
            writeln!(f, "| {row} | {} |", cells.join(" | "))?;
        }
        Ok(())
    }
}

/// About three significant digits.
fn number(value: f64) -> String {
    match value.abs() {
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
