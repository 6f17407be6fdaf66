//! Whether ssh logged in, from the bytes that pass and from how they end. (Pure.)
//!
//! ssh does not report it. Until its NEWKEYS message its packets are readable (RFC 4253, section 6); from
//! then on only their lengths and their order are seen, which is enough: during authentication client and
//! server take turns (RFC 4252, section 5). An ssh that was refused ends without an answer to the server's
//! last message. An ssh that was let in sends something before it ends, at least a disconnect. One that did
//! not trust the host key, or was killed during the key exchange, has sent no NEWKEYS.

/// Follows one connection from its first byte.
#[derive(Debug, Default)]
pub(super) struct LoginWatch {
    keys: KeyExchange,
    /// The turns of the server that ssh has answered, since the key exchange.
    answered: u32,
    /// The length of the second of them, with which sshd refuses to let ssh in without authentication.
    second: u64,
    /// The length of the shortest.
    shortest: Option<u64>,
    /// The length of the server's turn that ssh has not answered.
    last: u64,
    /// Whether ssh has sent anything since the key exchange.
    has_asked: bool,
    /// Whether ssh has answered a turn that only an ssh that was let in gets.
    is_in: bool,
}

impl LoginWatch {
    /// ssh has sent `bytes`.
    pub(super) fn sent(&mut self, bytes: &[u8]) {
        let encrypted = self.keys.follow(bytes);
        if encrypted == 0 {
            return;
        }
        self.has_asked = true;
        if self.last > 0 {
            self.is_in |= self.is_success() || self.is_session();
            self.answered = self.answered.saturating_add(1);
            if self.answered == 2 {
                self.second = self.last;
            }
            self.shortest = Some(self.shortest.map_or(self.last, |shortest| shortest.min(self.last)));
            self.last = 0;
        }
    }

    /// ssh has been given this many bytes from the server.
    pub(super) fn received(&mut self, length: usize) {
        if self.has_asked {
            self.last += length as u64;
        }
    }

    /// Whether ssh has sent the last packet of the key exchange.
    pub(super) fn has_ended_key_exchange(&self) -> bool {
        self.keys.has_ended()
    }

    /// Whether ssh has not authenticated, so that it may come to ask its key agent. It does so before it has
    /// tried many other ways.
    pub(super) fn may_ask(&self) -> bool {
        !self.is_in && self.answered < LATEST_TURN
    }

    /// Whether the server refused ssh, after ssh has ended. `unread` is whether ssh had sent bytes that were
    /// not read.
    pub(super) fn was_refused(&self, unread: bool) -> bool {
        // The first answer is that authentication may begin.
        if unread || self.is_in || self.last == 0 || self.answered == 0 || self.answered > MOST_TURNS {
            return false;
        }
        !self.is_success() && !self.is_session()
    }

    /// USERAUTH_SUCCESS, of one byte, is shorter than all that comes before it. A banner makes an early turn
    /// longer than it is, so that the comparison needs some of them.
    fn is_success(&self) -> bool {
        self.answered >= 3 && self.shortest.is_some_and(|shortest| self.last < shortest)
    }

    /// OpenSSH's list of host keys comes with a success. The second turn is a refusal itself, and a banner
    /// may stand in front of that, once.
    fn is_session(&self) -> bool {
        let shortest = self.shortest.unwrap_or(self.last);
        let longest = (self.second + ANOTHER_LIST).min(shortest + LONGEST_REFUSAL);
        self.answered >= 2 && self.last > longest
    }
}

/// Reads what one side sends until it is encrypted.
#[derive(Clone, Debug, Default)]
pub(super) struct KeyExchange {
    phase: Phase,
    /// The head of a packet, or of a line, while it is incomplete.
    head: Vec<u8>,
}

#[derive(Clone, Debug, Default)]
enum Phase {
    /// The line with which each side begins. A server may send others before (RFC 4253, section 4.2).
    #[default]
    Identification,
    /// A packet's length, the length of its padding, and its type.
    Head,
    /// What is left of a packet, and whether it is the last that can be read.
    Body { left: usize, is_last: bool },
    /// All is encrypted.
    Done,
}

impl KeyExchange {
    pub(super) fn has_ended(&self) -> bool {
        matches!(self.phase, Phase::Done)
    }

    /// How many of these bytes come before the last one of NEWKEYS. None if that does not come yet.
    pub(super) fn before_end(&self, bytes: &[u8]) -> Option<usize> {
        let mut ahead = self.clone();
        let encrypted = ahead.follow(bytes);
        ahead.has_ended().then(|| (bytes.len() - encrypted).saturating_sub(1))
    }

    /// How many of these bytes are encrypted.
    pub(super) fn follow(&mut self, mut bytes: &[u8]) -> usize {
        loop {
            match self.phase {
                Phase::Done => return bytes.len(),
                _ if bytes.is_empty() => return 0,
                Phase::Identification => {
                    let end = bytes.iter().position(|byte| *byte == b'\n');
                    let line = &bytes[..end.unwrap_or(bytes.len())];
                    let room = VERSION.len().saturating_sub(self.head.len());
                    self.head.extend_from_slice(&line[..room.min(line.len())]);
                    bytes = end.map_or(&[], |end| &bytes[end + 1..]);
                    if end.is_some() {
                        if self.head == VERSION {
                            self.phase = Phase::Head;
                        }
                        self.head.clear();
                    }
                }
                Phase::Head => {
                    let (taken, rest) = bytes.split_at(bytes.len().min(HEAD_LENGTH - self.head.len()));
                    self.head.extend_from_slice(taken);
                    bytes = rest;
                    if let [a, b, c, d, _, kind] = self.head[..] {
                        // The length does not count itself.
                        let length = u32::from_be_bytes([a, b, c, d]) as usize;
                        let left = length.saturating_sub(HEAD_LENGTH - LENGTH_LENGTH);
                        self.phase = Phase::Body { left, is_last: kind == NEWKEYS };
                        self.head.clear();
                    }
                }
                Phase::Body { left, is_last } => {
                    let taken = left.min(bytes.len());
                    bytes = &bytes[taken..];
                    self.phase = match (left - taken, is_last) {
                        (0, true) => Phase::Done,
                        (0, false) => Phase::Head,
                        (left, is_last) => Phase::Body { left, is_last },
                    };
                }
            }
        }
    }
}

/// RFC 4253, section 4.2.
const VERSION: &[u8] = b"SSH-";
/// RFC 4253, section 12.
const NEWKEYS: u8 = 21;
const LENGTH_LENGTH: usize = 4;
const HEAD_LENGTH: usize = 6;
/// Six keys are tried at most, and passwords three times. A session has more turns than that soon.
const MOST_TURNS: u32 = 24;
/// Of a client that asks its agent: in the first or the third turn, or after some that Kerberos takes.
const LATEST_TURN: u32 = 10;
/// A refusal lists the methods that can continue. All that OpenSSH knows are 100 bytes, and the list of a
/// single host key is as long as that.
const LONGEST_REFUSAL: u64 = 200;
/// The list may change while ssh authenticates, and the server may say instead that there were too many
/// attempts.
const ANOTHER_LIST: u64 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    /// What ssh sends before all is encrypted.
    fn key_exchange() -> Vec<u8> {
        let packet = |kind: u8, payload: usize| {
            let length = u32::try_from(2 + payload + 6).unwrap().to_be_bytes();
            [&length[..], &[6, kind], &vec![21; payload], &[0; 6]].concat()
        };
        [b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n".to_vec(), packet(20, 1500), packet(30, 1200), packet(21, 0)]
            .concat()
    }

    /// A connection in which ssh, after the key exchange, asks before each of the server's turns.
    fn watched(turns: &[usize]) -> LoginWatch {
        let mut watch = LoginWatch::default();
        watch.received(40);
        watch.sent(&key_exchange());
        watch.received(300);
        for turn in turns {
            watch.sent(&[7; 68]);
            // As the tunnel delivers them: in pieces.
            watch.received(turn / 2);
            watch.received(turn - turn / 2);
        }
        watch
    }

    #[test]
    fn an_ssh_that_leaves_after_the_servers_word_was_refused() {
        for turns in [
            // The service, and a refusal of no method at all: the key was kept back.
            &[44, 44][..],
            // The key as well.
            &[44, 44, 44],
            // A banner stands in front of the first refusal, or the server's extensions before that.
            &[44, 3000, 44],
            &[344, 3000, 44],
            &[44, 30_000],
            // A key of the user's own, too, and passwords.
            &[44, 60, 60, 60, 60, 60, 60],
            // Too many keys.
            &[44, 60, 60, 60, 60, 60, 60, 84],
        ] {
            assert!(watched(turns).was_refused(false), "{turns:?}");
        }
        // The key is known there, its user may not log in: PermitRootLogin.
        assert!(watched(&[44, 44, 100, 44]).was_refused(false));
        assert!(watched(&[44, 900, 100, 52]).was_refused(false));
    }

    #[test]
    fn what_ends_otherwise_was_not_refused() {
        for turns in [&[][..], &[44]] {
            assert!(!watched(turns).was_refused(false), "before authentication: {turns:?}");
        }
        let refused = &[44, 44, 44];
        assert!(!watched(refused).was_refused(true), "it has said something that was not read");
        let mut watch = watched(refused);
        watch.sent(&[7; 60]);
        assert!(!watch.was_refused(false), "it was killed while it waited");
        // In, by a key of the user's own or by ours, and then killed, or without a port to forward from.
        assert!(!watched(&[44, 44, 44, 300, 28]).was_refused(false));
        assert!(!watched(&[44, 44, 100, 28]).was_refused(false));
        assert!(!watched(&[44, 44, 100, 28 + 900]).was_refused(false));
        assert!(!watched(&[44, 44, 100, 28 + 116]).was_refused(false), "sshd has one host key");
        assert!(!watched(&[44, 3000, 100, 28 + 900]).was_refused(false), "behind a banner");
        assert!(!watched(&[44; 40]).was_refused(false), "a session");
        // `ssh -W`: in, and then the server could not open the channel.
        assert!(!watched(&[44, 44, 100, 28, 76]).was_refused(false));
        assert!(!watched(&[44, 44, 100, 28 + 900, 76]).was_refused(false));
    }

    #[test]
    fn an_ssh_that_did_not_trust_the_host_key_was_not_refused() {
        let key_exchange = key_exchange();
        let before_new_keys = &key_exchange[..key_exchange.len() - 14];
        let mut watch = LoginWatch::default();
        for piece in before_new_keys.chunks(7) {
            watch.sent(piece);
            watch.received(500);
        }
        assert!(!watch.was_refused(false));
    }

    #[test]
    fn the_end_of_the_key_exchange_is_found_wherever_the_bytes_are_cut() {
        let sent = [key_exchange(), vec![21; 50]].concat();
        for size in [1, 2, 3, 5, 6, 7, 1000, sent.len()] {
            let mut keys = KeyExchange::default();
            let encrypted: usize = sent.chunks(size).map(|piece| keys.follow(piece)).sum();
            assert_eq!(encrypted, 50, "{size}");
        }
        // A hostile or broken client is nothing to wait for, nor to allocate for.
        let mut keys = KeyExchange::default();
        assert_eq!(keys.follow(b"SSH-2\n\xff\xff\xff\xff\0\x14rest"), 0);
        assert_eq!(keys.follow(b"SSH-2\n\0\0\0\0\0\x15"), 0);
        let mut keys = KeyExchange::default();
        let server = b"words\nSSH\nSSH-2\n\0\0\0\x0c\x0a\x15\0\0\0\0\0\0\0\0\0\0rest";
        assert_eq!(keys.before_end(server), Some(server.len() - "rest".len() - 1));
        assert_eq!(keys.before_end(&server[..20]), None);
        assert_eq!(keys.follow(server), 4);
        assert_eq!(keys.before_end(b"more"), Some(0), "it was before");
    }
}
