//! Turns of the executor: letting everything that is ready speak before the sum is sent.

use std::future::poll_fn;
use std::task::Poll;

/// Lets every task that is ready run once before this one goes on.
pub(crate) async fn end_of_turn() {
    let mut yielded = false;
    poll_fn(|context| {
        if yielded {
            return Poll::Ready(());
        }
        yielded = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
