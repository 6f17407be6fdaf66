//! The SFTP subsystem: version 3 of the protocol as OpenSSH's `sftp` and `scp` speak it.
//!
//! This file cuts the stream into requests and sends the replies, in order; [`Files`] answers them.
//! Requests that have arrived together are answered together, away from the runtime's own threads,
//! because each one may wait for a disk.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use russh::server::Msg;
use russh::{Channel, ChannelWriteHalf};

use self::files::Files;
use super::inbox::{self, Backlog, Inbox};

mod attributes;
mod files;
mod paths;

/// Serves SFTP on a channel until either side ends it.
pub(super) async fn run(channel: Channel<Msg>, home: PathBuf, backlog: Arc<Backlog>) {
    let (incoming, channel) = channel.split();
    let (mut intake, inbox) = inbox::open(channel.id(), incoming, backlog);
    tokio::select! {
        outcome = answer_all(inbox, Files::new(home), &channel) => {
            let _ = finish(outcome, &channel).await;
        }
        () = intake.closed() => {}
    }
}

/// scp's exit status is this one, and scp fails if the channel closes without one.
async fn finish(outcome: Result<(), Error>, channel: &ChannelWriteHalf<Msg>) -> Result<(), russh::Error> {
    let status = match outcome {
        Ok(()) => 0,
        Err(error) => {
            tracing::debug!(%error, "sftp ended early");
            1
        }
    };
    channel.exit_status(status).await?;
    channel.eof().await?;
    channel.close().await
}

async fn answer_all(
    mut inbox: Inbox,
    mut files: Files,
    channel: &ChannelWriteHalf<Msg>,
) -> Result<(), Error> {
    let mut input = BytesMut::new();
    while let Some(chunk) = inbox.next().await {
        input.extend_from_slice(&chunk);
        loop {
            while input.len() < BATCH_SIZE
                && let Some(chunk) = inbox.next_ready()
            {
                input.extend_from_slice(&chunk);
            }
            let requests = take_requests(&mut input)?;
            if requests.is_empty() {
                break;
            }
            let replies;
            (files, replies) = tokio::task::spawn_blocking(move || {
                let mut replies = BytesMut::new();
                for request in requests {
                    files.answer(request, &mut replies);
                }
                (files, replies.freeze())
            })
            .await?;
            channel.data_bytes(replies).await?;
        }
    }
    Ok(())
}

/// Takes the complete requests, up to a batch of them, from the front of the input.
fn take_requests(input: &mut BytesMut) -> Result<Vec<Bytes>, Error> {
    let mut requests = Vec::new();
    while requests.len() < BATCH
        && let Some(prefix) = input.first_chunk()
    {
        let length = u32::from_be_bytes(*prefix) as usize;
        if !(1..=MAXIMUM_REQUEST).contains(&length) {
            return Err(Error::Length(length));
        }
        if input.len() < PREFIX + length {
            input.reserve(PREFIX + length - input.len());
            break;
        }
        let mut request = input.split_to(PREFIX + length).freeze();
        request.advance(PREFIX);
        requests.push(request);
    }
    Ok(requests)
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Channel(#[from] russh::Error),
    #[error("a request claims a length of {0} bytes")]
    Length(usize),
    #[error(transparent)]
    Task(#[from] tokio::task::JoinError),
}

/// The length in front of each message.
const PREFIX: usize = 4;

/// The largest request, as in OpenSSH's own server.
const MAXIMUM_REQUEST: usize = 256 * 1024;

/// The requests answered at once. OpenSSH keeps 64 in flight: some always wait on the way.
const BATCH: usize = 16;

/// Bytes of requests that are answered at once.
const BATCH_SIZE: usize = 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_cut_at_their_lengths() {
        let mut input = BytesMut::from(&b"\0\0\0\x02ab\0\0\0\x01c\0\0\0\x03d"[..]);
        assert_eq!(take_requests(&mut input).unwrap(), [&b"ab"[..], b"c"]);
        assert_eq!(&input[..], b"\0\0\0\x03d");
        input.extend_from_slice(b"ef\0\0");
        assert_eq!(take_requests(&mut input).unwrap(), [&b"def"[..]]);
        assert_eq!(&input[..], b"\0\0");
    }

    #[test]
    fn batch_is_bounded() {
        let mut input = BytesMut::from(b"\0\0\0\x01x".repeat(BATCH + 1).as_slice());
        assert_eq!(take_requests(&mut input).unwrap().len(), BATCH);
        assert_eq!(take_requests(&mut input).unwrap().len(), 1);
    }

    #[test]
    fn absurd_lengths_are_refused_before_anything_is_allocated() {
        for length in [0, MAXIMUM_REQUEST + 1, u32::MAX as usize] {
            let prefix = u32::try_from(length).unwrap().to_be_bytes();
            let refused = take_requests(&mut BytesMut::from(&prefix[..]));
            assert!(matches!(refused, Err(Error::Length(claimed)) if claimed == length));
        }
    }
}
