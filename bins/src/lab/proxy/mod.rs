//! A network between processes on one machine that can be broken without being root: every
//! connection from one to another goes through a proxy that knows who dialled whom.
//!
//! ```text
//!   replica 1 ──dials──► [route 1→2] ──► replica 2      what 1 says obeys the way 1→2,
//!             ◄────────── answers ──────                what 2 says on the same connection the way 2→1
//! ```
//!
//! A way is one direction between two processes, whoever dialled. Each has a [`Condition`], and each
//! counts what it carried and what ran into its condition: a cut that nothing ran into proves
//! nothing. Bytes that wait are bounded, for every connection and direction: behind that the sender
//! feels it, as with TCP.

mod carry;
mod way;

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{Semaphore, oneshot};

use self::carry::carry;
pub use self::way::{Condition, Place, Traffic};
use self::way::{Pair, Way};

/// Connections of one route at a time. Processes keep one to each other; more than a few are those
/// that ended and have not noticed.
const CONNECTIONS_MAX: usize = 64;

/// The same for a route that clients take.
const CLIENT_CONNECTIONS_MAX: usize = 16_384;

/// After a failure to accept, which is one of this machine: too many open files, for instance.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// Who dials whom, and where the one who is dialled really listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Who dials.
    pub from: Place,
    /// Who is dialled.
    pub to: Place,
    /// Where that one listens.
    pub listens: SocketAddr,
}

/// The proxies, on a thread of their own; dropping it ends them and all connections.
#[derive(Debug)]
pub struct Network {
    ways: BTreeMap<(Place, Place), Arc<Way>>,
    pairs: BTreeMap<(Place, Place), Arc<Pair>>,
    addresses: BTreeMap<(Place, Place), SocketAddr>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Network {
    /// Opens a port for each route, with everything in order.
    ///
    /// # Errors
    /// If the operating system has no port or thread.
    pub fn start(routes: &[Route], seed: u64) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (mut ways, mut pairs) = (BTreeMap::new(), BTreeMap::new());
        let mut addresses = BTreeMap::new();
        let (stop, stopped) = oneshot::channel();
        let mut proxies = Vec::new();
        for (number, route) in (0..).zip(routes) {
            let ends = (route.from, route.to);
            let back = (route.to, route.from);
            for (number, ends) in (2 * number..).zip([ends, back]) {
                let new = || Arc::new(Way::new(seed.wrapping_add(number)));
                ways.entry(ends).or_insert_with(new);
            }
            let pair = pairs.entry(unordered(ends)).or_insert_with(Arc::<Pair>::default);
            let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            listener.set_nonblocking(true)?;
            let listener = {
                let _context = runtime.enter();
                TcpListener::from_std(listener)?
            };
            addresses.insert(ends, listener.local_addr()?);
            let is_clients = route.from == Place::Clients;
            proxies.push(Proxy {
                listener,
                target: route.listens,
                there: Arc::clone(&ways[&ends]),
                back: Arc::clone(&ways[&back]),
                pair: Arc::clone(pair),
                connections: if is_clients { CLIENT_CONNECTIONS_MAX } else { CONNECTIONS_MAX },
            });
        }
        let run = move || {
            runtime.block_on(async {
                for proxy in proxies {
                    tokio::spawn(proxy.run());
                }
                // Also when the sender is gone without a word.
                let _ = stopped.await;
            });
        };
        let thread = thread::Builder::new().name("network".to_owned()).spawn(run)?;
        Ok(Self { ways, pairs, addresses, stop: Some(stop), thread: Some(thread) })
    }

    /// Where `from` reaches `to`.
    ///
    /// # Panics
    /// If there is no such route.
    #[must_use]
    pub fn address(&self, from: Place, to: Place) -> SocketAddr {
        *self.addresses.get(&(from, to)).expect("the caller asks for a route of this network")
    }

    /// Changes the condition of one way.
    ///
    /// # Panics
    /// If there is no such way.
    pub fn set(&self, from: Place, to: Place, condition: Condition) {
        self.way(from, to).set(condition);
    }

    /// Changes the condition of both ways between two.
    pub fn set_both(&self, one: Place, other: Place, condition: Condition) {
        self.set(one, other, condition);
        self.set(other, one, condition);
    }

    /// Ends all connections between two, whoever dialled, as a firewall that lost its memory does:
    /// both sides are told at once that the connection is reset, and what was under way is lost.
    ///
    /// # Panics
    /// If there is no route between them.
    pub fn reset(&self, one: Place, other: Place) {
        let pair = self.pairs.get(&unordered((one, other)));
        pair.expect("the caller asks for a route of this network").reset();
    }

    /// Everything in order again; connections stand, and what waited goes on.
    pub fn heal(&self) {
        self.ways.values().for_each(|way| way.set(Condition::Open));
    }

    /// What one way has carried, and what ran into its conditions.
    ///
    /// # Panics
    /// If there is no such way.
    #[must_use]
    pub fn traffic(&self, from: Place, to: Place) -> Traffic {
        self.way(from, to).traffic()
    }

    /// The same of all ways.
    #[must_use]
    pub fn total(&self) -> Traffic {
        self.ways.values().map(|way| way.traffic()).fold(Traffic::default(), Traffic::plus)
    }

    fn way(&self, from: Place, to: Place) -> &Way {
        self.ways.get(&(from, to)).expect("the caller asks for a way of this network")
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic over there was shown; here it must not hide what is being unwound.
            let _ = thread.join();
        }
    }
}

fn unordered((one, other): (Place, Place)) -> (Place, Place) {
    if one <= other { (one, other) } else { (other, one) }
}

/// Listens for one who dials one other.
struct Proxy {
    listener: TcpListener,
    target: SocketAddr,
    there: Arc<Way>,
    back: Arc<Way>,
    pair: Arc<Pair>,
    connections: usize,
}

impl Proxy {
    async fn run(self) {
        let room = Arc::new(Semaphore::new(self.connections));
        loop {
            let Ok(seat) = Arc::clone(&room).acquire_owned().await else { return };
            match self.listener.accept().await {
                Ok((near, _)) => {
                    let (there, back) = (Arc::clone(&self.there), Arc::clone(&self.back));
                    let (pair, target) = (Arc::clone(&self.pair), self.target);
                    tokio::spawn(async move {
                        carry(near, target, &there, &back, &pair).await;
                        drop(seat);
                    });
                }
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            }
        }
    }
}
