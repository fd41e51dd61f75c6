//! Times on the command line.

use std::time::Duration;

/// Reads a time: a number and `ms`, `s` or `m`; without a unit it is seconds.
pub fn duration(text: &str) -> Result<Duration, String> {
    let digits_end = text.find(|c: char| c != '.' && !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits_end);
    let unit_seconds = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        _ => return Err(format!("unknown unit `{unit}`; write it as 500ms, 5s or 1m")),
    };
    let seconds = number.parse::<f64>().map_err(|_| "write it as 500ms, 5s or 1m".to_owned())?;
    let time = Duration::try_from_secs_f64(seconds * unit_seconds)
        .map_err(|_| "that is longer than a clock can count".to_owned())?;
    let shortest = Duration::from_millis(1);
    let longest = Duration::from_secs(3600);
    if time < shortest || time > longest {
        return Err("it must be from 1ms to 60m".to_owned());
    }
    Ok(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        let millis = |text: &str| duration(text).map(|time| time.as_millis());
        assert_eq!(millis("500ms"), Ok(500));
        assert_eq!(millis("5s"), Ok(5_000));
        assert_eq!(millis("2.5"), Ok(2_500));
        assert_eq!(millis("1m"), Ok(60_000));
        for wrong in ["", "s", "5h", "-1s", "0", "1e3s", "1..5s", "100m", "0.1ms"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
