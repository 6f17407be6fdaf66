//! The address of a data channel, kept byte for byte. (Pure.)
//!
//! `StartSession` returns a URL whose query has base64 with raw `+` and `/`; re-encoding it would make
//! another URL. With the token it opens the session, so it is never shown whole.

use std::{fmt, ops::Range};

use thiserror::Error;

/// The text is not a plain `ws` or `wss` URL. It is not kept here: it may be secret.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("the data channel's address is not a websocket URL")]
pub(crate) struct NotAStreamUrl;

/// Whether a connection is encrypted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Transport {
    /// `ws`, for this machine only.
    Plain,
    /// `wss`.
    Tls,
}

/// The URL of a data channel. It has no `Display`, and `Debug` shows the host alone.
#[derive(Clone, Eq, PartialEq)]
pub(crate) struct StreamUrl {
    text: String,
    transport: Transport,
    host: Range<usize>,
    port: u16,
    target: usize,
}

impl StreamUrl {
    /// Parses the URL and keeps its bytes.
    ///
    /// # Errors
    ///
    /// [`NotAStreamUrl`] unless it is `ws` or `wss`, a host of letters, digits, `-`, `.` and `_` or an IPv6
    /// address, a port or none, and then printable ASCII. User names, fragments and other ways to disguise a
    /// host are refused.
    pub(crate) fn new(text: &str) -> Result<Self, NotAStreamUrl> {
        let (transport, start) = match text {
            _ if text.starts_with("wss://") => (Transport::Tls, "wss://".len()),
            _ if text.starts_with("ws://") => (Transport::Plain, "ws://".len()),
            _ => return Err(NotAStreamUrl),
        };
        let target = text[start..].find(['/', '?', '#']).map_or(text.len(), |at| start + at);
        let (host, port) = split_authority(&text[start..target])?;
        // These bytes become part of a request line: a space would end it, and some parsers read a backslash
        // as a slash.
        let harmless = |byte: u8| byte.is_ascii_graphic() && !b"\\#\"<>^`{|}".contains(&byte);
        if !text[target..].bytes().all(harmless) {
            return Err(NotAStreamUrl);
        }
        let port = match (port, transport) {
            (Some(port), _) => port,
            (None, Transport::Tls) => 443,
            (None, Transport::Plain) => 80,
        };
        let host = start + host.start..start + host.end;
        Ok(Self { text: text.to_owned(), transport, host, port, target })
    }

    /// Whether the connection is encrypted.
    pub(crate) fn transport(&self) -> Transport {
        self.transport
    }

    /// The host. An IPv6 address is without brackets.
    pub(crate) fn host(&self) -> &str {
        &self.text[self.host.clone()]
    }

    /// The port: the scheme's default if the URL has none.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The `Host` header: an IPv6 address in brackets, and the port unless it is the scheme's default.
    pub(crate) fn authority(&self) -> String {
        let host = bracketed(self.host());
        match (self.transport, self.port) {
            (Transport::Tls, 443) | (Transport::Plain, 80) => host,
            (_, port) => format!("{host}:{port}"),
        }
    }

    /// `host:port`, as `CONNECT` needs it.
    pub(crate) fn host_and_port(&self) -> String {
        format!("{}:{}", bracketed(self.host()), self.port)
    }

    /// Path and query, byte for byte.
    pub(crate) fn path_and_query(&self) -> String {
        match &self.text[self.target..] {
            rest if rest.starts_with('/') => rest.to_owned(),
            rest => format!("/{rest}"),
        }
    }
}

impl fmt::Debug for StreamUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StreamUrl({}, ..)", self.host())
    }
}

fn split_authority(authority: &str) -> Result<(Range<usize>, Option<u16>), NotAStreamUrl> {
    let (host, rest) = match authority.strip_prefix('[') {
        Some(inner) => {
            let end = inner.find(']').ok_or(NotAStreamUrl)?;
            inner[..end].parse::<std::net::Ipv6Addr>().map_err(|_| NotAStreamUrl)?;
            (1..1 + end, &inner[end + 1..])
        }
        None => {
            let end = authority.find(':').unwrap_or(authority.len());
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
            if end == 0 || !authority[..end].bytes().all(allowed) {
                return Err(NotAStreamUrl);
            }
            (0..end, &authority[end..])
        }
    };
    let port = match rest.strip_prefix(':') {
        None if rest.is_empty() => None,
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some(digits.parse().ok().filter(|port| *port != 0).ok_or(NotAStreamUrl)?)
        }
        _ => return Err(NotAStreamUrl),
    };
    Ok((host, port))
}

fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_and_query_stay_byte_for_byte() {
        let url = StreamUrl::new(
            "wss://ssmmessages.us-west-2.amazonaws.com/v1/data-channel/a@b.c-0?role=x&cell-number=AA+bc/dE==%2b",
        )
        .unwrap();
        assert_eq!(url.path_and_query(), "/v1/data-channel/a@b.c-0?role=x&cell-number=AA+bc/dE==%2b");
        assert_eq!(url.authority(), "ssmmessages.us-west-2.amazonaws.com");
        assert_eq!((url.host(), url.port()), ("ssmmessages.us-west-2.amazonaws.com", 443));
        assert_eq!(url.transport(), Transport::Tls);
    }

    #[test]
    fn ports_and_addresses_are_taken_apart() {
        let url = StreamUrl::new("ws://[::1]:8080?x=1").unwrap();
        assert_eq!((url.host(), url.port(), url.transport()), ("::1", 8080, Transport::Plain));
        assert_eq!((url.authority(), url.path_and_query()), ("[::1]:8080".into(), "/?x=1".into()));
        let url = StreamUrl::new("ws://127.0.0.1").unwrap();
        assert_eq!((url.authority(), url.host_and_port()), ("127.0.0.1".into(), "127.0.0.1:80".into()));
        assert_eq!(url.path_and_query(), "/");
    }

    #[test]
    fn disguised_hosts_and_foreign_bytes_are_refused() {
        for text in [
            "https://a/",
            "WSS://a/",
            "wss://",
            "wss:///x",
            "wss://user@a/",
            "wss://a@b",
            "wss://a\\.b/",
            "wss://a:0/",
            "wss://a:+1/",
            "wss://a:65536/",
            "wss://[::1/",
            "wss://[a]/",
            "wss://a/ HTTP/1.1",
            "wss://a/\r\nx: y",
            "wss://a/#f",
            "wss://é/",
            "wss://a/é",
        ] {
            assert_eq!(StreamUrl::new(text), Err(NotAStreamUrl), "{text:?}");
        }
    }

    #[test]
    fn debug_shows_the_host_alone() {
        let url = StreamUrl::new("wss://a.b/v1/secret?token=secret").unwrap();
        assert_eq!(format!("{url:?}"), "StreamUrl(a.b, ..)");
    }
}
