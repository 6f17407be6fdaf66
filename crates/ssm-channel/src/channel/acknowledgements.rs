//! Acknowledgements: those to send, and those to send again on the next websocket.

use std::collections::VecDeque;

use bytes::Bytes;
use serde::Deserialize;

use crate::error::ProtocolError;
use crate::message::{Draft, Header, MessageId, MessageType};

pub(super) struct Acknowledgements {
    /// To send, oldest first.
    waiting: VecDeque<Acknowledgement>,
    /// The last ones sent, to send again on a new websocket: they may have been lost with the old one, and
    /// the SSM agent would then repeat each message, ten a second.
    recent: VecDeque<Acknowledgement>,
    draft: Draft,
}

#[derive(Clone, Copy)]
pub(super) struct Acknowledgement {
    pub(super) message_type: MessageType,
    pub(super) id: MessageId,
    pub(super) number: i64,
}

impl Acknowledgements {
    pub(super) fn new() -> Self {
        Self { waiting: VecDeque::new(), recent: VecDeque::new(), draft: Draft::with_capacity(16 * 1024) }
    }

    pub(super) fn push(&mut self, acknowledgement: Acknowledgement) {
        self.waiting.push_back(acknowledgement);
    }

    /// Whether too many wait, because the peer sends and does not read.
    pub(super) fn is_full(&self) -> bool {
        self.waiting.len() >= ACKNOWLEDGEMENT_LIMIT
    }

    /// A new websocket: sends the recent ones again, before those that wait.
    pub(super) fn rewind(&mut self) {
        let waiting = std::mem::take(&mut self.waiting);
        self.waiting = std::mem::take(&mut self.recent);
        self.waiting.extend(waiting);
    }

    /// The next one to send, to be written with [`write`](Self::write).
    pub(super) fn pop(&mut self) -> Option<Acknowledgement> {
        let acknowledgement = self.waiting.pop_front()?;
        if self.recent.len() == RECENT_ACKNOWLEDGEMENTS {
            self.recent.pop_front();
        }
        self.recent.push_back(acknowledgement);
        Some(acknowledgement)
    }

    pub(super) fn write(&mut self, header: &Header, acknowledgement: Acknowledgement) -> Bytes {
        let Acknowledgement { message_type, id, number } = acknowledgement;
        let draft = &mut self.draft;
        draft.push(br#"{"AcknowledgedMessageType":""#);
        draft.push(message_type.name().as_bytes());
        draft.push(br#"","AcknowledgedMessageId":""#);
        draft.push(&id.hyphenated());
        draft.push(br#"","AcknowledgedMessageSequenceNumber":"#);
        draft.push(number.to_string().as_bytes());
        draft.push(br#","IsSequentialMessage":true}"#);
        draft.seal(header)
    }
}

/// The number of the message that a peer acknowledges.
///
/// # Errors
///
/// The payload is not the JSON of an acknowledgement.
pub(super) fn acknowledged_number(payload: &[u8]) -> Result<i64, ProtocolError> {
    let payload: AcknowledgePayload = serde_json::from_slice(payload)
        .map_err(|source| ProtocolError::Payload { what: "acknowledgement", source })?;
    Ok(payload.acknowledged_message_sequence_number)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct AcknowledgePayload {
    acknowledged_message_sequence_number: i64,
}

/// More messages than an SSM agent has under way at 1 MB/s and 300 ms; 75 KB on the wire.
const RECENT_ACKNOWLEDGEMENTS: usize = 256;
/// 2.6 MB of acknowledgements that the websocket does not accept: the peer does not read.
const ACKNOWLEDGEMENT_LIMIT: usize = 64 * 1024;
