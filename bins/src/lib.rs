//! What the binaries are made of: the server, and a cluster of processes on loopback that the demo
//! and the tests start.

pub mod server;
