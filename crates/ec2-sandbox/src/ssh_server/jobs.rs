//! The tasks of a connection: each channel starts its own, and [`serve`](super::serve) runs and ends them.

use std::pin::Pin;

use tokio::sync::mpsc;

/// The work of one channel.
pub(super) type Job = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Hands work to the connection's owner, who also ends it.
#[derive(Clone)]
pub(super) struct Jobs(mpsc::UnboundedSender<Job>);

impl Jobs {
    pub(super) fn new() -> (Self, mpsc::UnboundedReceiver<Job>) {
        let (sender, jobs) = mpsc::unbounded_channel();
        (Self(sender), jobs)
    }

    pub(super) fn start(&self, job: impl Future<Output = ()> + Send + 'static) {
        // Without an owner the connection is being torn down, and the work with it.
        let _ = self.0.send(Box::pin(job));
    }
}
