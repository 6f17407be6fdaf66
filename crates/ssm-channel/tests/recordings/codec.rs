//! Reads every recorded message, and writes it again byte for byte.

use bytes::{Bytes, BytesMut};
use sha2::{Digest, Sha256};
use ssm_channel::{Message, MessageError, MessageType};

use crate::recording::{self, Direction, Line, Record};

/// The session in which a client sent malformed messages on purpose.
const ODD: &str = "port-odd-records";

#[test]
fn every_recorded_message_is_read_and_written_byte_for_byte() {
    let (mut whole, mut cut) = (0, 0);
    for name in recording::names() {
        for line in recording::session(&name).iter().filter(|line| name != ODD || is_usual(line)) {
            match &line.record {
                Record::Whole(record) => {
                    let message = Message::parse(record.clone()).unwrap();
                    assert_eq!(message.encode(), record, "{name}: {line:?}");
                    check_columns(&name, line, &message);
                    whole += 1;
                }
                Record::Cut(header) => {
                    let record = fill(header, line.payload_length);
                    let message = Message::parse(record.clone()).unwrap();
                    assert_eq!(message.encode(), record, "{name}: {line:?}");
                    check_columns(&name, line, &message);
                    cut += 1;
                }
                Record::Missing => {}
            }
        }
    }
    assert_eq!((whole, cut), (2977, 858), "so many are there");
}

fn check_columns(name: &str, line: &Line, message: &Message) {
    let header = &message.header;
    let message_type = match header.message_type {
        MessageType::Unknown(label) => format!("{label:?}").trim_matches('"').to_owned(),
        known => known.name().to_owned(),
    };
    assert_eq!(message_type, line.message_type, "{name}: {line:?}");
    assert_eq!(u32::from(header.payload_type), line.payload_type, "{name}: {line:?}");
    assert_eq!(message.payload.len(), line.payload_length, "{name}: {line:?}");
    if header.message_type != MessageType::Acknowledge {
        assert_eq!(header.sequence_number, line.number, "{name}: {line:?}");
    }
}

/// The header with a payload of zeros and its digest.
fn fill(header: &Bytes, length: usize) -> Bytes {
    let payload = vec![0; length];
    let mut record = BytesMut::from(&header[..]);
    record[80..112].copy_from_slice(&Sha256::digest(&payload));
    record.extend_from_slice(&payload);
    record.freeze()
}

fn is_usual(line: &Line) -> bool {
    line.direction != Direction::ClientToAgent || !ODDITIES.iter().any(|(text, _)| *text == text_of(line))
}

fn text_of(line: &Line) -> String {
    String::from_utf8_lossy(&line.payload()).into_owned()
}

/// The mistake in a message, by its payload.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Oddity {
    Refused(MessageError),
    /// It can be read, and is written without the mistake: these bytes differ.
    Mended(&'static [usize]),
}

const ODDITIES: [(&str, Oddity); 5] = [
    ("digest", Oddity::Refused(MessageError::DigestMismatch { sequence_number: 1 })),
    ("created0", Oddity::Refused(MessageError::ZeroCreatedDate)),
    // PayloadLength is 1; parsers ignore it.
    ("plen", Oddity::Mended(&[119])),
    // SchemaVersion is 2.
    ("schema2", Oddity::Mended(&[39])),
    // HeaderLength is 120, so that the payload begins four bytes later.
    ("\0\0\0\u{5}hl120", Oddity::Mended(&[3])),
];

#[test]
fn odd_messages_are_refused_or_mended() {
    let lines = recording::session(ODD);
    for (text, oddity) in ODDITIES {
        let line = lines.iter().find(|line| text_of(line) == text).unwrap();
        let record = line.bytes();
        match (Message::parse(record.clone()), oddity) {
            (Err(error), Oddity::Refused(expected)) => assert_eq!(error, expected),
            (Ok(message), Oddity::Mended(differ)) => {
                let written = message.encode();
                let pairs = written.iter().zip(&record).enumerate();
                let found: Vec<_> = pairs
                    .filter(|(at, (a, b))| a != b && (*at < 80 || *at > 111))
                    .map(|(at, _)| at)
                    .collect();
                assert!(found.starts_with(differ), "{text}: {found:?}");
            }
            (parsed, oddity) => panic!("{text}: {parsed:?}, not {oddity:?}"),
        }
    }
}
