//! The recorded sessions: what ran on the instance in each, and where the emulated SSM agent may differ.

use std::time::Duration;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::recording::{Line, Record};
use crate::world::Purpose;

/// How a session is replayed.
#[derive(Debug)]
pub(super) struct Case {
    pub(super) work: Work,
    /// How many more messages are acknowledged than in the recording, which ended before it could.
    pub(super) acknowledges_more: usize,
    /// About how many repeats there are, in sessions that test repeats.
    pub(super) repeats: Option<i32>,
    /// The bytes that the server must have received.
    pub(super) delivers: Option<String>,
    /// When a program ends, if no output shows it.
    pub(super) until: Duration,
    /// What a program with separate outputs prints, if it differs from the recording.
    pub(super) prints: Option<&'static [u8]>,
    /// The number of a message and the milliseconds at which its text was printed, if the recording does not
    /// show them.
    printed_at: Option<(i64, u64)>,
    /// The session ends at another time than the recorded one.
    pub(super) ends_otherwise: bool,
    /// The worker process was killed.
    pub(super) is_killed: bool,
    /// Corrects a wrong digest, which only the emulated SSM agent checks.
    mends_digests: bool,
}

/// What happened on the instance.
#[derive(Clone, Debug)]
pub(super) enum Work {
    /// A port that sends the recorded data.
    Talks,
    /// The same, and then it closes the connection.
    Closes,
    /// A port that resets the connection.
    Resets(Duration),
    /// A port that reads `after` bytes and then nothing until a time.
    Stalls { after: usize, until: Duration },
    /// Nothing listens.
    Refuses,
    /// A program that prints this, and ends at the recorded time or later.
    Prints { output: Vec<u8> },
    /// A program that prints this when it is interrupted.
    Interrupted { output: Vec<u8> },
    /// A command without words.
    Blank,
    /// A command that cannot be split into words.
    Unparsable(&'static str),
    /// A command that cannot be run, and whether its outputs would have been separate.
    NotStarted(&'static str, bool),
    /// A program that prints the recorded text to separate outputs, and ends with this status at the recorded
    /// time.
    Separate { status: i32 },
}

impl Case {
    fn new(work: Work) -> Self {
        Self {
            work,
            acknowledges_more: 0,
            repeats: None,
            delivers: None,
            until: Duration::ZERO,
            prints: None,
            printed_at: None,
            ends_otherwise: false,
            is_killed: false,
            mends_digests: false,
        }
    }

    fn delivers(self, text: &str) -> Self {
        Self { delivers: Some(text.to_owned()), ..self }
    }

    fn until(self, milliseconds: u64) -> Self {
        Self { until: Duration::from_millis(milliseconds), ..self }
    }

    fn repeats(self, tolerance: i32) -> Self {
        Self { repeats: Some(tolerance), ..self }
    }

    /// When the text of a message was printed, if the case says so.
    pub(super) fn said_at(&self, number: i64) -> Option<Duration> {
        self.printed_at.filter(|(of, _)| *of == number).map(|(_, at)| Duration::from_millis(at))
    }

    /// The session's purpose, from its HandshakeRequest.
    pub(super) fn purpose(&self, request: &[u8]) -> Purpose {
        let request: serde_json::Value = serde_json::from_slice(request).unwrap();
        let port = &request["RequestedClientActions"][0]["ActionParameters"]["Properties"]["portNumber"];
        match port.as_str() {
            Some(port) => Purpose::Port(port.parse().unwrap()),
            None => Purpose::Command(String::new()),
        }
    }

    /// A recorded message, with its digest corrected if the case says so.
    pub(super) fn mend(&self, line: &Line) -> Bytes {
        let record = line.bytes();
        if self.mends_digests && matches!(line.record, Record::Whole(_)) {
            let mut mended = record.to_vec();
            let header = u32::from_be_bytes(record[..4].try_into().unwrap());
            let payload = &record[header as usize + 4..];
            mended[80..112].copy_from_slice(&Sha256::digest(payload));
            return mended.into();
        }
        record
    }
}

/// Every session that is replayed.
pub(super) fn cases() -> Vec<(&'static str, Case)> {
    let mut cases = commands();
    cases.extend(separate_commands());
    cases.extend(ports());
    cases
}

fn prints(output: impl AsRef<[u8]>) -> Case {
    Case::new(Work::Prints { output: output.as_ref().to_vec() })
}

fn not_started(text: &'static str) -> Case {
    Case::new(Work::NotStarted(text, false))
}

fn separate(status: i32) -> Case {
    Case::new(Work::Separate { status })
}

fn separate_commands() -> Vec<(&'static str, Case)> {
    let not_started = |text| Case::new(Work::NotStarted(text, true));
    vec![
        ("command-64k-separate.cut", separate(0)),
        ("command-background-separate", separate(0)),
        ("command-bad-quote-separate", Case::new(Work::Unparsable("EOF found when expecting closing quote"))),
        // It traps the interrupt.
        ("command-ctrl-c-separate", separate(4)),
        ("command-for-separate", not_started("exec: \"for\": executable file not found in $PATH")),
        ("command-killed-separate", separate(-1)),
        ("command-no-output-separate", separate(0)),
        (
            "command-not-found-separate",
            not_started("exec: \"no-such-program\": executable file not found in $PATH"),
        ),
        ("command-not-utf8-separate", Case { prints: Some(NOT_UTF8), ..separate(0) }),
        ("command-separate", separate(3)),
        // It went on printing, but no reader was left.
        ("command-separate-client-cut", Case { printed_at: Some((6, 1283)), ..separate(0) }),
        ("command-sh-c-separate", separate(0)),
        ("command-terminated-separate", separate(0)),
        ("command-terminated-separate-api", separate(0)),
        ("command-terminated-separate-plain", separate(0)),
    ]
}

fn commands() -> Vec<(&'static str, Case)> {
    vec![
        ("command", prints("plain\n")),
        ("command-64k.cut", prints(vec![b'x'; 65_536])),
        ("command-background", prints("left\n")),
        ("command-backslash", prints("a b c  d e\"f\n")),
        ("command-bad-quote", Case::new(Work::Unparsable("EOF found when expecting closing quote"))),
        ("command-blank", Case::new(Work::Blank)),
        ("command-ctrl-c", Case::new(Work::Interrupted { output: b"begun\ninterrupted\n".to_vec() })),
        ("command-dollar", prints("$HOME ~ * {a,b}\n")),
        ("command-exit-3", prints("out\nerr\n")),
        ("command-for", not_started("exec: \"for\": executable file not found in $PATH")),
        ("command-glob", prints("ls: cannot access '/etc/host*': No such file or directory\n")),
        ("command-killed", prints("out\n")),
        ("command-late-output", prints("one\ntwo\n")),
        ("command-newline", prints("a echo b\n")),
        ("command-no-output", prints("")),
        ("command-not-executable", not_started("fork/exec /etc/passwd: permission denied")),
        ("command-not-found", not_started("exec: \"no-such-program\": executable file not found in $PATH")),
        ("command-not-utf8", prints(NOT_UTF8)),
        ("command-semicolon", prints("one; echo two\n")),
        ("command-sh-c", prints("1\n2\nerr\n")),
        ("command-terminated", prints("begun\n")),
        ("command-terminated-twice", prints("begun\n").until(30_000)),
    ]
}

fn ports() -> Vec<(&'static str, Case)> {
    let talks = || Case::new(Work::Talks);
    // The client left with its last message, so later messages to it were not recorded.
    let leaves = |case| Case { acknowledges_more: 1, ..case };
    let closes = || Case::new(Work::Closes);
    vec![
        ("agent-restart", talks().delivers("beforeafter")),
        ("handshake-data-first", talks().delivers("later")),
        ("handshake-empty-object", talks()),
        ("handshake-failed", talks().delivers("")),
        ("handshake-no-actions", talks()),
        ("handshake-not-json", talks().delivers("")),
        ("handshake-race", talks().delivers("later")),
        ("handshake-response-resent", leaves(talks())),
        ("handshake-response-twice", talks().delivers("one")),
        ("handshake-unanswered", talks()),
        ("handshake-unsupported", talks()),
        ("late-client-10s", talks().delivers("hello").repeats(2)),
        ("late-client-20s", talks().repeats(2)),
        ("pause-start", closes().repeats(1)),
        // The recording lacks most of the client's acknowledgements, so the SSM agent waits for them here.
        ("port-1mib-down.cut", Case { ends_otherwise: true, ..closes() }),
        ("port-1mib-up.cut", talks()),
        ("port-256k-up-windowed.cut", talks()),
        ("port-basic", closes()),
        // In the recording a read was under way when the pause came, so that a later message had to be
        // acknowledged.
        ("port-client-eof", Case { ends_otherwise: true, ..talks().delivers("last words") }),
        ("port-client-terminates", talks().delivers("hellolast words")),
        ("port-data-after-close", closes().delivers("go").repeats(1)),
        // The recorded agent crashed before it could acknowledge the flag that ends the session.
        ("port-flags", Case { acknowledges_more: 1, ..talks().delivers("onetwo") }),
        ("port-no-acks.cut", talks().repeats(2)),
        ("port-odd-records", Case { mends_digests: true, ..talks() }),
        ("port-refused.cut", Case::new(Work::Refuses)),
        ("port-reordered-duplicated", talks()),
        ("port-server-closes", closes()),
        ("port-server-closes-no-acks", closes().repeats(1)),
        ("port-server-half-closes", closes().delivers("")),
        ("port-server-resets", Case::new(Work::Resets(Duration::from_millis(519)))),
        (
            "port-sink-stalls.cut",
            leaves(Case::new(Work::Stalls { after: 61 * 65_536, until: Duration::from_millis(4090) })),
        ),
        ("port-terminated-api", talks()),
        ("resume-agent-cut.cut", leaves(talks())),
        ("resume-client-cut.cut", leaves(talks())),
        ("resume-plugin-down.cut", talks()),
        ("resume-plugin-idle", talks()),
        ("token-twice", talks().delivers("firststillthird")),
        ("worker-killed", Case { is_killed: true, ..talks().delivers("before") }),
    ]
}

/// Sessions that are not emulated yet, and why.
pub(super) const MISSING: &[(&str, &str)] = &[
    ("forward-old-client", FORWARDING),
    ("interactive-ctrl-c", INTERACTIVE),
    ("interactive-exit", INTERACTIVE),
    ("interactive-not-found", INTERACTIVE),
    ("interactive-silent", INTERACTIVE),
    ("interactive-terminated", INTERACTIVE),
    ("mux-8-streams", FORWARDING),
    ("mux-fin-orders", FORWARDING),
    ("mux-keepalive-old-client", FORWARDING),
    ("mux-keepalive-silent", FORWARDING),
    ("mux-refused", FORWARDING),
    ("mux-unknown-stream-and-garbage", FORWARDING),
    ("port-mux", FORWARDING),
    ("remote-black-hole", FORWARDING),
    ("remote-denied", FORWARDING),
    ("remote-loopback", FORWARDING),
    ("remote-ok", FORWARDING),
    ("remote-refused", FORWARDING),
    ("remote-unknown-name", FORWARDING),
    ("shell", SHELL),
    ("shell-early-input", SHELL),
    ("shell-exit", SHELL),
    ("shell-idle", SHELL),
    ("shell-paste-100k.cut", SHELL),
    ("shell-plugin-killed", SHELL),
    ("shell-resize", SHELL),
    ("shell-terminated-after-flag", SHELL),
    ("shell-terminated-api", SHELL),
    ("shell-utf8-in", SHELL),
    ("shell-utf8-out", SHELL),
];

const NOT_UTF8: &[u8] = b"abc\xff\xfe\x80\xc3\xa9\xef\xbf\xbdend\xc3";
const FORWARDING: &str = "a forwarding, with smux or to another host";
const INTERACTIVE: &str = "an interactive command";
const SHELL: &str = "a shell";
