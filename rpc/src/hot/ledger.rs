//! What the other side has asked on one connection, and who answers it: capnp-rpc or the hot path.

use std::cell::{Cell, RefCell};
use std::collections::hash_map::Entry;

use capnp::Error;
use capnp::traits::HasTypeId;
use capnp_rpc::rpc_capnp::{bootstrap, call, finish, message_target, release};
use capnp_rpc::rpc_capnp::{return_, return_::Which as Returned};
use kvorum_schema::client_capnp::{gate, key_value};

use super::{GATE_CLIENT, Method, given};
use crate::numbers::NumberMap;

/// Large answers that are made at once. Those that wait to be written bound themselves.
const LARGE_CALLS_MAX: usize = 16;

/// The other side's open questions. Bounded by the limits on calls and on unfinished answers.
#[derive(Default)]
pub(crate) struct Ledger {
    open: RefCell<NumberMap<u32, Asked>>,
    store: Cell<Option<Store>>,
    /// Calls on the store that capnp-rpc has taken and not brought there yet.
    on_the_way: Cell<usize>,
    /// Calls on the store that capnp-rpc has taken and not answered.
    slow_calls: Cell<usize>,
    /// Those among them that a few bytes asked for, and that are answered with many.
    large_calls: Cell<usize>,
}

/// An open question.
enum Asked {
    /// The hot path answers it.
    Hot {
        /// The other side does not care any more.
        finished: bool,
    },
    /// capnp-rpc answers it.
    Slow { what: What, returned: bool, finished: bool },
}

/// What capnp-rpc was asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    /// The store itself.
    Store,
    /// Something of the store.
    StoreCall,
    /// Many rows or values of it.
    LargeStoreCall,
    Other,
}

impl What {
    fn of(call: call::Reader<'_>) -> Self {
        match (call.get_interface_id(), call.get_method_id()) {
            (gate::Client::TYPE_ID, GATE_CLIENT) => Self::Store,
            (key_value::Client::TYPE_ID, method) => match Method::of(method) {
                Some(Method::Scan | Method::GetMany) => Self::LargeStoreCall,
                _ => Self::StoreCall,
            },
            _ => Self::Other,
        }
    }

    fn is_store_call(self) -> bool {
        matches!(self, Self::StoreCall | Self::LargeStoreCall)
    }
}

/// The store as the other side may call it.
#[derive(Clone, Copy)]
struct Store {
    export: u32,
    /// How often the other side was given it and has not released it.
    references: u32,
}

impl Ledger {
    /// Whether the store is what is called, and no call on it is still on its way there.
    pub(super) fn may_shortcut(&self, call: call::Reader<'_>) -> bool {
        let Ok(Ok(message_target::ImportedCap(target))) =
            call.get_target().map(|target| target.which())
        else {
            return false;
        };
        self.may_call(target)
            && call.get_interface_id() == key_value::Client::TYPE_ID
            && matches!(call.get_send_results_to().which(), Ok(call::send_results_to::Caller(())))
    }

    /// Whether this is the store, and no call on it is still on its way there.
    pub(super) fn may_call(&self, target: u32) -> bool {
        self.on_the_way.get() == 0 && self.store.get().is_some_and(|store| store.export == target)
    }

    /// The hot path will answer this.
    pub(super) fn ask_hot(&self, question: u32) -> Result<(), Error> {
        self.ask(question, Asked::Hot { finished: false })
    }

    /// capnp-rpc will answer this call.
    pub(super) fn ask_slow(&self, call: call::Reader<'_>) -> Result<(), Error> {
        let what = What::of(call);
        let slow = Asked::Slow { what, returned: false, finished: false };
        self.ask(call.get_question_id(), slow)?;
        if what.is_store_call() {
            self.on_the_way.set(self.on_the_way.get() + 1);
            self.slow_calls.set(self.slow_calls.get() + 1);
        }
        if what == What::LargeStoreCall {
            self.large_calls.set(self.large_calls.get() + 1);
        }
        Ok(())
    }

    pub(super) fn ask_bootstrap(&self, bootstrap: bootstrap::Reader<'_>) -> Result<(), Error> {
        let slow = Asked::Slow { what: What::Other, returned: false, finished: false };
        self.ask(bootstrap.get_question_id(), slow)
    }

    /// Says what is wrong if a question's number is in use.
    pub(super) fn check_new(&self, question: u32) -> Result<(), Error> {
        match self.open.borrow().contains_key(&question) {
            true => Err(asked_twice(question)),
            false => Ok(()),
        }
    }

    fn ask(&self, question: u32, asked: Asked) -> Result<(), Error> {
        match self.open.borrow_mut().entry(question) {
            Entry::Vacant(entry) => {
                entry.insert(asked);
                Ok(())
            }
            Entry::Occupied(_) => Err(asked_twice(question)),
        }
    }

    /// Whether so many large answers are being made that no more may be asked for.
    pub(super) fn is_full(&self) -> bool {
        self.large_calls.get() >= LARGE_CALLS_MAX
    }

    /// A call that went through capnp-rpc has reached the store.
    pub(crate) fn arrived(&self) {
        self.on_the_way.set(self.on_the_way.get().saturating_sub(1));
    }

    /// The other side is finished with a question; whether that is for capnp-rpc to know. Of what
    /// needs no such word, and was answered, nothing is known any more.
    pub(super) fn finish(&self, finish: finish::Reader<'_>) -> bool {
        let question = finish.get_question_id();
        let mut open = self.open.borrow_mut();
        let (what, returned) = match open.get_mut(&question) {
            None => return false,
            Some(Asked::Hot { finished }) => {
                *finished = true;
                return false;
            }
            // Whoever says it twice has said it.
            Some(Asked::Slow { finished: true, .. }) => return true,
            Some(Asked::Slow { what, returned, finished }) => {
                *finished = true;
                (*what, *returned)
            }
        };
        match returned {
            true => {
                open.remove(&question);
                if what == What::Store && finish.get_release_result_caps() {
                    self.drop_references(1);
                }
            }
            // capnp-rpc never answers what was cancelled: the number stays taken.
            false => self.ended(what),
        }
        true
    }

    /// The other side lets go of a capability.
    pub(super) fn release(&self, release: release::Reader<'_>) {
        if self.store.get().is_some_and(|store| store.export == release.get_id()) {
            self.drop_references(release.get_reference_count());
        }
    }

    fn drop_references(&self, count: u32) {
        let left = self.store.get().and_then(|store| {
            let references = store.references.saturating_sub(count);
            (references > 0).then_some(Store { references, ..store })
        });
        self.store.set(left);
    }

    /// capnp-rpc answers a question.
    pub(super) fn return_slow(&self, answer: return_::Reader<'_>) {
        let question = answer.get_answer_id();
        let mut open = self.open.borrow_mut();
        let Some(Asked::Slow { what, returned, finished }) = open.get_mut(&question) else {
            return;
        };
        *returned = true;
        let (what, finished) = (*what, *finished);
        if finished || answer.get_no_finish_needed() {
            open.remove(&question);
        }
        if finished {
            return;
        }
        self.ended(what);
        if what == What::Store
            && let Ok(Returned::Results(Ok(results))) = answer.which()
            && let Some(export) = given(results)
        {
            self.store.set(Some(match self.store.get() {
                Some(store) if store.export == export => {
                    Store { references: store.references + 1, ..store }
                }
                Some(_) | None => Store { export, references: 1 },
            }));
        }
    }

    /// capnp-rpc is done with a question, or will never be.
    fn ended(&self, what: What) {
        if what == What::LargeStoreCall {
            self.large_calls.set(self.large_calls.get().saturating_sub(1));
        }
        if what.is_store_call() {
            self.slow_calls.set(self.slow_calls.get().saturating_sub(1));
            if self.slow_calls.get() == 0 {
                // What never got there, because there is no such method, will not any more.
                self.on_the_way.set(0);
            }
        }
    }

    /// The hot path answers a question; whether the other side had not lost interest.
    pub(super) fn return_hot(&self, question: u32) -> bool {
        match self.open.borrow_mut().remove(&question) {
            Some(Asked::Hot { finished }) => !finished,
            Some(Asked::Slow { .. }) | None => false,
        }
    }
}

fn asked_twice(question: u32) -> Error {
    Error::failed(format!("question {question} was asked while it was open"))
}
