//! What a node has written down, as a judge remembers it: kept beside the node's log, out of
//! nothing but the records appended and how far the log says that it is durable.

use std::collections::BTreeMap;

use kvorum_replication::two_phase::message::{CommitNumber, Decision, TxnId};
use kvorum_replication::two_phase::record::{CoordinatorRecord, ParticipantRecord, View};
use kvorum_replication::{ClientId, NodeId, Position, Stamp, Write};

/// Which write of which session.
pub(super) type Asked = (ClientId, u64);

/// What a judge has to know of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Note {
    Started {
        epoch: u64,
    },
    Prepared {
        txn: TxnId,
    },
    Committed {
        txn: TxnId,
        number: CommitNumber,
        asked: Option<Asked>,
        participants: Vec<NodeId>,
    },
    Aborted {
        txn: TxnId,
    },
    Ended {
        txn: TxnId,
    },
    /// To a restarted coordinator: nothing of an older epoch is prepared any more.
    Promised {
        epoch: u64,
    },
    Decided {
        txn: TxnId,
        decision: Decision,
    },
    Alone {
        txn: TxnId,
        asked: Option<Asked>,
        writes: Vec<Write>,
    },
    /// Commits that another replica has passed on.
    Learned {
        commits: Vec<(TxnId, CommitNumber)>,
    },
    /// The rows of another replica, with the commits in them that are not over.
    Installed {
        applied: CommitNumber,
        decided: Vec<(TxnId, Decision)>,
    },
    /// It takes part in nothing: a life of this number begins, or was left out.
    Outside {
        life: u64,
    },
    /// A life of this number is let in.
    Joined {
        life: u64,
    },
    /// The coordinator's, of whom writes need.
    View(Box<View>),
    /// A replica knows of the view of this number.
    KnowsView {
        number: u64,
    },
    Other,
}

fn asked(stamp: Stamp) -> Asked {
    (stamp.client, stamp.sequence)
}

impl From<CoordinatorRecord> for Note {
    fn from(record: CoordinatorRecord) -> Self {
        match record {
            CoordinatorRecord::Started { epoch, .. } => Self::Started { epoch },
            CoordinatorRecord::Committed { txn, number, stamp, participants } => Self::Committed {
                txn,
                number,
                asked: stamp.map(asked),
                participants: participants.to_vec(),
            },
            CoordinatorRecord::Aborted { txn, .. } => Self::Aborted { txn },
            CoordinatorRecord::Ended { txn } => Self::Ended { txn },
            CoordinatorRecord::View(view) => Self::View(view),
            CoordinatorRecord::SessionOpened { .. } | CoordinatorRecord::Checkpoint(_) => {
                Self::Other
            }
        }
    }
}

impl From<ParticipantRecord> for Note {
    fn from(record: ParticipantRecord) -> Self {
        match record {
            ParticipantRecord::Started { incarnation } => Self::Started { epoch: incarnation },
            ParticipantRecord::Prepared(prepared) => Self::Prepared { txn: prepared.txn },
            ParticipantRecord::Promised { epoch } => Self::Promised { epoch },
            ParticipantRecord::Decided { txn, decision } => Self::Decided { txn, decision },
            ParticipantRecord::CommittedAlone { txn, stamp, writes } => {
                Self::Alone { txn, asked: stamp.map(asked), writes: writes.into_list() }
            }
            ParticipantRecord::Learned { commits, .. } => Self::Learned {
                commits: commits.into_iter().map(|commit| (commit.txn, commit.number)).collect(),
            },
            ParticipantRecord::Installed { checkpoint, .. } => Self::Installed {
                applied: checkpoint
                    .coordinators
                    .iter()
                    .map(|it| it.applied)
                    .max()
                    .unwrap_or_default(),
                decided: checkpoint.decided.into_iter().map(|it| (it.txn, it.decision)).collect(),
            },
            ParticipantRecord::Joined { life, .. } => Self::Joined { life },
            ParticipantRecord::View { number, .. } => Self::KnowsView { number },
            ParticipantRecord::Outside { life } => Self::Outside { life },
            ParticipantRecord::Checkpoint(_) => Self::Other,
        }
    }
}

/// One node's records, oldest first, of all its runs.
#[derive(Debug, Default)]
pub(super) struct Diary {
    notes: BTreeMap<Position, Note>,
    /// Up to here the node has been seen to be durable.
    durable: Position,
    prepared: BTreeMap<TxnId, Position>,
    decided: BTreeMap<TxnId, (Decision, Position)>,
    committed: BTreeMap<TxnId, (CommitNumber, Position)>,
    /// Writes of sessions that are committed here.
    asked: BTreeMap<Asked, Position>,
    alone: BTreeMap<TxnId, Position>,
    aborted: BTreeMap<TxnId, Position>,
    promised: BTreeMap<u64, Position>,
    started: BTreeMap<u64, Position>,
    /// Up to which commit the rows of another replica reach.
    installed: Vec<(CommitNumber, Position)>,
    let_in: BTreeMap<u64, Position>,
    /// Which life takes part from there on, or does not.
    standing: Vec<(Standing, Position)>,
    views: Vec<(View, Position)>,
    knows: BTreeMap<u64, Position>,
}

/// Whether a life of a replica takes part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) life: u64,
    pub(super) is_outside: bool,
}

impl Diary {
    pub(super) fn add(&mut self, at: Position, note: Note) {
        match &note {
            Note::Started { epoch } => {
                self.started.insert(*epoch, at);
            }
            Note::Prepared { txn } => {
                self.prepared.insert(*txn, at);
            }
            Note::Committed { txn, number, asked, .. } => {
                self.committed.insert(*txn, (*number, at));
                self.asked.extend(asked.map(|asked| (asked, at)));
            }
            Note::Decided { txn, decision } => {
                self.decided.insert(*txn, (*decision, at));
            }
            Note::Alone { txn, asked, .. } => {
                self.alone.insert(*txn, at);
                self.asked.extend(asked.map(|asked| (asked, at)));
            }
            Note::Aborted { txn } => {
                self.aborted.insert(*txn, at);
            }
            Note::Promised { epoch } => {
                self.promised.insert(*epoch, at);
            }
            Note::Learned { commits } => {
                let decided = |(txn, number): &_| (*txn, (Decision::Commit(*number), at));
                self.decided.extend(commits.iter().map(decided));
            }
            Note::Installed { applied, decided } => {
                self.installed.push((*applied, at));
                for (txn, decision) in decided {
                    // What stood here before is as durable as it was.
                    if self.decided.get(txn).is_none_or(|(known, _)| known != decision) {
                        self.decided.insert(*txn, (*decision, at));
                    }
                }
            }
            Note::Outside { life } => {
                self.standing.push((Standing { life: *life, is_outside: true }, at));
            }
            Note::Joined { life } => {
                self.let_in.entry(*life).or_insert(at);
                self.standing.push((Standing { life: *life, is_outside: false }, at));
            }
            Note::View(view) => self.views.push((View::clone(view), at)),
            Note::KnowsView { number } => {
                self.knows.entry(*number).or_insert(at);
            }
            Note::Ended { .. } | Note::Other => {}
        }
        self.notes.insert(at, note);
    }

    /// The log says that it is durable up to here.
    pub(super) fn is_durable(&mut self, to: Position) {
        self.durable = self.durable.max(to);
    }

    pub(super) fn durable(&self) -> Position {
        self.durable
    }

    /// A new run found records up to `last`: what stood behind is gone, the rest is durable.
    pub(super) fn reopened(&mut self, last: Position) {
        self.notes.split_off(&last.next());
        let kept = |at: &Position| *at <= last;
        self.prepared.retain(|_, at| kept(at));
        self.decided.retain(|_, (_, at)| kept(at));
        self.committed.retain(|_, (_, at)| kept(at));
        self.asked.retain(|_, at| kept(at));
        self.alone.retain(|_, at| kept(at));
        self.aborted.retain(|_, at| kept(at));
        self.promised.retain(|_, at| kept(at));
        self.started.retain(|_, at| kept(at));
        self.installed.retain(|(_, at)| kept(at));
        self.let_in.retain(|_, at| kept(at));
        self.standing.retain(|(_, at)| kept(at));
        self.views.retain(|(_, at)| kept(at));
        self.knows.retain(|_, at| kept(at));
        self.durable = last;
    }

    fn has(&self, at: Option<&Position>) -> bool {
        at.is_some_and(|at| *at <= self.durable)
    }

    pub(super) fn has_started(&self, epoch: u64) -> bool {
        self.has(self.started.get(&epoch))
    }

    pub(super) fn has_prepared(&self, txn: TxnId) -> bool {
        self.has(self.prepared.get(&txn))
    }

    /// Whether this coordinator has durably written that it was aborted.
    pub(super) fn has_aborted(&self, txn: TxnId) -> bool {
        self.has(self.aborted.get(&txn))
    }

    /// Whether this participant has durably promised an epoch to a restarted coordinator.
    pub(super) fn has_promised(&self, epoch: u64) -> bool {
        self.has(self.promised.get(&epoch))
    }

    /// The newest epoch that it has promised, durably or not.
    pub(super) fn newest_promise(&self) -> u64 {
        self.promised.keys().next_back().copied().unwrap_or_default()
    }

    /// Whether it promised what it had written down as decided before. (A vote may leave after the
    /// decision, since it waits for its record.)
    pub(super) fn has_prepared_after_decision(&self, txn: TxnId) -> bool {
        let decided = self.decided.get(&txn).map(|(_, at)| at);
        decided.is_some_and(|decided| self.prepared.get(&txn).is_some_and(|at| at > decided))
    }

    /// The place of a commit whose record is durable.
    pub(super) fn committed(&self, txn: TxnId) -> Option<CommitNumber> {
        self.committed.get(&txn).filter(|(_, at)| *at <= self.durable).map(|(number, _)| *number)
    }

    /// What the node wrote down of the end of a transaction, durably or not.
    pub(super) fn decided(&self, txn: TxnId) -> Option<(Decision, bool)> {
        self.decided.get(&txn).map(|(decision, at)| (*decision, *at <= self.durable))
    }

    /// The newest commit in rows of another replica that stand here durably.
    pub(super) fn installed(&self) -> CommitNumber {
        let durable = self.installed.iter().filter(|(_, at)| *at <= self.durable);
        durable.map(|(applied, _)| *applied).max().unwrap_or_default()
    }

    /// How it stands by its last word of that, durable or not.
    pub(super) fn standing(&self) -> Standing {
        self.standing.last().map_or(Standing::default(), |(standing, _)| *standing)
    }

    /// Whether this commit's writes are in its log for good, or rows that have them.
    pub(super) fn keeps(&self, txn: TxnId, number: CommitNumber) -> bool {
        let outside = self.standing.iter().rev().find(|(standing, _)| standing.is_outside);
        let binds = |at: &&Position| outside.is_none_or(|(_, since)| **at > *since);
        let is_prepared = self.has(self.prepared.get(&txn).filter(binds));
        is_prepared
            || number <= self.installed()
            || self.decided(txn).is_some_and(|(_, is_durable)| is_durable)
    }

    /// The coordinator's views whose records are durable, the newest last.
    pub(super) fn views(&self) -> impl DoubleEndedIterator<Item = &View> {
        let durable = self.views.iter().filter(|(_, at)| *at <= self.durable);
        durable.map(|(view, _)| view)
    }

    /// The newest that it has written down, durable or not.
    pub(super) fn newest_view(&self) -> Option<&View> {
        self.views.last().map(|(view, _)| view)
    }

    /// The newest view that this replica knows, durably.
    pub(super) fn knows_view(&self) -> u64 {
        let durable = self.knows.iter().rev().find(|(_, at)| **at <= self.durable);
        durable.map_or(0, |(number, _)| *number)
    }

    pub(super) fn is_let_in(&self, life: u64) -> bool {
        self.has(self.let_in.get(&life))
    }

    pub(super) fn has_alone(&self, txn: TxnId) -> bool {
        self.has(self.alone.get(&txn))
    }

    pub(super) fn has_committed_for(&self, asked: Asked) -> bool {
        self.has(self.asked.get(&asked))
    }

    /// The newest commit that this coordinator has written down, durably or not.
    pub(super) fn newest_commit(&self) -> CommitNumber {
        self.committed.values().map(|(number, _)| *number).max().unwrap_or(CommitNumber::ZERO)
    }

    /// The writes of what this replica committed alone, in order.
    pub(super) fn alone_writes(&self) -> impl Iterator<Item = &Write> {
        let writes = self.notes.values().filter_map(|note| match note {
            Note::Alone { writes, .. } => Some(writes),
            _ => None,
        });
        writes.flatten()
    }

    pub(super) fn alone_len(&self) -> usize {
        self.alone.len()
    }
}
