//! A TCP port on loopback that stays ours while no server listens on it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::net::{
    AddressFamily, SocketFlags, SocketType, bind, getsockname, socket_with, sockopt,
};

/// A port bound but not listened on.
///
/// A server that is killed gives its port back to the kernel, which may hand it to any connection
/// as its source before the server is restarted; on loopback even to a peer that is just dialling
/// it, which then talks to itself. A second socket bound to the port takes it out of the kernel's
/// hands, and since both it and the server's listener set `SO_REUSEADDR`, and it never listens, it
/// is in nobody's way (`ip(7)`, `socket(7)`).
#[derive(Debug)]
pub struct ReservedPort {
    address: SocketAddr,
    _socket: OwnedFd,
}

impl ReservedPort {
    /// Takes a free port.
    ///
    /// # Errors
    /// If the operating system has none.
    pub fn take() -> io::Result<Self> {
        let socket =
            socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        sockopt::set_socket_reuseaddr(&socket, true)?;
        bind(&socket, &SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        let address = SocketAddr::try_from(getsockname(&socket)?)?;
        Ok(Self { address, _socket: socket })
    }

    /// Loopback, and the port.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_server_may_listen_on_it_again_and_again() {
        let port = ReservedPort::take().unwrap();
        for _ in 0..3 {
            let listener = TcpListener::bind(port.address()).unwrap();
            let _client = TcpStream::connect(port.address()).unwrap();
            let (_served, _) = listener.accept().unwrap();
        }
    }

    #[test]
    fn nobody_answers_while_no_server_listens() {
        let port = ReservedPort::take().unwrap();
        // Often enough that an unreserved port would have been a connection's own source by now.
        for _ in 0..30_000 {
            let refused = TcpStream::connect(port.address()).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        }
    }

    #[test]
    fn nobody_else_is_given_it() {
        let ports: Vec<_> = (0..200).map(|_| ReservedPort::take().unwrap()).collect();
        let mut addresses: Vec<_> = ports.iter().map(ReservedPort::address).collect();
        addresses.sort_unstable();
        addresses.dedup();
        assert_eq!(addresses.len(), ports.len());
    }
}
