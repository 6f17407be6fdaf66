//! The tasks of a region, so that they end with it. Stopping a task drops it where it waits.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::{JoinError, JoinSet};

/// Every task of one region; clones share the set.
#[derive(Clone, Debug)]
pub(crate) struct Tasks(Arc<Mutex<Option<JoinSet<()>>>>);

impl Default for Tasks {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Some(JoinSet::new()))))
    }
}

impl Tasks {
    /// Runs `task` on the current runtime until it ends or the set is stopped; not at all if it was stopped.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        if let Some(running) = self.0.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            while let Some(result) = running.try_join_next() {
                report(result);
            }
            running.spawn(task);
        }
    }

    /// Ends every task, and with them their connections.
    pub(crate) fn stop(&self) {
        let running = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Outside the lock: a task may own a clone of the set.
        drop(running);
    }
}

fn report(result: Result<(), JoinError>) {
    if let Err(error) = result {
        tracing::error!(%error, "a task of the region failed");
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn stopping_drops_what_waits_and_what_comes_after() {
        let tasks = Tasks::default();
        for late in [false, true] {
            if late {
                tasks.stop();
            }
            let (held, dropped) = oneshot::channel::<()>();
            let inner = tasks.clone();
            tasks.spawn(async move {
                let _held = (held, inner);
                std::future::pending().await
            });
            tokio::task::yield_now().await;
            tasks.stop();
            assert!(dropped.await.is_err());
        }
    }
}
