//! Numbers and times as people read them.

/// A number with its thousands apart.
#[must_use]
pub fn grouped(number: u64) -> String {
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

/// A count and what is counted, in the right number.
#[must_use]
pub fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{} {}", grouped(count), if count == 1 { one } else { many })
}

/// A time with three digits, in the unit that suits.
#[must_use]
pub fn lasting(nanos: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "it is shown with three digits")]
    let micros = nanos as f64 / 1e3;
    let (number, unit) = match micros {
        ..999.5 => (micros, "\u{b5}s"),
        ..999_500.0 => (micros / 1e3, "ms"),
        _ => (micros / 1e6, "s"),
    };
    match number {
        ..0.005 => format!("0 {unit}"),
        ..9.995 => format!("{number:.2} {unit}"),
        ..99.95 => format!("{number:.1} {unit}"),
        _ => format!("{number:.0} {unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_can_be_read() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
        assert_eq!(counted(1, "row", "rows"), "1 row");
        assert_eq!(counted(0, "row", "rows"), "0 rows");
        let times = [
            (0, "0 \u{b5}s"),
            (1_234, "1.23 \u{b5}s"),
            (999_400, "999 \u{b5}s"),
            (999_600, "1.00 ms"),
            (56_780_000, "56.8 ms"),
            (999_700_000, "1.00 s"),
            (123_456_000_000, "123 s"),
        ];
        for (nanos, text) in times {
            assert_eq!(lasting(nanos), text);
        }
    }
}
