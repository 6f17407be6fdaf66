//! The client's numbered messages: in order, early, or repeated.

use std::time::{Duration, Instant};

use bytes::Bytes;
use ssm_channel::{Header, Message, PayloadType};

use super::{Acknowledgement, DataChannel, Event, Handshake, Reader};
use crate::ssm_agent::handshake;

/// What to do with the next message in order.
enum Taken {
    Yes,
    /// Neither acknowledge nor count it: the client has to send it again.
    Refused,
    /// Write it to the port or command.
    Input(Bytes),
    /// The reader blocks for ever.
    Never,
}

impl DataChannel {
    pub(super) fn handle_input(&mut self, now: Instant, message: Message) {
        let Header { id, sequence_number: number, payload_type, .. } = message.header;
        let acknowledgement = Acknowledgement { id, number };
        if number < self.expected {
            if self.version.acknowledges_duplicates() {
                self.acknowledge(now, acknowledgement);
            }
            return;
        }
        if number > self.expected {
            if self.early.len() < EARLY_CAPACITY || self.early.contains_key(&number) {
                self.acknowledge(now, acknowledgement);
                // A copy, since a slice would keep the whole websocket frame in memory.
                let payload = Bytes::copy_from_slice(&message.payload);
                self.early.insert(number, (payload_type, payload));
            }
            return;
        }
        match self.take(now, payload_type, message.payload) {
            Taken::Yes => {
                self.acknowledge(now, acknowledgement);
                self.advance(now);
            }
            Taken::Refused => {}
            Taken::Input(input) => {
                self.reader = Reader::Writing { input, acknowledgement: Some(acknowledgement) };
            }
            Taken::Never => self.reader = Reader::Stuck,
        }
    }

    /// The expected message is done; messages that came early follow.
    pub(super) fn advance(&mut self, now: Instant) {
        self.expected += 1;
        while let Some((payload_type, payload)) = self.early.remove(&self.expected) {
            match self.take(now, payload_type, payload) {
                Taken::Yes | Taken::Refused => self.expected += 1,
                Taken::Input(input) => {
                    self.reader = Reader::Writing { input, acknowledgement: None };
                    return;
                }
                Taken::Never => {
                    self.reader = Reader::Stuck;
                    return;
                }
            }
        }
    }

    fn take(&mut self, now: Instant, payload_type: PayloadType, payload: Bytes) -> Taken {
        if payload_type == PayloadType::HandshakeResponse {
            return self.take_response(now, &payload);
        }
        match self.handshake {
            Handshake::Complete if !self.connected => Taken::Refused,
            Handshake::Complete if payload_type == PayloadType::Output => Taken::Input(payload),
            Handshake::Complete => {
                if payload_type == PayloadType::Flag
                    && let Ok(number) = payload.as_ref().try_into()
                {
                    self.events.push_back(Event::Flag(u32::from_be_bytes(number)));
                }
                Taken::Yes
            }
            _ => Taken::Yes,
        }
    }

    fn take_response(&mut self, now: Instant, payload: &[u8]) -> Taken {
        let Handshake::Asked { since } = self.handshake else {
            // The reader passes the response to a thread that has ended.
            return Taken::Never;
        };
        let Some(failure) = handshake::failure(payload) else { return Taken::Refused };
        if let Some(text) = failure {
            self.fail_handshake(&text);
        } else {
            let complete = handshake::complete(now.saturating_duration_since(since));
            self.send(now, PayloadType::HandshakeComplete, complete.as_bytes());
            self.handshake = Handshake::Completing { until: now + COMPLETING_TIME };
        }
        Taken::Yes
    }

    pub(super) fn fail_handshake(&mut self, text: &str) {
        self.handshake = Handshake::Failed;
        self.events.push_back(Event::HandshakeFailed(handshake::failed(text)));
    }
}

/// `IncomingMessageBufferCapacity`: messages, whatever their size.
const EARLY_CAPACITY: usize = 100_000;
/// How long the flag of the handshake is set after the message. With the real agent on loopback, 1 to 5 of
/// 100 clients that sent at once lost their data; here all do.
const COMPLETING_TIME: Duration = Duration::from_millis(2);
