//! One session in the gateway: the SSM agent, at most one websocket of the client, and a line in each
//! direction.
//!
//! One task polls all of it; no part waits for another. Messages of the SSM agent are kept until the first
//! client connects. Later, while the client's websocket is lost, the gateway sends the SSM agent a pause and
//! drops its messages, so that its repeats are tested. While the SSM agent's websocket is lost, the client
//! gets the same treatment.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant, UNIX_EPOCH},
};

use bytes::Bytes;
use futures_util::{Sink, Stream};
use serde_json::json;
use ssm_channel::{Origin, SsmAgentVersion};
use tokio::{
    sync::mpsc,
    time::{Sleep, sleep_until},
};
use tokio_tungstenite::tungstenite::Message;

use self::schedule::Loss;
use super::{
    ClientSocket,
    line::Line,
    record::{HEADER_LENGTH, gateway_record, is_stream_data},
};
use crate::{
    faults::Faults,
    hosts::{Hosts, Start},
    ssm_agent::{Behaviour, SsmAgent, Verdict},
    world::{Condition, Purpose, SessionInfo, SessionState, World},
};

mod schedule;

pub(super) struct Relay {
    info: SessionInfo,
    hosts: Arc<Hosts>,
    world: Arc<World>,
    sockets: mpsc::Receiver<ClientSocket>,
    client: Option<Client>,
    /// Whether a client has ever connected.
    was_attached: bool,
    agent: SsmAgent,
    to_client: Line,
    to_agent: Line,
    faults: Faults,
    /// When the SSM agent joins the session; none once it has, or if it never does.
    attaches_at: Option<Instant>,
    agent_attached: bool,
    /// When the SSM agent's websocket is replaced; none while it has one.
    agent_returns: Option<Instant>,
    /// When the service ends the session as idle, unless data moves before.
    idles_at: Instant,
    next_close: Option<Instant>,
    next_reset: Option<Instant>,
    next_agent_cut: Option<Instant>,
    next_pause: Option<Instant>,
    pause_ends: Option<Instant>,
    crashes_at: Option<Instant>,
    /// A loss of the client's websocket that begins: when its last messages are lost, or at this time.
    losing: Option<(Loss, Instant)>,
    timer: Pin<Box<Sleep>>,
}

struct Client {
    socket: ClientSocket,
    unflushed: bool,
    /// A close frame is queued; the websocket is dropped when it is flushed.
    closing: bool,
}

impl Relay {
    pub(super) fn new(
        info: SessionInfo,
        sockets: mpsc::Receiver<ClientSocket>,
        faults: &Faults,
        hosts: Arc<Hosts>,
        world: Arc<World>,
    ) -> Self {
        let now = Instant::now();
        let unix_time = world.now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut seed = [0; 8];
        // Without random bytes the message ids repeat between sessions, which is harmless.
        let _ = getrandom::fill(&mut seed);
        let seed = u64::from_le_bytes(seed);
        let version = faults.agent_version.as_deref().and_then(SsmAgentVersion::parse);
        let version = version.unwrap_or_else(|| default_version(&info, &world));
        let condition = world.instance(&info.target).map(|instance| instance.condition);
        let attaches = !faults.never_attach && condition != Some(Condition::SsmAgentSilent);
        let origin = Origin { seed, unix_time, now };
        Self {
            agent: SsmAgent::new(version, &info.purpose, behaviour(faults), origin),
            hosts,
            world,
            sockets,
            client: None,
            was_attached: false,
            to_client: Line::new(faults, seed, info.faults.clone()),
            to_agent: Line::new(faults, seed.wrapping_add(1), info.faults.clone()),
            attaches_at: attaches.then(|| now + faults.slow_attach),
            agent_attached: false,
            agent_returns: None,
            idles_at: now + faults.idle.unwrap_or(IDLE_LIMIT),
            next_close: faults.close_every.map(|every| now + every),
            next_reset: faults.reset_every.map(|every| now + every),
            next_agent_cut: faults.cut_agent_every.map(|every| now + every),
            next_pause: faults.pause_every.map(|every| now + every),
            pause_ends: None,
            crashes_at: faults.crash.map(|after| now + after),
            losing: None,
            faults: faults.clone(),
            info,
            timer: Box::pin(sleep_until(now.into())),
        }
    }

    /// Runs the session until its end.
    pub(super) async fn run(mut self) {
        let mut state = self.info.state.clone();
        let terminated = async move {
            // An error means that the region is gone, which ends this task as well.
            let _ = state.wait_for(|state| *state == SessionState::Terminated).await;
        };
        let mut terminated = Box::pin(terminated);
        let mut over = false;
        poll_fn(|cx| {
            if !over && terminated.as_mut().poll(cx).is_ready() {
                over = true;
                self.agent.terminate();
            }
            self.poll(cx)
        })
        .await;
        self.close_client().await;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let now = Instant::now();
            let mut moved = self.poll_sockets(cx, now);
            moved |= self.run_schedule(now);
            moved |= self.poll_client_in(cx, now);
            moved |= self.poll_agent(cx, now);
            moved |= self.poll_client_out(cx, now);
            if self.agent.verdict().is_some() {
                return Poll::Ready(());
            }
            if !moved && !self.poll_timer(cx) {
                return Poll::Pending;
            }
        }
    }

    /// A new websocket of the client replaces the last one.
    fn poll_sockets(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let Poll::Ready(Some(socket)) = self.sockets.poll_recv(cx) else { return false };
        tracing::debug!(session = self.info.id, "a client is attached");
        if self.was_attached {
            self.lose_client();
            self.publish_to_agent("start_publication", now);
        }
        self.was_attached = true;
        self.client = Some(Client { socket, unflushed: false, closing: false });
        true
    }

    fn poll_client_in(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let mut moved = false;
        let size_limit = HEADER_LENGTH + self.faults.size_limit.unwrap_or(SIZE_LIMIT);
        let mut received = 0;
        while received < BATCH && self.to_agent.has_room() {
            let Some(client) = &mut self.client else { break };
            match Pin::new(&mut client.socket).poll_next(cx) {
                Poll::Pending => break,
                Poll::Ready(Some(Ok(message))) => {
                    moved = true;
                    match message {
                        Message::Binary(record) if record.len() > size_limit => {
                            self.lose(Loss::TooLarge, now);
                            return true;
                        }
                        Message::Binary(record) => {
                            received += record.len();
                            self.relay_to_agent(now, record);
                        }
                        Message::Ping(_) | Message::Close(_) => client.unflushed = true,
                        _ => {}
                    }
                }
                Poll::Ready(_) => {
                    tracing::debug!(session = self.info.id, "the client is gone");
                    self.lose_client();
                    self.publish_to_agent("pause_publication", now);
                    return true;
                }
            }
        }
        moved
    }

    fn poll_agent(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        if !self.agent_attached {
            return false;
        }
        if self.client.is_some() {
            self.agent.check_session_type();
        }
        let mut moved = false;
        while self.agent.is_reading()
            && let Some(record) = self.to_agent.pop(now)
        {
            moved = true;
            if let Err(error) = self.agent.receive(cx, now, record) {
                tracing::warn!(%error, session = self.info.id, "the client sent a bad message");
            }
        }
        let (hosts, info) = (&self.hosts, &self.info);
        moved |= self.agent.poll(cx, now, || begin(hosts, info));
        while self.to_client.has_room()
            && let Some(record) = self.agent.next_record()
        {
            moved = true;
            if self.agent_returns.is_none() && (self.client.is_some() || !self.was_attached) {
                self.to_client.push(now, record);
            }
        }
        moved
    }

    /// Sends a message of the client to the SSM agent, unless its websocket is lost.
    fn relay_to_agent(&mut self, now: Instant, record: Bytes) {
        if is_stream_data(&record) {
            self.idles_at = now + self.faults.idle.unwrap_or(IDLE_LIMIT);
        }
        if self.agent_returns.is_none() {
            self.to_agent.push(now, record);
        } else if self.faults.pause_each {
            self.publish_to_client("pause_publication", now);
        }
    }

    fn poll_client_out(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        match self.try_client_out(cx, now) {
            Ok(moved) => moved,
            Err(()) => {
                self.lose_client();
                self.publish_to_agent("pause_publication", now);
                true
            }
        }
    }

    fn try_client_out(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<bool, ()> {
        let Some(client) = &mut self.client else { return Ok(false) };
        let mut moved = false;
        while !client.closing && Pin::new(&mut client.socket).poll_ready(cx).map_err(drop)?.is_ready() {
            let Some(record) = self.to_client.pop(now) else { break };
            if is_stream_data(&record) {
                self.idles_at = now + self.faults.idle.unwrap_or(IDLE_LIMIT);
            }
            Pin::new(&mut client.socket).start_send(Message::Binary(record)).map_err(drop)?;
            client.unflushed = true;
            moved = true;
        }
        if client.unflushed && Pin::new(&mut client.socket).poll_flush(cx).map_err(drop)?.is_ready() {
            client.unflushed = false;
            if client.closing {
                return Err(());
            }
        }
        Ok(moved)
    }

    /// Sends the client `channel_closed` with the reason.
    async fn close_client(mut self) {
        use futures_util::SinkExt;
        let output = match self.agent.verdict() {
            Some(Verdict::Failed(output)) => output.clone(),
            _ => self.world.output(&self.info.id),
        };
        tracing::debug!(session = self.info.id, output, "the session is over");
        self.world.terminate(&self.info.id, self.world.now());
        let Some(mut client) = self.client.take() else { return };
        let send = async {
            let now = Instant::now();
            // The last acknowledgements and data first, without their delay.
            while let Some(record) = self.agent.next_record() {
                self.to_client.push(now, record);
            }
            while let Some(record) = self.to_client.pop(now + LONG) {
                client.socket.feed(Message::Binary(record)).await?;
            }
            let payload = json!({
                "MessageType": "channel_closed",
                "MessageId": "8b2c8a1e-5b1f-4f0e-9a55-0d0c7c3f5a10",
                "DestinationId": self.info.id,
                "SessionId": self.info.id,
                "SchemaVersion": 1,
                "CreatedDate": "",
                "Output": output,
            });
            let record = gateway_record("channel_closed", payload.to_string().as_bytes(), self.world.now());
            client.socket.send(Message::Binary(record)).await?;
            client.socket.close(None).await
        };
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, send).await;
    }
}

fn behaviour(faults: &Faults) -> Behaviour {
    let real = Behaviour::default();
    Behaviour {
        payload: faults.agent_payload.unwrap_or(real.payload),
        pace: faults.pace.unwrap_or(real.pace),
        refusal_delay: faults.port_refusal_delay.unwrap_or(real.refusal_delay),
        error_delay: faults.command_error_delay.unwrap_or(real.error_delay),
    }
}

/// Starts the session's work on the instance.
fn begin(hosts: &Hosts, info: &SessionInfo) -> Start {
    let start = match &info.purpose {
        Purpose::Command(command) => hosts.run(&info.target, command, false),
        Purpose::SeparateCommand(command) => hosts.run(&info.target, command, true),
        Purpose::Port(port) => hosts
            .connect(&info.target, *port)
            .map(|connection| connection.map_or(Start::Refused, |it| Start::Connected(Box::new(it)))),
    };
    start.unwrap_or_else(|error| {
        tracing::error!(%error, session = info.id, "the work of a session could not be started");
        Start::Refused
    })
}

fn default_version(info: &SessionInfo, world: &World) -> SsmAgentVersion {
    let version =
        world.instance(&info.target).and_then(|instance| SsmAgentVersion::parse(instance.ssm_agent_version));
    version.unwrap_or_else(|| unreachable!("the catalogue's versions have four numbers"))
}

/// Bytes read in one pass, so that the SSM agent gets them soon.
const BATCH: usize = 128 * 1024;
/// The limit of the service that the settings of SSM agents suggest.
const SIZE_LIMIT: usize = 128 * 1024;
/// The default of the account's preferences.
const IDLE_LIMIT: Duration = Duration::from_secs(20 * 60);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Longer than any delay on a line.
const LONG: Duration = Duration::from_secs(3600);
