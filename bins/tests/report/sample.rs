//! A run that never was: two minutes of three replicas, each fault as it would look.

use std::time::Duration;

use kvorum::lab::report::{
    FaultSpan, Finding, JudgeVerdict, OperationPoint, PointEnding, Recovery, Report,
};

const MILLISECOND: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MILLISECOND;

/// Numbers that look random and are the same every time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// The run, as long as this.
pub(crate) fn sample(seconds: u64) -> Report {
    let mut numbers = Numbers(7);
    let faults = faults(seconds, &mut numbers);
    let recoveries = faults
        .iter()
        .enumerate()
        .map(|(fault, span)| Recovery {
            fault,
            first_write: Some(span.to + 5 * MILLISECOND),
            unavailable: Duration::from_nanos(span.to - span.from),
        })
        .collect();
    Report {
        title: "2pc under kill, pause, partition".to_owned(),
        command: "kvorum-lab run --protocol 2pc --clients 16 --seconds 60 --nemesis kill,pause,partition --report run.html".to_owned(),
        facts: vec![
            ("replicas".to_owned(), "3".to_owned()),
            ("clients".to_owned(), "16".to_owned()),
            ("acknowledged writes lost".to_owned(), "0".to_owned()),
            ("version".to_owned(), "0.1.0 (d594a4f)".to_owned()),
        ],
        began_unix: 1_795_240_000,
        length: Duration::from_secs(seconds),
        members: ["coordinator", "replica 1", "replica 2", "replica 3"].map(str::to_owned).into(),
        operations: operations(seconds, &faults, &mut numbers),
        faults,
        verdicts: vec![
            JudgeVerdict {
                judge: "linearizable".to_owned(),
                finding: Finding::Holds,
                words: "41,231 operations of 16 clients on 64 keys".to_owned(),
                timeline_html: None,
            },
            JudgeVerdict {
                judge: "no acknowledged write lost".to_owned(),
                finding: Finding::Holds,
                words: "64 keys read back from each replica".to_owned(),
                timeline_html: None,
            },
        ],
        recoveries,
    }
}

/// The same run, found to be wrong, by people who have read about quoting.
pub(crate) fn violated(seconds: u64) -> Report {
    let mut report = sample(seconds);
    report.title = "2pc <under> \"quotes\" & 'more'".to_owned();
    report.verdicts[0] = JudgeVerdict {
        judge: "linearizable".to_owned(),
        finding: Finding::Violated,
        words: "not linearizable: key k</pre><script>alert(1)</script>: no order of these 2 operations \
                explains what was seen\n  client 1 put k=v: done, from 10 to 20\n  client 2 get k: read \
                (absent), from 30 to 40"
            .to_owned(),
        timeline_html: Some("<p>client 1 | put k=v</p>".to_owned()),
    };
    report
}

fn faults(seconds: u64, numbers: &mut Numbers) -> Vec<FaultSpan> {
    let mut faults = Vec::new();
    let mut at = 3 * SECOND;
    while at + 4 * SECOND < seconds * SECOND {
        let replica = format!("replica {}", 1 + numbers.below(3));
        let (kind, name, whom) = match numbers.below(5) {
            0 => ("kill", "SIGKILL and restart", vec![replica]),
            1 => ("kill", "SIGKILL and restart", vec!["coordinator".to_owned()]),
            2 => ("pause", "SIGSTOP and SIGCONT", vec![replica]),
            3 => ("partition", "partition, both ways", vec!["coordinator".to_owned(), replica]),
            _ => ("fail point", "dies at participant-vote-durable", vec![replica]),
        };
        let to = at + 300 * MILLISECOND + numbers.below(2_500) * MILLISECOND;
        let fired = if kind == "partition" { 40 + numbers.below(100) } else { 1 };
        let (kind, name) = (kind.to_owned(), name.to_owned());
        faults.push(FaultSpan { kind, name, whom, from: at, to, fired });
        at += 700 * MILLISECOND + numbers.below(5_000) * MILLISECOND;
    }
    faults.push(FaultSpan {
        kind: "delay".to_owned(),
        name: "20 ms each way".to_owned(),
        whom: Vec::new(),
        from: 20 * SECOND,
        to: 26 * SECOND,
        fired: 0,
    });
    faults
}

fn operations(seconds: u64, faults: &[FaultSpan], numbers: &mut Numbers) -> Vec<OperationPoint> {
    let mut operations = Vec::new();
    for client in 0..16 {
        let mut now = numbers.below(MILLISECOND);
        while now < seconds * SECOND {
            let broken = faults
                .iter()
                .find(|fault| fault.kind != "delay" && (fault.from..fault.to).contains(&now));
            let writes = numbers.below(2) == 0;
            let kind = if writes { "put" } else { "get" };
            let (ending, took) = match broken {
                Some(fault) if writes && fault.from + 40 * MILLISECOND > now => {
                    (PointEnding::Unknown, fault.to - now)
                }
                Some(_) if writes => (PointEnding::Refused, 20 * MILLISECOND),
                _ => (
                    PointEnding::Ok,
                    5 * MILLISECOND + numbers.below(30) * numbers.below(MILLISECOND),
                ),
            };
            let words = (ending != PointEnding::Ok).then(|| {
                format!(
                    "client {client} {kind} key-{} <v>: a write needs every replica",
                    numbers.below(64)
                )
                .into_boxed_str()
            });
            operations.push(OperationPoint {
                start: now,
                end: now + took,
                kind,
                writes,
                ending,
                words,
            });
            now += took + 2 * MILLISECOND;
        }
    }
    operations
}
