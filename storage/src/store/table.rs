//! A store's statistics as text for people.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use super::stats::{LevelStats, Stats};
use crate::histogram::Latencies;

impl Display for Stats {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.fmt_levels(f)?;
        self.fmt_numbers(f)?;
        self.fmt_latencies(f)
    }
}

impl Stats {
    fn fmt_levels(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:>5} {:>9} {:>11} {:>15}", "level", "segments", "size", "entries")?;
        let row = |f: &mut Formatter<'_>, name: &dyn Display, level: &LevelStats| {
            let LevelStats { segments, bytes, entries } = *level;
            writeln!(f, "{name:>5} {segments:>9} {:>11} {:>15}", Bytes(bytes), Count(entries))
        };
        let mut all = LevelStats::default();
        for (number, level) in self.levels.iter().enumerate() {
            if level.segments > 0 {
                row(f, &number, level)?;
            }
            all.segments += level.segments;
            all.bytes += level.bytes;
            all.entries += level.entries;
        }
        row(f, &"all", &all)
    }

    fn fmt_numbers(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f)?;
        let mut line = |name: &str, what: fmt::Arguments<'_>| writeln!(f, "{name:<14} {what}");
        let (active, frozen) = (Bytes(self.memtable_bytes as u64), Bytes(self.frozen_bytes as u64));
        let waiting = self.frozen_memtables;
        line("memtables", format_args!("{active} active, {frozen} in {waiting} to be flushed"))?;
        let (length, log) = (Bytes(self.log_bytes), &self.log);
        let (appends, syncs) = (Count(log.appends), Count(log.syncs));
        line("log", format_args!("{length} long, {appends} records in {syncs} syncs"))?;
        line("snapshots", format_args!("{}", self.snapshots))?;
        let write = Ratio(self.write_amplification());
        let space = Ratio(self.space_amplification());
        let read = self.read_amplification();
        let what = format_args!("written {write}, space at most {space}, places to look {read}");
        line("amplification", what)?;
        let (into, out) = (Bytes(self.applied_bytes), Bytes(self.flushed_bytes));
        let merged = Bytes(self.compacted_bytes_written);
        line("bytes", format_args!("{into} applied, {out} flushed, {merged} merged"))?;
        let (flushes, merges, moves) = (self.flushes, self.compactions, self.moves);
        line("work", format_args!("{flushes} flushes, {merges} merges, {moves} moves"))?;
        if self.ingests > 0 {
            let (rows, bytes) = (Count(self.ingested_rows), Bytes(self.ingested_bytes));
            line("ingested", format_args!("{rows} rows, {bytes}, {} times", self.ingests))?;
        }
        if self.staged_rows > 0 {
            let (rows, bytes) = (Count(self.staged_rows), Bytes(self.staged_bytes));
            line("staged", format_args!("{rows} rows, {bytes}"))?;
        }
        if let Some(part) = self.filters.false_positives() {
            let asked = Count(self.filters.asked);
            let what = format_args!("{:.2} % of absent keys pass, of {asked} asked", part * 100.0);
            line("filters", what)?;
        }
        Ok(())
    }

    fn fmt_latencies(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let latencies = &self.latencies;
        let rows = [
            ("get", &latencies.get),
            ("synced write", &latencies.synced_write),
            ("buffered write", &latencies.buffered_write),
            ("stall", &latencies.stall),
            ("flush", &latencies.flush),
            ("merge", &latencies.compaction),
        ];
        if rows.iter().all(|(_, latencies)| latencies.count == 0) {
            return Ok(());
        }
        let heads = ["measured", "mean", "median", "p99", "p99.9", "longest"];
        write!(f, "\n{:<14}", "time")?;
        heads.iter().try_for_each(|head| write!(f, " {head:>9}"))?;
        writeln!(f)?;
        for (name, latencies) in rows {
            if latencies.count == 0 {
                continue;
            }
            let Latencies { count, median, p99, p999, longest, .. } = *latencies;
            write!(f, "{name:<14} {:>9}", Count(count))?;
            for time in [latencies.mean(), median, p99, p999, longest] {
                write!(f, " {:>9}", Time(time))?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

/// A number of bytes, to three digits.
struct Bytes(u64);

impl Display for Bytes {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        let step = (self.0.max(1).ilog2() / 10) as usize;
        let text = match step {
            0 => format!("{} B", self.0),
            _ => format!("{:.1} {}", self.0 as f64 / 2_f64.powi(10 * step as i32), units[step]),
        };
        f.pad(&text)
    }
}

/// A number, its digits by threes.
struct Count(u64);

impl Display for Count {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        let mut text = String::new();
        for (at, digit) in digits.chars().enumerate() {
            if at > 0 && (digits.len() - at).is_multiple_of(3) {
                text.push(',');
            }
            text.push(digit);
        }
        f.pad(&text)
    }
}

/// How many times, if that can be said.
struct Ratio(Option<f64>);

impl Display for Ratio {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(ratio) => f.pad(&format!("{ratio:.2}")),
            None => f.pad("-"),
        }
    }
}

/// A duration in the unit that suits it.
struct Time(Duration);

impl Display for Time {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let nanos = self.0.as_nanos() as f64;
        let text = match nanos {
            0.0..1e3 => format!("{nanos:.0} ns"),
            1e3..1e6 => format!("{:.1} us", nanos / 1e3),
            1e6..1e9 => format!("{:.1} ms", nanos / 1e6),
            _ => format!("{:.1} s", nanos / 1e9),
        };
        f.pad(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{FilterStats, LatencyStats};

    #[test]
    fn numbers_are_short_and_have_their_unit() {
        let check = |shown: &dyn Display, expected: &str| assert_eq!(shown.to_string(), expected);
        check(&Bytes(0), "0 B");
        check(&Bytes(1023), "1023 B");
        check(&Bytes(1536), "1.5 KiB");
        check(&Bytes(u64::MAX), "16.0 EiB");
        check(&Count(7), "7");
        check(&Count(1_234_567), "1,234,567");
        check(&Time(Duration::from_nanos(830)), "830 ns");
        check(&Time(Duration::from_micros(1500)), "1.5 ms");
        check(&Time(Duration::from_secs(90)), "90.0 s");
        check(&Ratio(None), "-");
    }

    #[test]
    fn it_reads_as_a_table() {
        let level = |segments, bytes, entries| LevelStats { segments, bytes, entries };
        let latencies = Latencies {
            count: 1000,
            total: Duration::from_millis(2),
            longest: Duration::from_micros(90),
            ..Latencies::default()
        };
        let stats = Stats {
            memtable_bytes: 12 << 20,
            frozen_memtables: 2,
            frozen_bytes: 128 << 20,
            levels: vec![
                level(3, 192 << 20, 3_000_000),
                level(0, 0, 0),
                level(30, 2 << 30, 1 << 24),
            ],
            log_bytes: 1 << 28,
            applied_bytes: 2 << 30,
            flushed_bytes: 2 << 30,
            compacted_bytes_written: 3 << 30,
            flushes: 33,
            filters: FilterStats { asked: 300, passed: 103, passed_wrongly: 2, from_memtables: 9 },
            latencies: LatencyStats { get: latencies, ..LatencyStats::default() },
            ..Stats::default()
        };
        let expected = "\
level  segments        size         entries
    0         3   192.0 MiB       3,000,000
    2        30     2.0 GiB      16,777,216
  all        33     2.2 GiB      19,777,216

memtables      12.0 MiB active, 128.0 MiB in 2 to be flushed
log            256.0 MiB long, 0 records in 0 syncs
snapshots      0
amplification  written 2.50, space at most 1.09, places to look 7
bytes          2.0 GiB applied, 2.0 GiB flushed, 3.0 GiB merged
work           33 flushes, 0 merges, 0 moves
filters        1.01 % of absent keys pass, of 300 asked

time            measured      mean    median       p99     p99.9   longest
get                1,000    2.0 us      0 ns      0 ns      0 ns   90.0 us
";
        assert_eq!(stats.to_string(), expected, "\n{stats}");
    }
}
