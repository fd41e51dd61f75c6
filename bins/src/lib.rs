//! What the binaries are made of: the server, the client's commands, and a cluster of processes on
//! loopback that the demo and the tests start.

pub mod cluster;
pub mod load;
