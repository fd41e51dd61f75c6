//! One worker asks, is answered, and asks again.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use kvorum_replication::Happened;
use kvorum_replication::random::Random;
use kvorum_rpc::client::{Client, ClientError, ErrorKind};

use super::history::History;
use super::tally::{Counts, Summary, Tally};
use super::workload::{Action, Operation, Workload};
use super::{Keys, LoadError, LoadOptions, Until};

/// The pause after the first refusal; doubles with each that follows.
const PAUSE_MIN: Duration = Duration::from_millis(5);

/// The longest pause: a cluster that is back is noticed within it.
const PAUSE_MAX: Duration = Duration::from_millis(200);

/// Where a load stands. Each phase begins when all threads are through with the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Connect,
    Fill,
    Measure,
}

/// What takes operations: a cluster, or in a test something that plays one.
pub(super) trait Store {
    /// Asks, and answers with the value if it was a read.
    async fn ask(&self, operation: &Operation) -> Result<Option<Bytes>, ClientError>;
}

impl Store for Client {
    async fn ask(&self, operation: &Operation) -> Result<Option<Bytes>, ClientError> {
        let key = operation.key.clone();
        let written = match &operation.action {
            Action::Get => return self.get(key).await,
            Action::Put(value) => self.put(key, value.clone()).await,
            Action::Delete => self.delete(key).await,
            Action::CompareAndSet { expected, value } => {
                self.transact(operation.transaction(expected.as_ref(), value)).await
            }
        };
        written.map(|()| None)
    }
}

/// An operation, and what became of it.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) operation: Operation,
    pub(super) call_nanos: u64,
    pub(super) return_nanos: u64,
    pub(super) ended: Ended,
}

/// How an operation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// It happened; a read's answer.
    Done(Option<Bytes>),
    /// The key did not have the expected value.
    PreconditionFailed,
    /// It did not happen and will not.
    NotDone,
    /// It may have happened or may yet.
    Unknown,
}

/// What all workers share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) options: LoadOptions,
    history: Option<History>,
    created: Instant,
    /// Nanoseconds from `created` to the begin of what is measured, the warm-up not included.
    begun_nanos: OnceLock<u64>,
    filled: AtomicU64,
    tickets: AtomicU64,
    stopped: AtomicBool,
    last_ok_nanos: AtomicU64,
    longest_pause_nanos: AtomicU64,
    totals: Mutex<Totals>,
}

/// What the workers have handed in.
#[derive(Debug, Default)]
struct Totals {
    /// All that ended so far, for the progress line.
    counts: Counts,
    measured: Tally,
    ended_nanos: u64,
    failure: Option<LoadError>,
}

impl Shared {
    pub(super) fn new(options: LoadOptions, history: Option<History>) -> Self {
        Self {
            options,
            history,
            created: Instant::now(),
            begun_nanos: OnceLock::new(),
            filled: AtomicU64::new(0),
            tickets: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
            last_ok_nanos: AtomicU64::new(0),
            longest_pause_nanos: AtomicU64::new(0),
            totals: Mutex::default(),
        }
    }

    /// Starts the clock.
    pub(super) fn begin(&self) {
        let now = self.now_nanos();
        self.begun_nanos.get_or_init(|| now);
        self.last_ok_nanos.store(now, Ordering::Relaxed);
        self.longest_pause_nanos.store(0, Ordering::Relaxed);
    }

    pub(super) fn nothing_to_fill(&self) {
        self.filled.store(u64::MAX, Ordering::Relaxed);
    }

    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    pub(super) fn counts(&self) -> Counts {
        self.totals().counts
    }

    pub(super) fn progress(&self) -> (Duration, f64) {
        let elapsed = self.begun().map_or(Duration::ZERO, |begun| {
            Duration::from_nanos(self.now_nanos().saturating_sub(begun))
        });
        #[expect(clippy::cast_precision_loss, reason = "it is shown as percents")]
        let part = match self.options.until {
            Until::Operations(operations) => {
                self.tickets.load(Ordering::Relaxed) as f64 / operations.max(1) as f64
            }
            Until::Elapsed(whole) => {
                elapsed.as_secs_f64() / (whole + self.options.warm_up).as_secs_f64()
            }
        };
        (elapsed, part.clamp(0.0, 1.0))
    }

    pub(super) fn take_failure(&self) -> Option<LoadError> {
        if let Some(Err(error)) = self.history.as_ref().map(History::flush) {
            self.fail(error);
        }
        self.totals().failure.take()
    }

    pub(super) fn summary(&self) -> Summary {
        let mut totals = self.totals();
        let began = self.measured_from_nanos().unwrap_or(0);
        let elapsed = Duration::from_nanos(totals.ended_nanos.saturating_sub(began));
        let pause = Duration::from_nanos(self.longest_pause_nanos.load(Ordering::Relaxed));
        Summary::new(std::mem::take(&mut totals.measured), elapsed, pause)
    }

    /// Whether one more operation may begin.
    fn take_ticket(&self) -> bool {
        let Until::Operations(operations) = self.options.until else { return !self.is_over() };
        let one_more = |taken| (taken < operations).then_some(taken + 1);
        let taken = self.tickets.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        taken.is_ok() && !self.is_over()
    }

    /// Whether the time is up, or somebody has ended the load; no attempt is made after that.
    fn is_over(&self) -> bool {
        let end = match self.options.until {
            Until::Operations(_) => None,
            Until::Elapsed(whole) => self.measured_from_nanos().map(|from| from + nanos(whole)),
        };
        self.stopped.load(Ordering::Relaxed) || end.is_some_and(|end| self.now_nanos() >= end)
    }

    /// The number of the next key that is to be filled.
    fn next_to_fill(&self) -> Option<u64> {
        let Keys::Among(keys) = self.options.keys else { return None };
        let one_more = |filled| (filled < keys).then(|| filled + 1);
        self.filled.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()
    }

    /// Notes an acknowledgement, for the longest time without one.
    fn acknowledged(&self, at_nanos: u64) {
        let before = self.last_ok_nanos.fetch_max(at_nanos, Ordering::Relaxed);
        let pause = at_nanos.saturating_sub(before);
        self.longest_pause_nanos.fetch_max(pause, Ordering::Relaxed);
    }

    /// Whether patience has run out.
    fn is_hopeless(&self) -> bool {
        let waited = self.now_nanos().saturating_sub(self.last_ok_nanos.load(Ordering::Relaxed));
        waited > nanos(self.options.give_up_after)
    }

    /// Ends the load with an error; the first one is kept.
    fn fail(&self, error: LoadError) {
        self.totals().failure.get_or_insert(error);
        self.stop();
    }

    fn measured_from_nanos(&self) -> Option<u64> {
        self.begun().map(|begun| begun + nanos(self.options.warm_up))
    }

    fn begun(&self) -> Option<u64> {
        self.begun_nanos.get().copied()
    }

    fn now_nanos(&self) -> u64 {
        nanos(self.created.elapsed())
    }

    fn totals(&self) -> MutexGuard<'_, Totals> {
        self.totals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks one operation at a time.
pub(super) struct Worker<S> {
    number: u32,
    store: S,
    workload: Workload,
    shared: Arc<Shared>,
    tally: Tally,
    pause: Duration,
    jitter: Random,
}

impl<S: Store> Worker<S> {
    pub(super) fn new(number: u32, store: S, workload: Workload, shared: Arc<Shared>) -> Self {
        let jitter = Random::new(u64::from(number));
        let tally = Tally::default();
        Self { number, store, workload, shared, tally, pause: PAUSE_MIN, jitter }
    }

    /// Puts its part of the keys that are to be read.
    pub(super) async fn fill(mut self) -> Self {
        while let Some(number) = self.shared.next_to_fill() {
            while !self.shared.stopped.load(Ordering::Relaxed) {
                let operation = self.workload.fill(number);
                if self.ask(operation, false).await == Some(Ended::Done(None)) {
                    break;
                }
            }
        }
        self
    }

    /// Asks until the load ends.
    pub(super) async fn measure(mut self) -> Self {
        while self.shared.take_ticket() {
            while !self.shared.is_over() {
                let operation = self.workload.next();
                if self.ask(operation, true).await.is_some() {
                    break;
                }
            }
        }
        self.shared.totals().measured.merge(&self.tally);
        self
    }

    /// Asks once. `None` says that it did not happen for a reason that will pass; the pause that it
    /// takes for that is over.
    async fn ask(&mut self, operation: Operation, measured: bool) -> Option<Ended> {
        let call_nanos = self.shared.now_nanos();
        let answer = self.store.ask(&operation).await;
        let return_nanos = self.shared.now_nanos();
        let refused = answer.as_ref().err().cloned();
        let ended = ended(answer);
        let record = Record { operation, call_nanos, return_nanos, ended };
        if let Some(Err(error)) =
            self.shared.history.as_ref().map(|history| history.add(self.number, &record))
        {
            self.shared.fail(error);
        }
        let measured = measured && Some(call_nanos) >= self.shared.measured_from_nanos();
        self.count(&record, refused.as_ref(), measured);
        self.learn(&record);
        match refused {
            Some(error) if is_final(&error) => {
                self.shared.fail(error.into());
                None
            }
            Some(error) if will_pass(&error) => {
                self.wait(error).await;
                None
            }
            _ => {
                self.pause = PAUSE_MIN;
                Some(record.ended)
            }
        }
    }

    fn count(&mut self, record: &Record, refused: Option<&ClientError>, measured: bool) {
        let latency = Duration::from_nanos(record.return_nanos - record.call_nanos);
        let mut one = Counts::default();
        match (&record.ended, refused.map(|error| error.kind)) {
            (Ended::Done(_), _) => one.ok = 1,
            (Ended::PreconditionFailed, _) => one.precondition_failed = 1,
            (Ended::Unknown, _) => one.unknown = 1,
            (Ended::NotDone, Some(ErrorKind::Overloaded)) => one.overloaded = 1,
            (Ended::NotDone, Some(ErrorKind::Conflict)) => one.conflict = 1,
            (Ended::NotDone, _) => one.unavailable = 1,
        }
        if one.ok == 1 {
            self.shared.acknowledged(record.return_nanos);
        }
        if measured && one.ok == 1 {
            self.tally.done(latency);
        } else if measured {
            self.tally.counts.add(&one);
        }
        let mut totals = self.shared.totals();
        totals.counts.add(&one);
        totals.ended_nanos = totals.ended_nanos.max(record.return_nanos);
    }

    /// Remembers what the key is now, as far as this worker can know.
    fn learn(&mut self, record: &Record) {
        let Ended::Done(read) = &record.ended else { return };
        let value = match &record.operation.action {
            Action::Get => read.clone(),
            Action::Put(value) | Action::CompareAndSet { value, .. } => Some(value.clone()),
            Action::Delete => None,
        };
        self.workload.saw(&record.operation.key, value);
    }

    /// Gives the cluster time; longer each time, and for each worker a little differently.
    async fn wait(&mut self, error: ClientError) {
        if self.shared.is_hopeless() {
            self.shared.fail(error.into());
            return;
        }
        let half = self.pause / 2;
        let jitter = Duration::from_nanos(self.jitter.below(nanos(half).max(1)));
        tokio::time::sleep(half + jitter).await;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
    }
}

fn ended(answer: Result<Option<Bytes>, ClientError>) -> Ended {
    match answer {
        Ok(value) => Ended::Done(value),
        Err(error) if error.happened == Happened::Unknown => Ended::Unknown,
        Err(error) if error.kind == ErrorKind::PreconditionFailed => Ended::PreconditionFailed,
        Err(_) => Ended::NotDone,
    }
}

/// Whether the same again may work after a while, and is harmless.
fn will_pass(error: &ClientError) -> bool {
    error.happened == Happened::No
        && matches!(
            error.kind,
            ErrorKind::Unavailable | ErrorKind::Overloaded | ErrorKind::DiskFull
        )
}

/// Whether no patience helps.
fn is_final(error: &ClientError) -> bool {
    matches!(error.kind, ErrorKind::Invalid | ErrorKind::Refused | ErrorKind::Corrupt)
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeSet;
    use std::rc::Rc;

    use super::*;

    /// Plays a cluster: the n-th question is answered by the n-th of these, later ones by success.
    #[derive(Clone, Default)]
    struct Script {
        answers: Rc<Vec<Option<(ErrorKind, Happened)>>>,
        asked: Rc<RefCell<Vec<Operation>>>,
    }

    impl Script {
        fn new(answers: impl IntoIterator<Item = Option<(ErrorKind, Happened)>>) -> Self {
            Self { answers: Rc::new(answers.into_iter().collect()), asked: Rc::default() }
        }
    }

    impl Store for Script {
        async fn ask(&self, operation: &Operation) -> Result<Option<Bytes>, ClientError> {
            let asked = self.asked.borrow().len();
            self.asked.borrow_mut().push(operation.clone());
            // Lets the others have their turn, as a network would.
            tokio::task::yield_now().await;
            match self.answers.get(asked).copied().flatten() {
                None => Ok((operation.action == Action::Get).then(|| "found".into())),
                Some((kind, happened)) => Err(ClientError {
                    kind,
                    happened,
                    failed_precondition: None,
                    what: format!("refused as {kind}"),
                    remedy: String::new(),
                }),
            }
        }
    }

    /// Runs a load of four workers on the script.
    fn run(options: LoadOptions, script: &Script) -> Result<Summary, LoadError> {
        let history = options.history.as_deref().map(History::create).transpose()?;
        let options = LoadOptions { clients: 4, outstanding: 1, ..options };
        let shared = Arc::new(Shared::new(options, history));
        shared.begin();
        let workers: Vec<_> = (0..4)
            .map(|number| {
                let workload = Workload::new(&shared.options, number, Random::new(number.into()));
                Worker::new(number, script.clone(), workload, Arc::clone(&shared))
            })
            .collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let filled = workers.into_iter().map(Worker::fill);
            let filled = futures::future::join_all(filled).await;
            futures::future::join_all(filled.into_iter().map(Worker::measure)).await;
        });
        shared.take_failure().map_or_else(|| Ok(shared.summary()), Err)
    }

    fn puts(operations: u64) -> LoadOptions {
        LoadOptions { until: Until::Operations(operations), ..LoadOptions::default() }
    }

    #[test]
    fn every_operation_ends_once_and_what_will_pass_is_asked_again() {
        use ErrorKind::{Conflict, Overloaded, SessionExpired, Unavailable, Unknown};
        let no = Happened::No;
        let script = Script::new([
            None,
            Some((Conflict, no)),
            Some((Unavailable, no)),
            Some((Unknown, Happened::Unknown)),
            Some((Overloaded, no)),
            Some((Unavailable, no)),
            Some((SessionExpired, Happened::Unknown)),
        ]);
        let counts = run(puts(100), &script).unwrap().counts;
        assert_eq!(
            counts,
            Counts {
                ok: 97,
                conflict: 1,
                unknown: 2,
                unavailable: 2,
                overloaded: 1,
                ..Counts::default()
            }
        );
        assert_eq!(counts.ended(), 100);
        let asked = script.asked.borrow();
        assert_eq!(asked.len(), 103);
        let keys: BTreeSet<_> = asked.iter().map(|operation| &operation.key).collect();
        assert_eq!(keys.len(), asked.len(), "an attempt used the key of another one");
    }

    #[test]
    fn what_no_patience_helps_against_ends_the_load() {
        for kind in [ErrorKind::Invalid, ErrorKind::Refused, ErrorKind::Corrupt] {
            let script = Script::new([None, None, Some((kind, Happened::No))]);
            let failed = run(puts(1_000_000), &script).unwrap_err().to_string();
            assert_eq!(failed, format!("refused as {kind}"));
            assert!(script.asked.borrow().len() < 20);
        }
    }

    #[test]
    fn patience_runs_out() {
        let script = Script::new(vec![Some((ErrorKind::Unavailable, Happened::No)); 1_000]);
        let options = LoadOptions { give_up_after: Duration::from_millis(20), ..puts(10) };
        let failed = run(options, &script).unwrap_err().to_string();
        assert_eq!(failed, "refused as unavailable");
        assert!(script.asked.borrow().len() < 100, "it did not pause");
    }

    #[test]
    fn the_warm_up_is_not_measured() {
        let options = LoadOptions { warm_up: Duration::from_secs(600), ..puts(50) };
        let script = Script::default();
        let summary = run(options, &script).unwrap();
        assert_eq!((summary.counts, script.asked.borrow().len()), (Counts::default(), 50));
    }

    #[test]
    fn a_load_of_some_seconds_ends() {
        let asked = at_some_pace(|time| {
            let until = Until::Elapsed(time);
            let summary = run(LoadOptions { until, ..puts(0) }, &Script::default()).unwrap();
            assert!(summary.counts.ok == 0 || summary.elapsed >= time, "{:?}", summary.elapsed);
            summary.counts.ok
        });
        assert!(asked > 0);
    }

    /// On a busy machine a load of so short a time may be over before anybody gets to ask: then a longer
    /// one is made, until something was counted.
    fn at_some_pace(load: impl Fn(Duration) -> u64) -> u64 {
        let times = (0..10).map(|doubled| Duration::from_millis(30) * 2_u32.pow(doubled));
        times.map(load).find(|count| *count > 0).unwrap_or(0)
    }

    #[test]
    fn a_load_of_some_seconds_ends_though_nothing_is_answered() {
        let refused = at_some_pace(|time| {
            let script = Script::new(vec![Some((ErrorKind::Unavailable, Happened::No)); 100_000]);
            let summary = run(LoadOptions { until: Until::Elapsed(time), ..puts(0) }, &script);
            let counts = summary.unwrap().counts;
            assert_eq!((counts.ok, counts.ended()), (0, 0));
            counts.unavailable
        });
        assert!(refused > 0);
    }

    #[test]
    fn keys_that_nobody_reads_are_not_filled() {
        let shared = Shared::new(LoadOptions { keys: Keys::Among(20), ..puts(30) }, None);
        shared.nothing_to_fill();
        assert_eq!(shared.next_to_fill(), None);
    }

    #[test]
    fn keys_are_filled_before_they_are_read() {
        let mix = "get".parse().unwrap();
        let script = Script::default();
        run(LoadOptions { mix, keys: Keys::Among(20), ..puts(30) }, &script).unwrap();
        let asked = script.asked.borrow();
        let (fill, gets) = asked.split_at(20);
        let filled: BTreeSet<_> = fill.iter().map(|operation| &operation.key).collect();
        assert_eq!(filled.len(), 20);
        assert_eq!(gets.len(), 30);
        assert!(gets.iter().all(|get| get.action == Action::Get && filled.contains(&get.key)));
    }

    #[test]
    fn the_history_says_what_was_asked_and_answered() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("history");
        // The first three fill the keys.
        let script = Script::new([
            None,
            None,
            None,
            Some((ErrorKind::Conflict, Happened::No)),
            Some((ErrorKind::Unknown, Happened::Unknown)),
            Some((ErrorKind::PreconditionFailed, Happened::No)),
        ]);
        let options = LoadOptions {
            mix: "put=1,get=1,del=1,cas=1".parse().unwrap(),
            keys: Keys::Among(3),
            history: Some(file.clone()),
            ..puts(200)
        };
        let counts = run(options, &script).unwrap().counts;
        let text = std::fs::read_to_string(file).unwrap();
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len() as u64, counts.ended() + 3, "three keys were filled");
        for line in &lines {
            assert!(line["call"].as_u64() <= line["ret"].as_u64(), "{line}");
            let is_text = |name: &str| line[name].is_string();
            let expects_value = matches!(line["op"].as_str().unwrap(), "put" | "cas");
            assert_eq!((is_text("key"), is_text("value")), (true, expects_value), "{line}");
            assert_eq!(is_text("result"), line["op"] == "get" && line["ok"] == true, "{line}");
        }
        let ended = |ok: serde_json::Value| lines.iter().filter(|line| line["ok"] == ok).count();
        assert_eq!((ended(false.into()), ended("unknown".into())), (2, 1));
        let failed: Vec<_> = lines.iter().filter(|line| line.get("failed").is_some()).collect();
        assert_eq!(failed.len(), 1);
        let clients: BTreeSet<_> = lines.iter().map(|line| line["client"].as_u64()).collect();
        assert_eq!(clients.len(), 4);
    }
}
