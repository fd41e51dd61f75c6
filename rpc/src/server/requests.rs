//! One worker's requests: gathered for the node, and matched with its answers.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kvorum_node::{DiskWait, Refused};
use kvorum_replication::{Failure, Operation, Outcome, Request, RequestId, Time};
use tokio::sync::{Notify, oneshot};

use super::admission::{Admission, KINDS, Place, Share};
use super::door::Post;
use super::hub::{Service, count};
use crate::hot::Answering;
use crate::numbers::NumberMap;
use crate::turn::end_of_turn;

const WORKER_SHIFT: u32 = 56;

/// How long after a request's deadline the node may still answer it; then it is given up here.
const GRACE: Duration = Duration::from_millis(500);

/// Overload is logged this often at most.
const TELL_INTERVAL: Duration = Duration::from_secs(10);

/// After so many turns without a client's request a worker may wait for the disk: then what comes
/// next is hardly a client's either, who would wait as well.
const QUIET_TURNS: u32 = 16;

/// The worker that asked.
pub(super) fn worker_of(request: RequestId) -> usize {
    usize::try_from(request.0 >> WORKER_SHIFT).expect("one byte")
}

pub(crate) struct Requests {
    service: Arc<Service>,
    worker: usize,
    number: Cell<u64>,
    waiting: RefCell<NumberMap<RequestId, Waiting>>,
    bytes: Cell<usize>,
    admission: Rc<Admission>,
    /// Refusals since it was last said in the log, and when that was.
    refused: Cell<u64>,
    told: Cell<Option<Instant>>,
    gathered: RefCell<Vec<Post>>,
    /// Reads that were answered in this turn. They keep their places until its end: however quick
    /// each is, the last of them has waited for the others.
    answered: RefCell<Vec<Place>>,
    gathering: Notify,
    /// Turns since a client asked for anything.
    quiet_turns: Cell<u32>,
}

/// Who is told the outcome of a request.
pub(crate) enum Asker {
    /// A task of capnp-rpc's. It may have left.
    Task(oneshot::Sender<Outcome>),
    /// A call on the hot path.
    Call(Answering),
}

struct Waiting {
    asker: Asker,
    place: Place,
    deadline: Time,
    writes: bool,
    bytes: usize,
}

impl Requests {
    pub(super) fn new(service: &Arc<Service>, worker: usize) -> Self {
        let options = &service.hub.options;
        let admission = Admission::new(options.wait_max, options.requests_max);
        Self {
            service: Arc::clone(service),
            worker,
            number: Cell::new(0),
            waiting: RefCell::default(),
            bytes: Cell::new(0),
            admission: Rc::new(admission),
            refused: Cell::new(0),
            told: Cell::new(None),
            gathered: RefCell::default(),
            answered: RefCell::default(),
            gathering: Notify::new(),
            quiet_turns: Cell::new(0),
        }
    }

    /// The places of a new connection.
    pub(crate) fn share(&self) -> Rc<Share> {
        Share::new(&self.admission)
    }

    /// Asks the node, and sees to it that the asker is told what came of it. A timeout of 0 is the
    /// server's own.
    pub(crate) fn ask(
        &self,
        operation: Operation,
        timeout_ms: u32,
        bytes: usize,
        asker: Asker,
        place: Place,
    ) {
        let options = &self.service.hub.options;
        if let Some(reason) = self.service.why_outside() {
            return self.tell(asker, Outcome::Failed(Failure::Unavailable { reason }));
        }
        if self.bytes.get() > 0 && self.bytes.get() + bytes > options.request_bytes_max {
            self.count_refusal();
            return self.tell(asker, Outcome::Failed(Failure::Overloaded));
        }
        let timeout = match timeout_ms {
            0 => options.request_timeout,
            millis => Duration::from_millis(millis.into()).min(options.request_timeout_max),
        };
        let id = self.next_id();
        let deadline = self.service.door.now().after(timeout);
        let writes = writes(&operation);
        let waiting = Waiting { asker, place, deadline, writes, bytes };
        self.waiting.borrow_mut().insert(id, waiting);
        self.bytes.set(self.bytes.get() + bytes);
        self.post(Post::Request(Request { id, deadline, operation }));
    }

    /// Answers a read on this thread, as the node would, if nothing is in its way; else gives back
    /// its place.
    pub(crate) fn read(&self, operation: &Operation, place: Place) -> Result<Outcome, Place> {
        let (Operation::Read(query) | Operation::ReadStale(query)) = operation else {
            return Err(place);
        };
        if self.service.is_outside() {
            return Err(place);
        }
        let Some(answer) = self.service.door.read(query) else {
            return Err(place);
        };
        let mut answered = self.answered.borrow_mut();
        answered.push(place);
        if answered.len() == 1 {
            self.gathering.notify_one();
        }
        Ok(answer.into_outcome())
    }

    /// Adds something for the node to what this turn gathers.
    pub(crate) fn post(&self, post: Post) {
        let mut gathered = self.gathered.borrow_mut();
        gathered.push(post);
        if gathered.len() == 1 {
            self.gathering.notify_one();
        }
    }

    /// Submits what each turn gathers, for ever.
    pub(super) async fn submit(&self) {
        loop {
            self.gathering.notified().await;
            end_of_turn().await;
            self.admission.look(Instant::now);
            let has_read = self.give_back_places();
            let posts = std::mem::take(&mut *self.gathered.borrow_mut());
            let wait = self.disk_wait(has_read, &posts);
            if posts.is_empty() {
                continue;
            }
            count(&self.service.hub.counters.requests, posts.len() as u64);
            count(&self.service.hub.counters.submits, 1);
            for (request, refused) in self.service.door.drive(posts, wait) {
                self.answer(request.id, refusal(refused));
                self.count_refusal();
            }
        }
    }

    /// Whether this thread may wait for the disk: not while it has clients to answer.
    fn disk_wait(&self, has_read: bool, posts: &[Post]) -> DiskWait {
        let is_asked = has_read || posts.iter().any(|post| matches!(post, Post::Request(_)));
        let quiet_turns = if is_asked { 0 } else { self.quiet_turns.get().saturating_add(1) };
        self.quiet_turns.set(quiet_turns);
        if quiet_turns > QUIET_TURNS { DiskWait::Short } else { DiskWait::Never }
    }

    /// Of the reads that this turn has answered; whether there were any.
    fn give_back_places(&self) -> bool {
        let mut places = self.answered.borrow_mut();
        let count_of_turn = places.len();
        count(&self.service.hub.counters.requests, count_of_turn as u64);
        for place in places.drain(..) {
            place.answered_with(count_of_turn, false, Instant::now);
        }
        count_of_turn > 0
    }

    /// Brings the node's answers to those who wait, for ever.
    pub(super) async fn route(&self) {
        let port = self.service.hub.port(self.worker);
        let mut replies = Vec::new();
        while !self.service.hub.is_stopping() {
            port.arrived.notified().await;
            port.take(&mut replies);
            for (request, outcome) in replies.drain(..) {
                self.answer(request, outcome);
            }
        }
    }

    /// Gives up on requests whose deadline is long over: the node did not keep its word, or stopped.
    pub(super) fn sweep(&self) {
        let (now, closed) = (self.service.door.now(), self.service.door.is_closed());
        let late = |waiting: &Waiting| closed || waiting.deadline.after(GRACE) < now;
        let given_up_ids: Vec<_> = {
            let waiting = self.waiting.borrow();
            waiting.iter().filter(|(_, waiting)| late(waiting)).map(|(id, _)| *id).collect()
        };
        for id in given_up_ids {
            let writes = self.waiting.borrow().get(&id).is_some_and(|waiting| waiting.writes);
            self.answer(id, given_up(writes));
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.gathered.borrow().is_empty()
    }

    fn answer(&self, request: RequestId, outcome: Outcome) {
        let Some(waiting) = self.waiting.borrow_mut().remove(&request) else { return };
        self.bytes.set(self.bytes.get().saturating_sub(waiting.bytes));
        waiting.place.answered(matches!(outcome, Outcome::Failed(_)), Instant::now);
        self.tell(waiting.asker, outcome);
    }

    fn tell(&self, asker: Asker, outcome: Outcome) {
        match asker {
            Asker::Task(task) => drop(task.send(outcome)),
            Asker::Call(call) => call.answer(outcome, &self.service),
        }
    }

    /// How many requests may be under way, by kind.
    pub(super) fn limits(&self) -> [usize; KINDS] {
        self.admission.limits()
    }

    /// Says in the log that requests were refused, not more often than somebody reads it.
    pub(super) fn tell_load(&self) {
        let refused = self.refused.get();
        if refused == 0 || self.told.get().is_some_and(|told| told.elapsed() < TELL_INTERVAL) {
            return;
        }
        self.refused.set(0);
        self.told.set(Some(Instant::now()));
        let [gets, scans, writes] = self.limits();
        let under_way = self.waiting.borrow().len();
        tracing::warn!(
            refused,
            under_way,
            gets,
            scans,
            writes,
            "overloaded: more is asked than can be done; how many may be under way, by kind"
        );
    }

    /// Counts a request that was refused for there being too many.
    pub(crate) fn count_refusal(&self) {
        self.refused.set(self.refused.get() + 1);
        count(&self.service.hub.counters.overloaded, 1);
    }

    fn next_id(&self) -> RequestId {
        let number = self.number.get() + 1;
        self.number.set(number);
        RequestId((self.worker as u64) << WORKER_SHIFT | number)
    }
}

fn refusal(refused: Refused) -> Outcome {
    Outcome::Failed(match refused {
        Refused::Full => Failure::Overloaded,
        Refused::Closed => Failure::Unavailable { reason: "this node has stopped".to_owned() },
    })
}

/// Whether it may have happened if no answer comes.
pub(super) fn writes(operation: &Operation) -> bool {
    match operation {
        Operation::Transact { .. }
        | Operation::ChangeMembers { .. }
        | Operation::ChangeReplicas(_) => true,
        Operation::OpenSession | Operation::Read(_) | Operation::ReadStale(_) => false,
    }
}

/// What is said when the node says nothing.
pub(super) fn given_up(writes: bool) -> Outcome {
    let reason = "the node did not answer in time".to_owned();
    Outcome::Failed(match writes {
        true => Failure::Unknown { reason },
        false => Failure::Unavailable { reason },
    })
}
