//! One task that reads a connection's stream and writes it.
//!
//! What arrives is dealt with here, as far as it takes the shortcut, and what is said to it leaves
//! before the task waits again: a call and its answer cost one turn of one task, one read and one
//! write. capnp-rpc is woken only for what is its own.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::thread;

use capnp::{Error, Word};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::timeout;

use super::incoming::{Input, broken};
use super::wire::{LINGER, Wire};

/// Taken from the stream at a time.
const READ_BYTES: usize = 64 << 10;

/// A buffer larger than this is given back after it was written.
const KEPT_BYTES_MAX: usize = 64 << 10;

thread_local! {
    /// One for all connections of a thread: an idle connection then owns hardly any memory. Made of
    /// words, since messages are read where they arrive.
    static SCRATCH: RefCell<Vec<Word>> = const { RefCell::new(Vec::new()) };
}

/// Reads and writes until the connection ends, then closes the stream. The stream must not keep
/// back what it has taken.
pub(super) async fn run<R, W>(wire: Rc<Wire>, input: Rc<RefCell<Input>>, read: R, write: W)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let _finish = Finish { wire: Rc::clone(&wire), input: Rc::clone(&input) };
    let mut pump = Pump {
        wire: Rc::clone(&wire),
        input,
        read: Some(read),
        write,
        batch: Vec::new(),
        written: 0,
        has_yielded: false,
    };
    let ended = match (&mut pump).await {
        Ok(()) => match timeout(LINGER, pump.write_rest()).await {
            Ok(written) => written,
            Err(_) => Err(std::io::ErrorKind::TimedOut.into()),
        },
        Err(error) => Err(error),
    };
    if let Err(error) = ended {
        wire.close(broken(error));
    }
    // The other side is told that this was all. Whether it still listens is its own affair.
    let _ = timeout(LINGER, pump.write.shutdown()).await;
}

/// The work of [`run`] while the connection stands; resolves when it is to end, or can't be written.
struct Pump<R, W> {
    wire: Rc<Wire>,
    input: Rc<RefCell<Input>>,
    /// None behind its end.
    read: Option<R>,
    write: W,
    /// What is being written, and how much of it is.
    batch: Vec<u8>,
    written: usize,
    /// Whoever was ready to speak has spoken.
    has_yielded: bool,
}

impl<R, W> Future for Pump<R, W>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    type Output = std::io::Result<()>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let pump = self.get_mut();
        let wire = Rc::clone(&pump.wire);
        wire.pump.wait(context.waker());
        let _at_work = wire.pump.at_work();
        loop {
            let has_read = !wire.is_ending() && pump.read_once(context);
            pump.write_what_is_queued(context)?;
            if wire.is_ending() {
                return Poll::Ready(Ok(()));
            }
            // What was written may have opened a gate, and what was read may not be all.
            if !wire.pump.take_woken() && !has_read {
                return Poll::Pending;
            }
        }
    }
}

impl<R, W> Pump<R, W>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    /// Reads once, if that is allowed, and deals with what has come; whether something has.
    fn read_once(&mut self, context: &mut Context<'_>) -> bool {
        let input = &mut *self.input.borrow_mut();
        let Some(stream) = self.read.as_mut().filter(|_| input.goes_on(&self.wire)) else {
            return false;
        };
        // It is nobody else's while messages in it are dealt with.
        let mut scratch = SCRATCH.take();
        if scratch.is_empty() {
            scratch = Word::allocate_zeroed_vec(READ_BYTES / 8);
        }
        let mut into = ReadBuf::new(Word::words_to_bytes_mut(&mut scratch));
        let has_read = match Pin::new(stream).poll_read(context, &mut into) {
            Poll::Pending => false,
            Poll::Ready(Ok(())) if into.filled().is_empty() => {
                self.read = None;
                input.end();
                true
            }
            Poll::Ready(Ok(())) => {
                self.wire.note_received();
                input.take_in(&self.wire, into.filled());
                true
            }
            Poll::Ready(Err(error)) => {
                self.read = None;
                input.fail(broken(error));
                true
            }
        };
        SCRATCH.set(scratch);
        has_read
    }

    /// Writes what was said, as far as the other side takes it.
    fn write_what_is_queued(&mut self, context: &mut Context<'_>) -> std::io::Result<()> {
        while self.written < self.batch.len() || self.takes_queued(context) {
            let rest = &self.batch[self.written..];
            let written = match Pin::new(&mut self.write).poll_write(context, rest) {
                Poll::Pending => return Ok(()),
                Poll::Ready(written) => written?,
            };
            if written == 0 {
                return Err(std::io::ErrorKind::WriteZero.into());
            }
            self.note_written(written);
        }
        Ok(())
    }

    /// Takes what is queued to write it, if there is anything. What capnp-rpc says waits until
    /// everything else that is ready to speak has spoken; a shortcut knows when it has.
    fn takes_queued(&mut self, context: &Context<'_>) -> bool {
        let mut queued = self.wire.queued.borrow_mut();
        if queued.is_empty() {
            self.has_yielded = false;
            return false;
        }
        if !self.wire.is_prompt.take() && !std::mem::replace(&mut self.has_yielded, true) {
            context.waker().wake_by_ref();
            return false;
        }
        self.has_yielded = false;
        match self.batch.capacity() > KEPT_BYTES_MAX {
            true => self.batch = Vec::new(),
            false => self.batch.clear(),
        }
        std::mem::swap(&mut *queued, &mut self.batch);
        self.written = 0;
        self.wire.writing.set(self.batch.len());
        true
    }

    fn note_written(&mut self, written: usize) {
        self.written += written;
        if self.written == self.batch.len() {
            self.wire.flushes.set(self.wire.flushes.get() + 1);
        }
        self.wire.note_written(written);
    }

    /// Writes the last words.
    async fn write_rest(&mut self) -> std::io::Result<()> {
        loop {
            if self.written == self.batch.len() {
                self.batch = std::mem::take(&mut *self.wire.queued.borrow_mut());
                self.written = 0;
                self.wire.writing.set(self.batch.len());
            }
            if self.batch.is_empty() {
                return Ok(());
            }
            let written = self.write.write(&self.batch[self.written..]).await?;
            if written == 0 {
                return Err(std::io::ErrorKind::WriteZero.into());
            }
            self.note_written(written);
        }
    }
}

/// What is true when the task has ended, however it did.
struct Finish {
    wire: Rc<Wire>,
    input: Rc<RefCell<Input>>,
}

impl Drop for Finish {
    fn drop(&mut self) {
        // A hostile message that finds a panic in a shortcut ends its own connection only.
        if thread::panicking() {
            self.wire.close(Error::failed("an internal error".to_owned()));
        }
        // capnp-rpc may wait for a message still, and would for ever: what can't be written any more
        // may have nothing to be read either, not even an end.
        if let Ok(mut input) = self.input.try_borrow_mut() {
            input.give_up(&self.wire);
        }
        self.wire.queued.borrow_mut().clear();
        self.wire.writing.set(0);
        self.wire.finish();
    }
}
