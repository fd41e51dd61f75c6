//! What the binaries are made of: the server, a cluster of processes on loopback that the demo and
//! the tests start, and a load of clients for it.

pub mod address;
pub mod cluster;
pub mod load;
pub mod server;
