//! What was measured, as a table.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::Options;

/// What the issue of the approver asks for: at least this speed, at most these shares, of the other one's.
const TARGETS: [(&str, &str, Better, f64); 4] = [
    ("approvals per second", "go", Better::More, 2.0),
    ("processor time", "go", Better::Less, 0.5),
    ("peak memory", "go", Better::Less, 1.0 / 3.0),
    ("time to drain", "raw", Better::Less, 1.3),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Better {
    More,
    Less,
}

/// What one approver took once.
#[derive(Clone, Debug)]
pub(super) struct Figures {
    /// From its start to the first approval.
    pub(super) first: Duration,
    /// From its start to the last approval.
    pub(super) drain: Duration,
    pub(super) requests: u16,
    /// Its processor time until shortly after the last approval.
    pub(super) cpu: Duration,
    /// The API server's in that time.
    pub(super) server_cpu: Duration,
    pub(super) peak_kib: u64,
    pub(super) live: Latencies,
}

/// From creation to approval, for requests that came one by one.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Latencies {
    median: Duration,
    p95: Duration,
    longest: Duration,
}

impl Latencies {
    pub(super) fn of(mut all: Vec<Duration>) -> Self {
        all.sort();
        let at = |percent: usize| all.get((all.len() * percent / 100).min(all.len().saturating_sub(1))).copied();
        Self {
            median: at(50).unwrap_or_default(),
            p95: at(95).unwrap_or_default(),
            longest: at(100).unwrap_or_default(),
        }
    }
}

impl Figures {
    /// The columns, by their heads.
    fn columns(&self) -> [(&'static str, f64); 9] {
        let milliseconds = |time: Duration| time.as_secs_f64() * 1000.0;
        let drain = self.drain.as_secs_f64();
        let kib = f64::from(u32::try_from(self.peak_kib).unwrap_or(u32::MAX));
        [
            ("first s", self.first.as_secs_f64()),
            ("drain s", drain),
            ("per s", f64::from(self.requests) / drain),
            ("CPU s", self.cpu.as_secs_f64()),
            ("server CPU s", self.server_cpu.as_secs_f64()),
            ("peak MiB", kib / 1024.0),
            ("p50 ms", milliseconds(self.live.median)),
            ("p95 ms", milliseconds(self.live.p95)),
            ("max ms", milliseconds(self.live.longest)),
        ]
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.columns().map(|(head, value)| format!("{head} {}", shown(head, value)));
        f.write_str(&columns.join(", "))
    }
}

/// All that was measured.
#[derive(Clone, Debug)]
pub struct Report {
    title: String,
    figures: BTreeMap<&'static str, Vec<Figures>>,
}

impl Report {
    pub(super) fn new(options: &Options) -> Self {
        let Options { nodes, rounds, live, live_rate, .. } = options;
        let title = format!(
            "{nodes} pending requests of {nodes} Nodes, then {live} more at {live_rate} a second; medians of {rounds} rounds"
        );
        Self { title, figures: BTreeMap::new() }
    }

    pub(super) fn add(&mut self, name: &'static str, figures: Figures) {
        self.figures.entry(name).or_default().push(figures);
    }

    /// The median of one column for one approver.
    fn median(&self, name: &str, head: &str) -> Option<f64> {
        let value = |figures: &Figures| figures.columns().iter().find(|column| column.0 == head).map(|column| column.1);
        let mut values: Vec<f64> = self.figures.get(name)?.iter().filter_map(value).collect();
        values.sort_by(f64::total_cmp);
        let (low, high) = (values.get((values.len().checked_sub(1)?) / 2)?, values.get(values.len() / 2)?);
        Some(f64::midpoint(*low, *high))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n", self.title)?;
        let heads = self.figures.values().flatten().next().map(|figures| figures.columns().map(|column| column.0));
        let heads = heads.unwrap_or_default();
        write!(f, "{:10}", "")?;
        for head in heads {
            write!(f, " {head:>12}")?;
        }
        for name in self.figures.keys() {
            write!(f, "\n{name:10}")?;
            for head in heads {
                write!(f, " {:>12}", self.median(name, head).map(|value| shown(head, value)).unwrap_or_default())?;
            }
        }
        writeln!(f, "\n")?;
        for (what, other, better, target) in TARGETS {
            let head = match what {
                "approvals per second" => "per s",
                "processor time" => "CPU s",
                "peak memory" => "peak MiB",
                _ => "drain s",
            };
            let (Some(own), Some(others)) = (self.median("keyplane", head), self.median(other, head)) else { continue };
            let ratio = own / others;
            let (word, met) = match better {
                Better::More => ("at least", ratio >= target),
                Better::Less => ("at most", ratio <= target),
            };
            let verdict = if met { "met" } else { "missed" };
            writeln!(f, "keyplane to {other:3}  {what:22} {ratio:6.2}   target: {word} {target:.2}: {verdict}")?;
        }
        Ok(())
    }
}

fn shown(head: &str, value: f64) -> String {
    if head.ends_with(" s") && head != "per s" { format!("{value:.2}") } else { format!("{value:.0}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(drain: u64, cpu: u64, mib: u64) -> Figures {
        Figures {
            first: Duration::from_secs(1),
            drain: Duration::from_secs(drain),
            requests: 1000,
            cpu: Duration::from_secs(cpu),
            server_cpu: Duration::ZERO,
            peak_kib: mib * 1024,
            live: Latencies::of((1..=100).map(Duration::from_millis).collect()),
        }
    }

    #[test]
    fn the_last_lines_hold_the_ratios_against_their_targets() {
        let options = Options { nodes: 1000, rounds: 1, live: 100, live_rate: 50, go_approver: None, only: vec![] };
        let mut report = Report::new(&options);
        report.add("keyplane", figures(2, 1, 20));
        report.add("go", figures(5, 4, 50));
        report.add("raw", figures(1, 1, 10));
        let text = report.to_string();
        let lines: Vec<&str> = text.lines().rev().take(4).collect();
        assert!(lines[3].contains("2.50") && lines[3].ends_with("met"), "{text}");
        assert!(lines[2].contains("0.25") && lines[2].ends_with("met"), "{text}");
        assert!(lines[1].contains("0.40") && lines[1].ends_with("missed"), "{text}");
        assert!(lines[0].contains("2.00") && lines[0].ends_with("missed"), "{text}");
    }

    #[test]
    fn a_median_is_of_the_rounds_and_a_percentile_of_the_requests() {
        let options = Options { nodes: 1000, rounds: 3, live: 100, live_rate: 50, go_approver: None, only: vec![] };
        let mut report = Report::new(&options);
        for drain in [9, 2, 4] {
            report.add("raw", figures(drain, 1, 10));
        }
        assert_eq!(report.median("raw", "drain s"), Some(4.0));
        assert_eq!(report.median("raw", "p95 ms"), Some(96.0));
        assert_eq!(report.median("raw", "max ms"), Some(100.0));
        assert_eq!(report.median("go", "drain s"), None);
    }
}
