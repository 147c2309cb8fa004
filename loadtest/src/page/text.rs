//! Words and numbers as the page shows them.
//!
//! # Promises
//! 1. [`escape`]d text is inert in an element and in a double-quoted attribute.
//! 2. A figure that could not be measured is shown as a dash, never as zero.

/// What stands for a figure that is not there.
pub(super) const NONE: &str = "–";

/// Text from outside, made inert (promise 1).
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\n' => escaped.push_str("&#10;"),
            control if control.is_control() => escaped.push('\u{fffd}'),
            other => escaped.push(other),
        }
    }
    escaped
}

/// `1,234,567`.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Three significant digits, thousands apart: `0.334`, `6.12`, `158`, `1,240`, `205,113`.
pub(super) fn number(value: f64) -> String {
    match value.abs() {
        _ if !value.is_finite() => NONE.to_owned(),
        size if size >= 1e15 => format!("{value:.2e}"),
        size if size >= 99.95 => format!("{}{}", if value < 0.0 { "−" } else { "" }, count(size.round() as u64)),
        size if size >= 9.995 => format!("{value:.1}"),
        size if size >= 0.9995 => format!("{value:.2}"),
        0.0 => "0".to_owned(),
        _ => format!("{value:.3}"),
    }
}

/// [`number`], or the dash (promise 2).
pub(super) fn figure(value: Option<f64>) -> String {
    value.map_or_else(|| NONE.to_owned(), number)
}

/// For axes: `0`, `500`, `20K`, `1.5M`.
pub(super) fn short(value: f64) -> String {
    let (scaled, suffix) = match value.abs() {
        size if size >= 1e9 => (value / 1e9, "G"),
        size if size >= 1e6 => (value / 1e6, "M"),
        size if size >= 1e3 => (value / 1e3, "K"),
        _ => (value, ""),
    };
    let text = format!("{scaled:.2}");
    format!("{}{suffix}", text.trim_end_matches('0').trim_end_matches('.'))
}

/// Milliseconds in the unit that suits them: `250 µs`, `6.12 ms`, `1.24 s`.
pub(super) fn span(ms: f64) -> String {
    match ms {
        _ if ms < 1.0 => format!("{} µs", number(ms * 1e3)),
        _ if ms < 1e3 => format!("{} ms", number(ms)),
        _ => format!("{} s", number(ms / 1e3)),
    }
}

/// The same on an axis, where values are round: `250 µs`, `5 ms`, `2 s`.
pub(super) fn tick(ms: f64) -> String {
    match ms {
        _ if ms < 0.9995 => format!("{} µs", short(ms * 1e3)),
        _ if ms < 999.5 => format!("{} ms", short(ms)),
        _ => format!("{} s", short(ms / 1e3)),
    }
}

/// `512 KiB`, `87 MiB`, `3.8 GiB`.
pub(super) fn bytes(size: u64) -> String {
    let size = size as f64;
    match size {
        _ if size < 1024.0 * 1024.0 => format!("{} KiB", number(size / 1024.0)),
        _ if size < 1024.0 * 1024.0 * 1024.0 => format!("{} MiB", number(size / 1024.0 / 1024.0)),
        _ => format!("{} GiB", number(size / 1024.0 / 1024.0 / 1024.0)),
    }
}

/// `1 shard`, `16 shards`.
pub(super) fn several(number: u64, noun: &str) -> String {
    match number {
        1 => format!("1 {noun}"),
        _ => format!("{} {noun}s", count(number)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_outside_is_inert() {
        assert_eq!(escape("<b a=\"x\" b='y'>&\u{7}"), "&lt;b a=&quot;x&quot; b=&#39;y&#39;&gt;&amp;\u{fffd}");
    }

    #[test]
    fn numbers_keep_three_digits_and_never_invent_a_zero() {
        assert_eq!([0.0, 0.33444, 6.119, 15.63, 158.2].map(number), ["0", "0.334", "6.12", "15.6", "158"]);
        assert_eq!(number(205_113.4), "205,113");
        assert_eq!(figure(None), NONE);
        assert_eq!(figure(Some(f64::NAN)), NONE);
        assert_eq!(count(1_000_000), "1,000,000");
        assert_eq!([500.0, 20_000.0, 1_500_000.0].map(short), ["500", "20K", "1.5M"]);
        assert_eq!([0.25, 6.119, 1240.0].map(span), ["250 µs", "6.12 ms", "1.24 s"]);
        assert_eq!([0.2, 1.0, 50.0, 2000.0].map(tick), ["200 µs", "1 ms", "50 ms", "2 s"]);
    }
}
