//! The websocket upgrade (RFC 6455, section 4.1).
//!
//! Written by hand because the library's own upgrade rewrites the request through a URL type, and drops the
//! body of an error response, in which AWS says what is wrong.

use std::time::Duration;

use http::{HeaderName, HeaderValue};
use roxmltree::Document;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use super::head::{self, Head, HeadError};
use super::{Connection, DialError, StreamUrl, WebSocket};
use crate::system::text::foreign_text;

pub(super) async fn upgrade(
    mut stream: Box<dyn Connection>,
    url: &StreamUrl,
    headers: &[(HeaderName, HeaderValue)],
) -> Result<WebSocket, DialError> {
    let lost = |source: HeadError| DialError::Lost { host: url.host().to_owned(), source };
    let key = generate_key();
    stream.write_all(&request(url, &key, headers)).await.map_err(|error| lost(error.into()))?;
    stream.flush().await.map_err(|error| lost(error.into()))?;
    let (head, rest) = head::read(&mut stream).await.map_err(lost)?;
    if head.status != 101 {
        let body = read_body(&mut stream, &head, rest).await;
        return Err(error_response(url, &head, &String::from_utf8_lossy(&body)));
    }
    if let Some(fault) = fault(&head, &key) {
        return Err(DialError::Misanswered { host: url.host().to_owned(), fault });
    }
    let config = WebSocketConfig::default()
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE))
        .write_buffer_size(WRITE_BUFFER)
        .max_write_buffer_size(MAX_WRITE_BUFFER);
    // A buffer that begins with `rest` would later have room for one message at a time, with a system call
    // for each.
    Ok(if rest.is_empty() {
        WebSocketStream::from_raw_socket(stream, Role::Client, Some(config)).await
    } else {
        WebSocketStream::from_partially_read(stream, rest, Role::Client, Some(config)).await
    })
}

fn error_response(url: &StreamUrl, head: &Head, body: &str) -> DialError {
    let host = url.host().to_owned();
    let request_id = head.header("x-amzn-requestid").map(|id| foreign_text(id, 64));
    match denial(body) {
        Some(message) => DialError::Denied { host, message, request_id },
        None => {
            DialError::Refused { host, status: head.status, body: foreign_text(body, SHOWN_BODY), request_id }
        }
    }
}

/// IAM's message, from the document in which the gateway sends it. (SSM agents without
/// `ssmmessages:CreateDataChannel` log such a document.)
fn denial(body: &str) -> Option<String> {
    let document = Document::parse(body).ok()?;
    let root = document.root_element();
    let message = root.children().find(|child| child.tag_name().name().eq_ignore_ascii_case("message"))?;
    let is_denial = root.tag_name().name() == "AccessDeniedException";
    is_denial.then(|| foreign_text(message.text().unwrap_or_default(), SHOWN_MESSAGE))
}

fn request(url: &StreamUrl, key: &str, headers: &[(HeaderName, HeaderValue)]) -> Vec<u8> {
    let (target, authority) = (url.path_and_query(), url.authority());
    let mut request = format!(
        "GET {target} HTTP/1.1\r\nHost: {authority}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
    )
    .into_bytes();
    for (name, value) in headers {
        request.extend_from_slice(name.as_str().as_bytes());
        request.extend_from_slice(b": ");
        request.extend_from_slice(value.as_bytes());
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    request
}

/// What is wrong with a response of status 101. None if nothing is.
fn fault(head: &Head, key: &str) -> Option<&'static str> {
    let has_token = |name, token: &str| {
        head.header(name)
            .is_some_and(|value| value.split(',').any(|part| part.trim().eq_ignore_ascii_case(token)))
    };
    if !has_token("upgrade", "websocket") || !has_token("connection", "upgrade") {
        Some("it does not upgrade")
    } else if head.header("sec-websocket-accept") != Some(derive_accept_key(key.as_bytes()).as_str()) {
        Some("it does not match the request's key")
    } else if head.header("sec-websocket-extensions").is_some()
        || head.header("sec-websocket-protocol").is_some()
    {
        Some("it chose an extension or subprotocol that was not offered")
    } else {
        None
    }
}

/// The body of an error response, or the part of it that arrived in time.
async fn read_body(stream: &mut Box<dyn Connection>, head: &Head, mut body: Vec<u8>) -> Vec<u8> {
    let announced = head.header("content-length").and_then(|length| length.trim().parse().ok());
    let wanted = announced.unwrap_or(MAX_BODY).min(MAX_BODY);
    let reading = async {
        let mut chunk = [0; 1024];
        while body.len() < wanted {
            match stream.read(&mut chunk).await {
                Ok(0) | Err(_) => break,
                Ok(length) => body.extend_from_slice(&chunk[..length]),
            }
        }
    };
    // A body that stalls is cut short: the status is reported without it.
    let _ = time::timeout(BODY_TIMEOUT, reading).await;
    body.truncate(wanted);
    body
}

/// The SSM agent's messages have about 1.5 KiB. This bounds the memory that a broken server can use.
const MAX_MESSAGE: usize = 1 << 20;
/// Batched before a write to the kernel: at 1 KiB a message, fewer writes were worth a factor of 4. A larger
/// batch would be moved within the buffer whenever the kernel takes a part of it.
const WRITE_BUFFER: usize = 32 << 10;
/// Above this a send fails; the caller stops sending long before.
const MAX_WRITE_BUFFER: usize = 4 << 20;

/// How many bytes of an error response's body are read.
const MAX_BODY: usize = 4096;
const BODY_TIMEOUT: Duration = Duration::from_secs(2);
/// How many characters of the body are shown.
const SHOWN_BODY: usize = 300;
/// IAM's longest message names two ARNs.
const SHOWN_MESSAGE: usize = 600;

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::pin::Pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Poll};

    use super::*;
    use crate::net::network::{Network, NetworkEnvironment};
    use crate::net::websocket::{dial, prepare};
    use futures_util::{SinkExt as _, StreamExt as _};
    use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
    use tokio::net::TcpListener;
    use tokio_tungstenite::tungstenite::Message;

    /// Dials a server that answers with `answer(request)`. Returns the request, and the result of the dial.
    async fn exchange(
        path: &str,
        answer: impl FnOnce(&str) -> Vec<u8>,
    ) -> (String, Result<WebSocket, DialError>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = StreamUrl::new(&format!("ws://{}{path}", listener.local_addr().unwrap())).unwrap();
        let network = Network::new(&NetworkEnvironment::default()).unwrap();
        let headers = vec![(HeaderName::from_static("x-amz-date"), HeaderValue::from_static("now"))];
        let server = async {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                assert_ne!(client.read_buf(&mut request).await.unwrap(), 0);
            }
            let request = String::from_utf8(request).unwrap();
            client.write_all(&answer(&request)).await.unwrap();
            request
        };
        tokio::join!(server, dial(&url, headers, &network, None))
    }

    fn accepted(request: &str, more: &str) -> Vec<u8> {
        let key = request.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).unwrap();
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: WebSocket\r\nconnection: keep-alive, Upgrade\r\n\
             sec-websocket-accept: {}\r\n{more}\r\n",
            derive_accept_key(key.as_bytes())
        )
        .into_bytes()
    }

    #[tokio::test]
    async fn the_request_goes_out_byte_for_byte() {
        let path = "/v1/data-channel/a@b-0?role=publish_subscribe&cell-number=AA+bc/dE==";
        let (request, dialled) = exchange(path, |request| accepted(request, "")).await;
        dialled.unwrap();
        let mut lines = request.lines();
        assert_eq!(lines.next().unwrap(), format!("GET {path} HTTP/1.1"));
        let names: Vec<_> = lines.filter_map(|line| line.split_once(": ")).map(|(name, _)| name).collect();
        assert_eq!(
            names,
            ["Host", "Connection", "Upgrade", "Sec-WebSocket-Version", "Sec-WebSocket-Key", "x-amz-date"]
        );
    }

    #[tokio::test]
    async fn a_prepared_connection_is_used_for_its_own_host_only() {
        let prepared_for = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = |listener: &TcpListener| {
            StreamUrl::new(&format!("ws://{}/", listener.local_addr().unwrap())).unwrap()
        };
        let network = Network::new(&NetworkEnvironment::default()).unwrap();
        for (target, uses_it) in [(&prepared_for, true), (&other, false)] {
            let prepared = prepare(&url(&prepared_for), &network).await.unwrap();
            let (mut early, _) = prepared_for.accept().await.unwrap();
            let server = async {
                let mut request = Vec::new();
                if uses_it {
                    early.read_buf(&mut request).await.unwrap();
                    drop(early);
                } else {
                    let (mut client, _) = target.accept().await.unwrap();
                    client.read_buf(&mut request).await.unwrap();
                    assert_eq!(early.read(&mut [0]).await.unwrap(), 0, "closed unused");
                }
                request
            };
            let url = url(target);
            let (request, _) = tokio::join!(server, dial(&url, Vec::new(), &network, Some(prepared)));
            assert!(request.starts_with(b"GET / HTTP/1.1\r\n"), "{uses_it}");
        }
    }

    #[tokio::test]
    async fn a_message_sent_with_the_answer_is_not_lost() {
        let (_, dialled) =
            exchange("/", |request| [accepted(request, ""), b"\x82\x02ok".to_vec()].concat()).await;
        let mut websocket = dialled.unwrap();
        assert_eq!(websocket.next().await.unwrap().unwrap(), Message::binary(b"ok".as_slice()));
        assert!(websocket.feed(Message::binary(b"x".as_slice())).await.is_ok());
    }

    /// Answers the upgrade, and then has unlimited bytes to read at once.
    struct Flood {
        unread: VecDeque<Vec<u8>>,
        reads: Arc<AtomicUsize>,
    }

    impl AsyncRead for Flood {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<std::io::Result<()>> {
            self.reads.fetch_add(1, Ordering::Relaxed);
            let Some(front) = self.unread.front_mut() else { return Poll::Ready(Ok(())) };
            let length = front.len().min(buffer.remaining());
            buffer.put_slice(&front[..length]);
            front.drain(..length);
            if front.is_empty() {
                self.unread.pop_front();
            }
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Flood {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            request: &[u8],
        ) -> Poll<std::io::Result<usize>> {
            let answer = accepted(std::str::from_utf8(request).unwrap(), "");
            self.unread.push_front(answer);
            Poll::Ready(Ok(request.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn one_read_brings_many_messages() {
        let message = [b"\x82\x7e\x04\x78".as_slice(), &[b'x'; 0x478]].concat();
        let reads = Arc::new(AtomicUsize::new(0));
        let flood = Flood { unread: [message.repeat(1000)].into(), reads: Arc::clone(&reads) };
        let url = StreamUrl::new("ws://127.0.0.1/").unwrap();
        let mut websocket = upgrade(Box::new(flood), &url, &[]).await.unwrap();
        for _ in 0..1000 {
            assert_eq!(websocket.next().await.unwrap().unwrap().len(), 0x478);
        }
        let reads = reads.load(Ordering::Relaxed);
        assert!(reads < 50, "{reads} reads for a thousand messages");
    }

    #[tokio::test]
    async fn an_error_response_has_status_body_and_request_id() {
        let answer = "HTTP/1.1 403 Forbidden\r\nx-amzn-RequestId: r-1\r\nContent-Length: 31\r\n\r\n\
                      {\"message\":\"\x1b[1mno\r\n entry\"}.....beyond";
        let (_, dialled) = exchange("/", |_| answer.into()).await;
        let error = dialled.unwrap_err();
        assert!(error.is_permanent());
        match &error {
            DialError::Refused { status: 403, body, request_id: Some(id), .. } => {
                assert_eq!((body.as_str(), id.as_str()), ("{\"message\":\" [1mno entry\"}...", "r-1"));
            }
            _ => panic!("{error:?}"),
        }
    }

    #[tokio::test]
    async fn a_denial_is_distinguished_from_other_error_responses() {
        let body = "<AccessDeniedException>\n  <Message>User: a is not authorized to perform: b\u{9b}\
                    </Message>\n</AccessDeniedException>";
        let answer = format!("HTTP/1.1 403 Forbidden\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let (_, dialled) = exchange("/", |_| answer.into()).await;
        let error = dialled.unwrap_err();
        assert!(error.is_permanent());
        let text = "127.0.0.1 refused the websocket: User: a is not authorized to perform: b";
        assert_eq!(error.to_string(), text);
        for body in ["", "<html><message>no</message></html>", "<AccessDeniedException/>", "<AccessDenied"] {
            assert_eq!(denial(body), None, "{body}");
        }
    }

    #[tokio::test]
    async fn a_busy_server_may_be_dialled_again() {
        let (_, dialled) = exchange("/", |_| b"HTTP/1.1 503 Busy\r\n\r\n".to_vec()).await;
        let error = dialled.unwrap_err();
        assert!(
            matches!(error, DialError::Refused { status: 503, .. }) && !error.is_permanent(),
            "{error:?}"
        );
    }

    #[tokio::test]
    async fn responses_to_another_request_are_refused() {
        let wrong_key = b"HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n".to_vec();
        let (_, dialled) = exchange("/", |_| wrong_key).await;
        assert!(matches!(dialled, Err(DialError::Misanswered { .. })), "{dialled:?}");
        let (_, dialled) =
            exchange("/", |request| accepted(request, "Sec-WebSocket-Extensions: permessage-deflate\r\n"))
                .await;
        assert!(matches!(dialled, Err(DialError::Misanswered { .. })), "{dialled:?}");
        let (_, dialled) = exchange("/", |_| b"SSH-2.0-OpenSSH_9.6\r\n".to_vec()).await;
        assert!(matches!(dialled, Err(DialError::Lost { .. })), "{dialled:?}");
    }
}
