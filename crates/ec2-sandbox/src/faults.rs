//! What the region does to the messages of a session, and to API calls, on purpose.
//!
//! [`Faults`] lists the requested faults. `gateway/line.rs` applies those to messages,
//! `gateway/relay/schedule.rs` those that happen at a time.

use std::{str::FromStr, time::Duration};

use crate::{clock::Clock, world::Throttle};

/// The faults to inject. The default is none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Faults {
    /// How long a message takes, each way.
    pub delay: Duration,
    /// The share of messages that arrive twice.
    pub duplicate: f64,
    /// The share of messages that are overtaken.
    pub reorder: f64,
    /// The share of acknowledgements that vanish.
    pub lose_acknowledgements: f64,
    /// The gateway closes the client's websocket this often, with code 1000, as the service does every hour.
    pub close_every: Option<Duration>,
    /// The client's TCP connection is reset this often.
    pub reset_every: Option<Duration>,
    /// The SSM agent's websocket is lost this often.
    pub cut_agent_every: Option<Duration>,
    /// How many of the last messages each way are lost with a websocket.
    pub lose_tail: usize,
    /// The gateway holds publication back this often, for half a second.
    pub pause_every: Option<Duration>,
    /// Every upgrade is refused.
    pub refuse_upgrade: bool,
    /// Upgrades after a session's first are refused.
    pub refuse_resume: bool,
    /// The SSM agent joins a session only after this time.
    pub slow_attach: Duration,
    /// The SSM agent never joins a session.
    pub never_attach: bool,
    /// The session's worker process on the instance dies this long after the start of the session. The SSM
    /// agent notices it as late as it reports a refused port.
    pub crash: Option<Duration>,
    /// How long until a refused port is reported; the real SSM agent needs 60 s.
    pub port_refusal_delay: Option<Duration>,
    /// How long until a command that cannot be started is reported; the real SSM agent needs 1 s, and 3 s for
    /// a quote that does not end.
    pub command_error_delay: Option<Duration>,
    /// The SSM agent's pause after each message of output; real ones sleep for 1 ms.
    pub pace: Option<Duration>,
    /// The service ends a session in which no data moves for this time; AWS's default is 20 minutes.
    pub idle: Option<Duration>,
    /// The gateway closes the client's websocket, with code 1009, when a payload has more bytes; 128 KiB by
    /// default. No source says where AWS's own limit is.
    pub size_limit: Option<usize>,
    /// While the SSM agent's websocket is lost, the gateway answers each message of the client with
    /// `pause_publication`, as AWS's was once seen to do.
    pub pause_each: bool,
    /// The most bytes that the SSM agent puts into a message; real ones take 1024.
    pub agent_payload: Option<usize>,
    /// The version that the SSM agent claims, and behaves as.
    pub agent_version: Option<String>,
    /// How often an action may be called in each region; all other actions are unlimited.
    pub throttle: Vec<Throttle>,
    /// IAM actions that the caller's policies do not allow on any resource, or only on the instance or
    /// document whose name follows, as in `ssm:StartSession@AWS-StartNonInteractiveCommand`.
    pub deny: Vec<String>,
    /// The region's clock, which checks signatures and dates responses.
    pub clock: Clock,
    /// The start of the URLs of data channels; by default the region's own address.
    pub stream_url: Option<String>,
    /// Every API call is answered with status 307 and this location.
    pub redirect: Option<String>,
    /// Every upgrade is answered with status 302 and this location.
    pub stream_redirect: Option<String>,
    /// How many bytes the name of the instance `web-2` has.
    pub name_size: Option<usize>,
    /// Unsigned upgrades are refused. By default they are accepted, since old clients do not sign them.
    pub require_signature: bool,
    /// How long the token of a session is valid; by default a minute.
    pub token_life: Option<Duration>,
    /// How long the gateway waits for a client's first message; by default 10 s.
    pub first_message_limit: Option<Duration>,
}

/// The local region has no fault with this text.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0:?} is not a fault of the local region")]
pub struct UnknownFault(String);

impl Faults {
    /// Adds one fault, as `name` or `name=value`.
    ///
    /// # Errors
    /// When the name or the form of the value is unknown.
    pub fn add(&mut self, text: &str) -> Result<(), UnknownFault> {
        self.try_add(text).ok_or_else(|| UnknownFault(text.to_owned()))
    }

    fn try_add(&mut self, text: &str) -> Option<()> {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        match name {
            "delay" => self.delay = parse_time(value)?,
            "duplicate" => self.duplicate = parse_share(value)?,
            "reorder" => self.reorder = parse_share(value)?,
            "lose-acks" => self.lose_acknowledgements = parse_share(value)?,
            "close" => self.close_every = Some(parse_time(value)?),
            "reset" => self.reset_every = Some(parse_time(value)?),
            "cut-agent" => self.cut_agent_every = Some(parse_time(value)?),
            "lose-tail" => self.lose_tail = value.parse().ok()?,
            "pause" => self.pause_every = Some(parse_time(value)?),
            "slow-attach" => self.slow_attach = parse_time(value)?,
            "crash" => self.crash = Some(parse_time(value)?),
            "port-refusal" => self.port_refusal_delay = Some(parse_time(value)?),
            "command-error" => self.command_error_delay = Some(parse_time(value)?),
            "pace" => self.pace = Some(if value == "0" { Duration::ZERO } else { parse_time(value)? }),
            "idle" => self.idle = Some(parse_time(value)?),
            "pause-each" if value.is_empty() => self.pause_each = true,
            "quick" if value.is_empty() => self.hurry(),
            "size-limit" => self.size_limit = Some(value.parse().ok().filter(|bytes| *bytes >= 1024)?),
            "agent-payload" => self.agent_payload = Some(value.parse().ok().filter(|bytes| *bytes > 0)?),
            "agent-version" => self.agent_version = Some(value.to_owned()).filter(|_| !value.is_empty()),
            "throttle" => {
                let throttle = Throttle::parse(value)?;
                self.throttle.retain(|before| before.action != throttle.action);
                self.throttle.push(throttle);
            }
            "deny" => self.deny.push(Some(value).filter(|action| action.contains(':'))?.to_owned()),
            "clock" => self.clock = Clock::parse(value, parse_time)?,
            "stream-url" => self.stream_url = Some(parse_url(value)?),
            "redirect" => self.redirect = Some(parse_url(value)?),
            "stream-redirect" => self.stream_redirect = Some(parse_url(value)?),
            "name-size" => self.name_size = Some(value.parse().ok().filter(|bytes| *bytes <= NAME_LIMIT)?),
            "token-life" => self.token_life = Some(parse_time(value)?),
            "first-message" => self.first_message_limit = Some(parse_time(value)?),
            "require-signature" if value.is_empty() => self.require_signature = true,
            "never-attach" if value.is_empty() => self.never_attach = true,
            "refuse-upgrade" if value.is_empty() => self.refuse_upgrade = true,
            "refuse-resume" if value.is_empty() => self.refuse_resume = true,
            _ => return None,
        }
        Some(())
    }

    /// Removes the delays of the SSM agent that no other fault has set, for tests that are not about them.
    fn hurry(&mut self) {
        self.pace.get_or_insert(Duration::ZERO);
        self.command_error_delay.get_or_insert(Duration::from_millis(20));
        self.port_refusal_delay.get_or_insert(Duration::from_secs(5));
    }

    /// The help text: every fault with its form and meaning, one a line.
    pub fn list() -> &'static str {
        LIST
    }
}

/// Reads `50ms`, `2s` or `1m`.
pub fn parse_time(text: &str) -> Option<Duration> {
    let digits = text.find(|character: char| !character.is_ascii_digit() && character != '.')?;
    let (number, unit) = text.split_at(digits);
    let number = f64::from_str(number).ok()?;
    let unit = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(number * unit).ok()
}

/// Reads `2%` or `0.02`.
fn parse_share(text: &str) -> Option<f64> {
    let share = match text.strip_suffix('%') {
        Some(percent) => f64::from_str(percent).ok()? / 100.0,
        None => f64::from_str(text).ok()?,
    };
    (0.0..=1.0).contains(&share).then_some(share)
}

/// Accepts any URL, since wrong ones are the purpose, but only text that fits into a header.
fn parse_url(text: &str) -> Option<String> {
    let is_url = text.contains("://") && text.bytes().all(|byte| byte.is_ascii_graphic());
    is_url.then(|| text.to_owned())
}

/// EC2 takes 256 characters; this is a bound on memory.
const NAME_LIMIT: usize = 16 * 1024 * 1024;
const LIST: &str = "\
delay=TIME          a message takes this long, each way
duplicate=SHARE     of messages arrive twice
reorder=SHARE       of messages are overtaken by later ones
lose-acks=SHARE     of acknowledgements are lost
close=TIME          the client's websocket is closed this often, with code 1000
reset=TIME          the client's TCP connection is reset this often
cut-agent=TIME      the SSM agent's websocket is lost this often
lose-tail=N         the last N messages each way are lost with a websocket
pause=TIME          the gateway pauses publication for half a second, this often
refuse-upgrade      every websocket is refused with status 403
refuse-resume       every websocket of a session but its first is refused
slow-attach=TIME    the SSM agent joins a session this late
never-attach        the SSM agent never joins a session
crash=TIME          the worker process of a session dies this long after its start
port-refusal=TIME   a refused port is reported this late (real: 60s)
command-error=TIME  a command that cannot be started is reported this late (real: 1s)
pace=TIME           the SSM agent's pause after each message of output (real: 1ms); pace=0 for none
idle=TIME           a session without data is ended after this (real: 20m)
quick               an SSM agent without its delays: pace=0, command-error=20ms, port-refusal=5s
size-limit=BYTES    a larger payload from the client closes its websocket (at least 1024; default 131072)
pause-each          while the SSM agent has no websocket, each message is answered by a pause
agent-payload=BYTES the SSM agent's messages are no larger (real: 1024)
agent-version=V     the SSM agent claims this version
deny=ACTION         an IAM action, such as ec2:DescribeInstances, is not allowed
deny=ACTION@NAME    it is not allowed on the instance or the session document of this name
clock=+TIME         the region's clock is ahead by TIME; behind with clock=-TIME
stream-url=URL      the URLs of data channels begin with this, such as ws://127.0.0.1:1
redirect=URL        API calls are redirected there (status 307)
stream-redirect=URL websockets are redirected there (status 302)
name-size=BYTES     the name of web-2 is this long
require-signature   websockets that are not signed are refused with status 403
token-life=TIME     the token of a session expires after this time (default 60s)
first-message=TIME  a websocket whose first message is later is closed (default 10s)
throttle=OP:RATE/N  calls of OP, such as SendSSHPublicKey, are refused beyond N at once and RATE a second
                    (default throttle=StartSession:3/3, the quota of AWS)
TIME is like 50ms, 2s or 1m; SHARE is like 2% or 0.02.
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_read_from_text() {
        let mut faults = Faults::default();
        for text in [
            "close=2s",
            "duplicate=2%",
            "reorder=0.5",
            "delay=50ms",
            "refuse-resume",
            "require-signature",
            "token-life=5s",
            "first-message=1s",
            "lose-tail=3",
            "throttle=StartSession:1/1",
            "throttle=StartSession:5/10",
            "deny=ec2:DescribeInstances",
            "deny=ssm:StartSession@AWS-StartNonInteractiveCommand",
            "clock=-10m",
            "stream-url=wss://gateway.example",
            "redirect=https://elsewhere.example/a?b",
            "stream-redirect=ws://127.0.0.1:1/",
            "name-size=300",
            "pace=2ms",
            "quick",
            "idle=1m",
            "crash=2s",
        ] {
            faults.add(text).unwrap();
        }
        assert_eq!(
            faults,
            Faults {
                close_every: Some(Duration::from_secs(2)),
                duplicate: 0.02,
                reorder: 0.5,
                delay: Duration::from_millis(50),
                refuse_resume: true,
                require_signature: true,
                token_life: Some(Duration::from_secs(5)),
                first_message_limit: Some(Duration::from_secs(1)),
                lose_tail: 3,
                throttle: vec![Throttle { action: "StartSession".to_owned(), rate: 5.0, burst: 10 }],
                deny: vec![
                    "ec2:DescribeInstances".to_owned(),
                    "ssm:StartSession@AWS-StartNonInteractiveCommand".to_owned()
                ],
                clock: Clock::Behind(Duration::from_secs(600)),
                stream_url: Some("wss://gateway.example".to_owned()),
                redirect: Some("https://elsewhere.example/a?b".to_owned()),
                stream_redirect: Some("ws://127.0.0.1:1/".to_owned()),
                name_size: Some(300),
                pace: Some(Duration::from_millis(2)),
                command_error_delay: Some(Duration::from_millis(20)),
                port_refusal_delay: Some(Duration::from_secs(5)),
                idle: Some(Duration::from_secs(60)),
                crash: Some(Duration::from_secs(2)),
                ..Faults::default()
            }
        );
    }

    #[test]
    fn what_is_no_fault_is_named() {
        let mut faults = Faults::default();
        for text in [
            "close",
            "close=2",
            "close=-1s",
            "duplicate=200%",
            "explode",
            "refuse-upgrade=1",
            "agent-payload=0",
            "size-limit=1023",
            "throttle=StartSession",
            "deny=DescribeInstances",
            "clock=10m",
            "clock=+10",
            "stream-url=gateway.example",
            "redirect=http://two words",
            "name-size=-1",
            "pace=1",
            "quick=1",
        ] {
            assert_eq!(faults.add(text), Err(UnknownFault(text.into())));
        }
    }
}
