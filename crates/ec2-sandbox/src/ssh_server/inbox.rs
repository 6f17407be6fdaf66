//! Data that a client has sent into a channel and that is not consumed yet.
//!
//! russh grants a channel more window when data arrives, not when it is consumed, and it stops the whole
//! connection when a channel's queue is full: `ssh host cat` would then wait for itself. So an [`Intake`]
//! always takes arriving data, an [`Inbox`] holds it, and the [`Backlog`] of the connection decides how much
//! window is granted next. russh applies that answer to whichever channel needs window next, so a stalled
//! channel beside a busy one may pass its own limit, but never the connection's; once that is reached, the
//! connection's other uploads are slow, too. Downloads never are.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use russh::{ChannelId, ChannelMsg, ChannelReadHalf};
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;

/// The bytes that wait in the inboxes of one connection.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    sizes: Mutex<Sizes>,
    drained: Notify,
}

#[derive(Debug, Default)]
struct Sizes {
    channels: HashMap<u32, usize>,
    total: usize,
}

impl Backlog {
    /// Returns the window to grant on behalf of a channel.
    ///
    /// It is never zero: russh asks again only after the client has used up what it got.
    pub(super) fn grant(&self, channel: u32) -> u32 {
        let sizes = self.lock();
        let own = sizes.channels.get(&channel).copied().unwrap_or_default();
        match CHANNEL_LIMIT.saturating_sub(own).min(LIMIT.saturating_sub(sizes.total)) {
            free if free < REOPEN => TRICKLE,
            free => u32::try_from(free).unwrap_or(WINDOW).min(WINDOW),
        }
    }

    /// Waits a short time for room when the client has almost no window left.
    ///
    /// The session loop calls this after each packet. Without it client and server would exchange tiny
    /// packets at full speed while a consumer stalls; the bound keeps the connection's other traffic
    /// (window adjustments above all) moving.
    pub(super) async fn pace(&self, channel: u32, received: usize) {
        if received <= TRICKLE as usize {
            let _ = timeout(TRICKLE_PAUSE, self.room(channel)).await;
        }
    }

    async fn room(&self, channel: u32) {
        while self.grant(channel) == TRICKLE {
            self.drained.notified().await;
        }
    }

    fn add(&self, channel: u32, chunk: &Bytes) {
        let mut sizes = self.lock();
        sizes.total += cost(chunk);
        *sizes.channels.entry(channel).or_default() += cost(chunk);
    }

    fn release(&self, channel: u32, chunk: &Bytes) {
        let mut sizes = self.lock();
        sizes.total -= cost(chunk);
        if let Some(own) = sizes.channels.get_mut(&channel) {
            *own -= cost(chunk);
            if *own == 0 {
                sizes.channels.remove(&channel);
            }
        }
        drop(sizes);
        // Only the session loop waits, and it checks the condition again.
        self.drained.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Sizes> {
        self.sizes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Splits a channel's incoming half into its data and the rest.
pub(super) fn open(id: ChannelId, channel: ChannelReadHalf, backlog: Arc<Backlog>) -> (Intake, Inbox) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let id = id.into();
    let intake = Intake { id, channel, data: Some(sender), backlog: Arc::clone(&backlog) };
    (intake, Inbox { id, receiver, backlog })
}

/// Moves a channel's data into its [`Inbox`]. Must be polled all the time, see the module documentation.
pub(super) struct Intake {
    id: u32,
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
        self.backlog.add(self.id, &data);
        if let Err(unwanted) = sender.send(data) {
            self.backlog.release(self.id, &unwanted.0);
        }
    }
}

/// The data of one channel, in order.
pub(super) struct Inbox {
    id: u32,
    receiver: mpsc::UnboundedReceiver<Bytes>,
    backlog: Arc<Backlog>,
}

impl Inbox {
    /// Returns the next chunk, or `None` after the last one. Cancel-safe.
    pub(super) async fn next(&mut self) -> Option<Bytes> {
        let chunk = self.receiver.recv().await?;
        self.backlog.release(self.id, &chunk);
        Some(chunk)
    }

    /// Returns the next chunk if it has arrived already.
    pub(super) fn next_ready(&mut self) -> Option<Bytes> {
        let chunk = self.receiver.try_recv().ok()?;
        self.backlog.release(self.id, &chunk);
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

/// Bytes of a channel's inbox at which no more window is granted.
const CHANNEL_LIMIT: usize = 8 * 1024 * 1024;

/// The same for all channels of a connection.
const LIMIT: usize = 8 * CHANNEL_LIMIT;

/// The room that must be free before granting resumes. Less would split the stream into tiny packets.
const REOPEN: usize = 256 * 1024;

/// The smallest window that russh ever renews: it does so below one half of it.
const TRICKLE: u32 = 2;

/// How long the session loop may wait between two packets when the window is almost used up.
const TRICKLE_PAUSE: Duration = Duration::from_millis(25);

/// The memory of a queued chunk besides its bytes.
const CHUNK_OVERHEAD: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    const CHANNEL: u32 = 2;

    /// An inbox with so many chunks of 64 KiB.
    fn filled(channel: u32, chunks: usize, backlog: &Arc<Backlog>) -> Inbox {
        let (sender, receiver) = mpsc::unbounded_channel();
        for _ in 0..chunks {
            let chunk = Bytes::from(vec![0; 64 * 1024 - CHUNK_OVERHEAD]);
            backlog.add(channel, &chunk);
            sender.send(chunk).unwrap();
        }
        Inbox { id: channel, receiver, backlog: Arc::clone(backlog) }
    }

    #[test]
    fn window_shrinks_with_the_free_room() {
        let backlog = Arc::default();
        for (chunks, granted) in
            [(0, WINDOW), (64, WINDOW), (120, 8 * 64 * 1024), (125, TRICKLE), (500, TRICKLE)]
        {
            let inbox = filled(CHANNEL, chunks, &backlog);
            assert_eq!(backlog.grant(CHANNEL), granted, "{chunks} chunks");
            drop(inbox);
        }
        assert_eq!(backlog.lock().total, 0);
        assert!(backlog.lock().channels.is_empty());
    }

    #[test]
    fn full_channel_leaves_the_window_of_another_alone() {
        let backlog = Arc::default();
        let _full = filled(CHANNEL, 128, &backlog);
        assert_eq!((backlog.grant(CHANNEL), backlog.grant(CHANNEL + 1)), (TRICKLE, WINDOW));
        let _fuller = filled(CHANNEL, 1024, &backlog);
        assert_eq!(backlog.grant(CHANNEL + 1), TRICKLE);
    }

    #[tokio::test]
    async fn room_comes_when_a_consumer_takes_enough() {
        let backlog = Arc::default();
        let mut inbox = filled(CHANNEL, 128, &backlog);
        let waiting = tokio::spawn({
            let backlog = Arc::clone(&backlog);
            async move { backlog.room(CHANNEL).await }
        });
        for _ in 0..4 {
            tokio::task::yield_now().await;
            assert!(!waiting.is_finished());
            inbox.next().await.unwrap();
        }
        waiting.await.unwrap();
    }
}
