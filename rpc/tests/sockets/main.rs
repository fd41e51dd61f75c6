//! The transport over real loopback sockets. The nodes behind it are played by the tests.

mod clients;
mod hostile;
mod links;
mod support;
