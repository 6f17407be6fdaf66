//! One channel whose peer sends anything at any time: it never panics, and its memory stays under its bounds.

#![no_main]

use std::time::{Duration, Instant};

use arbitrary::Arbitrary;
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use ssm_channel::{
    Channel, Draft, Header, MAX_WINDOW, Message, MessageId, MessageType, Origin, Outgoing, PayloadType,
    SessionType, Side, SsmAgentVersion,
};

#[derive(Arbitrary, Debug)]
enum Op<'a> {
    AcceptData,
    Acknowledge(i64),
    Attach,
    Close,
    /// A request, a response or a completion that a peer might send.
    Handshake {
        number: i8,
        kind: u8,
        agent_version: &'a str,
        action: &'a str,
        status: u8,
    },
    /// A well-formed message of any type with any payload.
    Message {
        message_type: u8,
        number: i64,
        payload_type: u8,
        payload: &'a [u8],
    },
    /// The same with a number close to the expected ones and a payload of zeros.
    Stream {
        number: u8,
        length: u16,
    },
    Raw(&'a [u8]),
    Read,
    Send(u16),
    Terminate,
    Transmit(u8),
    Wait(u32),
}

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    client: bool,
    seed: u64,
    ops: Vec<Op<'a>>,
}

fuzz_target!(|input: Input| {
    let now = Instant::now();
    let origin = Origin { seed: input.seed, unix_time: Duration::from_secs(1), now };
    let side = if input.client {
        Side::Client { client_id: "client".into() }
    } else {
        let session = SessionType { session_type: "Port".into(), properties: serde_json::Value::Null };
        Side::Instance { agent_version: SsmAgentVersion::parse("3.3.1142.0").unwrap(), session }
    };
    let mut driver = Driver {
        channel: Channel::new(side, origin),
        draft: Draft::with_capacity(1024),
        incoming: if input.client { MessageType::OutputStreamData } else { MessageType::InputStreamData },
        now,
    };
    driver.channel.attach(now, "token");
    for op in input.ops.iter().take(MAX_OPS) {
        driver.apply(op);
        driver.check();
    }
});

struct Driver {
    channel: Channel,
    draft: Draft,
    incoming: MessageType,
    now: Instant,
}

impl Driver {
    fn apply(&mut self, op: &Op<'_>) {
        let now = self.now;
        match op {
            Op::AcceptData => self.channel.accept_data(),
            Op::Acknowledge(number) => {
                let payload = format!(r#"{{"AcknowledgedMessageSequenceNumber":{number}}}"#);
                self.handle(MessageType::Acknowledge, 0, PayloadType::None, payload.as_bytes());
            }
            Op::Attach => self.channel.attach(now, "token"),
            Op::Close => self.channel.handle_closed(now),
            Op::Handshake { number, kind, agent_version, action, status } => {
                let (payload_type, payload) = handshake(*kind, agent_version, action, *status);
                self.handle(self.incoming, (*number).into(), payload_type, payload.to_string().as_bytes());
            }
            Op::Message { message_type, number, payload_type, payload } => {
                let message_type = MESSAGE_TYPES[usize::from(*message_type) % MESSAGE_TYPES.len()];
                self.handle(message_type, *number, u32::from(*payload_type).into(), payload);
            }
            Op::Stream { number, length } => {
                let payload = vec![0; usize::from(*length)];
                self.handle(self.incoming, (*number).into(), PayloadType::Output, &payload);
            }
            Op::Raw(record) => {
                // Refused or not, the channel goes on.
                let _ = self.channel.handle_message(now, Bytes::copy_from_slice(record));
            }
            Op::Read => {
                self.channel.read();
            }
            Op::Send(length) => {
                let capacity = self.channel.send_capacity();
                self.draft.push(&vec![0; usize::from(*length)]);
                let sent = self.channel.send(now, &mut self.draft).is_ok();
                assert!(sent || capacity == 0);
                if !sent {
                    self.draft = Draft::with_capacity(1024);
                }
            }
            Op::Terminate => self.channel.terminate(now),
            Op::Transmit(count) => {
                for _ in 0..*count {
                    match self.channel.poll_transmit(now) {
                        Some(Outgoing::Record(record)) => {
                            Message::parse(record).expect("a channel's own records can be read");
                        }
                        Some(Outgoing::Open(_)) => {}
                        None => break,
                    }
                }
            }
            Op::Wait(milliseconds) => {
                self.now += Duration::from_millis((*milliseconds).into());
                self.channel.handle_timeout(self.now);
            }
        }
        while self.channel.poll_event().is_some() {}
    }

    fn handle(&mut self, message_type: MessageType, number: i64, payload_type: PayloadType, payload: &[u8]) {
        let id = MessageId::from_bytes([7; 16]);
        let header =
            Header { message_type, created_at: 1, sequence_number: number, flags: 0, id, payload_type };
        let record = Message { header, payload: Bytes::copy_from_slice(payload) }.encode();
        let _ = self.channel.handle_message(self.now, record);
    }

    fn check(&self) {
        assert!(self.channel.backlog() <= BACKLOG);
        // The one handshake response is as long as its request; the rest is data and a flag.
        assert!(self.channel.unacknowledged() <= MAX_WINDOW + LARGEST_RECORD + PROBE + HANDSHAKE);
        assert!(self.channel.send_capacity() <= MAX_WINDOW);
        if self.channel.is_closed() {
            assert_eq!(self.channel.poll_timeout(), None);
        }
    }
}

fn handshake(kind: u8, agent_version: &str, action: &str, status: u8) -> (PayloadType, serde_json::Value) {
    let action = if action.is_empty() { "SessionType" } else { action };
    match kind % 3 {
        0 => {
            let parameters = serde_json::json!({ "SessionType": "Port", "Properties": null });
            let action = serde_json::json!({ "ActionType": action, "ActionParameters": parameters });
            let request =
                serde_json::json!({ "AgentVersion": agent_version, "RequestedClientActions": [action] });
            (PayloadType::HandshakeRequest, request)
        }
        1 => {
            let action = serde_json::json!({ "ActionType": action, "ActionStatus": status });
            (PayloadType::HandshakeResponse, serde_json::json!({ "ProcessedClientActions": [action] }))
        }
        _ => (PayloadType::HandshakeComplete, serde_json::json!({ "CustomerMessage": action })),
    }
}

const MESSAGE_TYPES: [MessageType; 7] = [
    MessageType::Acknowledge,
    MessageType::AgentSessionState,
    MessageType::ChannelClosed,
    MessageType::InputStreamData,
    MessageType::OutputStreamData,
    MessageType::PausePublication,
    MessageType::StartPublication,
];
const MAX_OPS: usize = 1000;
const LARGEST_RECORD: usize = 120 + u16::MAX as usize;
const HANDSHAKE: usize = 1024 * 1024;
/// The largest probe of `sizing.rs`.
const PROBE: usize = 64 * 1024;
/// The bounds of `recv.rs`, for bytes in order and out of order.
const BACKLOG: usize = (12 + 64) * 1024 * 1024;
