//! One connection as capnp-rpc sees it: our own [`capnp_rpc::VatNetwork`] over a byte stream.
//!
//! ```text
//!   RpcSystem ── send() ──► one buffer ─── pump, once a turn ────► one write
//!       ▲                    ▲                                       │ stream
//!       └── receive ◄── frames ◄────────────── one read of 64 KiB ───┘
//!                         └──► a shortcut may take them here, and answer
//! ```
//!
//! The stock network writes every message with a system call of its own and bounds nothing. This
//! one joins what a turn of the executor said into one write, cuts many messages out of one read,
//! and stops reading while the other side does not take its answers, has too many calls under way,
//! or has too many bytes waiting here. A message that breaks a limit closes the connection, with a
//! reason that the other side gets to see.

mod budget;
mod buffer;
mod frame;
mod incoming;
mod outgoing;
mod pump;
mod shortcut;
#[cfg(test)]
mod tests;
mod wire;

use std::cell::RefCell;
use std::rc::Rc;

use capnp::capability::Promise;
use capnp_rpc::rpc_twoparty_capnp::Side;
use capnp_rpc::{IncomingMessage, OutgoingMessage, RpcSystem};
use tokio::io::{AsyncRead, AsyncWrite};

pub(crate) use budget::Budget;
pub(crate) use frame::{Frame, Peeked, reader_options};
use incoming::{Input, Receive};
use outgoing::Outgoing;
pub(crate) use shortcut::Shortcut;
pub(crate) use wire::{Held, Limits, Wire};

/// Makes a connection of a stream's two halves; what is returned drives it, and ends with the
/// violation if that was why it ended. Must be called within a local runtime: reading and writing are
/// a task of their own there.
pub(crate) fn connect<R, W>(
    wire: &Rc<Wire>,
    read: R,
    write: W,
    side: Side,
    bootstrap: Option<capnp::capability::Client>,
) -> RpcSystem<Side>
where
    R: AsyncRead + Unpin + 'static,
    W: AsyncWrite + Unpin + 'static,
{
    let input = Rc::new(RefCell::new(Input::default()));
    let ending = Rc::new(Ending(Rc::clone(wire)));
    drop(tokio::task::spawn_local(pump::run(Rc::clone(wire), Rc::clone(&input), read, write)));
    let connection = Connection { wire: Rc::clone(wire), input, ending };
    let network =
        Network { wire: Rc::clone(wire), again: connection.clone(), first: Some(connection), side };
    RpcSystem::new(Box::new(network), bootstrap)
}

struct Network {
    wire: Rc<Wire>,
    first: Option<Connection>,
    again: Connection,
    side: Side,
}

impl capnp_rpc::VatNetwork<Side> for Network {
    fn connect(&mut self, host: Side) -> Option<Box<dyn capnp_rpc::Connection<Side>>> {
        (host != self.side).then(|| Box::new(self.again.clone()) as _)
    }

    fn accept(&mut self) -> Promise<Box<dyn capnp_rpc::Connection<Side>>, capnp::Error> {
        match self.first.take() {
            Some(connection) => Promise::ok(Box::new(connection)),
            None => Promise::from_future(std::future::pending()),
        }
    }

    fn drive_until_shutdown(&mut self) -> Promise<(), capnp::Error> {
        let wire = Rc::clone(&self.wire);
        Promise::from_future(async move {
            wire.finished().await;
            wire.violation().map_or(Ok(()), Err)
        })
    }
}

struct Connection {
    wire: Rc<Wire>,
    input: Rc<RefCell<Input>>,
    /// Held for what its end does.
    ending: Rc<Ending>,
}

impl Clone for Connection {
    fn clone(&self) -> Self {
        Self {
            wire: Rc::clone(&self.wire),
            input: Rc::clone(&self.input),
            ending: Rc::clone(&self.ending),
        }
    }
}

/// Ends the pump when nobody can send any more, also if the system was dropped in the middle.
struct Ending(Rc<Wire>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl capnp_rpc::Connection<Side> for Connection {
    fn get_peer_vat_id(&self) -> Side {
        Side::Client
    }

    fn new_outgoing_message(&mut self, first_segment_words: u32) -> Box<dyn OutgoingMessage> {
        Box::new(Outgoing::new(Rc::clone(&self.wire), first_segment_words))
    }

    fn receive_incoming_message(
        &mut self,
    ) -> Promise<Option<Box<dyn IncomingMessage>>, capnp::Error> {
        match self.input.borrow_mut().next(&self.wire) {
            Ok(Some(message)) => Promise::ok(Some(Box::new(message))),
            Ok(None) => Promise::from_future(Receive::new(&self.wire, &self.input)),
            Err(error) => Promise::err(error),
        }
    }

    fn shutdown(&mut self, result: capnp::Result<()>) -> Promise<(), capnp::Error> {
        self.wire.end_with(result);
        let wire = Rc::clone(&self.wire);
        Promise::from_future(async move {
            wire.finished().await;
            Ok(())
        })
    }
}
