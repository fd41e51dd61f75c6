//! What came of a run: the report, and the same in words for a terminal.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use kvorum_checker::{Ending, Operation, Record};
use kvorum_replication::Protocol;

use super::absences::Absences;
use super::clients::{Seen, writes};
use super::clock::nanos;
use super::nemesis::{Kind, Strike};
use super::numbers::counted;
use super::report::{
    FaultSpan, Finding, JudgeVerdict, OperationPoint, PointEnding, Recovery, Report,
};
use super::run::RunOptions;
use crate::cluster::Member;

/// The cluster was available in such a slice of time if a write was acknowledged in it.
const SLICE: Duration = Duration::from_millis(100);

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// All of it, for a page.
    pub report: Report,
    /// What was broken, in order.
    pub strikes: Vec<Strike>,
    /// The numbers.
    pub numbers: Numbers,
}

/// The numbers of a run.
#[derive(Clone, Debug, Default)]
pub struct Numbers {
    /// Operations that happened.
    pub ok: u64,
    /// Those that did not happen, by reason.
    pub refused: BTreeMap<&'static str, u64>,
    /// Those of unknown outcome.
    pub unknown: u64,
    /// Writes that happened.
    pub acknowledged_writes: u64,
    /// While things were broken: slices of 100 ms with an acknowledged write, of all.
    pub available: (u64, u64),
    /// Whenever nothing was broken any more, how long it took until a write was acknowledged, in
    /// order of length; where something else broke before that, it is left out.
    pub whole_again: Vec<Duration>,
    /// How long operations took that happened: half of them, 99 in 100, all, at most.
    pub latency: [Duration; 3],
    /// How long clients asked.
    pub length: Duration,
    /// How often replicas were left out and came back, under a coordinator.
    pub absences: Option<Absences>,
}

impl Outcome {
    pub(super) fn new(
        options: &RunOptions,
        began_unix: u64,
        length: Duration,
        broke_nanos: u64,
        seen: &[Seen],
        strikes: Vec<Strike>,
        verdicts: Vec<JudgeVerdict>,
    ) -> Self {
        let acknowledged = acknowledged_writes(seen);
        let mut numbers = Numbers::of(seen, &acknowledged, length, broke_nanos);
        numbers.whole_again = whole_again(&strikes, &acknowledged);
        let recoveries = strikes
            .iter()
            .enumerate()
            .map(|(fault, strike)| recovery(fault, strike, &acknowledged))
            .collect();
        let report = Report {
            title: title(options),
            command: options.command.clone(),
            facts: facts(options),
            began_unix,
            length,
            members: Member::all(options.protocol, options.replicas)
                .map(|member| member.to_string())
                .collect(),
            operations: seen.iter().map(point).collect(),
            faults: strikes.iter().map(span).collect(),
            verdicts,
            recoveries,
        };
        Self { report, strikes, numbers }
    }

    /// The verdict over all.
    #[must_use]
    pub fn finding(&self) -> Finding {
        self.report.finding()
    }

    /// How often faults of a kind struck, and how many there were.
    #[must_use]
    pub fn fired(&self, kind: Kind) -> (u64, u64) {
        let of_kind = self.strikes.iter().filter(|strike| strike.kind == kind);
        of_kind.fold((0, 0), |(fired, count), strike| (fired + strike.fired, count + 1))
    }
}

impl Numbers {
    fn of(seen: &[Seen], acknowledged: &[u64], length: Duration, broke_nanos: u64) -> Self {
        let mut numbers = Self { length, ..Self::default() };
        let mut latencies = Vec::new();
        for Seen { record, error } in seen {
            match record.ending {
                Ending::Done => {
                    numbers.ok += 1;
                    latencies.push(record.ret - record.call);
                }
                Ending::Unknown => numbers.unknown += 1,
                Ending::NotDone | Ending::PreconditionFailed(_) => {
                    let reason = error.as_ref().map_or("unknown", |error| error.kind.name());
                    *numbers.refused.entry(reason).or_default() += 1;
                }
            }
        }
        numbers.acknowledged_writes = acknowledged.len() as u64;
        let slice = nanos(SLICE);
        let slices = broke_nanos.div_ceil(slice).max(1);
        let mut used: Vec<u64> = acknowledged.iter().map(|at| at / slice).collect();
        used.dedup();
        let used = used.into_iter().filter(|used| *used < slices).count();
        numbers.available = (used as u64, slices);
        latencies.sort_unstable();
        let at = |part: usize| {
            let place = (latencies.len() * part / 100).min(latencies.len().saturating_sub(1));
            Duration::from_nanos(latencies.get(place).copied().unwrap_or(0))
        };
        numbers.latency = [at(50), at(99), at(100)];
        numbers
    }

    fn all(&self) -> u64 {
        self.ok + self.unknown + self.refused.values().sum::<u64>()
    }

    #[expect(clippy::cast_precision_loss, reason = "they are shown as rates")]
    fn lines(&self) -> Vec<(String, String)> {
        let per_second = |count: u64| count as f64 / self.length.as_secs_f64();
        let refused: u64 = self.refused.values().sum();
        let reasons: Vec<String> =
            self.refused.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        let reasons =
            if reasons.is_empty() { String::new() } else { format!(" ({})", reasons.join(", ")) };
        let (used, slices) = self.available;
        let [median, most, longest] = self.latency;
        let line = |name: &str, value: String| (name.to_owned(), value);
        let mut lines = vec![
            line(
                "operations",
                format!(
                    "{}: {} happened, {refused} refused{reasons}, {} of unknown outcome",
                    self.all(),
                    self.ok,
                    self.unknown
                ),
            ),
            line(
                "throughput",
                format!(
                    "{:.0} operations a second happened, {:.0} of them writes",
                    per_second(self.ok),
                    per_second(self.acknowledged_writes)
                ),
            ),
            line(
                "latency",
                format!(
                    "half within {:.1} ms, 99 in 100 within {:.1} ms, all within {:.0} ms",
                    millis(median),
                    millis(most),
                    millis(longest)
                ),
            ),
            line(
                "availability",
                format!(
                    "{:.1} % of {slices} slices of {} ms had an acknowledged write",
                    100.0 * used as f64 / slices as f64,
                    SLICE.as_millis()
                ),
            ),
        ];
        if let (Some(half), Some(worst)) = (
            self.whole_again.get(self.whole_again.len().saturating_sub(1) / 2),
            self.whole_again.last(),
        ) {
            let value = format!(
                "nothing was broken any more {}: a write was acknowledged {:.0} ms later (half of \
                 them), {:.0} ms (worst)",
                counted(self.whole_again.len() as u64, "time", "times"),
                millis(*half),
                millis(*worst)
            );
            lines.push(line("recovery", value));
        }
        if let Some(Absences { excluded, rejoined }) = self.absences {
            let value = format!(
                "a replica was left out {}, and let in again {}",
                counted(excluded, "time", "times"),
                counted(rejoined, "time", "times")
            );
            lines.push(line("views", value));
        }
        lines
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.report.title)?;
        for (name, value) in self.numbers.lines() {
            writeln!(f, "  {name:13} {value}")?;
        }
        for line in self.faults() {
            writeln!(f, "  {line}")?;
        }
        for verdict in &self.report.verdicts {
            let finding = match verdict.finding {
                Finding::Holds => "holds",
                Finding::Violated => "VIOLATED",
                Finding::Undecided => "undecided",
            };
            let colon = if verdict.words.is_empty() { "" } else { ": " };
            writeln!(f, "  {:22} {finding}{colon}{}", verdict.judge, verdict.words)?;
        }
        match self.finding() {
            Finding::Holds => f.write_str("verdict: every promise was kept"),
            Finding::Violated => f.write_str("verdict: A PROMISE WAS BROKEN"),
            Finding::Undecided => f.write_str("verdict: undecided"),
        }
    }
}

impl Outcome {
    /// A line for each kind of fault: how many, how often they struck, and how the cluster got over
    /// them.
    fn faults(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for kind in Kind::ALL {
            let of_kind: Vec<usize> =
                (0..self.strikes.len()).filter(|place| self.strikes[*place].kind == kind).collect();
            if of_kind.is_empty() {
                continue;
            }
            let (fired, count) = self.fired(kind);
            let mut after = Vec::new();
            let mut away = Duration::ZERO;
            let mut never = 0;
            for place in of_kind {
                let recovery = &self.report.recoveries[place];
                away = away.max(recovery.unavailable);
                match recovery.first_write {
                    Some(at) => after.push(at.saturating_sub(self.strikes[place].to)),
                    None => never += 1,
                }
            }
            after.sort_unstable();
            let show = |nanos: Option<&u64>| {
                nanos.map_or(0.0, |nanos| millis(Duration::from_nanos(*nanos)))
            };
            let never = match never {
                0 => String::new(),
                never => format!("; none any more after {never}"),
            };
            lines.push(format!(
                "fault {:10} {}, struck {fired}; next acknowledged write {:.0} ms after \
                 it was over (half of them), {:.0} ms (worst){never}; longest pause {:.0} ms",
                kind.name(),
                counted(count, "time", "times"),
                show(after.get(after.len().saturating_sub(1) / 2)),
                show(after.last()),
                millis(away)
            ));
        }
        lines
    }
}

/// When writes were acknowledged, in order.
pub(super) fn acknowledged_writes(seen: &[Seen]) -> Vec<u64> {
    let records = seen.iter().map(|seen| &seen.record);
    let done = records.filter(|record| record.ending == Ending::Done && writes(&record.operation));
    let mut acknowledged: Vec<u64> = done.map(|record| record.ret).collect();
    acknowledged.sort_unstable();
    acknowledged
}

fn title(options: &RunOptions) -> String {
    let protocol = match options.protocol {
        Protocol::TwoPhase => "2pc",
        Protocol::AnyReplica => "2pc through any replica",
        Protocol::Paxos => "paxos",
    };
    let kinds: Vec<&str> = options.nemesis.iter().map(|kind| kind.name()).collect();
    match kinds.is_empty() {
        true => format!("{protocol}, undisturbed"),
        false => format!("{protocol} under {}", kinds.join(", ")),
    }
}

fn facts(options: &RunOptions) -> Vec<(String, String)> {
    let fact = |name: &str, value: String| (name.to_owned(), value);
    // What was counted the page counts itself, and draws.
    vec![
        fact("version", env!("CARGO_PKG_VERSION").to_owned()),
        fact("processes", processes(options)),
        fact("clients", format!("{}, {} operations a second", options.clients, options.rate)),
        fact("workload", format!("{} over {} keys", options.workload, options.keys)),
        fact("seed", options.seed.to_string()),
    ]
}

fn processes(options: &RunOptions) -> String {
    match options.protocol {
        Protocol::TwoPhase => format!("1 coordinator, {} replicas", options.replicas),
        Protocol::AnyReplica | Protocol::Paxos => format!("{} replicas", options.replicas),
    }
}

fn point(seen: &Seen) -> OperationPoint {
    let Seen { record, error } = seen;
    let ending = match record.ending {
        Ending::Done => PointEnding::Ok,
        Ending::NotDone | Ending::PreconditionFailed(_) => PointEnding::Refused,
        Ending::Unknown => PointEnding::Unknown,
    };
    let words = error.as_ref().map(|error| format!("{}; {}", shown(record), error.what).into());
    OperationPoint {
        start: record.call,
        end: record.ret,
        kind: kind_of(&record.operation),
        writes: writes(&record.operation),
        ending,
        words,
    }
}

fn shown(record: &Record) -> String {
    format!("client {} {}", record.client, record.operation)
}

fn kind_of(operation: &Operation) -> &'static str {
    match operation {
        Operation::Get { .. } => "get",
        Operation::GetMany { .. } => "mget",
        Operation::Scan { .. } => "scan",
        Operation::Put { .. } => "put",
        Operation::Delete { .. } => "del",
        Operation::CompareAndSet { .. } => "cas",
        Operation::Transact { .. } | Operation::MicroOperations(_) => "txn",
    }
}

fn span(strike: &Strike) -> FaultSpan {
    FaultSpan {
        kind: strike.kind.name().to_owned(),
        name: strike.name.clone(),
        whom: strike.whom.iter().map(Member::to_string).collect(),
        from: strike.from,
        to: strike.to,
        fired: strike.fired,
    }
}

/// The longest time without an acknowledged write from just before a fault until the first one after
/// it. `acknowledged` is sorted.
fn recovery(fault: usize, strike: &Strike, acknowledged: &[u64]) -> Recovery {
    let first = acknowledged.partition_point(|at| *at < strike.to);
    let first_write = acknowledged.get(first).copied();
    let before = acknowledged.partition_point(|at| *at <= strike.from).checked_sub(1);
    let begin = before.map_or(0, |before| acknowledged[before]);
    let within = &acknowledged[before.map_or(0, |before| before + 1)..first];
    let mut longest = 0;
    let mut last = begin;
    for at in within.iter().copied().chain(first_write) {
        longest = longest.max(at - last);
        last = at;
    }
    if first_write.is_none() {
        longest = longest.max(strike.to.saturating_sub(last));
    }
    Recovery { fault, first_write, unavailable: Duration::from_nanos(longest) }
}

/// How long the next acknowledged write took whenever the last of some faults that overlapped was
/// over. `strikes` are in order of their begin, `acknowledged` is sorted.
fn whole_again(strikes: &[Strike], acknowledged: &[u64]) -> Vec<Duration> {
    let mut times = Vec::new();
    let mut end = None;
    let nexts = strikes.iter().map(|strike| (strike.from, strike.to));
    for (from, to) in nexts.chain([(u64::MAX, u64::MAX)]) {
        if let Some(whole) = end.filter(|end| *end < from) {
            let first = acknowledged.partition_point(|at| *at < whole);
            if let Some(at) = acknowledged.get(first).filter(|at| **at <= from) {
                times.push(Duration::from_nanos(at - whole));
            }
        }
        end = end.max(Some(to));
    }
    times.sort_unstable();
    times
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::nemesis::Hurt;

    fn strike(from: u64, to: u64) -> Strike {
        let (kind, fired) = (Kind::Kill, 1);
        let (name, evidence) = (String::new(), String::new());
        Strike { kind, name, whom: Vec::new(), hurt: Hurt::Members, from, to, fired, evidence }
    }

    #[test]
    fn time_to_recover_counts_from_the_end_of_the_last_fault() {
        let strikes = [strike(10, 30), strike(20, 50), strike(60, 70), strike(90, 95)];
        let check = |acknowledged: &[u64], expected: &[u64]| {
            let times = whole_again(&strikes, acknowledged);
            let expected: Vec<_> = expected.iter().copied().map(Duration::from_nanos).collect();
            assert_eq!(times, expected);
        };
        check(&[5, 35, 53, 74, 200], &[3, 4, 105]);
        check(&[65], &[]);
        check(&[50, 96], &[0, 1]);
        assert!(whole_again(&[], &[1, 2]).is_empty());
    }

    #[test]
    fn recovery_is_the_longest_pause_around_a_fault() {
        let check = |from, to, acknowledged: &[u64]| {
            let Recovery { first_write, unavailable, .. } =
                recovery(0, &strike(from, to), acknowledged);
            (first_write, u64::try_from(unavailable.as_nanos()).unwrap())
        };
        assert_eq!(check(20, 50, &[5, 10, 60, 70]), (Some(60), 50));
        assert_eq!(check(20, 50, &[10, 30, 45, 51, 99]), (Some(51), 20));
        assert_eq!(check(20, 50, &[]), (None, 50));
        assert_eq!(check(20, 50, &[10, 25]), (None, 25));
        assert_eq!(check(20, 50, &[50]), (Some(50), 50));
    }
}
