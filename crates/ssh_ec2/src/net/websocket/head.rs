//! Reads the head of an HTTP/1 response from a stream, within a bound.
//!
//! Neither hyper nor the websocket library can be used: the response to `CONNECT` may be in HTTP/1.0, and the
//! body of a refused upgrade must be read.

use std::io;

use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// There is no usable HTTP response.
#[derive(Debug, Error)]
pub(crate) enum HeadError {
    /// The connection ended or broke.
    #[error("the connection was lost")]
    Lost(#[from] io::Error),
    /// The response is not HTTP, or its head is longer than that of any server.
    #[error("the answer is not HTTP")]
    Malformed,
}

/// Status and headers of a response.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) status: u16,
    headers: Vec<(String, Vec<u8>)>,
}

impl Head {
    /// The first header of this name. None as well if it is not UTF-8.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(header, _)| header.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(value).ok()
    }
}

/// Reads a head. Returns it, and the bytes that arrived behind it.
pub(super) async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> Result<(Head, Vec<u8>), HeadError> {
    let mut bytes = Vec::with_capacity(1024);
    loop {
        if let Some((head, length)) = parse(&bytes)? {
            return Ok((head, bytes.split_off(length)));
        }
        if bytes.len() >= LIMIT {
            return Err(HeadError::Malformed);
        }
        let mut chunk = [0; 1024];
        match stream.read(&mut chunk).await? {
            0 => return Err(HeadError::Lost(io::ErrorKind::UnexpectedEof.into())),
            length => bytes.extend_from_slice(&chunk[..length]),
        }
    }
}

fn parse(bytes: &[u8]) -> Result<Option<(Head, usize)>, HeadError> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    match response.parse(bytes) {
        Ok(httparse::Status::Partial) => Ok(None),
        Ok(httparse::Status::Complete(length)) => {
            let status = response.code.ok_or(HeadError::Malformed)?;
            let headers =
                response.headers.iter().map(|header| (header.name.to_owned(), header.value.to_vec()));
            Ok(Some((Head { status, headers: headers.collect() }, length)))
        }
        Err(_) => Err(HeadError::Malformed),
    }
}

/// Servers bound their own heads at 8 to 16 KiB.
const LIMIT: usize = 16 * 1024;
const MAX_HEADERS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_follows_the_head_is_kept() {
        let mut answer = &b"HTTP/1.1 101 x\r\nA: 1\r\na: 2\r\n\r\n\x82\x00"[..];
        let (head, rest) = read(&mut answer).await.unwrap();
        assert_eq!((head.status, head.header("a"), rest), (101, Some("1"), vec![0x82, 0]));
    }

    #[tokio::test]
    async fn an_endless_head_is_cut_off() {
        let mut answer = &*[b"HTTP/1.1 200 x\r\n".as_slice(), &b"a: b\r\n".repeat(8000)].concat();
        assert!(matches!(read(&mut answer).await, Err(HeadError::Malformed)));
        let mut answer = &b"HTTP/1.1 200 x\r\nhalf"[..];
        assert!(matches!(read(&mut answer).await, Err(HeadError::Lost(_))));
    }
}
