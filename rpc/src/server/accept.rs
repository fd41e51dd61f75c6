//! Taking connections, and turning away those that are too many.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use capnp::message::Builder;
use capnp_rpc::rpc_capnp::{exception, message};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep, timeout};

use super::hub::{Command, count};
use super::worker::Worker;

/// How long no connection is accepted after the system could not give one.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long one who is turned away is given to take the reason.
const REASON_WAIT: Duration = Duration::from_secs(1);

/// So many are told the reason at a time; the others are just closed.
const TOLD_MAX: usize = 64;

/// Refusals are logged this often at most.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

/// What the listener remembers of those it turned away.
#[derive(Default)]
struct Refused {
    /// Being told why.
    told: Rc<Cell<usize>>,
    unlogged: u64,
    logged: Option<Instant>,
}

/// Takes connections and deals them out among the workers, in turn.
pub(super) async fn accept(worker: Rc<Worker>, listener: TcpListener) {
    let hub = &worker.service.hub;
    let mut refused = Refused::default();
    let mut next = 0;
    loop {
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Files may have run out; whoever wants in waits in the system's queue meanwhile.
                tracing::warn!(%error, "cannot accept connections for now");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let max = hub.options.connections_max;
        if hub.connections.fetch_add(1, Ordering::Relaxed) >= max {
            hub.connections.fetch_sub(1, Ordering::Relaxed);
            count(&hub.counters.connections_refused, 1);
            refused.refuse(stream, from, max);
            continue;
        }
        next = (next + 1) % hub.workers();
        let dealt = match stream.into_std() {
            Ok(stream) => hub.command(next, Command::Open(stream, from)),
            Err(_) => false,
        };
        if !dealt {
            hub.connections.fetch_sub(1, Ordering::Relaxed);
            count(&hub.counters.connections_refused, 1);
            tracing::warn!(%from, "refused a connection: its worker has ended");
        }
    }
}

impl Refused {
    fn refuse(&mut self, stream: TcpStream, from: SocketAddr, max: usize) {
        self.unlogged += 1;
        if self.logged.is_none_or(|logged| logged.elapsed() >= LOG_INTERVAL) {
            let refused = std::mem::take(&mut self.unlogged);
            self.logged = Some(Instant::now());
            tracing::warn!(%from, refused, max, "refused connections: there are too many");
        }
        if self.told.get() < TOLD_MAX {
            self.told.set(self.told.get() + 1);
            let told = Rc::clone(&self.told);
            spawn_local(async move {
                // One who does not listen is not waited for.
                let _ = timeout(REASON_WAIT, tell(stream, max)).await;
                told.set(told.get() - 1);
            });
        }
    }
}

/// Says why, in the protocol's words, and waits until the other side has hung up: what it has said
/// must be read, or the reason could be lost on its way.
async fn tell(mut stream: TcpStream, max: usize) -> std::io::Result<()> {
    let mut abort = Builder::new_default();
    let mut exception = abort.init_root::<message::Builder<'_>>().init_abort();
    exception.set_type(exception::Type::Overloaded);
    exception.set_reason(format!("the server has {max} connections, as many as it takes"));
    stream.write_all(&capnp::serialize::write_message_to_words(&abort)).await?;
    stream.shutdown().await?;
    let mut unread = [0; 1024];
    while stream.read(&mut unread).await? > 0 {}
    Ok(())
}
