//! Reads a recorded session; `vectors/README.md` describes the files.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "shared by test binaries, each of which uses its part"
)]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use ssm_channel::{Header, Message, MessageId, MessageType, PayloadType};

/// One line of a session.
#[derive(Clone, Debug)]
pub struct Line {
    pub at: Duration,
    pub direction: Direction,
    pub message_type: String,
    /// The sequence number; of an acknowledgement, the acknowledged one.
    pub number: i64,
    pub payload_type: u32,
    pub payload_length: usize,
    pub record: Record,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Direction {
    ClientToAgent,
    AgentToClient,
    GatewayToClient,
    GatewayToAgent,
}

/// How a message is recorded: whole, or only its header.
#[derive(Clone, Debug)]
pub enum Record {
    Whole(Bytes),
    /// The header.
    Cut(Bytes),
    Missing,
}

impl Line {
    /// The message. If only the header is recorded, its payload is its number, over and over.
    pub fn bytes(&self) -> Bytes {
        match &self.record {
            Record::Whole(record) => record.clone(),
            Record::Cut(_) | Record::Missing => self.made_up().encode(),
        }
    }

    fn made_up(&self) -> Message {
        let message_type = match self.direction {
            Direction::ClientToAgent => MessageType::InputStreamData,
            _ => MessageType::OutputStreamData,
        };
        let id = match &self.record {
            Record::Cut(header) => MessageId::from_bytes(header[64..80].try_into().unwrap()),
            _ => MessageId::from_bytes([7; 16]),
        };
        let header = Header {
            message_type,
            created_at: 1,
            sequence_number: self.number,
            flags: 0,
            id,
            payload_type: PayloadType::from(self.payload_type),
        };
        let pattern = self.number.to_be_bytes();
        let payload: Vec<u8> = pattern.into_iter().cycle().take(self.payload_length).collect();
        Message { header, payload: payload.into() }
    }

    /// The payload of [`bytes`](Self::bytes).
    pub fn payload(&self) -> Bytes {
        match &self.record {
            Record::Whole(record) => record.slice(120..),
            Record::Cut(_) | Record::Missing => self.made_up().payload,
        }
    }
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../ssm-channel/tests/vectors")
}

/// The names of all sessions, without `.tsv`.
pub fn names() -> Vec<String> {
    let files =
        fs::read_dir(directory()).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = files.filter_map(|name| name.strip_suffix(".tsv").map(str::to_owned)).collect();
    names.retain(|name| name != "events");
    names.sort();
    names
}

/// A session, in order.
pub fn session(name: &str) -> Vec<Line> {
    let text = fs::read_to_string(directory().join(format!("{name}.tsv"))).unwrap();
    text.lines().map(parse).collect()
}

fn parse(line: &str) -> Line {
    let columns: Vec<_> = line.split('\t').collect();
    let [at, direction, message_type, number, payload_type, payload_length, record] = columns[..] else {
        panic!("seven columns: {line}")
    };
    Line {
        at: seconds(at),
        direction: match direction {
            "c2a" => Direction::ClientToAgent,
            "a2c" => Direction::AgentToClient,
            "g2c" => Direction::GatewayToClient,
            "g2a" => Direction::GatewayToAgent,
            other => panic!("no direction: {other}"),
        },
        message_type: message_type.to_owned(),
        number: number.parse().unwrap(),
        payload_type: payload_type.parse().unwrap(),
        payload_length: payload_length.parse().unwrap(),
        record: match record.strip_suffix("...") {
            _ if record == "-" => Record::Missing,
            Some(header) => Record::Cut(unhex(header)),
            None => Record::Whole(unhex(record)),
        },
    }
}

fn seconds(text: &str) -> Duration {
    Duration::from_secs_f64(text.parse().unwrap())
}

fn unhex(text: &str) -> Bytes {
    let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(byte).collect()
}

/// The events of every session, by name.
pub fn events() -> BTreeMap<String, Vec<(Duration, String)>> {
    let text = fs::read_to_string(directory().join("events.tsv")).unwrap();
    let mut events = BTreeMap::<_, Vec<_>>::new();
    for line in text.lines() {
        let mut columns = line.splitn(3, '\t');
        let name = columns.next().unwrap().strip_suffix(".tsv").unwrap().to_owned();
        let at = seconds(columns.next().unwrap());
        events.entry(name).or_default().push((at, columns.next().unwrap().to_owned()));
    }
    events
}
