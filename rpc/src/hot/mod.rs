//! The hot path: a client's calls on the store, and the nodes' deliveries to each other, below
//! capnp-rpc.
//!
//! capnp-rpc costs some fifty allocations a call, whatever its network. So the calls that come by
//! the thousand are read and written here, in the messages of the very same protocol, straight
//! from and into a connection's buffers; everything else is capnp-rpc's, on the same connection.
//! Neither the schema nor the other side knows.
//!
//! ```text
//!              ┌── a call on the store ──► serve ──► Requests ──► node
//!   frames ────┤                             └──────────◄──────────┘ into the outgoing bytes
//!              └── all else ─────────────► capnp-rpc
//! ```
//!
//! What comes and goes most often, gets and puts and their answers, is not even built and taken apart
//! as messages: it has a [`shape`].
//!
//! Two speak where the protocol knows one, so each must know what is whose:
//! - Questions that the other side asks: the [`ledger`] remembers who answers each that is open. A
//!   `Finish` goes to whom the question went, and a number that is in use cannot be taken again.
//! - The store's number is in the `Return` that capnp-rpc sends to `Gate.client`, and counts until
//!   every such answer has been released.
//! - Calls on one capability arrive in the order in which they were made. While calls on the store
//!   are on their way through capnp-rpc, those behind them go the same way.

mod ask;
mod deliver;
mod ledger;
mod method;
mod questions;
mod refusal;
mod serve;
mod shape;
mod shapes;

use capnp_rpc::rpc_capnp::{cap_descriptor, payload};

pub(crate) use ask::{Asking, Response, Store};
pub(crate) use deliver::{Deliveries, Mailslot};
pub(crate) use ledger::Ledger;
pub(crate) use method::Method;
pub(crate) use questions::{Question, Unheard};
pub(crate) use refusal::Refusals;
pub(crate) use serve::{Answering, Serving};

/// `Gate.client`, which gives out the store, as the schema numbers it.
const GATE_CLIENT: u16 = 0;

/// `Gate.attach`, by which two nodes introduce themselves, as the schema numbers it.
const GATE_ATTACH: u16 = 2;

/// The first of the numbers that questions asked here have; capnp-rpc, which counts from 0 and takes
/// the lowest that is free, never gets there.
const FIRST_QUESTION: u32 = 1 << 30;

/// The one capability among parameters or results, if it is the sender's own and settled.
fn given(payload: payload::Reader<'_>) -> Option<u32> {
    let table = payload.get_cap_table().ok()?;
    match table.try_get(0).filter(|_| table.len() == 1)?.which() {
        Ok(cap_descriptor::SenderHosted(export)) => Some(export),
        _ => None,
    }
}
