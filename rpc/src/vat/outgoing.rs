//! Writing: everything said in a turn goes into one buffer, and leaves in one write.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use capnp::Error;
use capnp::capability::Promise;
use capnp::message::{Builder, HeapAllocator};
use capnp_rpc::rpc_capnp::message;
use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::incoming::broken;
use super::wire::{LINGER, Wire};

/// Where the other side gives no hint: most messages fit, and zeroing the usual 1024 words costs
/// more than writing them.
const FIRST_SEGMENT_WORDS: u32 = 128;

/// The largest hint that is believed.
const FIRST_SEGMENT_WORDS_MAX: u32 = 1 << 18;

/// A buffer larger than this is given back after it was written.
const KEPT_BYTES_MAX: usize = 64 << 10;

/// A message being built.
pub(super) struct Outgoing {
    message: Builder<HeapAllocator>,
    wire: Rc<Wire>,
}

impl Outgoing {
    pub(super) fn new(wire: Rc<Wire>, hint_words: u32) -> Self {
        let words = match hint_words {
            0 => FIRST_SEGMENT_WORDS,
            hint => hint.clamp(16, FIRST_SEGMENT_WORDS_MAX),
        };
        Self { message: Builder::new(HeapAllocator::new().first_segment_words(words)), wire }
    }

    fn account(&self) {
        let Ok(root) = self.message.get_root_as_reader::<message::Reader<'_>>() else {
            return;
        };
        if let Some(shortcut) = self.wire.shortcut() {
            shortcut.sending(root);
        }
        if let Ok(message::Return(Ok(answer))) = root.which() {
            self.wire.note_answer(!answer.get_no_finish_needed());
        }
    }
}

impl capnp_rpc::OutgoingMessage for Outgoing {
    fn get_body(&mut self) -> capnp::Result<capnp::any_pointer::Builder<'_>> {
        self.message.get_root()
    }

    fn get_body_as_reader(&self) -> capnp::Result<capnp::any_pointer::Reader<'_>> {
        self.message.get_root_as_reader()
    }

    fn send(self: Box<Self>) -> (Promise<(), Error>, Rc<Builder<HeapAllocator>>) {
        let sent = match self.wire.is_ending() {
            true => Promise::err(Error::disconnected("the connection has ended".to_owned())),
            false => {
                self.account();
                self.wire.say(&self.message);
                Promise::ok(())
            }
        };
        (sent, Rc::new(self.message))
    }

    fn take(self: Box<Self>) -> Builder<HeapAllocator> {
        self.message
    }

    fn size_in_words(&self) -> usize {
        self.message.size_in_words()
    }
}

/// Writes what is queued until the connection ends, then closes the stream.
pub(super) async fn flush<W: AsyncWrite + Unpin>(wire: Rc<Wire>, mut stream: W) {
    let mut batch = Vec::new();
    while queued(&wire, &mut batch).await {
        if let Err(error) = write(&wire, &mut stream, &batch).await {
            wire.close(broken(error));
            break;
        }
        wire.flushes.set(wire.flushes.get() + 1);
        match batch.capacity() > KEPT_BYTES_MAX {
            true => batch = Vec::new(),
            false => batch.clear(),
        }
    }
    // The other side is told that this was all. Whether it still listens is its own affair.
    let _ = tokio::time::timeout(LINGER, stream.shutdown()).await;
    wire.queued.borrow_mut().clear();
    wire.writing.set(0);
    wire.finish();
}

/// Takes what is queued, after everything else that is ready to speak has spoken; false at the end.
async fn queued(wire: &Wire, batch: &mut Vec<u8>) -> bool {
    let mut yielded = false;
    poll_fn(|context| {
        let mut queued = wire.queued.borrow_mut();
        if !queued.is_empty() && (yielded || wire.is_ending()) {
            std::mem::swap(&mut *queued, batch);
            wire.writing.set(batch.len());
            return Poll::Ready(true);
        }
        if !queued.is_empty() {
            yielded = true;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        if wire.is_ending() {
            return Poll::Ready(false);
        }
        wire.flusher.wait(context.waker());
        Poll::Pending
    })
    .await
}

async fn write<W: AsyncWrite + Unpin>(
    wire: &Wire,
    stream: &mut W,
    mut bytes: &[u8],
) -> std::io::Result<()> {
    while !bytes.is_empty() {
        let written = tokio::select! {
            biased;
            written = stream.write(bytes) => written?,
            () = lingered(wire) => return Err(std::io::ErrorKind::TimedOut.into()),
        };
        if written == 0 {
            return Err(std::io::ErrorKind::WriteZero.into());
        }
        wire.note_written(written);
        bytes = &bytes[written..];
    }
    stream.flush().await
}

/// Resolves when the connection has been ending for too long to wait for the other side.
async fn lingered(wire: &Wire) {
    poll_fn(|context| {
        if wire.is_ending() {
            return Poll::Ready(());
        }
        wire.flusher.wait(context.waker());
        Poll::Pending
    })
    .await;
    tokio::time::sleep(LINGER).await;
}
