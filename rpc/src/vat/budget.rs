//! What messages that have begun and not ended may hold, over all connections of a thread.
//!
//! Each connection may begin a message of any size that is allowed, and there are many connections:
//! without a limit for all of them, ten thousand visitors with a part of a message each could fill
//! the memory. When more is held than that, those that began first are closed: an honest one is
//! done by then.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};

use capnp::Error;

use super::wire::Wire;

/// Less than this is not counted; an idle connection may keep as much.
const UNCOUNTED_BYTES: usize = 4 << 10;

/// The limit, and who holds what.
#[derive(Default)]
pub(crate) struct Budget {
    bytes_max: usize,
    held_bytes: Cell<usize>,
    next: Cell<u64>,
    /// By the order in which they began.
    holders: RefCell<BTreeMap<u64, Holder>>,
}

struct Holder {
    wire: Weak<Wire>,
    bytes: usize,
}

/// One connection's part.
pub(super) struct Part {
    budget: Rc<Budget>,
    number: u64,
    bytes: usize,
}

impl Budget {
    pub(crate) fn new(bytes_max: usize) -> Rc<Self> {
        Rc::new(Self { bytes_max, ..Self::default() })
    }

    /// Bytes that unfinished messages hold.
    pub(crate) fn held_bytes(&self) -> usize {
        self.held_bytes.get()
    }

    /// Closes those that began first until the others fit.
    fn make_room(&self) {
        while self.held_bytes.get() > self.bytes_max {
            let Some((_, first)) = self.holders.borrow_mut().pop_first() else { return };
            self.held_bytes.set(self.held_bytes.get() - first.bytes);
            if let Some(wire) = first.wire.upgrade() {
                wire.close(Error::overloaded(format!(
                    "unfinished messages hold more than {} bytes, and this one began first",
                    self.bytes_max
                )));
            }
        }
    }

    fn release(&self, number: u64) {
        // Not there any more if the connection had to make room for others.
        if let Some(holder) = self.holders.borrow_mut().remove(&number) {
            self.held_bytes.set(self.held_bytes.get() - holder.bytes);
        }
    }
}

impl Part {
    /// Counts the bytes of an unfinished message, in `part` until it is dropped.
    pub(super) fn hold(part: &mut Option<Self>, wire: &Rc<Wire>, bytes: usize) {
        if bytes <= UNCOUNTED_BYTES {
            *part = None;
            return;
        }
        let Some(budget) = wire.budget() else { return };
        match part {
            Some(part) if part.bytes == bytes => {}
            Some(part) => part.resize(bytes),
            None => *part = Some(Self::new(budget, wire, bytes)),
        }
        budget.make_room();
    }

    fn new(budget: &Rc<Budget>, wire: &Rc<Wire>, bytes: usize) -> Self {
        let number = budget.next.get();
        budget.next.set(number + 1);
        let holder = Holder { wire: Rc::downgrade(wire), bytes };
        budget.holders.borrow_mut().insert(number, holder);
        budget.held_bytes.set(budget.held_bytes.get() + bytes);
        Self { budget: Rc::clone(budget), number, bytes }
    }

    fn resize(&mut self, bytes: usize) {
        self.bytes = bytes;
        let mut holders = self.budget.holders.borrow_mut();
        if let Some(holder) = holders.get_mut(&self.number) {
            let held = self.budget.held_bytes.get() - holder.bytes + bytes;
            self.budget.held_bytes.set(held);
            holder.bytes = bytes;
        }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.budget.release(self.number);
    }
}
