//! What a node writes: a core's records into the log, and when they are due.

use std::sync::Arc;
use std::time::Duration;

use kvorum_replication::{Position, Time, Urgency};
use kvorum_storage::Log;

use crate::clock::Clock;
use crate::codec::StoredRecord;
use crate::error::NodeError;

/// How long a record that nobody waits for may stay in memory: long enough for another group to
/// carry it, short enough that a crash leaves little in doubt.
pub const SOON: Duration = Duration::from_millis(5);

/// Bytes of records after which the core is asked for a checkpoint, so that recovery stays short.
pub const CHECKPOINT_BYTES: u64 = 64 << 20;

/// The pen of a node. It touches no disk: the log keeps what it writes until somebody syncs it.
pub(crate) struct Journal<R> {
    log: Arc<Log>,
    last_urgent: Position,
    lazy_since: Option<Time>,
    /// How far the log was durable when it was last looked at, and since when.
    durable: (Position, Time),
    checkpoint_bytes: u64,
    bytes_since_checkpoint: u64,
    /// Bytes of the last checkpoint, with what its step wrote again behind it.
    last_checkpoint_bytes: u64,
    payload: Vec<u8>,
    /// What was appended, for a judge who asked to see it.
    watched: Option<Vec<(Position, R)>>,
}

impl<R: StoredRecord + Clone> Journal<R> {
    pub(crate) fn new(log: Arc<Log>) -> Self {
        Self {
            log,
            last_urgent: Position::ZERO,
            lazy_since: None,
            durable: (Position::ZERO, Time(0)),
            checkpoint_bytes: CHECKPOINT_BYTES,
            bytes_since_checkpoint: 0,
            last_checkpoint_bytes: 0,
            payload: Vec::new(),
            watched: None,
        }
    }

    pub(crate) fn set_checkpoint_bytes(&mut self, bytes: u64) {
        self.checkpoint_bytes = bytes;
    }

    pub(crate) fn watch(&mut self) {
        self.watched.get_or_insert_default();
    }

    pub(crate) fn take_watched(&mut self) -> Vec<(Position, R)> {
        self.watched.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Appends a record; whether it is a checkpoint.
    pub(crate) fn append(
        &mut self,
        now: Time,
        at: Position,
        record: &R,
        urgency: Urgency,
    ) -> Result<bool, NodeError> {
        self.payload.clear();
        let kind = record.encode(&mut self.payload);
        if let Some(watched) = &mut self.watched {
            watched.push((at, record.clone()));
        }
        let position = self.log.append(kind, &self.payload)?;
        assert_eq!(position.0, at.0, "the core and the log count records alike");
        match urgency {
            Urgency::Now => self.last_urgent = at,
            Urgency::Soon => {
                if self.lazy_since.is_none() || self.durable().next() == at {
                    self.lazy_since = Some(now);
                }
            }
        }
        let is_checkpoint = R::is_checkpoint(kind);
        if is_checkpoint {
            self.bytes_since_checkpoint = 0;
        }
        self.bytes_since_checkpoint += self.payload.len() as u64;
        Ok(is_checkpoint)
    }

    /// A step that wrote a checkpoint has been appended.
    pub(crate) fn checkpoint_is_written(&mut self) {
        self.last_checkpoint_bytes = std::mem::take(&mut self.bytes_since_checkpoint);
    }

    /// Whether the log has grown so long that a checkpoint is worth it: one that is large itself not
    /// before as much was written besides. And it must not go on top of what a slow or full disk has
    /// left waiting in memory. It is said once.
    pub(crate) fn take_checkpoint_due(&mut self, has_room: bool) -> bool {
        let is_due = self.bytes_since_checkpoint
            >= self.checkpoint_bytes.max(self.last_checkpoint_bytes)
            && has_room
            && self.log.pending_bytes() as u64 <= CHECKPOINT_BYTES;
        if is_due {
            self.bytes_since_checkpoint = 0;
        }
        is_due
    }

    /// Notes how far the log is durable.
    pub(crate) fn look(&mut self, now: Time) {
        let durable = self.durable();
        if durable != self.durable.0 {
            self.durable = (durable, now);
        }
    }

    /// When the log should be synced: at once if somebody waits; shortly if nobody does, counted from
    /// the last sync if there was one since: while others are synced, what waits rides with them.
    pub(crate) fn sync_due(&self, now: Time, clock: &Clock) -> Option<Time> {
        let durable = self.durable();
        if self.last_urgent > durable {
            Some(now)
        } else if self.log.last().0 > durable.0 {
            let since = self.lazy_since.map(|since| since.max(self.durable.1));
            Some(since.map_or(now, |since| clock.outer(since.after(SOON))))
        } else {
            None
        }
    }

    fn durable(&self) -> Position {
        Position(self.log.durable().0)
    }
}
