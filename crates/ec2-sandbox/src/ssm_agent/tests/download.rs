//! The client's channel and this SSM agent, with a path between them and a clock that only this file moves.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use bytes::Bytes;
use ssm_channel::{
    Channel, Draft, Header, Message, MessageId, MessageType, Origin, Outgoing, PayloadType, Side,
    SsmAgentVersion,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    hosts::{Connection, Start},
    ssm_agent::{Behaviour, DIAL_TIME, SsmAgent},
    world::Purpose,
};

/// A server that sends a file and then nothing, and keeps the bytes that it receives.
struct File {
    left: usize,
    taken: Arc<Mutex<Vec<u8>>>,
}

impl AsyncRead for File {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let length = room.remaining().min(self.left);
        if length == 0 {
            return Poll::Pending;
        }
        room.put_slice(&vec![b'x'; length]);
        self.left -= length;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for File {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.taken.lock().unwrap().extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

struct World {
    client: Channel,
    agent: SsmAgent,
    size: usize,
    one_way: Duration,
    start: Instant,
    now: Instant,
    to_client: VecDeque<(Instant, Bytes)>,
    to_agent: VecDeque<(Instant, Bytes)>,
    received: usize,
    /// The bytes that the server received.
    taken: Arc<Mutex<Vec<u8>>>,
}

impl World {
    fn new(size: usize, one_way: Duration) -> Self {
        let now = Instant::now();
        let origin = Origin { seed: 1, unix_time: Duration::from_secs(1_700_000_000), now };
        let version = SsmAgentVersion::parse("3.3.1142.0").unwrap();
        let mut agent = SsmAgent::new(version, &Purpose::Port(22), Behaviour::default(), origin);
        agent.start(now);
        let mut client = Channel::new(Side::Client { client_id: "client".into() }, origin);
        client.attach(now, "token");
        Self {
            client,
            agent,
            size,
            one_way,
            start: now,
            now,
            to_client: VecDeque::new(),
            to_agent: VecDeque::new(),
            received: 0,
            taken: Arc::default(),
        }
    }

    /// One millisecond: the pace of the SSM agent, and shorter than every other wait.
    fn step(&mut self) {
        self.now += Duration::from_millis(1);
        let (now, arrival) = (self.now, self.now + self.one_way);
        let mut cx = Context::from_waker(Waker::noop());
        while let Some((_, record)) = self.to_agent.pop_front_if(|(at, _)| *at <= now) {
            self.agent.receive(&mut cx, now, record).unwrap();
        }
        let (size, taken) = (self.size, &self.taken);
        let file = || File { left: size, taken: Arc::clone(taken) };
        while self.agent.poll(&mut cx, now, || Start::Connected(Box::new(Connection::new(Box::new(file())))))
        {
        }
        while let Some(record) = self.agent.next_record() {
            self.to_client.push_back((arrival, record));
        }
        while let Some((_, record)) = self.to_client.pop_front_if(|(at, _)| *at <= now) {
            self.client.handle_message(now, record).unwrap();
        }
        self.client.handle_timeout(now);
        while self.client.poll_event().is_some() {}
        while let Some(bytes) = self.client.read() {
            self.received += bytes.len();
        }
        self.transmit();
    }

    fn transmit(&mut self) {
        while let Some(outgoing) = self.client.poll_transmit(self.now) {
            if let Outgoing::Record(record) = outgoing {
                self.to_agent.push_back((self.now + self.one_way, record));
            }
        }
    }

    fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.step();
        }
    }

    /// Loses the client's websocket with all messages under way, and replaces it at once.
    fn cut(&mut self) -> usize {
        let lost = self.to_client.len();
        self.to_client.clear();
        self.to_agent.clear();
        self.client.handle_closed(self.now);
        self.client.attach(self.now, "another token");
        lost
    }
}

#[test]
fn a_download_recovers_from_a_loss_while_the_ssm_agent_goes_on() {
    let mut world = World::new(64 << 20, Duration::from_millis(100));
    world.run_for(Duration::from_secs(5));
    let lost = world.cut();
    assert!(lost > 90, "{lost} messages were on the way");
    let before = world.received;
    // Each message is repeated when the one before is acknowledged.
    world.run_for(Duration::from_millis(210) * u32::try_from(lost).unwrap() + Duration::from_secs(3));
    let received = world.received - before;
    assert!(received > 15 << 20, "{received} bytes since the loss of {lost} messages");
    world.run_for(Duration::from_secs(1));
    assert!(world.received - before - received > 900 << 10, "it goes on at the SSM agent's pace");
}

#[test]
fn what_is_sent_as_soon_as_the_client_allows_it_reaches_the_server() {
    // On a longer path the data would arrive after the time in which the SSM agent drops it.
    let mut world = World::new(0, Duration::ZERO);
    while world.client.send_capacity() == 0 {
        world.step();
    }
    let mut draft = Draft::with_capacity(16);
    draft.push(b"first");
    world.client.send(world.now, &mut draft).unwrap();
    world.transmit();
    world.run_for(Duration::from_secs(2));
    assert_eq!(*world.taken.lock().unwrap(), b"first");
}

#[test]
fn what_comes_before_the_port_is_connected_has_to_come_again() {
    let mut world = World::new(0, Duration::ZERO);
    while world.agent.connects_at.is_none() {
        assert!(world.now < world.start + Duration::from_secs(1), "the port is not being dialled");
        world.step();
    }
    let header = Header {
        message_type: MessageType::InputStreamData,
        created_at: 1,
        sequence_number: 1,
        flags: 0,
        id: MessageId::from_bytes([4; 16]),
        payload_type: PayloadType::Output,
    };
    let early = Message { header, payload: Bytes::from_static(b"early") }.encode();
    let acknowledgements = |world: &mut World| {
        let mut cx = Context::from_waker(Waker::noop());
        world.agent.receive(&mut cx, world.now, early.clone()).unwrap();
        while world.agent.poll(&mut cx, world.now, || unreachable!("the port is dialled once")) {}
        let records = std::iter::from_fn(|| world.agent.next_record());
        let types = records.map(|record| Message::parse(record).unwrap().header.message_type);
        types.filter(|found| *found == MessageType::Acknowledge).count()
    };
    assert_eq!(acknowledgements(&mut world), 0);
    world.run_for(DIAL_TIME);
    assert_eq!(*world.taken.lock().unwrap(), b"");
    assert_eq!(acknowledgements(&mut world), 1);
    assert_eq!(*world.taken.lock().unwrap(), b"early");
}
