//! Samples, their percentiles, the table and the JSON.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use comfy_table::{CellAlignment, Table};

use crate::line::{BYTES, Line, NUMBER, OURS, SECONDS};

/// What a publish of ours is compared with.
const FLOOR: &str = "grpc-call";
/// The same with that many volumes present.
const BESIDE: &str = "-beside-";
/// Measured of every closure.
const OF_EVERY_CLOSURE: [&str; 9] = [
    FLOOR,
    "publish-cold",
    "unpublish-cold",
    "publish-warm",
    "unpublish",
    "publish-warm-writable",
    "unpublish-writable",
    "publish-warm-bounded",
    "unpublish-bounded",
];

/// Measured of one closure.
const ONCE: [&str; 12] = [
    "exec",
    "gc-plan",
    "memory-idle",
    "memory-per-volume",
    "open-and-read",
    "publish-built",
    "publish-evaluated",
    "publish-fetched",
    "publish-known",
    "publish-warm-100",
    "restart",
    "stat-walk",
];

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Row {
    closure: &'static str,
    name: &'static str,
    alternative: &'static str,
    unit: &'static str,
}

impl Row {
    pub fn ours(name: &'static str, closure: &'static str) -> Self {
        Self::other(name, closure, OURS)
    }

    pub fn other(name: &'static str, closure: &'static str, alternative: &'static str) -> Self {
        Self { closure, name, alternative, unit: SECONDS }
    }

    pub fn in_bytes(self) -> Self {
        Self { unit: BYTES, ..self }
    }

    pub fn in_numbers(self) -> Self {
        Self { unit: NUMBER, ..self }
    }
}

#[derive(Default)]
pub struct Report(BTreeMap<Row, Vec<f64>>);

impl Report {
    pub fn add(&mut self, row: Row, took: Duration) {
        self.add_figure(row, took.as_secs_f64());
    }

    pub fn add_figure(&mut self, row: Row, figure: f64) {
        self.0.entry(row).or_default().push(figure);
    }

    fn lines(&self) -> Vec<Line> {
        let line = |(row, samples): (&Row, &Vec<f64>)| {
            let mut sorted = samples.clone();
            sorted.sort_by(f64::total_cmp);
            let at = |hundredths: usize| {
                let rank = (sorted.len() * hundredths).div_ceil(100).max(1);
                sorted[rank - 1]
            };
            Line {
                name: row.name.to_owned(),
                closure: row.closure.to_owned(),
                alternative: row.alternative.to_owned(),
                n: sorted.len(),
                unit: row.unit.to_owned(),
                p50: at(50),
                p90: at(90),
                p99: at(99),
            }
        };
        self.0.iter().map(line).collect()
    }

    /// Writes the JSON, reads it again, and checks that nothing is missing.
    pub fn write(&self, path: &Path, closures: &[&str]) {
        fs::write(path, serde_json::to_vec_pretty(&self.lines()).unwrap()).unwrap();
        let lines: Vec<Line> = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        for line in &lines {
            let rising = 0.0 < line.p50 && line.p50 <= line.p90 && line.p90 <= line.p99;
            assert!(line.n > 0 && rising, "{line:?}");
        }
        for name in ONCE {
            let found = lines.iter().any(|l| l.name == name && l.alternative == OURS);
            assert!(found, "{name} is missing");
        }
        for closure in closures {
            for name in OF_EVERY_CLOSURE {
                let found = lines
                    .iter()
                    .filter(|l| l.name == name && l.closure == *closure && l.alternative == OURS);
                assert_eq!(found.count(), 1, "{name} of {closure} is missing");
            }
            for other in ["bind", "bind-per-path", "hard links"] {
                let mut all = lines.iter().filter(|l| l.closure == *closure);
                assert!(all.any(|l| l.alternative == other), "{other} of {closure} is missing");
            }
        }
    }

    /// Milliseconds, kilobytes or numbers, and how many bare gRPC calls that is.
    pub fn table(&self) -> String {
        let lines = self.lines();
        let mut table = Table::new();
        table.load_preset(comfy_table::presets::NOTHING);
        table.set_header(["closure", "what", "by", "n", "p50", "p90", "p99", "", "× grpc-call"]);
        for line in &lines {
            // Measured in the same rounds.
            let beside = line.name.find(BESIDE).map_or("", |at| &line.name[at..]);
            let floor = format!("{FLOOR}{beside}");
            let floor = lines.iter().find(|l| l.name == floor && l.closure == line.closure);
            let floor = floor.filter(|floor| floor.unit == line.unit);
            let ratio = floor.map(|floor| format!("{:.2}", line.p50 / floor.p50));
            let (unit, each) = match line.unit.as_str() {
                SECONDS => ("ms", 1e3),
                BYTES => ("kB", 1e-3),
                _ => ("", 1.0),
            };
            let figure = |value: f64| format!("{:.3}", value * each);
            table.add_row([
                line.closure.clone(),
                line.name.clone(),
                line.alternative.clone(),
                line.n.to_string(),
                figure(line.p50),
                figure(line.p90),
                figure(line.p99),
                unit.to_owned(),
                ratio.unwrap_or_default(),
            ]);
        }
        for column in [3, 4, 5, 6, 8] {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        table.to_string()
    }
}
