//! What a run came to, for people and for programs.

use std::fmt::Write;

use hdrhistogram::Histogram;
use serde_json::json;

/// The figures of one run. Latencies are in microseconds.
pub(crate) struct Report {
    /// How many clients.
    pub(crate) clients: usize,
    /// How long it ran, in seconds.
    pub(crate) seconds: f64,
    /// Reads.
    pub(crate) read: Histogram<u64>,
    /// Acquires and releases.
    pub(crate) write: Histogram<u64>,
    /// Operations without an answer.
    pub(crate) errors: u64,
    /// Acquires that found the lock held by another client.
    pub(crate) contended: u64,
    /// Two holders of one lock, or a token that did not rise.
    pub(crate) safety_violations: u64,
}

impl Report {
    fn all(&self) -> Histogram<u64> {
        let mut all = self.read.clone();
        // Of the same bounds.
        let _ = all.add(&self.write);
        all
    }

    fn rate(&self) -> f64 {
        self.all().len() as f64 / self.seconds
    }

    /// For people.
    pub(crate) fn table(&self) -> String {
        let mut text = String::new();
        let _ = writeln!(
            text,
            "{} clients, closed loop, {:.1} s: {:.0} operations/s, {} errors, {} contended",
            self.clients,
            self.seconds,
            self.rate(),
            self.errors,
            self.contended
        );
        let _ = writeln!(text, "{:>8} {:>10} {:>9} {:>9} {:>9} {:>9}", "ms", "count", "p50", "p99", "p99.9", "max");
        for (name, histogram) in [("all", &self.all()), ("read", &self.read), ("write", &self.write)] {
            let at = |q: f64| histogram.value_at_quantile(q) as f64 / 1e3;
            let _ = writeln!(
                text,
                "{name:>8} {:>10} {:>9.2} {:>9.2} {:>9.2} {:>9.2}",
                histogram.len(),
                at(0.5),
                at(0.99),
                at(0.999),
                histogram.max() as f64 / 1e3
            );
        }
        if self.safety_violations > 0 {
            let _ = writeln!(text, "UNSAFE: {} violations of mutual exclusion or token order", self.safety_violations);
        }
        text
    }

    /// For programs.
    pub(crate) fn json(&self) -> String {
        let latency = |histogram: &Histogram<u64>| {
            let at = |q: f64| histogram.value_at_quantile(q) as f64 / 1e3;
            json!({ "p50": at(0.5), "p99": at(0.99), "p999": at(0.999), "max": histogram.max() as f64 / 1e3 })
        };
        let document = json!({
            "schema": 1,
            "clients": self.clients,
            "seconds": self.seconds,
            "throughput_ops_per_s": self.rate(),
            "latency_ms": { "all": latency(&self.all()), "read": latency(&self.read), "write": latency(&self.write) },
            "errors": self.errors,
            "contended": self.contended,
            "safety_violations": self.safety_violations,
        });
        format!("{document:#}\n")
    }
}
