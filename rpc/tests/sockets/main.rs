//! The transport over real loopback sockets. The nodes behind it are played by the tests.

#![expect(clippy::unwrap_used, reason = "in a test's helpers as in the test itself")]

mod clients;
mod elsewhere;
mod hostile;
mod hot;
mod links;
mod overload;
mod replicas;
mod stock;
mod support;
mod transactions;
