//! Messages from other code: worked examples, and whole sessions between AWS's own client and agent.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use bytes::Bytes;
use ssm_channel::{
    Channel, Event, Header, Message, MessageId, MessageType, Origin, Outgoing, PayloadType, SessionType,
    Side, SsmAgentVersion,
};
use std::time::{Duration, Instant};

const INPUT: &str = "
    00 00 00 74 69 6e 70 75 74 5f 73 74 72 65 61 6d 5f 64 61 74 61 20 20 20 20 20 20 20 20 20 20 20
    20 20 20 20 00 00 00 01 00 00 01 8b cf e5 68 00 00 00 00 00 00 00 00 05 00 00 00 00 00 00 00 00
    81 23 45 67 89 ab cd ef 12 34 56 78 9a bc 4d ef 7b fc e0 7c 2a b7 75 ed 4f d6 1e 86 b0 e3 23 4e
    c4 ed 9a 88 0a 09 cf ef fe 4e b7 8e 54 46 43 7d 00 00 00 01 00 00 00 15 53 53 48 2d 32 2e 30 2d
    4f 70 65 6e 53 53 48 5f 39 2e 36 0d 0a";

const ACKNOWLEDGE_HEADER: &str = "
    00 00 00 74 61 63 6b 6e 6f 77 6c 65 64 67 65 20 20 20 20 20 20 20 20 20 20 20 20 20 20 20 20 20
    20 20 20 20 00 00 00 01 00 00 01 8b cf e5 68 7b 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 03
    90 12 34 56 78 9a bc de fe dc ba 98 76 54 43 21 4c 01 e9 b6 06 1a bc 70 7e c4 61 1d ba 3c 05 77
    27 28 45 26 1a 39 ec 2c 1b e7 7e 90 51 57 20 b4 00 00 00 00 00 00 00 b0";

const ACKNOWLEDGE_PAYLOAD: &str = r#"{"AcknowledgedMessageType":"output_stream_data","AcknowledgedMessageId":"0f1e2d3c-4b5a-4697-8877-665544332211","AcknowledgedMessageSequenceNumber":7,"IsSequentialMessage":true}"#;

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<char> = hex.chars().filter(|digit| !digit.is_whitespace()).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(&String::from_iter(pair), 16).unwrap()).collect()
}

fn id(uuid: &str) -> MessageId {
    MessageId::from_bytes(bytes(&uuid.replace('-', "")).try_into().unwrap())
}

#[test]
fn the_worked_input_message_is_written_and_read_byte_for_byte() {
    let message = Message {
        header: Header {
            message_type: MessageType::InputStreamData,
            created_at: 1_700_000_000_000,
            sequence_number: 5,
            flags: 0,
            id: id("12345678-9abc-4def-8123-456789abcdef"),
            payload_type: PayloadType::Output,
        },
        payload: Bytes::from_static(b"SSH-2.0-OpenSSH_9.6\r\n"),
    };
    assert_eq!(message.encode(), bytes(INPUT));
    assert_eq!(Message::parse(bytes(INPUT).into()).unwrap(), message);
}

#[test]
fn the_worked_acknowledgement_is_written_and_read_byte_for_byte() {
    let message = Message {
        header: Header {
            message_type: MessageType::Acknowledge,
            created_at: 1_700_000_000_123,
            sequence_number: 0,
            flags: 3,
            id: id("fedcba98-7654-4321-9012-3456789abcde"),
            payload_type: PayloadType::None,
        },
        payload: Bytes::from_static(ACKNOWLEDGE_PAYLOAD.as_bytes()),
    };
    let record = [bytes(ACKNOWLEDGE_HEADER), ACKNOWLEDGE_PAYLOAD.into()].concat();
    assert_eq!(record.len(), 296);
    assert_eq!(message.encode(), record);
    assert_eq!(Message::parse(record.into()).unwrap(), message);
}

#[test]
fn the_payload_of_an_acknowledgement_is_the_worked_one() {
    let now = virtual_now();
    let mut client = client(now);
    client.attach(now, "token");
    let message = Message {
        header: Header {
            message_type: MessageType::OutputStreamData,
            created_at: 1,
            sequence_number: 7,
            flags: 0,
            id: id("0f1e2d3c-4b5a-4697-8877-665544332211"),
            payload_type: PayloadType::Output,
        },
        payload: Bytes::from_static(b"early"),
    };
    client.handle_message(now, message.encode()).unwrap();
    let records = records(&mut client, now);
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].payload, ACKNOWLEDGE_PAYLOAD.as_bytes());
    assert_eq!((records[0].header.flags, records[0].header.sequence_number), (3, 0));
}

struct Recorded {
    to_instance: bool,
    message_type: String,
    number: i64,
    payload_type: u32,
    payload_length: usize,
    record: Bytes,
}

fn session(text: &str) -> Vec<Recorded> {
    let parse = |line: &str| {
        let fields: Vec<&str> = line.split('\t').collect();
        Recorded {
            to_instance: fields[1] == "c2a",
            message_type: fields[2].into(),
            number: fields[3].parse().unwrap(),
            payload_type: fields[4].parse().unwrap(),
            payload_length: fields[5].parse().unwrap(),
            record: bytes(fields[6]).into(),
        }
    };
    text.lines().map(parse).collect()
}

const SESSIONS: [&str; 5] = [
    include_str!("vectors/command-separate.tsv"),
    include_str!("vectors/command.tsv"),
    include_str!("vectors/port-basic.tsv"),
    include_str!("vectors/port-mux.tsv"),
    include_str!("vectors/shell.tsv"),
];

#[test]
fn every_recorded_message_is_read_and_written_byte_for_byte() {
    let mut seen = 0;
    for recorded in SESSIONS.iter().flat_map(|text| session(text)) {
        let message = Message::parse(recorded.record.clone()).unwrap();
        assert_eq!(message.header.message_type.name(), recorded.message_type);
        assert_eq!(u32::from(message.header.payload_type), recorded.payload_type);
        assert_eq!(message.payload.len(), recorded.payload_length);
        if message.header.message_type != MessageType::Acknowledge {
            assert_eq!(message.header.sequence_number, recorded.number);
        }
        assert_eq!(message.encode(), recorded.record);
        seen += 1;
    }
    assert!(seen > 100, "only {seen} messages");
}

#[test]
fn a_client_follows_the_real_agents_port_session() {
    let now = virtual_now();
    let mut client = client(now);
    client.attach(now, "token");
    let mut received = Vec::new();
    let mut sent = Vec::new();
    let mut numbers = Vec::new();
    for recorded in session(SESSIONS[2]).into_iter().filter(|recorded| !recorded.to_instance) {
        client.handle_message(now, recorded.record).unwrap();
        if recorded.message_type == "output_stream_data" {
            numbers.push(recorded.number);
        }
        sent.extend(records(&mut client, now));
        while let Some(bytes) = client.read() {
            received.extend_from_slice(&bytes);
        }
    }
    let acknowledged: Vec<_> =
        sent.iter().filter(|message| message.header.message_type == MessageType::Acknowledge).collect();
    assert_eq!(acknowledged.len(), numbers.len(), "one acknowledgement for each stream message");
    assert_eq!(&sent[1].payload[..34], br#"{"ClientVersion":"1.2.764.0","Proc"#);
    let Some(Event::Ready { agent_version, session, .. }) = client.poll_event() else { panic!("not ready") };
    assert_eq!(agent_version, SsmAgentVersion::parse("3.3.1142.0"));
    assert_eq!(session.unwrap().session_type, "Port");
    // The banner, then echoes: of a line, of a newline that the official client replaced by a carriage
    // return, of 3,000 bytes in three messages (read in four pieces, which arrived together), and of another
    // line.
    let text = String::from_utf8(received).unwrap();
    assert!(text.starts_with("hello from the instance\r\necho:one\necho:\recho:xxx"), "{text}");
    assert!(text.ends_with("xxxecho:bye\n"), "{text}");
    assert_eq!(text.matches('x').count(), 3000);
}

#[test]
fn an_instance_follows_the_real_clients_port_session() {
    let now = virtual_now();
    let session_type = SessionType { session_type: "Port".into(), properties: serde_json::json!({}) };
    let agent_version = SsmAgentVersion::parse("3.3.1142.0").unwrap();
    let mut instance = Channel::new(Side::Instance { agent_version, session: session_type }, origin(now));
    instance.accept_data();
    instance.attach(now, "");
    let mut received = Vec::new();
    for recorded in session(SESSIONS[2]).into_iter().filter(|recorded| recorded.to_instance) {
        records(&mut instance, now);
        instance.handle_message(now, recorded.record).unwrap();
        while let Some(bytes) = instance.read() {
            received.extend_from_slice(&bytes);
        }
    }
    assert_eq!(received.len(), 4 + 1 + 3000 + 4);
    assert!(received.starts_with(b"one\n\rxxx") && received.ends_with(b"xxxbye\n"));
    assert!(matches!(instance.poll_event(), Some(Event::Ready { .. })));
}

#[expect(clippy::disallowed_methods, reason = "any instant will do as the origin of virtual time")]
fn virtual_now() -> Instant {
    Instant::now()
}

fn origin(now: Instant) -> Origin {
    Origin { seed: 1, unix_time: Duration::from_secs(1_700_000_000), now }
}

fn client(now: Instant) -> Channel {
    Channel::new(Side::Client { client_id: "6f2c4b7e-0000-4000-8000-000000000001".into() }, origin(now))
}

fn records(channel: &mut Channel, now: Instant) -> Vec<Message> {
    let mut records = Vec::new();
    while let Some(outgoing) = channel.poll_transmit(now) {
        if let Outgoing::Record(record) = outgoing {
            records.push(Message::parse(record).unwrap());
        }
    }
    records
}

#[test]
fn the_opening_message_does_not_show_its_token() {
    let mut channel = client(virtual_now());
    channel.attach(virtual_now(), "secret");
    let open = channel.poll_transmit(virtual_now()).unwrap();
    assert!(matches!(&open, Outgoing::Open(text) if text.contains("secret")));
    assert_eq!(format!("{open:?}"), "Open(..)");
}
