//! The judge's looks at the nodes while they run.

use kvorum_replication::{NodeId, Position};

use super::World;
use crate::process::{Judgement, LogEnd, Process, Protocol};

impl<P: Protocol> World<P> {
    /// A process has been opened, and has done nothing yet.
    pub(super) fn audit_opened(&mut self, node: NodeId, process: &dyn Process<P>) {
        let judgement = self.protocol.reopened(node, end(process));
        self.heed(judgement);
    }

    /// Shows the judge what a process has written down so far: before each word of it, since that
    /// may rest on it.
    pub(super) fn audit_records(&mut self, node: NodeId) {
        let machine = self.machines.get_mut(&node).expect("only members are named");
        let Some(process) = &mut machine.process else { return };
        let notes = process.notes();
        let protocol = &self.protocol;
        for (at, note) in &notes {
            self.trace.line(self.queue.now(), node, || {
                format!("logs #{at}: {}", protocol.describe_note(note))
            });
        }
        let judgement = self.protocol.noted(node, notes, end(&**process));
        self.heed(judgement);
    }

    /// The same of a process that is gone: what it wrote down last may still be found, and nothing
    /// that it believes of its disk counts any more.
    pub(super) fn audit_last_records(&mut self, node: NodeId) {
        let machine = self.machines.get_mut(&node).expect("only members are named");
        let Some(process) = &mut machine.process else { return };
        let notes = process.notes();
        let end = LogEnd { durable: Position::ZERO, ..end(&**process) };
        let judgement = self.protocol.noted(node, notes, end);
        self.heed(judgement);
    }

    /// Shows the judge how a process is after an event.
    pub(super) fn audit(&mut self, node: NodeId) {
        self.audit_records(node);
        let Some(process) = &self.machines[&node].process else { return };
        let facts = process.facts();
        let judgement = self.protocol.looks(node, &facts, &|| process.rows());
        self.heed(judgement);
        if let Some(why) = self.protocol.unfit(&facts) {
            self.stop_failed(node, why);
        }
    }

    pub(super) fn heed(&mut self, judgement: Judgement) {
        if let Err(violation) = judgement {
            self.fail(violation.promise, violation.what);
        }
    }
}

fn end<P: Protocol>(process: &dyn Process<P>) -> LogEnd {
    let log = process.log();
    LogEnd { last: Position(log.last().0), durable: Position(log.durable().0) }
}
