//! A client's open questions, and their answers until somebody takes them.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use capnp::Error;
use tokio::time::Instant;

use super::FIRST_QUESTION;
use super::ask::Response;

/// More questions than this are never open on one connection.
const QUESTIONS_MAX: usize = 1 << 20;

type Answer = Result<Response, Unheard>;

/// Why a question has no answer.
#[derive(Clone, Debug)]
pub(crate) enum Unheard {
    /// It was waited for long enough.
    Late,
    /// The other side said so, or is gone.
    Failed(Error),
}

impl From<Error> for Unheard {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// The questions of one connection.
#[derive(Default)]
pub(super) struct Questions(RefCell<Table>);

#[derive(Default)]
struct Table {
    /// By number, from the first.
    slots: Vec<Slot>,
    /// Those that are free.
    free: Vec<u32>,
    /// Why there will be no more answers.
    ended: Option<Error>,
}

enum Slot {
    Free,
    /// Somebody waits, or will once he is polled, until then.
    Waiting(Option<Waker>, Option<Instant>),
    /// Somebody waited, and is told that it took too long.
    Late,
    /// Nobody waits any more; the answer still comes. The question is not called off: the call is
    /// on its way, and a server by capnp-rpc would keep a cancelled one until the connection ends.
    Abandoned,
    Answered(Answer),
}

impl Questions {
    /// Whether this number is of a question asked here, and not of capnp-rpc's.
    pub(super) fn owns(number: u32) -> bool {
        number >= FIRST_QUESTION
    }

    /// A new question, for a message to be sent at once.
    pub(super) fn open(self: &Rc<Self>) -> Result<Question, Error> {
        let mut table = self.0.borrow_mut();
        if let Some(reason) = &table.ended {
            return Err(reason.clone());
        }
        let index = match table.free.pop() {
            Some(index) => index,
            None if table.slots.len() == QUESTIONS_MAX => {
                return Err(Error::overloaded("too many calls are under way".to_owned()));
            }
            None => {
                table.slots.push(Slot::Free);
                u32::try_from(table.slots.len() - 1).expect("far below four thousand million")
            }
        };
        table.slots[index as usize] = Slot::Waiting(None, None);
        Ok(Question { questions: Rc::clone(self), index })
    }

    /// Brings an answer; false if nobody asked.
    pub(super) fn answer(
        &self,
        number: u32,
        answer: impl FnOnce() -> Result<Response, Error>,
    ) -> bool {
        let mut table = self.0.borrow_mut();
        let index = number - FIRST_QUESTION;
        let Some(slot) = table.slots.get_mut(index as usize) else {
            return false;
        };
        match slot {
            Slot::Waiting(waker, _) => {
                let waker = waker.take();
                *slot = Slot::Answered(answer().map_err(Unheard::Failed));
                drop(table);
                if let Some(waker) = waker {
                    waker.wake();
                }
            }
            Slot::Late => *slot = Slot::Answered(Err(Unheard::Late)),
            Slot::Abandoned => table.release(index),
            Slot::Free | Slot::Answered(_) => return false,
        }
        true
    }

    /// Tells those whose time is over. One look at all of them now and then costs less than a timer
    /// for each, which hardly ever goes off.
    pub(super) fn expire(&self, now: Instant) {
        let mut table = self.0.borrow_mut();
        let mut wakers = Vec::new();
        for slot in &mut table.slots {
            if let Slot::Waiting(waker, Some(until)) = slot
                && *until <= now
            {
                wakers.extend(waker.take());
                *slot = Slot::Late;
            }
        }
        drop(table);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// No more answers will come, for this reason.
    pub(super) fn end(&self, reason: &Error) {
        let mut table = self.0.borrow_mut();
        table.ended.get_or_insert_with(|| reason.clone());
        let mut wakers = Vec::new();
        for slot in &mut table.slots {
            if let Slot::Waiting(waker, _) = slot {
                wakers.extend(waker.take());
                *slot = Slot::Answered(Err(reason.clone().into()));
            }
        }
        drop(table);
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl Table {
    fn release(&mut self, index: u32) {
        self.slots[index as usize] = Slot::Free;
        self.free.push(index);
    }
}

/// A question that was asked; resolves to its answer. Dropped, it is asked all the same.
pub(crate) struct Question {
    questions: Rc<Questions>,
    index: u32,
}

impl Question {
    pub(super) fn number(&self) -> u32 {
        FIRST_QUESTION + self.index
    }

    /// Waits until then for the answer, and until [`Asking::expire`](super::Asking::expire) is
    /// called after that.
    pub(crate) fn within(self, until: Instant) -> Self {
        if let Slot::Waiting(_, limit) =
            &mut self.questions.0.borrow_mut().slots[self.index as usize]
        {
            *limit = Some(until);
        }
        self
    }
}

impl Future for Question {
    type Output = Answer;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Answer> {
        let mut table = self.questions.0.borrow_mut();
        match &mut table.slots[self.index as usize] {
            Slot::Waiting(Some(waker), _) => waker.clone_from(context.waker()),
            Slot::Waiting(none, _) => *none = Some(context.waker().clone()),
            Slot::Late => return Poll::Ready(Err(Unheard::Late)),
            slot => match std::mem::replace(slot, Slot::Abandoned) {
                // The place is given back when this is dropped: until then it is ours.
                Slot::Answered(answer) => {
                    *slot = Slot::Answered(Err(taken().into()));
                    return Poll::Ready(answer);
                }
                Slot::Free | Slot::Waiting(..) | Slot::Late | Slot::Abandoned => {
                    unreachable!("a question keeps its place until it is dropped")
                }
            },
        }
        Poll::Pending
    }
}

fn taken() -> Error {
    Error::failed("the answer was taken already".to_owned())
}

impl Drop for Question {
    fn drop(&mut self) {
        let mut table = self.questions.0.borrow_mut();
        match &mut table.slots[self.index as usize] {
            slot @ (Slot::Waiting(..) | Slot::Late) => *slot = Slot::Abandoned,
            Slot::Answered(_) => table.release(self.index),
            Slot::Free | Slot::Abandoned => {}
        }
    }
}
