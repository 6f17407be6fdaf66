//! The machine's own limits: the same bytes over loopback TCP, and through a bare websocket.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use sha2::{Digest, Sha256};
use tokio_tungstenite::tungstenite::{Bytes, Message};

use crate::MEBIBYTE;
use crate::carrier::PIECE;

/// MiB/s.
pub(crate) fn tcp(bytes: usize) -> f64 {
    let (mut client, mut server) = pair();
    let started = Instant::now();
    let sender = thread::spawn(move || {
        let piece = vec![b'x'; PIECE];
        for _ in 0..bytes / PIECE {
            client.write_all(&piece).unwrap();
        }
    });
    let mut room = vec![0; PIECE];
    while server.read(&mut room).unwrap() > 0 {}
    sender.join().unwrap();
    rate(bytes, started.elapsed())
}

/// From the client's end, which masks. MiB/s.
pub(crate) fn up(bytes: usize, message: usize) -> f64 {
    websocket(bytes, message, End::Client)
}

/// From the server's end. MiB/s.
pub(crate) fn down(bytes: usize, message: usize) -> f64 {
    websocket(bytes, message, End::Server)
}

/// One byte there and back over loopback TCP.
pub(crate) fn keystrokes(count: usize) -> Vec<Duration> {
    let (mut client, mut server) = pair();
    let echo = thread::spawn(move || {
        let mut byte = [0];
        while server.read(&mut byte).unwrap() > 0 {
            server.write_all(&byte).unwrap();
        }
    });
    let stroke = |_| {
        let started = Instant::now();
        let mut byte = [b'x'];
        client.write_all(&byte).unwrap();
        client.read_exact(&mut byte).unwrap();
        started.elapsed()
    };
    let times = (0..count).map(stroke).collect();
    drop(client);
    echo.join().unwrap();
    times
}

#[derive(Clone, Copy, PartialEq)]
enum End {
    Client,
    Server,
}

/// Each end has its own thread. A flush follows as many messages as in the tunnel's loops.
fn websocket(bytes: usize, message: usize, sender: End) -> f64 {
    let (client, server) = pair();
    let started = Instant::now();
    let server = thread::spawn(move || {
        run(async move {
            let socket = tokio_tungstenite::accept_async(tokio_stream(server)).await.unwrap();
            if sender == End::Server { send(socket, bytes, message).await } else { receive(socket).await }
        })
    });
    run(async move {
        let request = "ws://localhost/";
        let (socket, _) = tokio_tungstenite::client_async(request, tokio_stream(client)).await.unwrap();
        if sender == End::Client { send(socket, bytes, message).await } else { receive(socket).await }
    });
    server.join().unwrap();
    rate(bytes, started.elapsed())
}

type Socket = tokio_tungstenite::WebSocketStream<tokio::net::TcpStream>;

async fn send(mut socket: Socket, bytes: usize, message: usize) {
    // The header of the real messages, too.
    let piece = Bytes::from(vec![b'x'; HEADER + message]);
    for number in 1..=bytes / message {
        std::hint::black_box(Sha256::digest(&piece));
        socket.feed(Message::Binary(piece.clone())).await.unwrap();
        if number % MESSAGES == 0 {
            socket.flush().await.unwrap();
        }
    }
    socket.close(None).await.unwrap();
    while socket.next().await.is_some_and(|message| message.is_ok()) {}
}

async fn receive(mut socket: Socket) {
    while let Some(Ok(message)) = socket.next().await {
        std::hint::black_box(Sha256::digest(message.into_data()));
    }
}

fn run(future: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future);
}

fn tokio_stream(stream: TcpStream) -> tokio::net::TcpStream {
    stream.set_nonblocking(true).unwrap();
    tokio::net::TcpStream::from_std(stream).unwrap()
}

fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    for stream in [&client, &server] {
        stream.set_nodelay(true).unwrap();
    }
    (client, server)
}

pub(crate) fn rate(bytes: usize, time: Duration) -> f64 {
    bytes as f64 / MEBIBYTE as f64 / time.as_secs_f64()
}

const HEADER: usize = 120;
const MESSAGES: usize = 64;
