//! What the binaries are made of: the server, a cluster of processes on loopback that the demo and
//! the tests start, a load of clients for it, and the lab in which it is broken and judged.

pub mod cluster;
pub mod lab;
pub mod load;
pub mod server;
pub mod standing;
pub mod time;
pub mod view;

pub use kvorum_rpc::address;
