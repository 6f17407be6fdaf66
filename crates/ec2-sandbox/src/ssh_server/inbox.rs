//! What a client has sent into a channel and nobody has consumed yet.
//!
//! russh grants a channel's window again when data arrives, not when it is consumed, and it stops the
//! whole connection when a channel's queue is full: `ssh host cat` would then wait for itself. So an
//! [`Intake`] always takes what arrives, an [`Inbox`] holds it, and the [`Backlog`] of the connection
//! decides how much window the client is granted next. Memory stays near [`LIMIT`] plus one initial
//! window for each channel. The bound is per connection: an upload that nobody consumes slows down the
//! other uploads of the same connection, never its downloads.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use russh::{ChannelMsg, ChannelReadHalf};
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;

/// The bytes that wait in all inboxes of one connection.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    size: AtomicUsize,
    drained: Notify,
}

impl Backlog {
    /// Returns the window to grant a channel.
    ///
    /// It is never zero: russh asks again only after the client has used up what it got.
    pub(super) fn grant(&self) -> u32 {
        match LIMIT.saturating_sub(self.size.load(Ordering::Relaxed)) {
            free if free < REOPEN => TRICKLE,
            free => u32::try_from(free).unwrap_or(WINDOW).min(WINDOW),
        }
    }

    /// Waits, but not for long, for room when the client is down to a trickle.
    ///
    /// The session loop calls this after each packet. Without it client and server would exchange tiny
    /// packets at full speed while a consumer stalls; the bound keeps the connection's other traffic
    /// (window adjustments above all) moving.
    pub(super) async fn pace(&self, received: usize) {
        if received <= TRICKLE as usize {
            let _ = timeout(TRICKLE_PAUSE, self.room()).await;
        }
    }

    async fn room(&self) {
        while self.grant() == TRICKLE {
            self.drained.notified().await;
        }
    }

    fn add(&self, chunk: &Bytes) {
        self.size.fetch_add(cost(chunk), Ordering::Relaxed);
    }

    fn release(&self, chunk: &Bytes) {
        let before = self.size.fetch_sub(cost(chunk), Ordering::Relaxed);
        if before + REOPEN > LIMIT && self.grant() > TRICKLE {
            self.drained.notify_one();
        }
    }
}

/// Splits a channel's incoming half into its data and the rest.
pub(super) fn open(channel: ChannelReadHalf, backlog: Arc<Backlog>) -> (Intake, Inbox) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (Intake { channel, data: Some(sender), backlog: Arc::clone(&backlog) }, Inbox { receiver, backlog })
}

/// Moves a channel's data into its [`Inbox`]. Must be polled all the time, see the module's text.
pub(super) struct Intake {
    channel: ChannelReadHalf,
    data: Option<mpsc::UnboundedSender<Bytes>>,
    backlog: Arc<Backlog>,
}

impl Intake {
    /// Returns the next message that is not data, or `None` when the channel or connection is closed.
    ///
    /// Cancel-safe.
    pub(super) async fn next(&mut self) -> Option<ChannelMsg> {
        loop {
            match self.channel.wait().await {
                Some(ChannelMsg::Data { data }) => self.keep(data),
                Some(ChannelMsg::Eof) => self.data = None,
                Some(ChannelMsg::Close) | None => {
                    self.data = None;
                    return None;
                }
                Some(message) => return Some(message),
            }
        }
    }

    /// Waits for the channel to close.
    pub(super) async fn closed(&mut self) {
        while self.next().await.is_some() {}
    }

    fn keep(&self, data: Bytes) {
        let Some(sender) = &self.data else { return };
        self.backlog.add(&data);
        if let Err(unwanted) = sender.send(data) {
            self.backlog.release(&unwanted.0);
        }
    }
}

/// The data of one channel, in order.
pub(super) struct Inbox {
    receiver: mpsc::UnboundedReceiver<Bytes>,
    backlog: Arc<Backlog>,
}

impl Inbox {
    /// Returns the next chunk, or `None` after the last one. Cancel-safe.
    pub(super) async fn next(&mut self) -> Option<Bytes> {
        let chunk = self.receiver.recv().await?;
        self.backlog.release(&chunk);
        Some(chunk)
    }

    /// Returns the next chunk if it has arrived already.
    pub(super) fn next_ready(&mut self) -> Option<Bytes> {
        let chunk = self.receiver.try_recv().ok()?;
        self.backlog.release(&chunk);
        Some(chunk)
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.receiver.close();
        while self.next_ready().is_some() {}
    }
}

fn cost(chunk: &Bytes) -> usize {
    chunk.len() + CHUNK_OVERHEAD
}

/// The window of a fresh channel, and the most that is ever granted; OpenSSH uses the same.
pub(super) const WINDOW: u32 = 2 * 1024 * 1024;

/// Where granting stops.
const LIMIT: usize = 8 * 1024 * 1024;

/// The room that must be free before granting resumes. Less would split the stream into tiny packets.
const REOPEN: usize = 256 * 1024;

/// The smallest window that russh ever renews: it does so below one half of it.
const TRICKLE: u32 = 2;

/// How long the session loop may rest between two packets of a trickle.
const TRICKLE_PAUSE: Duration = Duration::from_millis(25);

/// What a queued chunk takes besides its bytes.
const CHUNK_OVERHEAD: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(backlog: &Arc<Backlog>, chunks: usize) -> Inbox {
        let (sender, receiver) = mpsc::unbounded_channel();
        for _ in 0..chunks {
            let chunk = Bytes::from(vec![0; 64 * 1024 - CHUNK_OVERHEAD]);
            backlog.add(&chunk);
            sender.send(chunk).unwrap();
        }
        Inbox { receiver, backlog: Arc::clone(backlog) }
    }

    #[test]
    fn window_shrinks_with_the_free_room() {
        let backlog = Arc::default();
        let first = filled(&backlog, 64);
        assert_eq!(backlog.grant(), WINDOW);
        let second = filled(&backlog, 56);
        assert_eq!(backlog.grant(), 8 * 64 * 1024);
        let third = filled(&backlog, 5);
        assert_eq!(backlog.grant(), TRICKLE);
        drop((first, second, third));
        assert_eq!(backlog.grant(), WINDOW);
        assert_eq!(backlog.size.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn room_comes_when_a_consumer_takes_enough() {
        let backlog = Arc::default();
        let mut inbox = filled(&backlog, 128);
        let waiting = tokio::spawn({
            let backlog = Arc::clone(&backlog);
            async move { backlog.room().await }
        });
        for _ in 0..4 {
            tokio::task::yield_now().await;
            assert!(!waiting.is_finished());
            inbox.next().await.unwrap();
        }
        waiting.await.unwrap();
    }
}
