//! One worker's requests: gathered for the node, and matched with its answers.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use kvorum_node::Refused;
use kvorum_replication::{Failure, Operation, Outcome, Request, RequestId, Time};
use tokio::sync::{Notify, oneshot};

use super::door::Post;
use super::hub::{Service, count};
use crate::turn::end_of_turn;

const WORKER_SHIFT: u32 = 56;

/// How long after a request's deadline the node may still answer it; then it is given up here.
const GRACE: Duration = Duration::from_millis(500);

/// The worker that asked.
pub(super) fn worker_of(request: RequestId) -> usize {
    usize::try_from(request.0 >> WORKER_SHIFT).expect("one byte")
}

pub(crate) struct Requests {
    service: Arc<Service>,
    worker: usize,
    number: Cell<u64>,
    waiting: RefCell<HashMap<RequestId, Waiting>>,
    bytes: Cell<usize>,
    gathered: RefCell<Vec<Post>>,
    gathering: Notify,
}

struct Waiting {
    answer: oneshot::Sender<Outcome>,
    deadline: Time,
    writes: bool,
    bytes: usize,
}

impl Requests {
    pub(super) fn new(service: &Arc<Service>, worker: usize) -> Self {
        Self {
            service: Arc::clone(service),
            worker,
            number: Cell::new(0),
            waiting: RefCell::default(),
            bytes: Cell::new(0),
            gathered: RefCell::default(),
            gathering: Notify::new(),
        }
    }

    /// Asks the node, and waits for its answer. Dropping this does not take the request back.
    pub(super) async fn ask(
        &self,
        operation: Operation,
        timeout: Duration,
        bytes: usize,
    ) -> Outcome {
        let options = &self.service.hub.options;
        if let Some(reason) = self.service.why_outside() {
            return Outcome::Failed(Failure::Unavailable { reason });
        }
        let full = self.waiting.borrow().len() >= options.requests_max
            || (self.bytes.get() > 0 && self.bytes.get() + bytes > options.request_bytes_max);
        if full {
            count(&self.service.hub.counters.overloaded, 1);
            return Outcome::Failed(Failure::Overloaded);
        }
        let id = self.next_id();
        let deadline = self.service.door.now().after(timeout);
        let (answer, answered) = oneshot::channel();
        let writes = match operation {
            Operation::Transact { .. } | Operation::ChangeMembers { .. } => true,
            Operation::OpenSession | Operation::Read(_) | Operation::ReadStale(_) => false,
        };
        let waiting = Waiting { answer, deadline, writes, bytes };
        self.waiting.borrow_mut().insert(id, waiting);
        self.bytes.set(self.bytes.get() + bytes);
        self.post(Post::Request(Request { id, deadline, operation }));
        answered.await.unwrap_or_else(|_| given_up(writes))
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
            let posts = std::mem::take(&mut *self.gathered.borrow_mut());
            count(&self.service.hub.counters.requests, posts.len() as u64);
            count(&self.service.hub.counters.submits, 1);
            for (request, refused) in self.service.door.submit(posts) {
                self.answer(request.id, refusal(refused));
                count(&self.service.hub.counters.overloaded, 1);
            }
        }
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
        // Whoever asked may have left.
        let _ = waiting.answer.send(outcome);
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

fn given_up(writes: bool) -> Outcome {
    let reason = "the node did not answer in time".to_owned();
    Outcome::Failed(match writes {
        true => Failure::Unknown { reason },
        false => Failure::Unavailable { reason },
    })
}
