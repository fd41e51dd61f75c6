//! The records of Multi-Paxos: from kind 48.
//!
//! ```text
//!  48 Started      incarnation, life
//!  49 Promised     ballot
//!  50 Accepted     slot, ballot, 0 | 1 origin, commands        0: the origin is the ballot
//!  51 Learned      slot, origin, commands
//!  52 Chosen       slot, refusals: slot, index, precondition
//!  53 Forgot       life
//!  54 Checkpoint   incarnation, life, promised, replicated state
//!  55 Installed    the same
//!
//!  ballot          round, node
//!  command         0                                           open a session
//!                  1 stamp, preconditions, writes              transact
//!                  2 members: node, life                       change the members
//!  replicated      applied, sets: slot, members; next client, sessions:
//!                      client, answered below, settled: sequence, 0 | 1 + precondition
//! ```
//!
//! Numbers are varints, lists and slices begin with their length. An accepted batch is the one record
//! of a commit that is large, and the only place where its value is written.

use std::ops::RangeInclusive;
use std::sync::Arc;

use bytes::Bytes;
use kvorum_replication::paxos::message::{Ballot, Batch, Command, Member, Slot};
use kvorum_replication::paxos::record::{Checkpoint, Record, Refusal, Replicated};
use kvorum_storage::codec::{Malformed, put_varint};

use super::StoredRecord;
use super::fields::{Fields, put_list, put_sessions, put_stamp, put_transaction};

const STARTED: u8 = 48;
const PROMISED: u8 = 49;
const ACCEPTED: u8 = 50;
const LEARNED: u8 = 51;
const CHOSEN: u8 = 52;
const FORGOT: u8 = 53;
const CHECKPOINT: u8 = 54;
const INSTALLED: u8 = 55;

impl StoredRecord for Record {
    fn encode(&self, payload: &mut Vec<u8>) -> u8 {
        match self {
            Self::Started { incarnation, life } => {
                put_varint(payload, *incarnation);
                put_varint(payload, *life);
                STARTED
            }
            Self::Promised { ballot } => {
                put_ballot(payload, *ballot);
                PROMISED
            }
            Self::Accepted { slot, ballot, batch } => {
                put_varint(payload, slot.0);
                put_ballot(payload, *ballot);
                payload.push((batch.origin != *ballot).into());
                if batch.origin != *ballot {
                    put_ballot(payload, batch.origin);
                }
                put_list(payload, &batch.commands, put_command);
                ACCEPTED
            }
            Self::Learned { slot, batch } => {
                put_varint(payload, slot.0);
                put_ballot(payload, batch.origin);
                put_list(payload, &batch.commands, put_command);
                LEARNED
            }
            Self::Chosen { slot, refused } => {
                put_varint(payload, slot.0);
                put_list(payload, refused, put_refusal);
                CHOSEN
            }
            Self::Forgot { life } => {
                put_varint(payload, *life);
                FORGOT
            }
            Self::Checkpoint(checkpoint) => {
                put_checkpoint(payload, checkpoint);
                CHECKPOINT
            }
            Self::Installed(checkpoint) => {
                put_checkpoint(payload, checkpoint);
                INSTALLED
            }
        }
    }

    fn decode(kind: u8, payload: &Bytes) -> Result<Self, Malformed> {
        let mut fields = Fields::new(payload);
        let record = match kind {
            STARTED => Self::Started { incarnation: fields.number()?, life: fields.number()? },
            PROMISED => Self::Promised { ballot: ballot(&mut fields)? },
            ACCEPTED => accepted(&mut fields)?,
            LEARNED => {
                let slot = Slot(fields.number()?);
                let origin = ballot(&mut fields)?;
                Self::Learned { slot, batch: batch(origin, &mut fields)? }
            }
            CHOSEN => Self::Chosen { slot: Slot(fields.number()?), refused: fields.list(refusal)? },
            FORGOT => Self::Forgot { life: fields.number()? },
            CHECKPOINT => Self::Checkpoint(checkpoint(&mut fields)?),
            INSTALLED => Self::Installed(checkpoint(&mut fields)?),
            _ => return Err(Malformed("not a kind of record that a Paxos replica keeps")),
        };
        fields.finish()?;
        Ok(record)
    }

    fn is_checkpoint(kind: u8) -> bool {
        kind == CHECKPOINT || kind == INSTALLED
    }
}

/// The kinds of a Paxos replica.
pub(super) const KINDS: RangeInclusive<u8> = STARTED..=INSTALLED;

/// The mark of the staged rows that a record has installed, if it is one that does.
pub(crate) fn installs(kind: u8, payload: &Bytes) -> Option<u64> {
    if kind != INSTALLED {
        return None;
    }
    let checkpoint = checkpoint(&mut Fields::new(payload)).ok()?;
    Some(checkpoint.replicated.snapshot().0)
}

fn accepted(fields: &mut Fields<'_>) -> Result<Record, Malformed> {
    let slot = Slot(fields.number()?);
    let with = ballot(fields)?;
    let origin = match fields.tag()? {
        0 => with,
        // What has one encoding only can be compared byte by byte.
        1 => match ballot(fields)? {
            origin if origin == with => return Err(Malformed("an origin that is the ballot")),
            origin => origin,
        },
        _ => return Err(Malformed("an origin is told or not")),
    };
    Ok(Record::Accepted { slot, ballot: with, batch: batch(origin, fields)? })
}

fn batch(origin: Ballot, fields: &mut Fields<'_>) -> Result<Arc<Batch>, Malformed> {
    Ok(Arc::new(Batch { origin, commands: fields.list(command)? }))
}

fn put_ballot(payload: &mut Vec<u8>, ballot: Ballot) {
    put_varint(payload, ballot.round);
    put_varint(payload, ballot.node.0.into());
}

fn ballot(fields: &mut Fields<'_>) -> Result<Ballot, Malformed> {
    Ok(Ballot { round: fields.number()?, node: fields.node()? })
}

fn put_command(payload: &mut Vec<u8>, command: &Command) {
    match command {
        Command::OpenSession => payload.push(0),
        Command::Transact { stamp, transaction } => {
            payload.push(1);
            put_stamp(payload, *stamp);
            put_transaction(payload, transaction);
        }
        Command::ChangeMembers(members) => {
            payload.push(2);
            put_list(payload, members, put_member);
        }
    }
}

fn command(fields: &mut Fields<'_>) -> Result<Command, Malformed> {
    match fields.tag()? {
        0 => Ok(Command::OpenSession),
        1 => Ok(Command::Transact {
            stamp: fields.stamp()?,
            transaction: Arc::new(fields.transaction()?),
        }),
        2 => Ok(Command::ChangeMembers(members(fields)?)),
        _ => Err(Malformed("an unknown kind of command")),
    }
}

fn put_member(payload: &mut Vec<u8>, member: &Member) {
    put_varint(payload, member.node.0.into());
    put_varint(payload, member.life);
}

fn members(fields: &mut Fields<'_>) -> Result<Arc<[Member]>, Malformed> {
    let member =
        |fields: &mut Fields<'_>| Ok(Member { node: fields.node()?, life: fields.number()? });
    Ok(fields.list(member)?.into())
}

fn put_refusal(payload: &mut Vec<u8>, refusal: &Refusal) {
    put_varint(payload, refusal.slot.0);
    put_varint(payload, refusal.index.into());
    put_varint(payload, refusal.precondition.into());
}

fn refusal(fields: &mut Fields<'_>) -> Result<Refusal, Malformed> {
    Ok(Refusal {
        slot: Slot(fields.number()?),
        index: fields.index()?,
        precondition: fields.index()?,
    })
}

fn put_checkpoint(payload: &mut Vec<u8>, checkpoint: &Checkpoint) {
    put_varint(payload, checkpoint.incarnation);
    put_varint(payload, checkpoint.life);
    put_ballot(payload, checkpoint.promised);
    put_replicated(payload, &checkpoint.replicated);
}

fn checkpoint(fields: &mut Fields<'_>) -> Result<Checkpoint, Malformed> {
    Ok(Checkpoint {
        incarnation: fields.number()?,
        life: fields.number()?,
        promised: ballot(fields)?,
        replicated: Arc::new(replicated(fields)?),
    })
}

fn put_replicated(payload: &mut Vec<u8>, replicated: &Replicated) {
    put_varint(payload, replicated.applied.0);
    put_list(payload, &replicated.members, |payload, (slot, members)| {
        put_varint(payload, slot.0);
        put_list(payload, members, put_member);
    });
    put_varint(payload, replicated.next_client);
    put_sessions(payload, &replicated.sessions);
}

fn replicated(fields: &mut Fields<'_>) -> Result<Replicated, Malformed> {
    Ok(Replicated {
        applied: Slot(fields.number()?),
        members: fields.list(|fields| Ok((Slot(fields.number()?), members(fields)?)))?,
        next_client: fields.number()?,
        sessions: fields.sessions()?,
    })
}
