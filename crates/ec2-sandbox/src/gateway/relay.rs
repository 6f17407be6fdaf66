//! One session in the gateway: the SSM agent, at most one websocket of the client, and two lines between.
//!
//! One task polls all of it; no part waits for another. What the SSM agent sends before the first client
//! comes is kept for it. When the client is away later, the SSM agent is asked to pause, and what it sends
//! regardless is lost, so that its repeats are exercised. It is the same the other way round while the SSM
//! agent's websocket is lost.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{Sink, Stream};
use serde_json::json;
use ssm_channel::{Origin, SsmAgentVersion};
use tokio::{
    sync::mpsc,
    time::{Sleep, sleep_until},
};
use tokio_tungstenite::tungstenite::{
    Message,
    protocol::{CloseFrame, frame::coding::CloseCode},
};

use super::ClientSocket;
use crate::{
    faults::{Faults, Line},
    hosts::{Hosts, Start},
    ssm_agent::{Manners, SsmAgent, Verdict},
    world::{Condition, Purpose, SessionInfo, SessionState, World},
};

pub(super) struct Session {
    info: SessionInfo,
    hosts: Arc<Hosts>,
    world: Arc<World>,
    sockets: mpsc::Receiver<ClientSocket>,
    client: Option<Client>,
    /// A client has been here.
    was_attached: bool,
    agent: SsmAgent,
    to_client: Line,
    to_agent: Line,
    faults: Faults,
    /// When the SSM agent takes the session up; none when it has, or never does.
    attaches_at: Option<Instant>,
    agent_attached: bool,
    /// When the SSM agent has its next websocket, while it has none.
    agent_returns: Option<Instant>,
    /// When the service ends the session unless data moves before.
    idles_at: Instant,
    next_close: Option<Instant>,
    next_reset: Option<Instant>,
    next_agent_cut: Option<Instant>,
    next_pause: Option<Instant>,
    pause_ends: Option<Instant>,
    crashes_at: Option<Instant>,
    /// The client's websocket is about to be lost, once its tail is swallowed or this has passed.
    losing: Option<(Loss, Instant)>,
    timer: Pin<Box<Sleep>>,
}

struct Client {
    socket: ClientSocket,
    unflushed: bool,
    /// A close frame is queued; the websocket goes when it is flushed.
    closing: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Loss {
    Close,
    Reset,
    TooLarge,
}

impl Session {
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
        // Without randomness the ids repeat between sessions, which nothing minds.
        let _ = getrandom::fill(&mut seed);
        let seed = u64::from_le_bytes(seed);
        let version = faults.agent_version.as_deref().and_then(SsmAgentVersion::parse);
        let version = version.unwrap_or_else(|| default_version(&info, &world));
        let condition = world.instance(&info.target).map(|instance| instance.condition);
        let attaches = !faults.never_attach && condition != Some(Condition::SsmAgentSilent);
        let origin = Origin { seed, unix_time, now };
        Self {
            agent: SsmAgent::new(version, &info.purpose, manners(faults), origin),
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

    /// Until the session is over on both sides.
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
        self.farewell().await;
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

    /// Another websocket of the client takes the place of the last.
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

    /// Takes a message of the client to the SSM agent, if that is there.
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

    // ---- what happens by the clock ----

    fn run_schedule(&mut self, now: Instant) -> bool {
        let mut moved = false;
        if due(&mut self.attaches_at, now, None) {
            self.agent_attached = true;
            self.agent.start(now);
            moved = true;
        }
        if due(&mut self.next_agent_cut, now, self.faults.cut_agent_every) && self.agent_attached {
            self.to_agent.clear();
            self.agent.reconnect();
            self.agent_returns = Some(now + AGENT_AWAY);
            self.info.faults.add();
            self.publish_to_client("pause_publication", now);
            moved = true;
        }
        if due(&mut self.agent_returns, now, None) {
            self.publish_to_client("start_publication", now);
            moved = true;
        }
        if due(&mut self.crashes_at, now, None) {
            self.info.faults.add();
            self.agent.crash(now);
            moved = true;
        }
        if self.idles_at <= now {
            tracing::debug!(session = self.info.id, "the session is idle");
            self.agent.terminate();
            moved = true;
        }
        if due(&mut self.next_pause, now, self.faults.pause_every) {
            self.info.faults.add();
            self.publish_to_client("pause_publication", now);
            self.pause_ends = Some(now + PAUSE);
            moved = true;
        }
        if due(&mut self.pause_ends, now, None) {
            self.publish_to_client("start_publication", now);
            moved = true;
        }
        moved | self.run_losses(now)
    }

    fn run_losses(&mut self, now: Instant) -> bool {
        let close = due(&mut self.next_close, now, self.faults.close_every);
        let reset = due(&mut self.next_reset, now, self.faults.reset_every);
        if (close || reset) && self.client.is_some() && self.losing.is_none() {
            let loss = if reset { Loss::Reset } else { Loss::Close };
            self.to_client.swallow(self.faults.lose_tail);
            self.to_agent.swallow(self.faults.lose_tail);
            self.losing = Some((loss, now + TAIL_TIME));
        }
        let swallowed = self.to_client.has_swallowed() && self.to_agent.has_swallowed();
        match self.losing {
            Some((loss, until)) if swallowed || until <= now => {
                self.losing = None;
                self.lose(loss, now);
                true
            }
            _ => close || reset,
        }
    }

    fn lose(&mut self, loss: Loss, now: Instant) {
        let Some(client) = &mut self.client else { return };
        self.info.faults.add();
        match loss {
            Loss::Close | Loss::TooLarge => {
                let frame = match loss {
                    Loss::TooLarge => CloseFrame { code: CloseCode::Size, reason: "too large".into() },
                    _ => CloseFrame { code: CloseCode::Normal, reason: "Bye".into() },
                };
                let _ = Pin::new(&mut client.socket).start_send(Message::Close(Some(frame)));
                client.unflushed = true;
                client.closing = true;
                self.to_client.clear();
            }
            Loss::Reset => {
                if let Err(error) = client.socket.get_ref().set_zero_linger() {
                    tracing::debug!(%error, "a connection is closed instead of reset");
                }
                self.lose_client();
                self.publish_to_agent("pause_publication", now);
            }
        }
    }

    fn lose_client(&mut self) {
        self.client = None;
        self.to_client.clear();
    }

    fn publish_to_agent(&mut self, message_type: &str, now: Instant) {
        if self.agent_attached {
            self.to_agent.push_own(now, gateway_record(message_type, b"", self.world.now()));
        }
    }

    fn publish_to_client(&mut self, message_type: &str, now: Instant) {
        if self.client.is_some() {
            self.to_client.push_own(now, gateway_record(message_type, b"", self.world.now()));
        }
    }

    /// Arms the timer; true when it has already fired.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> bool {
        let arrivals = [self.to_client.next_arrival(), self.to_agent.next_arrival()];
        let schedule = [
            self.attaches_at,
            self.agent_returns,
            Some(self.idles_at),
            self.next_close,
            self.next_reset,
            self.next_agent_cut,
            self.next_pause,
            self.pause_ends,
            self.crashes_at,
            self.losing.map(|(_, until)| until),
        ];
        let agent = self.agent.next_deadline().filter(|_| self.agent_attached);
        let now = Instant::now();
        // What is due already waits for room, not for time.
        let future = arrivals.into_iter().flatten().filter(|at| *at > now);
        let Some(next) = future.chain(schedule.into_iter().flatten()).chain(agent).min() else {
            return false;
        };
        if self.timer.deadline() != next.into() {
            self.timer.as_mut().reset(next.into());
        }
        self.timer.as_mut().poll(cx).is_ready()
    }

    /// Tells the client that the session is over, and why.
    async fn farewell(mut self) {
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
            // The last acknowledgements and data first: time no longer matters.
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
        let _ = tokio::time::timeout(FAREWELL_TIMEOUT, send).await;
    }
}

/// Whether a moment has come; then the next one is set, if it repeats.
fn due(at: &mut Option<Instant>, now: Instant, every: Option<Duration>) -> bool {
    let is_due = at.is_some_and(|at| at <= now);
    if is_due {
        *at = every.map(|every| now + every);
    }
    is_due
}

fn manners(faults: &Faults) -> Manners {
    let real = Manners::default();
    Manners {
        payload: faults.agent_payload.unwrap_or(real.payload),
        pace: faults.pace.unwrap_or(real.pace),
        refusal_delay: faults.port_refusal_delay.unwrap_or(real.refusal_delay),
        error_delay: faults.command_error_delay.unwrap_or(real.error_delay),
    }
}

/// Starts what a session is for.
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

/// Whether a message counts as activity of the user, other than acknowledgements.
fn is_stream_data(record: &[u8]) -> bool {
    matches!(record.get(4..16), Some(b"input_stream" | b"output_strea"))
}

fn default_version(info: &SessionInfo, world: &World) -> SsmAgentVersion {
    let version =
        world.instance(&info.target).and_then(|instance| SsmAgentVersion::parse(instance.ssm_agent_version));
    version.unwrap_or_else(|| unreachable!("the catalogue's versions have four numbers"))
}

/// A message of the gateway's own: its type is padded with NULs, unlike the programs' messages.
fn gateway_record(message_type: &str, payload: &[u8], now: SystemTime) -> Bytes {
    use sha2::{Digest, Sha256};
    let unix_time = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut record = BytesMut::with_capacity(120 + payload.len());
    record.put_u32(116);
    record.put_slice(message_type.as_bytes());
    record.put_bytes(0, 32 - message_type.len());
    record.put_u32(1);
    record.put_u64(u64::try_from(unix_time.as_millis()).unwrap_or(1));
    record.put_i64(0);
    record.put_u64(0);
    record.put_bytes(7, 16);
    record.put_slice(&Sha256::digest(payload));
    record.put_u32(0);
    record.put_u32(u32::try_from(payload.len()).unwrap_or(0));
    record.put_slice(payload);
    record.freeze()
}

/// Bytes read in one pass, so that the SSM agent takes them soon.
const BATCH: usize = 128 * 1024;
/// In front of the payload of a message.
const HEADER_LENGTH: usize = 120;
/// SSM agents suspect the service's limit here.
const SIZE_LIMIT: usize = 128 * 1024;
/// The default of the account's preferences.
const IDLE_LIMIT: Duration = Duration::from_secs(20 * 60);
/// A real one was back within 3 to 12 ms.
const AGENT_AWAY: Duration = Duration::from_millis(10);
/// How long publication is held back.
const PAUSE: Duration = Duration::from_millis(500);
/// When fewer messages than were to vanish are sent.
const TAIL_TIME: Duration = Duration::from_millis(200);
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(2);
/// Longer than any delay on a line.
const LONG: Duration = Duration::from_secs(3600);
