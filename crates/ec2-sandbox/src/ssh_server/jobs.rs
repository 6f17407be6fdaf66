//! The tasks of a connection: each channel starts its own, and [`serve`](super::serve) runs and ends them.

use std::pin::Pin;

use tokio::sync::mpsc;

/// The work of one channel.
pub(super) type Job = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Sends tasks to [`serve`](super::serve).
#[derive(Clone)]
pub(super) struct Jobs(mpsc::UnboundedSender<Job>);

impl Jobs {
    pub(super) fn new() -> (Self, mpsc::UnboundedReceiver<Job>) {
        let (sender, jobs) = mpsc::unbounded_channel();
        (Self(sender), jobs)
    }

    pub(super) fn start(&self, job: impl Future<Output = ()> + Send + 'static) {
        // This fails only while the connection ends, and then its tasks end as well.
        let _ = self.0.send(Box::pin(job));
    }
}
