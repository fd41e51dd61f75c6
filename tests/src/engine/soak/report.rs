//! What a soak met, in words.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use super::child::Opened;
use super::{Outcome, Soak};
use crate::engine::power::{Cuts, PowerTrial};
use crate::engine::probe::{Event, Histogram, Kind};

/// A write that took long, and who else stood still meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Blame {
    /// Nobody else.
    Store,
    /// Who syncs a few bytes to the same disk.
    Disk,
    /// Who only sleeps.
    Machine,
}

#[derive(Default)]
pub(super) struct Report {
    pub(super) kills: u64,
    pub(super) early_kills: u64,
    pub(super) lived: Duration,
    pub(super) violations: Vec<String>,
    opened: Opened,
    opened_times: u64,
    slowest_open: Duration,
    writes: Histogram,
    stalls: BTreeMap<Blame, Vec<(Duration, u64)>>,
    longest: Duration,
    longest_of_disk: Duration,
    longest_of_sleep: Duration,
    counts: BTreeMap<String, u64>,
    cuts: Cuts,
    bytes: u64,
    took: Duration,
}

impl Report {
    pub(super) fn opened(&mut self, opened: &Opened) {
        self.opened_times += 1;
        self.slowest_open = self.slowest_open.max(opened.open);
        self.opened.groups += opened.groups;
        self.opened.happened += opened.happened;
        self.opened.not_happened += opened.not_happened;
    }

    pub(super) fn add_times(
        &mut self,
        histogram: &Histogram,
        events: &[Event],
        stall: Duration,
        round: u64,
    ) {
        self.writes.add(histogram);
        for event in events {
            let longest = match event.kind {
                Kind::Write => &mut self.longest,
                Kind::Sleep => &mut self.longest_of_sleep,
                Kind::Disk => &mut self.longest_of_disk,
            };
            *longest = event.took().max(*longest);
            if event.kind != Kind::Write || event.took() <= stall {
                continue;
            }
            let blame = if event.is_shared_with(events, Kind::Sleep) {
                Blame::Machine
            } else if event.is_shared_with(events, Kind::Disk) {
                Blame::Disk
            } else {
                Blame::Store
            };
            self.stalls.entry(blame).or_default().push((event.took(), round));
        }
    }

    pub(super) fn add_counts(&mut self, said: &str) {
        for line in said.lines() {
            if let Some((name, count)) = line.split_once(' ')
                && let Ok(count) = count.parse::<u64>()
            {
                *self.counts.entry(name.to_owned()).or_default() += count;
            }
        }
    }

    fn stalls(&self, blame: Blame) -> &[(Duration, u64)] {
        self.stalls.get(&blame).map_or(&[], Vec::as_slice)
    }

    /// Whether what a process has left was compared with what it should have.
    pub(super) fn has_compared(&self) -> bool {
        self.opened.groups > 0
    }

    /// Whether there is a reason to end at once. Stalls are counted to the end.
    pub(super) fn is_wrong(&self) -> bool {
        !self.violations.is_empty()
    }

    pub(super) fn line(&self, cuts: u64) -> String {
        format!(
            "{} kills, {cuts} power cuts, {} writes, p99.9 {:?}, longest {:?}",
            self.kills,
            self.writes.count(),
            self.writes.quantile(0.999),
            self.longest
        )
    }

    pub(super) fn end(&mut self, power: &PowerTrial, bytes: u64, took: Duration) {
        self.cuts = power.cuts;
        for (name, count) in power.counts.all() {
            self.counts.insert(format!("power_{name}"), count);
        }
        (self.bytes, self.took) = (bytes, took);
    }

    pub(super) fn outcome(mut self, soak: &Soak) -> Outcome {
        for (blame, stalls) in &self.stalls {
            if *blame == Blame::Store || soak.strict {
                for (took, round) in stalls {
                    let what = format!("a write took {took:?} in round {round}, by {blame:?}");
                    self.violations.push(what);
                }
            }
        }
        if self.kills == 0 || self.cuts.cuts == 0 || !self.has_compared() {
            self.violations.push("nobody was killed, or nothing compared".to_owned());
        }
        Outcome {
            text: self.text(soak),
            json: self.json(soak),
            kills: self.kills,
            cuts: self.cuts.cuts,
            violations: self.violations,
        }
    }

    fn text(&self, soak: &Soak) -> String {
        let mut text = String::new();
        let mut say = |line: String| {
            let _ = writeln!(text, "{line}");
        };
        say(format!("soak of {:?}, seed {}", self.took, soak.seed));
        say(format!(
            "  killed      {} processes after {:?} in all, {} of them before they were ready",
            self.kills, self.lived, self.early_kills
        ));
        say(format!(
            "  compared    {} groups after {} openings, the slowest in {:?}",
            self.opened.groups, self.opened_times, self.slowest_open
        ));
        say(format!(
            "  open writes {} had happened, {} had not",
            self.opened.happened, self.opened.not_happened
        ));
        let cuts = self.cuts;
        say(format!(
            "  power cuts  {}, and {} during the recovery; {} changes at stake, {} buffered writes lost, {} groups compared",
            cuts.cuts, cuts.in_recovery, cuts.unsynced, cuts.buffered_lost, cuts.groups_checked
        ));
        let counts: Vec<String> =
            self.counts.iter().map(|(name, count)| format!("{name} {count}")).collect();
        say(format!("  done        {}", counts.join(", ")));
        let quantile = |part| self.writes.quantile(part);
        say(format!(
            "  writes      {}: median {:?}, p99 {:?}, p99.9 {:?}, longest {:?}",
            self.writes.count(),
            quantile(0.5),
            quantile(0.99),
            quantile(0.999),
            quantile(1.0).max(self.longest)
        ));
        say(format!(
            "  bystanders  the longest sync of 4 KiB {:?}, the longest sleep of 2 ms {:?} (0 if below a quarter of the limit)",
            self.longest_of_disk, self.longest_of_sleep
        ));
        for blame in [Blame::Store, Blame::Disk, Blame::Machine] {
            let stalls = self.stalls(blame);
            let longest = stalls.iter().max().map_or(Duration::ZERO, |(took, _)| *took);
            say(format!(
                "  stalls      {} above {:?} by {blame:?}, the longest {longest:?}",
                stalls.len(),
                soak.stall
            ));
        }
        say(format!("  on disk     {} KiB at the end", self.bytes >> 10));
        for violation in &self.violations {
            say(format!("  VIOLATION   {violation}"));
        }
        if !self.violations.is_empty() {
            say(format!("  what is left is in {}", soak.dir.display()));
        }
        text
    }

    fn json(&self, soak: &Soak) -> String {
        let micros = |duration: Duration| duration.as_micros() as u64;
        let stalls = |blame| self.stalls(blame).len();
        serde_json::json!({
            "seconds": self.took.as_secs_f64(),
            "seed": soak.seed,
            "kills": self.kills,
            "early_kills": self.early_kills,
            "openings": self.opened_times,
            "groups_compared": self.opened.groups,
            "slowest_open_us": micros(self.slowest_open),
            "power_cuts": self.cuts.cuts,
            "power_cuts_in_recovery": self.cuts.in_recovery,
            "buffered_writes_lost": self.cuts.buffered_lost,
            "writes": self.writes.count(),
            "write_p50_us": micros(self.writes.quantile(0.5)),
            "write_p99_us": micros(self.writes.quantile(0.99)),
            "write_p999_us": micros(self.writes.quantile(0.999)),
            "write_max_us": micros(self.writes.quantile(1.0).max(self.longest)),
            "stalls_of_store": stalls(Blame::Store),
            "stalls_of_disk": stalls(Blame::Disk),
            "stalls_of_machine": stalls(Blame::Machine),
            "counts": self.counts,
            "bytes_on_disk": self.bytes,
            "violations": self.violations,
        })
        .to_string()
    }
}
