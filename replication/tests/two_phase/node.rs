//! The two cores of a cluster with a coordinator, as one: what a machine of either kind runs.

use std::sync::Arc;

use kvorum_replication::two_phase::message::{Message, TxnId};
use kvorum_replication::two_phase::record::{CoordinatorRecord, ParticipantRecord};
use kvorum_replication::two_phase::{Coordinator, Participant};
use kvorum_replication::{
    Core, Effect, Effects, Input, Position, RequestId, Status, Time, Transaction,
};

/// One of them, with what it wants done.
pub(crate) struct Running<C: Core> {
    core: C,
    effects: Effects<Message, C::Record, C::Resume>,
}

pub(crate) enum Node {
    Coordinator(Box<Running<Coordinator>>),
    Participant(Box<Running<Participant>>),
}

/// What belongs to one of the two kinds.
#[derive(Clone, Debug)]
pub(crate) enum Of<C, P> {
    Coordinator(C),
    Participant(P),
}

pub(crate) type Record = Of<CoordinatorRecord, ParticipantRecord>;
pub(crate) type Resume = Of<<Coordinator as Core>::Resume, <Participant as Core>::Resume>;

impl Node {
    /// The requests that wait for transactions here.
    pub(crate) fn waiting(&self) -> Vec<(RequestId, TxnId)> {
        match self {
            Self::Coordinator(it) => it.core.audit().waiting,
            Self::Participant(_) => Vec::new(),
        }
    }

    pub(crate) fn coordinator(core: Coordinator, armed: &[String]) -> Self {
        let effects = Effects::with_points(armed.to_vec());
        Self::Coordinator(Box::new(Running { core, effects }))
    }

    pub(crate) fn participant(core: Participant, armed: &[String]) -> Self {
        let effects = Effects::with_points(armed.to_vec());
        Self::Participant(Box::new(Running { core, effects }))
    }
}

impl Node {
    /// What has begun and was not sent to anybody.
    pub(crate) fn gathered(&self) -> Vec<(TxnId, Arc<Transaction>)> {
        match self {
            Self::Coordinator(running) => running.core.audit().gathered,
            Self::Participant(_) => Vec::new(),
        }
    }
}

/// Passes effects on, wrapped in what says whose they are.
fn pass<P, R>(
    from: &mut Effects<Message, P, R>,
    into: &mut Effects<Message, Record, Resume>,
    wrap_record: impl Fn(P) -> Record,
    wrap_resume: impl Fn(R) -> Resume,
) {
    for effect in from.drain() {
        into.push(match effect {
            Effect::Persist { at, record, urgency } => {
                Effect::Persist { at, record: wrap_record(record), urgency }
            }
            Effect::Resume(resume) => Effect::Resume(wrap_resume(resume)),
            Effect::Send { to, message } => Effect::Send { to, message },
            Effect::Apply { mark, writes } => Effect::Apply { mark, writes },
            Effect::Reply { request, outcome } => Effect::Reply { request, outcome },
            Effect::Read { read, query } => Effect::Read { read, query },
            Effect::TakeSnapshot(snapshot) => Effect::TakeSnapshot(snapshot),
            Effect::ReadSnapshot { read, snapshot, query } => {
                Effect::ReadSnapshot { read, snapshot, query }
            }
            Effect::DropSnapshot(snapshot) => Effect::DropSnapshot(snapshot),
            Effect::Stage { snapshot, first, rows, last } => {
                Effect::Stage { snapshot, first, rows, last }
            }
            Effect::Install(snapshot) => Effect::Install(snapshot),
            Effect::SetTimer(at) => Effect::SetTimer(at),
            Effect::Release(position) => Effect::Release(position),
            Effect::Point(name) => Effect::Point(name),
        });
    }
}

/// An input for a core that takes back what it wanted resumed.
fn unwrap<R>(
    input: Input<Message, Resume>,
    unwrap_resume: impl Fn(Resume) -> R,
) -> Input<Message, R> {
    match input {
        Input::Resume(resume) => Input::Resume(unwrap_resume(resume)),
        Input::Started => Input::Started,
        Input::Request(request) => Input::Request(request),
        Input::Message { from, message } => Input::Message { from, message },
        Input::PeerUp(peer) => Input::PeerUp(peer),
        Input::PeerDown(peer) => Input::PeerDown(peer),
        Input::Timer => Input::Timer,
        Input::Read { read, answer } => Input::Read { read, answer },
        Input::Staged { snapshot, is_kept } => Input::Staged { snapshot, is_kept },
        Input::Room(has_room) => Input::Room(has_room),
        Input::Checkpoint => Input::Checkpoint,
        Input::Stopping => Input::Stopping,
    }
}

impl Core for Node {
    type Message = Message;
    type Record = Record;
    type Resume = Resume;

    fn step(
        &mut self,
        now: Time,
        input: Input<Message, Resume>,
        effects: &mut Effects<Message, Record, Resume>,
    ) {
        match self {
            Self::Coordinator(it) => {
                let input = unwrap(input, |resume| match resume {
                    Of::Coordinator(resume) => resume,
                    Of::Participant(_) => unreachable!("a coordinator's resume"),
                });
                it.core.step(now, input, &mut it.effects);
                pass(&mut it.effects, effects, Of::Coordinator, Of::Coordinator);
            }
            Self::Participant(it) => {
                let input = unwrap(input, |resume| match resume {
                    Of::Participant(resume) => resume,
                    Of::Coordinator(_) => unreachable!("a participant's resume"),
                });
                it.core.step(now, input, &mut it.effects);
                pass(&mut it.effects, effects, Of::Participant, Of::Participant);
            }
        }
    }

    fn recover(
        &mut self,
        at: Position,
        record: Record,
        effects: &mut Effects<Message, Record, Resume>,
    ) {
        match (self, record) {
            (Self::Coordinator(it), Of::Coordinator(record)) => {
                it.core.recover(at, record, &mut it.effects);
                pass(&mut it.effects, effects, Of::Coordinator, Of::Coordinator);
            }
            (Self::Participant(it), Of::Participant(record)) => {
                it.core.recover(at, record, &mut it.effects);
                pass(&mut it.effects, effects, Of::Participant, Of::Participant);
            }
            (_, record) => panic!("another kind of node wrote {record:?}"),
        }
    }

    fn status(&self, now: Time) -> Status {
        match self {
            Self::Coordinator(it) => it.core.status(now),
            Self::Participant(it) => it.core.status(now),
        }
    }
}
