//! One connection through a proxy: two directions, each of which obeys its way.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::net::sockopt;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::way::{Condition, Pair, Way, count};

/// Read at a time: large enough for speed, small enough that a slow way is slow evenly.
const PIECE_BYTES: usize = 16 << 10;

/// Pieces that may wait in one direction of a connection. With [`PIECE_BYTES`] half a mebibyte, what
/// the kernel keeps for a connection on a bad day.
const PIECES_MAX: usize = 32;

/// What a slow way lets through at a time.
const SLOW_BYTES: usize = 1 << 10;

/// Something on its way.
struct Piece {
    what: What,
    /// Not before this.
    due: Option<Instant>,
    /// Whether it was counted as held already.
    held: bool,
}

enum What {
    Bytes(Vec<u8>),
    /// The sender has said all it has to say.
    End,
    /// The sender's connection broke.
    Broken,
}

/// Carries one connection until it ends.
pub(super) async fn carry(
    near: TcpStream,
    target: SocketAddr,
    there: &Arc<Way>,
    back: &Arc<Way>,
    pair: &Pair,
) {
    let mut resets = pair.watch();
    if there.is_cut() || back.is_cut() {
        count(&there.counters.dials_held, 1);
        // Who dials learns nothing before the way is open; it dials again after that.
        tokio::join!(there.passable(), back.passable());
        return reset(&near);
    }
    let Ok(far) = TcpStream::connect(target).await else { return reset(&near) };
    if near.set_nodelay(true).is_err() || far.set_nodelay(true).is_err() {
        return;
    }
    let (mut near, mut far) = (near, far);
    let pending = [AtomicU64::new(0), AtomicU64::new(0)];
    let ended = {
        let (near_read, near_write) = near.split();
        let (far_read, far_write) = far.split();
        let forth = pump(near_read, far_write, there, back, &pending[0]);
        let back = pump(far_read, near_write, back, there, &pending[1]);
        tokio::select! {
            // A reset comes before what heals after it.
            biased;
            _ = resets.changed() => Err(io::ErrorKind::ConnectionReset.into()),
            ended = async { tokio::try_join!(forth, back) } => ended.map(|_| ()),
        }
    };
    if ended.is_err() {
        count(&there.counters.resets, 1);
        reset(&near);
        reset(&far);
        for (way, pending) in [there, back].into_iter().zip(&pending) {
            count(&way.counters.dropped_bytes, pending.load(Ordering::Relaxed));
        }
    }
}

/// Lets the connection end with a reset when it is dropped, which its owner does next.
fn reset(stream: &TcpStream) {
    // One that is broken already needs no reset.
    let _ = sockopt::set_socket_linger(stream, Some(Duration::ZERO));
}

/// Carries one direction until its sender has ended it. An error ends the connection as a whole.
async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    way: &Way,
    reverse: &Way,
    pending: &AtomicU64,
) -> io::Result<()> {
    let (sender, mut receiver) = mpsc::channel(PIECES_MAX);
    let read = async move {
        loop {
            let piece = read_piece(&mut from, way, pending).await;
            let is_last = !matches!(piece.what, What::Bytes(_));
            // The receiver only goes with this future.
            if sender.send(piece).await.is_err() || is_last {
                return Ok(());
            }
        }
    };
    let write = async {
        while let Some(piece) = receiver.recv().await {
            if way.is_cut() && !piece.held {
                count_held(way, &piece);
            }
            await_turn(way, &piece).await;
            let carried = match &piece.what {
                What::Bytes(bytes) => write_bytes(&mut to, bytes, way).await,
                What::End => return to.shutdown().await,
                What::Broken => return Err(io::ErrorKind::ConnectionReset.into()),
            };
            if let Err(error) = carried {
                // The news travels the other way.
                reverse.passable().await;
                return Err(error);
            }
            pending.fetch_sub(piece.len(), Ordering::Relaxed);
            count(&way.counters.carried_bytes, piece.len());
        }
        Ok(())
    };
    tokio::try_join!(read, write).map(|_| ())
}

async fn read_piece(from: &mut ReadHalf<'_>, way: &Way, pending: &AtomicU64) -> Piece {
    let mut bytes = vec![0; PIECE_BYTES];
    let what = match from.read(&mut bytes).await {
        Ok(0) => What::End,
        Ok(read) => {
            bytes.truncate(read);
            What::Bytes(bytes)
        }
        Err(_) => What::Broken,
    };
    let delay = way.delay();
    count(&way.counters.delayed, u64::from(delay.is_some()));
    let piece = Piece { what, due: delay.map(|delay| Instant::now() + delay), held: way.is_cut() };
    pending.fetch_add(piece.len(), Ordering::Relaxed);
    if piece.held {
        count_held(way, &piece);
    }
    piece
}

fn count_held(way: &Way, piece: &Piece) {
    count(&way.counters.held, 1);
    count(&way.counters.held_bytes, piece.len());
}

/// Waits until the way lets the piece pass.
async fn await_turn(way: &Way, piece: &Piece) {
    loop {
        way.passable().await;
        if let Some(due) = piece.due {
            sleep_until(due).await;
        }
        // It may have been cut while the piece was late.
        if !way.is_cut() {
            return;
        }
    }
}

async fn write_bytes(to: &mut WriteHalf<'_>, bytes: &[u8], way: &Way) -> io::Result<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let Condition::Slow { bytes_per_second } = way.condition() else {
            return to.write_all(rest).await;
        };
        let (part, behind) = rest.split_at(rest.len().min(SLOW_BYTES));
        to.write_all(part).await?;
        count(&way.counters.slowed, 1);
        rest = behind;
        let time = Duration::from_secs_f64(part.len() as f64 / f64::from(bytes_per_second.max(1)));
        let mut condition = way.watch();
        tokio::select! {
            () = tokio::time::sleep(time) => {}
            // It may be fast now.
            _ = condition.changed() => {}
        }
    }
    Ok(())
}

impl Piece {
    fn len(&self) -> u64 {
        match &self.what {
            What::Bytes(bytes) => bytes.len() as u64,
            What::End | What::Broken => 0,
        }
    }
}
