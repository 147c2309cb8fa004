//! A line a second on a terminal, while a measurement runs.

use std::{
    io::{IsTerminal, Write},
    time::Instant,
};

use super::client::Load;

/// Waits until `end`, and tells a terminal each second what happens meanwhile.
pub(crate) async fn wait(load: &Load, phase: &str, end: Instant) {
    if !std::io::stderr().is_terminal() {
        return tokio::time::sleep_until(end.into()).await;
    }
    let began = Instant::now();
    let length = end.saturating_duration_since(began).as_secs_f64();
    let (mut before, mut at) = (load.book().recorder.seen, began);
    while Instant::now() < end {
        tokio::time::sleep_until((at + std::time::Duration::from_secs(1)).min(end).into()).await;
        let now = Instant::now();
        let (answered, errors, contended, violations) = {
            let book = load.book();
            let recorder = &book.recorder;
            (recorder.seen, recorder.failures.values().sum::<u64>(), recorder.contended, book.safety.violations())
        };
        let rate = answered.saturating_sub(before) as f64 / now.duration_since(at).as_secs_f64().max(1e-3);
        (before, at) = (answered, now);
        eprint!(
            "\r{phase:>10} {:>4.0} of {length:.0} s  {rate:>9.0} operations/s  {errors} errors  {contended} refused  {violations} violations ",
            now.duration_since(began).as_secs_f64(),
        );
        // Progress is worth no failure.
        let _ = std::io::stderr().flush();
    }
    eprintln!();
}
