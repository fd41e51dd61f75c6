//! Cap'n Proto servers, clients and the peer transport of Kvorum.
//!
//! [`server`] brings the requests of clients, and the messages of other nodes, to a node and its
//! answers back; [`client`] is what programs talk to a cluster with. Both speak Cap'n Proto's
//! protocol over our own network: the calls that come by the thousand by themselves, and all else
//! through capnp-rpc. Cap'n Proto's types stop in this crate: what it gives and takes are the values
//! of `kvorum_replication`.

pub mod address;
pub mod client;
pub mod server;

mod convert;
mod hot;
mod numbers;
mod peers;
mod turn;
mod vat;

pub use convert::{
    KEY_BYTES_MAX, OPERATIONS_MAX, ROWS_MAX, TRANSACTION_BYTES_MAX, VALUE_BYTES_MAX,
};
