//! Bit rot on a machine, and the operator who finds and mends it.

use std::sync::Arc;

use kvorum_node::NodeError;
use kvorum_replication::NodeId;
use kvorum_storage::Error;

use super::{Event, World};
use crate::disk::Crash;
use crate::faults::Fault;
use crate::plan::Strike;
use crate::process::Protocol;
use crate::queue::MILLISECOND;
use crate::rot::Rot;
use crate::violation::Promise;

impl<P: Protocol> World<P> {
    /// Turns over a bit of a file at rest. Then the process starts anew: what it has mapped, or
    /// read before, it would not read again. From there on a read may fail, and the process may
    /// stop or not start at all; it may not give a wrong value.
    pub(super) fn rot(&mut self, strike: &Strike) {
        let machine = self.machine(strike.node);
        if !machine.disk.strike_rot(strike.fault, strike.number) {
            return;
        }
        let file = machine.disk.rot().map(Rot::file_name).unwrap_or_default();
        self.counts.count(strike.fault);
        self.say(strike.node, || format!("has a wrong bit in {file}"));
        self.die(strike.node, Crash::PowerLoss, 20 * MILLISECOND);
        self.queue.after(strike.lasts, Event::Relief(*strike));
    }

    /// The operator stops the process, looks whether the store names what is wrong, and puts the
    /// bit right from a copy.
    pub(super) fn repair(&mut self, node: NodeId) {
        let Some(rot) = self.machine(node).disk.rot().cloned() else { return };
        self.die(node, Crash::Kill, 5 * MILLISECOND);
        if self.machine(node).disk.still_has(&rot) {
            self.inspect(node, rot.fault, &rot.file_name());
        }
        self.say(node, || format!("gets a good copy of {}", rot.file_name()));
        self.machine(node).disk.repair_rot();
    }

    /// Whether opening, or looking at every byte, names the damaged file. In a log file there may
    /// be bytes that belong to nothing; that nothing durable was lost is seen by what comes back.
    fn inspect(&mut self, node: NodeId, fault: Fault, file: &str) {
        let copy = self.machine(node).disk.image();
        let opened = self.protocol.open(node, Arc::new(copy.clone()), self.seed);
        let named = match &opened {
            Err(error) => names(error, file),
            Ok(process) => match process.store().map(|store| store.verify()) {
                Some(Ok(report)) => report.problems.iter().any(|it| it.to_string().contains(file)),
                Some(Err(error)) => error.to_string().contains(file),
                None => false,
            },
        };
        let is_left = copy.files().iter().any(|path| path.ends_with(file));
        if !named && is_left && fault != Fault::LogRot {
            let said = opened.err().map_or_else(|| "nothing".to_owned(), |it| it.to_string());
            let what = format!("{node} has a wrong bit in {file}, and says {said}");
            self.fail(Promise::NamesDamage, what);
        }
    }
}

fn names(error: &NodeError, file: &str) -> bool {
    match error {
        NodeError::Storage(Error::Corrupt { .. } | Error::Missing { .. }) => {
            error.to_string().contains(file)
        }
        _ => false,
    }
}
