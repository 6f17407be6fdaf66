//! The plan of one schedule.

use std::ops::Range;
use std::time::Duration;

use crate::random::Random;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum End {
    Client,
    Instance,
}

impl End {
    pub(crate) fn other(self) -> Self {
        match self {
            Self::Client => Self::Instance,
            Self::Instance => Self::Client,
        }
    }
}

/// The implementation of the instance.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Player {
    /// The model of AWS's SSM agent.
    Model,
    /// The instance's side of the channel.
    Channel,
}

/// The bytes of one direction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Traffic {
    pub(crate) bytes: usize,
    /// The largest piece that is written at once.
    pub(crate) piece: usize,
    /// The time between two pieces.
    pub(crate) gap: Duration,
}

/// A websocket that is lost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cut {
    pub(crate) at: Duration,
    pub(crate) end: End,
    pub(crate) away: Duration,
    /// Whether messages from this side that are under way are lost too; messages to it always are.
    pub(crate) loses_sent: bool,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Oversize {
    Closes,
    Vanishes,
}

/// How the session ends when all is delivered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Finale {
    ClientTerminates,
    GatewayCloses,
}

/// Shares are per mille.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) player: Player,
    pub(crate) agent_version: &'static str,
    pub(crate) up: Traffic,
    pub(crate) down: Traffic,
    pub(crate) delay: Duration,
    pub(crate) duplicate: u64,
    pub(crate) reorder: u64,
    /// The share of acknowledgements lost on a live websocket.
    pub(crate) lose_acknowledgement: u64,
    /// The share of messages that are followed by a malformed one.
    pub(crate) garbage: u64,
    pub(crate) cuts: Vec<Cut>,
    /// Whether the gateway sends pauses while the other side has no websocket.
    pub(crate) announces: bool,
    /// Pauses without a cause: when, and how long until `start_publication`, if it comes.
    pub(crate) pauses: Vec<(Duration, Option<Duration>)>,
    pub(crate) size_limit: Option<(usize, Oversize)>,
    /// From HandshakeComplete until the instance accepts or refuses data.
    pub(crate) believes_after: Duration,
    /// From then until its TCP connection is open.
    pub(crate) dials_for: Duration,
    /// Records that the client's websocket accepts in a millisecond.
    pub(crate) throttle: usize,
    /// When the client's user stops reading, and for how long.
    pub(crate) stall: Option<(Duration, Duration)>,
    /// How many bytes may wait for that user before the driver stops reading the websocket. A careless driver
    /// never stops.
    pub(crate) door: usize,
    pub(crate) finale: Finale,
}

impl Plan {
    pub(crate) fn from_seed(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let random = &mut random;
        if random.one_in(200) {
            return Self::flood(seed, random);
        }
        let down = traffic(random);
        Self {
            seed,
            player: random.pick(&[Player::Channel, Player::Model]),
            agent_version: random.pick(&VERSIONS),
            up: traffic(random),
            // A server that speaks first, as sshd does.
            down: Traffic { bytes: down.bytes.max(1), ..down },
            delay: rarely_more(random, 4, 200, 20),
            duplicate: share(random, 300),
            reorder: share(random, 300),
            lose_acknowledgement: share(random, 100),
            garbage: share(random, 50),
            cuts: cuts(random),
            announces: random.one_in(2),
            pauses: pauses(random),
            size_limit: size_limit(random),
            believes_after: Duration::from_micros(random.within(0..5_000)),
            dials_for: rarely_more(random, 8, 3_000, 50),
            throttle: if random.one_in(4) { size(1..30, random) } else { usize::MAX },
            stall: stall(random),
            door: DOOR,
            finale: random.pick(&[Finale::ClientTerminates, Finale::GatewayCloses]),
        }
    }

    /// Whether nothing is lost, paused or refused, so that almost nothing is repeated.
    pub(crate) fn is_calm(&self) -> bool {
        self.cuts.is_empty()
            && self.pauses.is_empty()
            && self.lose_acknowledgement == 0
            && self.size_limit.is_none()
            // A reordered message comes three delays late, which on a long path is later than any timeout.
            && (self.reorder == 0 || self.delay < Duration::from_millis(20))
            && self.throttle == usize::MAX
            && self.stall.is_none()
            && self.dials_for < Duration::from_millis(100)
    }

    /// An instance that sends far more than the client keeps, to a client that does not read for a while.
    fn flood(seed: u64, random: &mut Random) -> Self {
        let calm = Traffic { bytes: 1, piece: 1, gap: Duration::ZERO };
        Self {
            seed,
            player: Player::Model,
            agent_version: VERSIONS[0],
            up: calm,
            down: Traffic { bytes: 24 << 20, piece: 65_000, gap: Duration::ZERO },
            delay: milliseconds(random, 0..20),
            duplicate: 0,
            reorder: share(random, 50),
            lose_acknowledgement: 0,
            garbage: 0,
            cuts: Vec::new(),
            announces: false,
            pauses: Vec::new(),
            size_limit: None,
            believes_after: Duration::ZERO,
            dials_for: Duration::ZERO,
            throttle: usize::MAX,
            stall: Some((Duration::ZERO, milliseconds(random, 500..2_000))),
            door: usize::MAX,
            finale: Finale::ClientTerminates,
        }
    }
}

fn milliseconds(random: &mut Random, range: Range<u64>) -> Duration {
    Duration::from_millis(random.within(range))
}

/// Up to `usual`, and one time in a few up to `most`.
fn rarely_more(random: &mut Random, one_in: u64, most: u64, usual: u64) -> Duration {
    let most = if random.one_in(one_in) { most } else { usual };
    milliseconds(random, 0..most)
}

fn size(range: Range<u64>, random: &mut Random) -> usize {
    usize::try_from(random.within(range)).unwrap()
}

/// None half of the time.
fn share(random: &mut Random, most: u64) -> u64 {
    if random.one_in(2) { 0 } else { random.within(0..most) }
}

fn traffic(random: &mut Random) -> Traffic {
    let (bytes, piece, gap) = match random.within(0..8) {
        0 => (0..1, 1..2, 0..1),
        1..=3 => (1..150, 1..4, 0..400),
        4..=6 => (1..60_000, 1..3_000, 0..20),
        _ => (100_000..500_000, 1_000..70_000, 0..2),
    };
    Traffic { bytes: size(bytes, random), piece: size(piece, random), gap: milliseconds(random, gap) }
}

fn cuts(random: &mut Random) -> Vec<Cut> {
    let count = if random.one_in(3) { 0 } else { random.within(1..12) };
    let mut cuts: Vec<_> = (0..count)
        .map(|_| {
            let at = milliseconds(random, 0..15_000);
            // Short during the handshake: a longer absence would exceed its deadline.
            let most = if at < HANDSHAKE { 1_500 } else { 20_000 };
            Cut {
                at,
                end: random.pick(&[End::Client, End::Instance]),
                away: rarely_more(random, 6, most, 1_500),
                loses_sent: random.one_in(2),
            }
        })
        .collect();
    cuts.sort_by_key(|cut| cut.at);
    cuts
}

fn pauses(random: &mut Random) -> Vec<(Duration, Option<Duration>)> {
    let count = if random.one_in(3) { random.within(1..4) } else { 0 };
    (0..count)
        .map(|_| {
            let ends = random.one_in(2).then(|| milliseconds(random, 1..3_000));
            (milliseconds(random, 0..10_000), ends)
        })
        .collect()
}

fn size_limit(random: &mut Random) -> Option<(usize, Oversize)> {
    let limit = size(1_200..70_000, random);
    let oversize = random.pick(&[Oversize::Closes, Oversize::Vanishes]);
    random.one_in(4).then_some((limit, oversize))
}

fn stall(random: &mut Random) -> Option<(Duration, Duration)> {
    let (at, lasts) = (milliseconds(random, 0..5_000), milliseconds(random, 100..10_000));
    random.one_in(4).then_some((at, lasts))
}

/// Versions on both sides of each change in docs/protocol.md.
const VERSIONS: [&str; 5] = ["3.3.1142.0", "3.2.1041.0", "3.2.923.0", "3.1.1188.0", "2.3.733.0"];
/// Longer than a handshake takes, faults included.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// The limit of `ssh_ec2`'s tunnel.
const DOOR: usize = 2 << 20;
