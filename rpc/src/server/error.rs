//! Why a server could not start.

use std::io;
use std::net::SocketAddr;

use kvorum_node::NodeError;

/// Why a server could not start.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The address could not be listened on.
    #[error("cannot listen on {address}: {source}; {}", bind_remedy(source))]
    Bind {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The address can be reached from elsewhere, and nothing would keep strangers out.
    #[error(
        "will not listen on {address}: without TLS anybody who can reach that address could read \
         and write; listen on a loopback address such as 127.0.0.1, or say --insecure if the \
         network itself keeps strangers out"
    )]
    NotLoopback {
        /// Where.
        address: SocketAddr,
    },
    /// An option does not make sense.
    #[error("{0}")]
    Options(String),
    /// The node did not say how it is.
    #[error("the node does not answer; its own error says why")]
    NodeSilent,
    /// The node's identity could not be read or written.
    #[error(transparent)]
    Identity(#[from] NodeError),
    /// A thread or its runtime could not be started.
    #[error("cannot start a worker thread: {0}; the limit of threads or files may be reached")]
    Thread(#[source] io::Error),
}

fn bind_remedy(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::AddrInUse => {
            "another process listens there: stop it, or choose another port with --listen"
        }
        io::ErrorKind::AddrNotAvailable => {
            "this machine has no such address: choose one of its own with --listen"
        }
        io::ErrorKind::PermissionDenied => "choose a port above 1023 with --listen",
        _ => "choose another address with --listen",
    }
}
