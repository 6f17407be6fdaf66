//! The state of the local regions: their instances, the keys pushed to them and the sessions.
//!
//! One mutex guards all that changes; every method takes it once, briefly, and never awaits. The instances
//! themselves are fixed at start. Wall time comes in as an argument, so that the sixty seconds of a pushed
//! key can be tested without waiting for them. HTTP and the checks of callers are in `api` and `sigv4`.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use tokio::sync::{mpsc, watch};

pub(crate) use self::{
    aws_region::AwsRegion,
    host_keys::HostKeys,
    iam_policy::{Context, Decision, Policy, Resource},
    identity::{ACCOUNT, Caller, Credentials, Grant, MFA_SERIAL, Origin, Role, YOU},
    identity_center::{DEVICE_LIFE, IdentityCenter, SignInError},
    instance::{Console, Instance, Platform},
    session::{FaultCount, Opening, Purpose, Session, SessionInfo, SessionRecord, StreamTicket, TokenError},
};
pub use self::{
    instance::{Condition, InstanceState, InstanceSummary},
    session::{SessionState, SessionSummary},
    throttle::Throttle,
};
use self::{pushed_keys::PushedKey, throttle::Buckets};
use crate::clock::Clock;

mod aws_region;
mod catalogue;
pub(crate) mod fleet;
mod host_keys;
mod iam_policy;
mod identity;
mod identity_center;
mod instance;
mod pushed_keys;
mod session;
mod session_list;
mod throttle;

/// The state of a region, shared by all of its tasks.
#[derive(Debug)]
pub(crate) struct World {
    denied: Vec<Denial>,
    policy: Option<Policy>,
    address: SocketAddr,
    clock: Clock,
    stream_url: String,
    token_life: Duration,
    credentials: Credentials,
    instances: Vec<Instance>,
    started: SystemTime,
    mfa_code: String,
    state: Mutex<State>,
    connected: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct State {
    /// The credentials by access key id.
    grants: BTreeMap<String, Grant>,
    keys: BTreeMap<(String, String), Vec<PushedKey>>,
    /// The host keys by instance id; created at the first use.
    host_keys: BTreeMap<String, HostKeys>,
    sessions: Vec<Session>,
    throttled: BTreeMap<String, u32>,
    buckets: Buckets,
    identity_center: IdentityCenter,
    calls: Vec<ApiCall>,
    /// Receives each new session.
    starts: Option<mpsc::UnboundedSender<SessionInfo>>,
}

/// The settings of a world.
#[derive(Debug, Default)]
pub(crate) struct Settings {
    /// How many instances besides those of the catalogue.
    pub(crate) fleet: usize,
    pub(crate) throttles: Vec<Throttle>,
    /// IAM actions that no caller may perform, on any resource or, after an `@`, on one.
    pub(crate) denied: Vec<String>,
    /// The policy of the caller that the region starts with; `None` allows everything.
    pub(crate) policy: Option<Policy>,
    /// Sign-ins with Identity Center need no approval.
    pub(crate) sso_approves: bool,
    pub(crate) clock: Clock,
    /// The start of stream URLs; `None` for the region's own address.
    pub(crate) stream_url: Option<String>,
    /// How many bytes the name of `web-2` has; `None` for five.
    pub(crate) name_size: Option<usize>,
    /// How long a session's token is valid; `None` for [`TOKEN_LIFE`].
    pub(crate) token_life: Option<Duration>,
}

/// An API call that was answered, with success or an error.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ApiCall {
    /// The service and its operation, such as `ec2:DescribeInstances`, as the request named them.
    pub action: String,
    /// The region in the scope of its signature, which may be one that does not exist; empty for an unsigned
    /// call.
    pub region: String,
    /// Whether it succeeded.
    pub ok: bool,
}

/// An action that no caller's policies allow.
#[derive(Debug)]
struct Denial {
    action: String,
    /// The last part of the resource's ARN; `None` for every resource.
    resource: Option<String>,
}

impl Denial {
    fn parse(text: &str) -> Self {
        let (action, resource) = match text.split_once('@') {
            Some((action, resource)) => (action, Some(resource.to_owned())),
            None => (text, None),
        };
        Self { action: action.to_owned(), resource }
    }
}

impl World {
    /// Makes a world whose gateway listens on `address`, with new credentials.
    pub(crate) fn new(address: SocketAddr, settings: Settings, now: SystemTime) -> io::Result<Self> {
        let nodes = fleet::fleet(settings.fleet);
        let credentials = Credentials::generate()?;
        let first = Grant { credentials: credentials.clone(), caller: Caller::you(), expires: None };
        let state = State {
            buckets: Buckets::new(settings.throttles),
            identity_center: IdentityCenter::new(settings.sso_approves),
            grants: BTreeMap::from([(credentials.access_key_id.clone(), first)]),
            ..State::default()
        };
        let mut instances: Vec<_> = catalogue::catalogue().into_iter().chain(nodes).collect();
        if let Some(size) = settings.name_size {
            instances
                .iter_mut()
                .filter(|instance| instance.name == "web-2")
                .for_each(|i| i.stretch_name(size));
        }
        let stream_url = settings.stream_url.unwrap_or_else(|| format!("ws://{address}"));
        Ok(Self {
            clock: settings.clock,
            stream_url: stream_url.trim_end_matches('/').to_owned(),
            token_life: settings.token_life.unwrap_or(TOKEN_LIFE),
            denied: settings.denied.iter().map(|text| Denial::parse(text)).collect(),
            policy: settings.policy,
            address,
            credentials,
            instances,
            started: now,
            mfa_code: identity::mfa_code()?,
            state: Mutex::new(state),
            connected: watch::Sender::new(0),
        })
    }

    /// The address that the region listens on.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The credentials that the region is started with.
    pub(crate) fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// The credentials with this access key id, and their caller.
    pub(crate) fn grant(&self, access_key_id: &str) -> Option<Grant> {
        self.lock().grants.get(access_key_id).cloned()
    }

    /// Makes credentials of `caller` that expire at `expires`.
    pub(crate) fn give_credentials(&self, caller: Caller, expires: SystemTime) -> io::Result<Credentials> {
        let credentials = Credentials::generate()?;
        let grant = Grant { credentials: credentials.clone(), caller, expires: Some(expires) };
        self.lock().grants.insert(credentials.access_key_id.clone(), grant);
        Ok(credentials)
    }

    /// Expires all credentials that exist now, the first ones included.
    pub(crate) fn expire_credentials(&self) {
        for grant in self.lock().grants.values_mut() {
            grant.expires = Some(SystemTime::UNIX_EPOCH);
        }
    }

    /// Calls `act` with the state of Identity Center.
    pub(crate) fn identity_center<T>(&self, act: impl FnOnce(&mut IdentityCenter) -> T) -> T {
        act(&mut self.lock().identity_center)
    }

    /// Expires all access tokens of Identity Center that exist now.
    pub(crate) fn expire_access_tokens(&self) {
        self.lock().identity_center.expire();
    }

    /// The URL of the page where a user enters the code of a sign-in.
    pub(crate) fn device_page(&self) -> String {
        format!("http://{}{DEVICE_PAGE}", self.address)
    }

    /// The code of the caller's MFA device, which never changes.
    pub(crate) fn mfa_code(&self) -> &str {
        &self.mfa_code
    }

    /// Every instance of every region, in a fixed order.
    pub(crate) fn instances(&self) -> &[Instance] {
        &self.instances
    }

    /// The instance with this id, in any region.
    pub(crate) fn instance(&self, id: &str) -> Option<&Instance> {
        self.instances.iter().find(|instance| instance.id == id)
    }

    /// The time in the region.
    pub(crate) fn now(&self) -> SystemTime {
        self.clock.now()
    }

    /// When the region was started; instances were launched some time before.
    pub(crate) fn started(&self) -> SystemTime {
        self.started
    }

    /// The host keys of an instance, made at the first use.
    pub(crate) fn host_keys(&self, instance: &Instance) -> io::Result<HostKeys> {
        if let Some(keys) = self.lock().host_keys.get(&instance.id) {
            return Ok(keys.clone());
        }
        let mut keys = HostKeys::generate(&format!("root@{}", instance.host_name()))?;
        if instance.condition == Condition::Impostor {
            keys.replace_presented()?;
        }
        // If another task has made keys meanwhile, its keys stay.
        Ok(self.lock().host_keys.entry(instance.id.clone()).or_insert(keys).clone())
    }

    /// Makes the SSH server of an instance present another host key from now on.
    pub(crate) fn replace_host_key(&self, instance: &Instance) -> io::Result<()> {
        let mut keys = self.host_keys(instance)?;
        keys.replace_presented()?;
        self.lock().host_keys.insert(instance.id.clone(), keys);
        Ok(())
    }

    /// Whether this call of StartSession on `instance` is throttled. Counts the call.
    pub(crate) fn throttles(&self, instance: &Instance) -> bool {
        let Condition::Throttled { calls } = instance.condition else { return false };
        let Some(calls) = calls else { return true };
        let mut state = self.lock();
        let seen = state.throttled.entry(instance.id.clone()).or_default();
        *seen = seen.saturating_add(1);
        *seen <= calls
    }

    /// Whether a call of `action` in `region` is within its rate. Counts the call.
    pub(crate) fn admits(&self, action: &str, region: AwsRegion, now: SystemTime) -> bool {
        self.lock().buckets.admit(action, region, now)
    }

    /// Whether callers may perform an action on any resource at all.
    pub(crate) fn allows(&self, action: &str) -> bool {
        !self.denied.iter().any(|denied| denied.action == action && denied.resource.is_none())
    }

    /// Whether callers may perform an action on a resource: an instance's id, or a document's name.
    pub(crate) fn allows_on(&self, action: &str, resource: &str) -> bool {
        let denies = |denied: &Denial| denied.resource.as_deref().is_none_or(|denied| denied == resource);
        !self.denied.iter().any(|denied| denied.action == action && denies(denied))
    }

    /// The policy that `caller` is subject to.
    pub(crate) fn policy_of(&self, caller: &Caller) -> Option<&Policy> {
        self.policy.as_ref().filter(|_| caller.arn == Caller::you().arn)
    }

    /// The policy of the role with this ARN, if it has one; `None` if there is no such role.
    pub(crate) fn policy_of_role(&self, arn: &str) -> Option<Option<&Policy>> {
        let role = Role::ALL.into_iter().find(|role| role.arn() == arn)?;
        Some(self.policy.as_ref().filter(|_| role == Role::Sandbox))
    }

    /// Adds an answered call to [`calls`](Self::calls).
    pub(crate) fn record(&self, call: ApiCall) {
        self.lock().calls.push(call);
    }

    /// Every call since the start, oldest first.
    pub(crate) fn calls(&self) -> Vec<ApiCall> {
        self.lock().calls.clone()
    }

    /// The query that every stream URL of this region carries, byte for byte.
    pub(crate) fn stream_query() -> String {
        format!("role=publish_subscribe&cell-number={CELL_NUMBER}")
    }

    /// A panic elsewhere leaves no half-made change behind: every method writes once, at its end.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Fills `bytes` with random ones.
fn random(bytes: &mut [u8]) -> io::Result<()> {
    getrandom::fill(bytes).map_err(io::Error::other)
}

/// The path of [`World::device_page`].
pub(crate) const DEVICE_PAGE: &str = "/device";

/// How long the token of a session is valid: "only long enough to ensure the connection is successful", says
/// the documentation of StartSession, and no source says how long that is.
const TOKEN_LIFE: Duration = Duration::from_secs(60);

/// Base64 with a raw `+` and `/` in it, as the service sends: a client that re-encodes the URL breaks it.
const CELL_NUMBER: &str = "AAEAAd+bc/dE2Kx+Yp/0m3sQ==";

#[cfg(test)]
mod tests;
