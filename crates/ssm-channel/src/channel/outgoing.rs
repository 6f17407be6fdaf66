//! Messages to the peer: acknowledgements, data, probes of sizes.

use std::time::Instant;

use bytes::Bytes;

use super::acknowledgements::Acknowledgement;
use super::{Channel, Outgoing, Phase, Side};
use crate::message::{Draft, Header, MessageType, PayloadType, SYN, SYN_FIN};
use crate::send::Permit;

impl Channel {
    /// The next message for the websocket. Acknowledgements come before data.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Outgoing> {
        if !self.attached {
            return None;
        }
        if let Some(open) = self.open.take() {
            return Some(Outgoing::Open(open));
        }
        if let Some(acknowledgement) = self.acknowledgements.pop() {
            return Some(Outgoing::Record(self.write_acknowledgement(now, acknowledgement)));
        }
        if self.phase == Phase::Closed {
            return None;
        }
        let permit = if self.pause.is_on() { Permit::OnlyHead } else { Permit::All };
        if permit == Permit::All && self.send.lacks_confirmation() && self.must_confirm() {
            self.push_bytes(now, PROBE, &[0]);
        }
        let record = self.send.poll_transmit(now, permit);
        if let Some(number) = self.sizes.unsent()
            && let Some(sent_at) = self.send.first_sent_at(number)
        {
            self.sizes.probe_sent(sent_at);
        }
        record.map(Outgoing::Record)
    }

    /// Only on the client: SSM agents send no probes. And only after the SSM agent has accepted data: before
    /// that a missing acknowledgement proves nothing about sizes.
    pub(super) fn probes_sizes(&self) -> bool {
        self.peer_takes_data && matches!(self.side, Side::Client { .. })
    }

    /// Whether repeats need [`SendStream::confirm`](crate::send::SendStream::confirm), since this version of
    /// the SSM agent does not acknowledge duplicates. False before the SSM agent accepts data: until then it
    /// acknowledges later messages although it refused the data before them, so that such an acknowledgement
    /// proves nothing.
    pub(super) fn must_confirm(&self) -> bool {
        let forgets = self.agent_version.is_some_and(|version| !version.acknowledges_duplicates());
        forgets && self.peer_takes_data && matches!(self.side, Side::Client { .. })
    }

    /// Replaces a probe by a message of the same number with one byte of payload, which passes for certain.
    pub(super) fn withdraw_probe(&mut self, now: Instant, number: i64) {
        let mut draft = Draft::with_capacity(1);
        draft.push(&[0]);
        let header = self.header(now, number, PROBE);
        self.send.replace(number, draft.seal(&header));
    }

    pub(super) fn push_bytes(&mut self, now: Instant, payload_type: PayloadType, payload: &[u8]) -> i64 {
        let mut draft = Draft::with_capacity(payload.len());
        draft.push(payload);
        self.push(now, payload_type, &mut draft)
    }

    /// Gives a message its number and adds it to the send window.
    pub(super) fn push(&mut self, now: Instant, payload_type: PayloadType, draft: &mut Draft) -> i64 {
        let number = self.send.next_sequence_number();
        let header = self.header(now, number, payload_type);
        self.send.push(now, draft.seal(&header));
        number
    }

    fn header(&mut self, now: Instant, number: i64, payload_type: PayloadType) -> Header {
        let (message_type, flags) = match self.side {
            Side::Client { .. } => (MessageType::InputStreamData, 0),
            Side::Instance { .. } => (MessageType::OutputStreamData, if number == 0 { SYN } else { 0 }),
        };
        Header {
            message_type,
            created_at: self.stamp.unix_millis(now),
            sequence_number: number,
            flags,
            id: self.stamp.next_id(),
            payload_type,
        }
    }

    fn write_acknowledgement(&mut self, now: Instant, acknowledgement: Acknowledgement) -> Bytes {
        let header = Header {
            message_type: MessageType::Acknowledge,
            created_at: self.stamp.unix_millis(now),
            sequence_number: 0,
            flags: SYN_FIN,
            id: self.stamp.next_id(),
            payload_type: PayloadType::None,
        };
        self.acknowledgements.write(&header, acknowledgement)
    }
}

/// A number that is defined and unused ("Parameter"). The SSM agent's port session acknowledges it and does
/// nothing (`agent/session/plugins/port/port_basic.go`, `HandleStreamMessage`).
pub(super) const PROBE: PayloadType = PayloadType::Other(4);
