//! The messages of two-phase commit by which a replica gets what it missed.

use std::sync::Arc;

use kvorum_replication::two_phase::message::{Commit, CommitNumber, Message, SnapshotPiece};
use kvorum_replication::two_phase::record::{AppliedState, Pledge, Replicated};
use kvorum_replication::{NodeId, SnapshotId, Transaction};
use kvorum_schema::catch_up_capnp::{self as schema, message};

use super::super::client::{
    read_rows, read_stamp, read_write, write_rows, write_stamp, write_write,
};
use super::super::{
    MEMBERS_MAX, MESSAGES_MAX, OPERATIONS_MAX, Rejected, check_list, count, length,
};
use super::place;
use super::two_phase::{read_txn, write_nodes, write_txn};

/// Commits that are not over in one snapshot: more than replicas keep.
const COMMITTED_MAX: usize = 1 << 21;

/// About how many bytes a message takes on the wire, besides its frame.
pub(super) fn message_bytes(message: &Message) -> usize {
    match message {
        Message::Commits { commits, .. } => {
            let bytes = |commit: &Commit| {
                let writes = &commit.transaction.writes;
                80 + pledge_bytes(commit.pledge.as_ref())
                    + writes.iter().map(|write| write.bytes() + 40).sum::<usize>()
            };
            commits.iter().map(bytes).sum()
        }
        Message::FetchSnapshot { from, .. } => from.len(),
        Message::SnapshotPiece(SnapshotPiece { from, rows, last, .. }) => {
            let rows = rows.iter().map(|(key, value)| key.len() + value.len() + 32);
            let bytes = |it: &AppliedState| 56 + pledge_bytes(it.pledge.as_ref());
            let committed = last
                .as_ref()
                .map_or(0, |last| 80 + last.committed.iter().map(bytes).sum::<usize>());
            from.len() + rows.sum::<usize>() + committed
        }
        // The others have a size of their own, or none.
        _ => 0,
    }
}

fn pledge_bytes(pledge: Option<&Pledge>) -> usize {
    pledge.map_or(0, |pledge| 72 + 4 * pledge.participants.len())
}

pub(super) fn read_message(reader: message::Reader<'_>) -> Result<Message, Rejected> {
    Ok(match reader.which()? {
        message::FetchCommits(from) => Message::FetchCommits { from: CommitNumber(from) },
        message::Commits(commits) => read_commits(commits?)?,
        message::Truncated(first) => Message::Truncated { first: CommitNumber(first) },
        message::FetchSnapshot(fetch) => {
            let fetch = fetch?;
            let snapshot = (!fetch.get_is_newest()).then(|| SnapshotId(fetch.get_snapshot()));
            Message::FetchSnapshot { snapshot, from: place(fetch.get_from()?)? }
        }
        message::SnapshotPiece(piece) => Message::SnapshotPiece(read_piece(piece?)?),
        message::SnapshotGone(snapshot) => Message::SnapshotGone { snapshot: SnapshotId(snapshot) },
        message::Outside(outside) => {
            let outside = outside?;
            let applied = CommitNumber(outside.get_applied());
            let (life, promised) = (outside.get_life(), outside.get_promised());
            Message::Outside { life, applied, promised }
        }
        message::CatchUp(told) => {
            let told = told?;
            Message::CatchUp { to: CommitNumber(told.get_to()), anew: told.get_anew() }
        }
        message::Join(join) => {
            let join = join?;
            Message::Join {
                life: join.get_life(),
                from: read_txn(join.get_from()?),
                serve_from: CommitNumber(join.get_serve_from()),
                view: join.get_view(),
                others: count(join.get_others()),
            }
        }
    })
}

fn read_commits(reader: schema::commits::Reader<'_>) -> Result<Message, Rejected> {
    let commits = reader.get_commits()?;
    check_list("commits in one answer", commits.len(), MESSAGES_MAX)?;
    Ok(Message::Commits {
        from: CommitNumber(reader.get_from()),
        commits: commits.iter().map(read_commit).collect::<Result<_, _>>()?,
        applied: CommitNumber(reader.get_applied()),
        finished_below: read_txn(reader.get_finished_below()?),
        epoch: reader.get_epoch(),
    })
}

fn read_pledge(reader: schema::pledge::Reader<'_>) -> Result<Pledge, Rejected> {
    let participants = reader.get_participants()?;
    check_list("participants", participants.len(), MEMBERS_MAX)?;
    Ok(Pledge {
        participants: participants.iter().map(NodeId).collect(),
        stamp: read_stamp(reader.get_stamp()?),
    })
}

fn read_commit(reader: schema::commit::Reader<'_>) -> Result<Commit, Rejected> {
    let writes = reader.get_writes()?;
    check_list("writes of one commit", writes.len(), OPERATIONS_MAX)?;
    let writes = writes.iter().map(read_write).collect::<Result<_, _>>()?;
    Ok(Commit {
        number: CommitNumber(reader.get_number()),
        txn: read_txn(reader.get_txn()?),
        pledge: reader.has_pledge().then(|| read_pledge(reader.get_pledge()?)).transpose()?,
        transaction: Arc::new(Transaction { preconditions: Vec::new(), writes }),
    })
}

fn read_piece(reader: schema::snapshot_piece::Reader<'_>) -> Result<SnapshotPiece, Rejected> {
    let last = match reader.get_is_last() {
        true => Some(Arc::new(read_replicated(reader.get_replicated()?)?)),
        false => None,
    };
    Ok(SnapshotPiece {
        snapshot: SnapshotId(reader.get_snapshot()),
        from: place(reader.get_from()?)?,
        rows: read_rows(reader.get_rows()?)?,
        last,
    })
}

fn read_replicated(reader: schema::replicated::Reader<'_>) -> Result<Replicated, Rejected> {
    let committed = reader.get_committed()?;
    check_list("commits that are not over", committed.len(), COMMITTED_MAX)?;
    let read = |reader: schema::committed::Reader<'_>| -> Result<AppliedState, Rejected> {
        Ok(AppliedState {
            txn: read_txn(reader.get_txn()?),
            number: CommitNumber(reader.get_number()),
            pledge: reader.has_pledge().then(|| read_pledge(reader.get_pledge()?)).transpose()?,
        })
    };
    Ok(Replicated {
        applied: CommitNumber(reader.get_applied()),
        finished_below: read_txn(reader.get_finished_below()?),
        committed: committed.iter().map(read).collect::<Result<_, _>>()?,
        epoch: reader.get_epoch(),
    })
}

/// One of the messages that [`read_message`] reads; of others nothing is written.
pub(super) fn write_message(message: &Message, mut builder: message::Builder<'_>) {
    match message {
        Message::FetchCommits { from } => builder.set_fetch_commits(from.0),
        Message::Commits { from, commits, applied, finished_below, epoch } => {
            let mut builder = builder.init_commits();
            builder.set_from(from.0);
            builder.set_applied(applied.0);
            builder.set_epoch(*epoch);
            write_txn(*finished_below, builder.reborrow().init_finished_below());
            let mut list = builder.init_commits(length(commits.len()));
            for (index, commit) in (0..).zip(commits) {
                write_commit(commit, list.reborrow().get(index));
            }
        }
        Message::Truncated { first } => builder.set_truncated(first.0),
        Message::FetchSnapshot { snapshot, from } => {
            let mut builder = builder.init_fetch_snapshot();
            match snapshot {
                Some(snapshot) => builder.set_snapshot(snapshot.0),
                None => builder.set_is_newest(true),
            }
            builder.set_from(from);
        }
        Message::SnapshotPiece(piece) => write_piece(piece, builder.init_snapshot_piece()),
        Message::SnapshotGone { snapshot } => builder.set_snapshot_gone(snapshot.0),
        Message::Outside { life, applied, promised } => {
            let mut builder = builder.init_outside();
            builder.set_promised(*promised);
            builder.set_life(*life);
            builder.set_applied(applied.0);
        }
        Message::CatchUp { to, anew } => {
            let mut builder = builder.init_catch_up();
            builder.set_to(to.0);
            builder.set_anew(*anew);
        }
        Message::Join { life, from, serve_from, view, others } => {
            let mut builder = builder.init_join();
            builder.set_view(*view);
            builder.set_others(length(*others));
            builder.set_life(*life);
            builder.set_serve_from(serve_from.0);
            write_txn(*from, builder.init_from());
        }
        Message::Prepare(_)
        | Message::Vote { .. }
        | Message::Decide { .. }
        | Message::Acknowledge { .. }
        | Message::Inquire { .. }
        | Message::Inform { .. }
        | Message::Recover { .. }
        | Message::Recovered(_)
        | Message::View(_)
        | Message::Read { .. }
        | Message::ReadAnswer { .. } => unreachable!("these have a place of their own"),
    }
}

fn write_commit(commit: &Commit, mut builder: schema::commit::Builder<'_>) {
    builder.set_number(commit.number.0);
    write_txn(commit.txn, builder.reborrow().init_txn());
    if let Some(pledge) = &commit.pledge {
        write_pledge(pledge, builder.reborrow().init_pledge());
    }
    let writes = &commit.transaction.writes;
    let mut list = builder.init_writes(length(writes.len()));
    for (index, write) in (0..).zip(writes) {
        write_write(write, list.reborrow().get(index));
    }
}

fn write_pledge(pledge: &Pledge, mut builder: schema::pledge::Builder<'_>) {
    let Pledge { participants, stamp } = pledge;
    write_nodes(participants, builder.reborrow().init_participants(length(participants.len())));
    write_stamp(*stamp, builder.init_stamp());
}

fn write_piece(piece: &SnapshotPiece, mut builder: schema::snapshot_piece::Builder<'_>) {
    builder.set_snapshot(piece.snapshot.0);
    builder.set_from(&piece.from);
    write_rows(&piece.rows, builder.reborrow().init_rows(length(piece.rows.len())));
    let Some(replicated) = &piece.last else { return };
    builder.set_is_last(true);
    let mut builder = builder.init_replicated();
    builder.set_applied(replicated.applied.0);
    builder.set_epoch(replicated.epoch);
    write_txn(replicated.finished_below, builder.reborrow().init_finished_below());
    let mut list = builder.init_committed(length(replicated.committed.len()));
    for (index, AppliedState { txn, number, pledge }) in (0..).zip(&replicated.committed) {
        let mut builder = list.reborrow().get(index);
        builder.set_number(number.0);
        write_txn(*txn, builder.reborrow().init_txn());
        if let Some(pledge) = pledge {
            write_pledge(pledge, builder.init_pledge());
        }
    }
}
