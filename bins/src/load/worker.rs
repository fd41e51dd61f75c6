//! One worker asks, is answered, and asks again.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kvorum_replication::Happened;
use kvorum_replication::random::Random;
use kvorum_rpc::client::{ClientError, ErrorKind};

use super::books::Books;
use super::desk::{Desk, Seat};
use super::shared::{Shared, nanos};
use super::store::Store;
use super::workload::{Action, Operation, Workload};

/// The pause after the first refusal; doubles with each that follows.
const PAUSE_MIN: Duration = Duration::from_millis(5);

/// The longest pause: a cluster that is back is noticed within it.
const PAUSE_MAX: Duration = Duration::from_millis(200);

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

/// What came of asking once.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) ended: Ended,
    pub(super) refused: Option<ClientError>,
    pub(super) return_nanos: u64,
}

/// Asks one operation at a time.
pub(super) struct Worker<S> {
    number: u32,
    store: S,
    workload: Workload,
    shared: Arc<Shared>,
    books: Rc<Books>,
    pause: Duration,
    jitter: Random,
}

impl<S: Store> Worker<S> {
    pub(super) fn new(
        number: u32,
        store: S,
        workload: Workload,
        shared: Arc<Shared>,
        books: Rc<Books>,
    ) -> Self {
        let jitter = Random::new(u64::from(number));
        Self { number, store, workload, shared, books, pause: PAUSE_MIN, jitter }
    }

    /// From now on it asks there.
    pub(super) fn set_store(&mut self, store: S) {
        self.store = store;
    }

    /// Puts its part of the keys that are to be read.
    pub(super) async fn fill(mut self) -> Self {
        while let Some(numbers) = self.shared.next_to_fill() {
            while !self.shared.is_stopped() {
                let operation = self.workload.fill(numbers.clone());
                let attempt = self.attempt(&operation, self.shared.now_nanos()).await;
                if self.is_settled(&attempt).await && attempt.ended == Ended::Done(None) {
                    break;
                }
            }
        }
        self
    }

    /// Asks until the load ends, again as soon as it is answered. What did not happen for a reason
    /// that will pass is asked anew.
    pub(super) async fn measure(mut self) -> Self {
        let mut now = self.shared.now_nanos();
        while self.shared.take_ticket(now) {
            while !self.shared.is_over(now) {
                let operation = self.workload.next();
                let attempt = self.attempt(&operation, now).await;
                self.books.count(&attempt, now);
                now = attempt.return_nanos;
                if self.is_settled(&attempt).await {
                    break;
                }
                now = self.shared.now_nanos();
            }
        }
        self
    }

    /// Asks when the desk says so, until the load ends. Each operation is asked once.
    pub(super) async fn measure_at(mut self, desk: Rc<Desk>) -> Self {
        let connection = self.number / self.shared.options.outstanding;
        let seat = Rc::new(Seat::new(connection as usize));
        while let Some(begin_nanos) = desk.next(&seat).await {
            let operation = self.workload.next();
            let attempt = self.attempt(&operation, self.shared.now_nanos()).await;
            self.books.count(&attempt, begin_nanos);
            match attempt.refused {
                Some(error) if is_final(&error) => self.shared.fail(error.into()),
                Some(error)
                    if will_pass(&error) && self.shared.is_hopeless(attempt.return_nanos) =>
                {
                    self.shared.fail(error.into());
                }
                _ => {}
            }
        }
        self
    }

    async fn attempt(&mut self, operation: &Operation, call_nanos: u64) -> Attempt {
        match &operation.action {
            Action::ReadModifyWrite(value) => {
                self.read_modify_write(&operation.key, value.clone(), call_nanos).await
            }
            _ => self.ask(operation, call_nanos).await,
        }
    }

    /// Reads, and writes if nobody has written meanwhile; from the beginning if somebody has.
    async fn read_modify_write(
        &mut self,
        key: &Bytes,
        mut value: Bytes,
        begin_nanos: u64,
    ) -> Attempt {
        let mut now = begin_nanos;
        loop {
            let operation = Operation { key: key.clone(), action: Action::Get };
            let read = self.ask(&operation, now).await;
            let Ended::Done(expected) = read.ended else { return read };
            let action = Action::CompareAndSet { expected, value };
            let operation = Operation { key: key.clone(), action };
            let written = self.ask(&operation, read.return_nanos).await;
            now = written.return_nanos;
            let is_conflict =
                written.refused.as_ref().is_some_and(|error| error.kind == ErrorKind::Conflict);
            let is_outrun = is_conflict || written.ended == Ended::PreconditionFailed;
            if !is_outrun || self.shared.is_over(now) {
                return written;
            }
            self.books.count_retry(begin_nanos);
            value = self.workload.value();
        }
    }

    /// Asks once.
    async fn ask(&mut self, operation: &Operation, call_nanos: u64) -> Attempt {
        let answer = self.store.ask(operation).await;
        let return_nanos = self.shared.now_nanos();
        let (ended, refused) = ended(answer);
        if self.shared.has_history() {
            let (operation, ended) = (operation.clone(), ended.clone());
            let record = Record { operation, call_nanos, return_nanos, ended };
            self.shared.write_down(self.number, &record);
        }
        self.learn(operation, &ended);
        Attempt { ended, refused, return_nanos }
    }

    /// Remembers what the key is now, as far as this worker can know.
    fn learn(&mut self, operation: &Operation, ended: &Ended) {
        let Ended::Done(read) = ended else { return };
        let value = match &operation.action {
            Action::Get => read.as_ref(),
            Action::Put(value) | Action::CompareAndSet { value, .. } => Some(value),
            Action::Delete => None,
            Action::Transact { value, others } => {
                for (key, value) in others {
                    self.workload.saw(key, Some(value));
                }
                Some(value)
            }
            Action::Scan { .. } | Action::ReadModifyWrite(_) => return,
        };
        self.workload.saw(&operation.key, value);
    }

    /// Whether this was all. If it did not happen for a reason that will pass, the pause that it
    /// takes for that is over; if for one that will not, so is the load.
    async fn is_settled(&mut self, attempt: &Attempt) -> bool {
        match &attempt.refused {
            Some(error) if is_final(error) => {
                self.shared.fail(error.clone().into());
                false
            }
            Some(error) if will_pass(error) => {
                self.wait(error).await;
                false
            }
            _ => {
                self.pause = PAUSE_MIN;
                true
            }
        }
    }

    /// Gives the cluster time; longer each time, and for each worker a little differently.
    async fn wait(&mut self, error: &ClientError) {
        if self.shared.is_hopeless(self.shared.now_nanos()) {
            self.shared.fail(error.clone().into());
            return;
        }
        let half = self.pause / 2;
        let jitter = Duration::from_nanos(self.jitter.below(nanos(half).max(1)));
        tokio::time::sleep(half + jitter).await;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
    }
}

/// How it ended, and the error if it was one.
fn ended(answer: Result<Option<Bytes>, ClientError>) -> (Ended, Option<ClientError>) {
    let error = match answer {
        Ok(value) => return (Ended::Done(value), None),
        Err(error) => error,
    };
    let ended = match (error.happened, error.kind) {
        (Happened::Unknown, _) => Ended::Unknown,
        (Happened::No, ErrorKind::PreconditionFailed) => Ended::PreconditionFailed,
        (Happened::No, _) => Ended::NotDone,
    };
    (ended, Some(error))
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

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeSet;

    use super::*;
    use crate::load::history::History;
    use crate::load::tally::{Counts, Summary};
    use crate::load::workload::Pool;
    use crate::load::{Keys, LoadError, LoadOptions, Until};

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
        let books = Rc::new(Books::new(0, Arc::clone(&shared)));
        let workers: Vec<_> = (0..4)
            .map(|number| {
                let (random, pool) = (Random::new(number.into()), Pool::new(&shared.options));
                let workload = Workload::new(&shared.options, number, random, pool);
                let (shared, books) = (Arc::clone(&shared), Rc::clone(&books));
                Worker::new(number, script.clone(), workload, shared, books)
            })
            .collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let filled = workers.into_iter().map(Worker::fill);
            let filled = futures::future::join_all(filled).await;
            futures::future::join_all(filled.into_iter().map(Worker::measure)).await;
        });
        books.close(Duration::ZERO);
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
        let (fill, gets) = asked.split_at(1);
        let Action::Transact { others, .. } = &fill[0].action else { panic!("{:?}", fill[0]) };
        let mut filled: BTreeSet<_> = others.iter().map(|(key, _)| key).collect();
        filled.insert(&fill[0].key);
        assert_eq!((filled.len(), gets.len()), (20, 30));
        assert!(gets.iter().all(|get| get.action == Action::Get && filled.contains(&get.key)));
    }

    #[test]
    fn a_read_modify_write_that_is_outrun_begins_from_the_beginning() {
        let mix = "rmw".parse().unwrap();
        // The keys are filled, four workers read, and then they write.
        let no = Happened::No;
        let mut answers = vec![None; 5];
        answers.push(Some((ErrorKind::PreconditionFailed, no)));
        answers.push(Some((ErrorKind::Conflict, no)));
        let script = Script::new(answers);
        let counts = run(LoadOptions { mix, keys: Keys::Among(8), ..puts(40) }, &script).unwrap();
        let counts = counts.counts;
        assert_eq!((counts.ok, counts.retried, counts.ended()), (40, 2, 40));
        let asked = script.asked.borrow();
        assert_eq!(asked.len(), 1 + 2 * 42, "a fill, and 42 pairs of a read and a write");
        let found = Some("found".into());
        let expects_what_was_read = |operation: &Operation| match &operation.action {
            Action::Get | Action::Transact { .. } => true,
            Action::CompareAndSet { expected, .. } => *expected == found,
            _ => false,
        };
        assert!(asked.iter().all(expects_what_was_read));
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
