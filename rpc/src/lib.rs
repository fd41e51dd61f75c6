//! Cap'n Proto servers, clients and the peer transport of Kvorum.

pub mod client;
mod vat;
