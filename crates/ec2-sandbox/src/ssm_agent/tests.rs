//! Recorded sessions, replayed against the emulated SSM agent: it gets the recorded messages at the recorded
//! times, while its port or program does what the recorded one did.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::{Arc, Mutex},
    task::{Context, Waker},
    time::{Duration, Instant},
};

use bytes::Bytes;
use ssm_channel::{Message, MessageType, Origin, SsmAgentVersion};

use self::{
    cases::Case,
    recording::{Direction, Line, Record},
    script::Script,
};
use super::{Behaviour, SsmAgent, Verdict};
use crate::world::Purpose;

mod cases;
mod download;
#[path = "../../../ssm-channel/tests/recordings/recording.rs"]
mod recording;
mod script;

/// The virtual clock of the programs and ports.
#[derive(Clone)]
struct Clock(Arc<Mutex<Instant>>);

impl Clock {
    fn now(&self) -> Instant {
        *self.0.lock().unwrap()
    }
}

/// Something that happens to the SSM agent.
enum Step {
    Record(Bytes),
    Reconnected,
    Crashed,
    /// TerminateSession was called.
    Terminated,
}

/// The SSM agent, and the messages that it sent.
struct Player {
    agent: SsmAgent,
    clock: Clock,
    start: Instant,
    script: Script,
    /// What reached the gateway.
    sent: Vec<(Duration, Message)>,
    /// The time without a websocket.
    away: Range<Duration>,
    ended: Option<(Duration, Verdict)>,
}

impl Player {
    fn new(purpose: &Purpose, script: Script) -> Self {
        let start = Instant::now();
        let clock = Clock(Arc::new(Mutex::new(start)));
        let version = SsmAgentVersion::parse("3.3.1142.0").unwrap();
        let origin = Origin { seed: 1, unix_time: Duration::from_secs(1_700_000_000), now: start };
        let agent = SsmAgent::new(version, purpose, Behaviour::default(), origin);
        Self {
            agent,
            clock,
            start,
            script,
            sent: Vec::new(),
            away: Duration::ZERO..Duration::ZERO,
            ended: None,
        }
    }

    /// Advances the clock to `at`.
    fn wait_until(&mut self, at: Duration) {
        loop {
            let now = self.clock.now();
            let deadlines = [self.agent.next_deadline(), self.script.next_after(now, self.start)];
            let next = deadlines.into_iter().flatten().min().map(|next| next.max(now));
            let Some(next) = next.filter(|next| *next <= self.start + at && self.ended.is_none()) else {
                break;
            };
            // A deadline that is still due after it was handled needs another event first, so the clock
            // advances.
            let next = if next == now { now + Duration::from_millis(1) } else { next };
            self.set(next.min(self.start + at));
            self.poll();
            if self.clock.now() >= self.start + at {
                break;
            }
        }
        self.set(self.start + at);
    }

    fn set(&self, now: Instant) {
        *self.clock.0.lock().unwrap() = now;
    }

    fn poll(&mut self) {
        let now = self.clock.now();
        let mut cx = Context::from_waker(Waker::noop());
        while self.ended.is_none() {
            let (script, clock, start) = (&self.script, &self.clock, self.start);
            let moved = self.agent.poll(&mut cx, now, || script.start(clock, start));
            while let Some(record) = self.agent.next_record() {
                if !self.away.contains(&(now - self.start)) {
                    self.sent.push((now - self.start, Message::parse(record).unwrap()));
                }
            }
            self.ended = self.agent.verdict().map(|verdict| (now - self.start, verdict.clone()));
            if !moved {
                break;
            }
        }
    }

    fn take(&mut self, at: Duration, step: Step) {
        self.wait_until(at);
        let now = self.clock.now();
        match step {
            Step::Record(record) => {
                // The message waits in the socket while the SSM agent does not read.
                let deadline = at + Duration::from_secs(10);
                while !self.agent.is_reading() && self.elapsed() < deadline && !self.script.is_never_read() {
                    self.wait_until(self.elapsed() + Duration::from_millis(1));
                    self.poll();
                }
                let now = self.clock.now();
                let _ = self.agent.receive(&mut Context::from_waker(Waker::noop()), now, record);
            }
            Step::Reconnected => self.agent.reconnect(),
            Step::Crashed => self.agent.crash(now),
            Step::Terminated => self.agent.end_after_tail(now, Verdict::Success),
        }
        self.poll();
    }

    fn elapsed(&self) -> Duration {
        self.clock.now() - self.start
    }
}

/// From the loss of the recorded SSM agent's websocket to the next one.
fn away(events: &[(Duration, String)]) -> Option<Range<Duration>> {
    let (cut, _) =
        events.iter().find(|(_, event)| event.starts_with("gateway cuts the websocket of the agent"))?;
    let opened =
        |(at, event): &&(Duration, String)| at > cut && event.starts_with("agent opens its websocket");
    Some(*cut..events.iter().find(opened)?.0)
}

/// The messages and events that the recorded SSM agent got.
fn steps(case: &Case, lines: &[Line], events: &[(Duration, String)]) -> Vec<(Duration, Step)> {
    let to_agent = [Direction::ClientToAgent, Direction::GatewayToAgent];
    let mut steps: Vec<_> = lines
        .iter()
        .filter(|line| to_agent.contains(&line.direction))
        .map(|line| match line.message_type.as_str() {
            "channel_closed" => (line.at, Step::Terminated),
            _ => (line.at + ONE_WAY, Step::Record(case.mend(line))),
        })
        .collect();
    if let Some(away) = away(events) {
        // Messages that had just reached the gateway were lost too; messages that were about to be read were
        // not.
        let lost = away.start.saturating_sub(ONE_WAY)..away.end.saturating_sub(ONE_WAY);
        steps.retain(|(at, _)| !lost.contains(at));
        let late = steps.iter_mut().filter(|(at, _)| (lost.end..away.end).contains(at));
        late.for_each(|(at, _)| *at = away.end);
        steps.insert(0, (away.end, Step::Reconnected));
    }
    if case.is_killed {
        let gone = events.iter().find(|(_, event)| event.starts_with("agent websocket gone")).unwrap();
        steps.push((gone.0, Step::Crashed));
    }
    steps.sort_by_key(|(at, _)| *at);
    steps
}

fn number_of(payload: &[u8]) -> i64 {
    let payload: serde_json::Value = serde_json::from_slice(payload).unwrap();
    payload["AcknowledgedMessageSequenceNumber"].as_i64().unwrap()
}

/// A payload without the parts that differ from run to run.
fn timeless(payload_type: u32, payload: &Bytes) -> Bytes {
    if payload_type == HANDSHAKE_COMPLETE {
        let mut complete: serde_json::Value = serde_json::from_slice(payload).unwrap();
        complete["HandshakeTimeToComplete"] = 0.into();
        return complete.to_string().into();
    }
    payload.clone()
}

fn replay(name: &str, case: &Case, events: &[(Duration, String)]) {
    let lines = recording::session(name);
    let outputs: Vec<_> = lines
        .iter()
        .filter(|line| {
            line.direction == Direction::AgentToClient && line.message_type == "output_stream_data"
        })
        .collect();
    let began = outputs[0].at;
    let script = Script::new(case, &outputs);
    let purpose = case.purpose(&outputs[0].payload());
    let mut player = Player::new(&purpose, script);
    player.away = away(events).unwrap_or(player.away);
    player.wait_until(began);
    player.agent.start(player.clock.now());
    player.poll();
    for (at, step) in steps(case, &lines, events) {
        player.take(at.max(began), step);
    }
    let last = lines.last().unwrap().at;
    let recorded_end = events.iter().find(|(_, event)| event.starts_with("agent_task_complete"));
    player.wait_until(recorded_end.map_or(last, |(at, _)| *at).max(last) + LATEST_END);
    player.poll();

    check_acknowledgements(name, case, &lines, &player);
    check_outputs(name, &outputs, &player);
    check_repeats(name, case, &outputs, &player, last);
    if let Some((at, event)) = recorded_end {
        let gone = events.iter().rfind(|(_, event)| event.starts_with("agent websocket gone"));
        check_end(name, case, [Some(*at), gone.map(|(at, _)| *at)], event, &player);
    }
    if let Some(expected) = &case.delivers {
        assert_eq!(
            String::from_utf8_lossy(&player.script.delivered()),
            *expected,
            "{name}: what the server got"
        );
    }
}

fn check_acknowledgements(name: &str, case: &Case, lines: &[Line], player: &Player) {
    let recorded = lines
        .iter()
        .filter(|line| line.direction == Direction::AgentToClient && line.message_type == "acknowledge");
    let recorded: Vec<_> = recorded.map(|line| (line.number, line.at)).collect();
    let sent = player.sent.iter().filter(|(_, sent)| sent.header.message_type == MessageType::Acknowledge);
    let sent: Vec<_> = sent.map(|(at, sent)| (number_of(&sent.payload), *at)).collect();
    let numbers = |all: &[(i64, Duration)]| all.iter().map(|(number, _)| *number).collect::<Vec<_>>();
    if lines.iter().any(|line| matches!(line.record, Record::Missing)) {
        // They are missing as well.
        let sent = numbers(&sent);
        assert!(recorded.iter().all(|(number, _)| sent.contains(number)), "{name}: acknowledgements");
        return;
    }
    let (common, more) = sent.split_at(recorded.len().min(sent.len()));
    assert_eq!(numbers(common), numbers(&recorded), "{name}: acknowledgements");
    assert_eq!(more.len(), case.acknowledges_more, "{name}: acknowledgements of a session that ends");
    for ((number, at), (_, recorded)) in common.iter().zip(recorded) {
        let late = at.abs_diff(recorded);
        assert!(late < TOLERANCE, "{name}: {number} was acknowledged at {at:?}, not {recorded:?}");
    }
}

fn check_outputs(name: &str, outputs: &[&Line], player: &Player) {
    let mut recorded = BTreeMap::new();
    for line in outputs {
        recorded.entry(line.number).or_insert(line);
    }
    let mut sent = BTreeMap::new();
    for (at, message) in &player.sent {
        if message.header.message_type == MessageType::OutputStreamData {
            sent.entry(message.header.sequence_number).or_insert((*at, message));
        }
    }
    let [recorded_numbers, numbers]: [Vec<_>; 2] =
        [recorded.keys().copied().collect(), sent.keys().copied().collect()];
    assert_eq!(numbers, recorded_numbers, "{name}: messages");
    for (number, line) in recorded {
        let (at, message) = sent[&number];
        assert_eq!(u32::from(message.header.payload_type), line.payload_type, "{name}: {number}");
        let [flags, recorded_flags] = [message.header.flags, u64::from(number == 0)];
        assert_eq!(flags, recorded_flags, "{name}: {number}");
        if let Record::Whole(_) = line.record {
            let payloads =
                [&line.payload(), &message.payload].map(|payload| timeless(line.payload_type, payload));
            assert_eq!(payloads[1], payloads[0], "{name}: {number}");
        } else {
            assert_eq!(message.payload.len(), line.payload_length, "{name}: {number}");
        }
        // Which messages are lost with a websocket, and sent later, depends on milliseconds.
        let in_time = !player.away.is_empty() || at.abs_diff(line.at) < TOLERANCE;
        assert!(in_time, "{name}: {number} left at {at:?}, not {:?}", line.at);
    }
}

/// Compares which messages were repeated. When and how often depends on milliseconds, except where there are
/// only repeats.
fn check_repeats(name: &str, case: &Case, outputs: &[&Line], player: &Player, until: Duration) {
    let Some(tolerance) = case.repeats else { return };
    let mut recorded = BTreeMap::<i64, i32>::new();
    outputs.iter().for_each(|line| *recorded.entry(line.number).or_default() += 1);
    let mut sent = BTreeMap::<i64, i32>::new();
    for (at, message) in &player.sent {
        if message.header.message_type == MessageType::OutputStreamData && *at <= until {
            *sent.entry(message.header.sequence_number).or_default() += 1;
        }
    }
    for (number, times) in recorded {
        let found = sent.get(&number).copied().unwrap_or_default();
        assert!((found - times).abs() <= tolerance, "{name}: {number} was sent {found} times, not {times}");
    }
}

/// Compares the time of the end: when the agent reported it or, if other processes than its worker were slow
/// to report it, when the worker ended.
fn check_end(name: &str, case: &Case, at: [Option<Duration>; 2], event: &str, player: &Player) {
    let Some((ended, verdict)) = &player.ended else { panic!("{name}: it has not ended: {event}") };
    let (status, output) = match verdict {
        Verdict::Success => ("Success", ""),
        Verdict::Failed(output) => ("Failed", output.as_str()),
    };
    let output = output.replace('\n', "\\n");
    assert_eq!(format!("agent_task_complete {status} '{output}'"), event, "{name}");
    let in_time = at.into_iter().flatten().any(|at| ended.abs_diff(at) < TOLERANCE);
    assert!(in_time || case.ends_otherwise, "{name}: it ended at {ended:?}, not {at:?}");
}

#[test]
fn every_recorded_session_is_replayed_or_of_a_kind_that_there_is_not_yet() {
    let events = recording::events();
    let cases: BTreeMap<_, _> = cases::cases().into_iter().collect();
    let mut left = BTreeSet::from_iter(recording::names());
    for (name, _) in cases::MISSING {
        assert!(left.remove(*name), "{name} is no session");
    }
    for (name, case) in cases {
        assert!(left.remove(name), "{name} is no session, or is listed twice");
        replay(name, &case, events.get(name).map(Vec::as_slice).unwrap_or_default());
    }
    assert!(left.is_empty(), "neither replayed nor listed: {left:?}");
}

/// From the gateway to the SSM agent: less than half of the recorded round trip, which includes processing.
const ONE_WAY: Duration = Duration::from_millis(1);
/// Later than the time-out of a session whose messages are never acknowledged.
const LATEST_END: Duration = Duration::from_secs(3);
/// The machine of the recordings was busy.
const TOLERANCE: Duration = Duration::from_millis(300);
const HANDSHAKE_COMPLETE: u32 = 7;
