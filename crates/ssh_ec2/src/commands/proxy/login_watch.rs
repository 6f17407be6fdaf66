//! Finds out whether ssh logged in, from the bytes that pass and from how they end. (Pure.)
//!
//! ssh does not report it. Until its NEWKEYS message its packets are readable (RFC 4253, section 6); from
//! then on only their lengths and their order are visible. That is enough: during authentication client and
//! server take turns (RFC 4252, section 5). After a refused login, ssh ends without an answer to the server's
//! last message. After a successful one, it sends something before it ends, at least a disconnect message. An
//! ssh that did not trust the host key, or was killed during the key exchange, has sent no NEWKEYS.

/// Follows one connection from its first byte.
#[derive(Debug, Default)]
pub(super) struct LoginWatch {
    keys: KeyExchange,
    /// How many turns of the server ssh has answered since the key exchange.
    answered: u32,
    /// The length of the second of them: sshd's refusal of the method `none`.
    second: u64,
    /// The length of the shortest of them.
    shortest: Option<u64>,
    /// The length of the server's latest turn, which ssh has not answered yet.
    last: u64,
    /// Whether ssh has sent anything since the key exchange.
    has_asked: bool,
    /// Whether ssh has answered a turn of the server that comes only after a successful login.
    is_in: bool,
}

impl LoginWatch {
    /// To be called with the bytes that ssh has sent.
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

    /// To be called with the number of bytes that were passed from the server to ssh.
    pub(super) fn received(&mut self, length: usize) {
        if self.has_asked {
            self.last += length as u64;
        }
    }

    /// Whether ssh has sent the last packet of the key exchange.
    pub(super) fn has_ended_key_exchange(&self) -> bool {
        self.keys.has_ended()
    }

    /// Whether ssh may still ask its key agent: it has not logged in, and has not tried many other methods,
    /// before which it would have asked.
    pub(super) fn may_ask(&self) -> bool {
        !self.is_in && self.answered < LATEST_TURN
    }

    /// Whether the server refused the login. To be called after ssh has ended. `unread`: whether ssh had sent
    /// bytes that were not read.
    pub(super) fn was_refused(&self, unread: bool) -> bool {
        // The server's first turn only accepts the service, so that authentication may begin.
        if unread || self.is_in || self.last == 0 || self.answered == 0 || self.answered > MOST_TURNS {
            return false;
        }
        !self.is_success() && !self.is_session()
    }

    /// Whether this turn is the shortest so far: USERAUTH_SUCCESS has one byte, less than all messages before
    /// it. A banner can make an early turn longer, so several turns are needed for the comparison.
    fn is_success(&self) -> bool {
        self.answered >= 3 && self.shortest.is_some_and(|shortest| self.last < shortest)
    }

    /// Whether this turn is longer than a refusal: after a success OpenSSH's sshd sends its list of host
    /// keys. The second turn is a refusal, possibly with a banner before it, which comes only once.
    fn is_session(&self) -> bool {
        let shortest = self.shortest.unwrap_or(self.last);
        let longest = (self.second + ANOTHER_LIST).min(shortest + LONGEST_REFUSAL);
        self.answered >= 2 && self.last > longest
    }
}

/// Reads the bytes of one side until they are encrypted.
#[derive(Clone, Debug, Default)]
pub(super) struct KeyExchange {
    phase: Phase,
    /// The head of a packet, or of a line, while it is incomplete.
    head: Vec<u8>,
}

#[derive(Clone, Debug, Default)]
enum Phase {
    /// The identification line with which each side begins. A server may send other lines before it (RFC
    /// 4253, section 4.2).
    #[default]
    Identification,
    /// A packet's length, the length of its padding, and its type.
    Head,
    /// The bytes that are left of a packet, and whether it is the last that is not encrypted.
    Body { left: usize, is_last: bool },
    /// All bytes are encrypted.
    Done,
}

impl KeyExchange {
    pub(super) fn has_ended(&self) -> bool {
        matches!(self.phase, Phase::Done)
    }

    /// How many of these bytes come before the last byte of NEWKEYS. None if that byte is not among them.
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
                        // The length field does not include its own four bytes.
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
/// The most turns of an authentication. ssh tries at most six keys, and three passwords; a session soon has
/// more turns.
const MOST_TURNS: u32 = 24;
/// The latest turn in which ssh asks its agent: the first or the third, or a few later after attempts with
/// Kerberos.
const LATEST_TURN: u32 = 10;
/// A refusal lists the methods that can continue. All methods of OpenSSH together have 100 bytes; the message
/// with the list of host keys has as many with a single key.
const LONGEST_REFUSAL: u64 = 200;
/// How much longer a later refusal may be: the list of methods may change while ssh authenticates, or the
/// server sends a disconnect message for too many attempts instead.
const ANOTHER_LIST: u64 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes that ssh sends before all are encrypted.
    fn key_exchange() -> Vec<u8> {
        let packet = |kind: u8, payload: usize| {
            let length = u32::try_from(2 + payload + 6).unwrap().to_be_bytes();
            [&length[..], &[6, kind], &vec![21; payload], &[0; 6]].concat()
        };
        [b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n".to_vec(), packet(20, 1500), packet(30, 1200), packet(21, 0)]
            .concat()
    }

    /// A connection in which ssh, after the key exchange, sends a request before each of the server's turns.
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
            // The accepted service, and the refusal of the method `none`: ssh did not offer the key.
            &[44, 44][..],
            // The same, and a refusal of the key.
            &[44, 44, 44],
            // A banner stands in front of the first refusal, or the server's extensions before that.
            &[44, 3000, 44],
            &[344, 3000, 44],
            &[44, 30_000],
            // Refusals of the user's own key, too, and of passwords.
            &[44, 60, 60, 60, 60, 60, 60],
            // A disconnect message after too many keys.
            &[44, 60, 60, 60, 60, 60, 60, 84],
        ] {
            assert!(watched(turns).was_refused(false), "{turns:?}");
        }
        // The key was accepted, but the user may not log in: PermitRootLogin.
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
        // Logged in, by the user's own key or by the one-time key, and then killed, or unable to listen on a
        // port to forward.
        assert!(!watched(&[44, 44, 44, 300, 28]).was_refused(false));
        assert!(!watched(&[44, 44, 100, 28]).was_refused(false));
        assert!(!watched(&[44, 44, 100, 28 + 900]).was_refused(false));
        assert!(!watched(&[44, 44, 100, 28 + 116]).was_refused(false), "sshd has one host key");
        assert!(!watched(&[44, 3000, 100, 28 + 900]).was_refused(false), "behind a banner");
        assert!(!watched(&[44; 40]).was_refused(false), "a session");
        // `ssh -W`: logged in, and then the server could not open the channel.
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
        // A hostile or broken client must not make this code wait, nor allocate memory.
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
