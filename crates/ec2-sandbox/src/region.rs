//! The local regions as one value, which starts, observes and ends them.

use std::{io, net::Ipv4Addr, path::PathBuf, sync::Arc, time::Duration};

use http::HeaderValue;
use tokio::{net::TcpListener, time};

use crate::{
    faults::Faults,
    gateway::Gateway,
    hosts::Hosts,
    server::{self, Server},
    tasks::Tasks,
    world::{ApiCall, AwsRegion, InstanceSummary, Policy, SessionSummary, Settings, World, fleet},
};

/// How a region behaves.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// How many healthy instances there are besides the usual ones, spread evenly over the regions.
    pub fleet: usize,
    /// Added to the time of every API call.
    pub latency: Duration,
    /// The faults to inject into sessions and API calls.
    pub faults: Faults,
    /// Whether sign-ins with Identity Center succeed without [`Region::approve_device`].
    pub sso_approves: bool,
    /// An OpenSSH sshd to serve SSH with, instead of the built-in server.
    pub sshd: Option<PathBuf>,
    /// The IAM policy of the caller with the credentials of [`Region::environment`], as JSON: a document, or
    /// an array of documents. `None` allows everything. Callers with an assumed role are not subject to it.
    pub policy: Option<String>,
}

/// A running region. Dropping it ends all of its connections and sessions.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// use ec2_sandbox::{Options, Region};
///
/// let region = Region::start(Options::default()).await?;
/// assert_eq!(region.instances()[0].name, "web-1");
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Region {
    world: Arc<World>,
    tasks: Tasks,
    fleet: usize,
}

impl Region {
    /// Starts a region on a free port of 127.0.0.1, with its tasks on the current tokio runtime.
    ///
    /// # Errors
    ///
    /// No port or no random bytes are available; [`io::ErrorKind::InvalidInput`] if the policy is malformed.
    pub async fn start(options: Options) -> io::Result<Self> {
        let policy = options.policy.as_deref().map(Policy::parse).transpose();
        let policy = policy.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let settings = Settings {
            fleet: options.fleet,
            throttles: options.faults.throttle.clone(),
            denied: options.faults.deny.clone(),
            policy,
            sso_approves: options.sso_approves,
            clock: options.faults.clock,
            stream_url: options.faults.stream_url.clone(),
            name_size: options.faults.name_size,
            token_life: options.faults.token_life,
        };
        let now = options.faults.clock.now();
        let world = Arc::new(World::new(listener.local_addr()?, settings, now)?);
        let tasks = Tasks::default();
        let hosts = Hosts::new(Arc::clone(&world), tasks.clone(), options.sshd)?;
        let location = |url: &Option<String>| {
            url.as_deref().map(HeaderValue::try_from).transpose().map_err(io::Error::other)
        };
        let server = Server {
            redirect: location(&options.faults.redirect)?,
            stream_redirect: location(&options.faults.stream_redirect)?,
            require_signature: options.faults.require_signature,
            world: Arc::clone(&world),
            gateway: Gateway::new(Arc::clone(&world), hosts, tasks.clone(), options.faults),
            latency: options.latency,
        };
        tasks.spawn(server::serve(listener, Arc::new(server), tasks.clone()));
        Ok(Self { world, tasks, fleet: options.fleet })
    }

    /// The URL at which every service of the region answers.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.world.address())
    }

    /// The environment variables with which any AWS client uses this region instead of AWS.
    ///
    /// All other `AWS_…` variables must be unset: `AWS_PROFILE` and the per-service endpoints would take
    /// precedence. [`Workspace`](crate::Workspace) does that.
    pub fn environment(&self) -> Vec<(String, String)> {
        let endpoint = self.endpoint();
        let credentials = self.world.credentials();
        let mut environment = vec![
            ("AWS_ENDPOINT_URL", endpoint.as_str()),
            ("AWS_ACCESS_KEY_ID", &credentials.access_key_id),
            ("AWS_SECRET_ACCESS_KEY", &credentials.secret_access_key),
            ("AWS_REGION", AwsRegion::HOME.name()),
            // The AWS CLI and boto3 read only this variable.
            ("AWS_DEFAULT_REGION", AwsRegion::HOME.name()),
            ("AWS_EC2_METADATA_DISABLED", "true"),
            ("AWS_CONFIG_FILE", "/dev/null"),
            ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null"),
            ("NO_PROXY", LOOPBACK),
            ("no_proxy", LOOPBACK),
        ];
        environment.extend(credentials.session_token.as_deref().map(|token| ("AWS_SESSION_TOKEN", token)));
        environment.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    /// Every instance of every region, in the order of [`Region::table`].
    pub fn instances(&self) -> Vec<InstanceSummary> {
        self.world.instances().iter().map(|instance| instance.summary()).collect()
    }

    /// Every session since the start, oldest first.
    pub fn sessions(&self) -> Vec<SessionSummary> {
        self.world.sessions().iter().map(|session| session.summary()).collect()
    }

    /// Every API call since the start, refused ones included, oldest first.
    pub fn calls(&self) -> Vec<ApiCall> {
        self.world.calls()
    }

    /// Waits until no session is connected; `false` if one still is after `deadline`.
    ///
    /// Cancel-safe.
    pub async fn sessions_ended(&self, deadline: Duration) -> bool {
        let mut connected = self.world.connected_sessions();
        let ended = connected.wait_for(|count| *count == 0);
        matches!(time::timeout(deadline, ended).await, Ok(Ok(_)))
    }

    /// Makes the SSH server of an instance present a new host key, while its console output and its files
    /// keep the old one, like an attacker in the middle; `false` if there is no such instance.
    ///
    /// # Errors
    ///
    /// No random bytes are available.
    pub fn replace_host_key(&self, instance: &str) -> io::Result<bool> {
        let Some(instance) = self.world.instance(instance) else { return Ok(false) };
        self.world.replace_host_key(instance).map(|()| true)
    }

    /// Ends every session, as the service ends one that was idle for too long. The client gets `output` as
    /// the reason.
    pub fn end_sessions(&self, output: &str) {
        self.world.end_sessions(output, self.world.now());
    }

    /// Expires all credentials that exist now, those of [`Region::environment`] and those of roles: calls
    /// signed with them are refused.
    pub fn expire_credentials(&self) {
        self.world.expire_credentials();
    }

    /// Approves a sign-in with Identity Center (start URL `https://sandbox.awsapps.com/start`) by the code
    /// that the client shows; `false` if no sign-in waits for this code. Opening the URL that the client
    /// shows does the same.
    pub fn approve_device(&self, user_code: &str) -> bool {
        let now = self.world.now();
        self.world.identity_center(|identity_center| identity_center.approve(user_code, now))
    }

    /// Expires all access tokens of Identity Center that exist now. Refresh tokens and the credentials of
    /// roles stay valid.
    pub fn expire_access_tokens(&self) {
        self.world.expire_access_tokens();
    }

    /// The six digits of the MFA device `arn:aws:iam::123456789012:mfa/you`. They stay valid and can be used
    /// many times.
    pub fn mfa_code(&self) -> &str {
        self.world.mfa_code()
    }

    /// A table of the instances, a line for each: its condition and, outside the home region, its region. The
    /// nodes of the fleet share a line.
    pub fn table(&self) -> String {
        let (rows, _) = self.world.instances().split_at(self.world.instances().len() - self.fleet);
        let width = rows.iter().map(|row| row.harmless_name().chars().count()).max().unwrap_or_default();
        let states = rows.iter().map(|row| row.state().to_string().len()).max().unwrap_or_default();
        let lines = rows.iter().map(|row| {
            let (name, state, condition) = (row.harmless_name(), row.state(), row.condition);
            let elsewhere =
                if row.region == AwsRegion::HOME { String::new() } else { format!(", in {}", row.region) };
            format!("{}  {name:width$}  {state:states$}  {condition}{elsewhere}\n", row.id)
        });
        let fleet = (self.fleet > 0).then(|| {
            let (first, last) = (fleet::name(1), fleet::name(self.fleet));
            format!(
                "i-0f1ee7…            {first} to {last} work, spread over {}\n",
                AwsRegion::ALL.map(AwsRegion::name).join(", ")
            )
        });
        lines.chain(fleet).collect()
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

const LOOPBACK: &str = "127.0.0.1,localhost";

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_table_is_aligned() {
        let region = Region::start(Options::default()).await.unwrap();
        let table = region.table();
        let lines: Vec<_> = table.lines().collect();
        assert_eq!(lines[0], "i-0decaf00000000001  web-1                running     works");
        assert_eq!(lines[3], "i-0dead000000000001  stopped              stopped     is stopped");
        assert_eq!(
            lines.last(),
            Some(&"i-0decaf0000000000a  eu-web               running     works, in eu-west-1")
        );
        assert_eq!(lines.len(), region.instances().len());
        assert!(!table.contains(['\x1b', '\u{9b}']));
    }

    #[tokio::test]
    async fn a_fleet_has_one_line_in_the_table() {
        let region = Region::start(Options { fleet: 400, ..Options::default() }).await.unwrap();
        let table = region.table();
        let last = table.lines().last().unwrap();
        let line = "i-0f1ee7…            node-0001 to node-0400 work, spread over us-east-1, us-west-2, eu-west-1, ap-southeast-2";
        assert_eq!(last, line);
        assert_eq!(table.lines().count() - 1 + 400, region.instances().len());
    }
}
