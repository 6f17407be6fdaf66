//! `ssh_ec2 doctor`: checks every layer between the user and an instance, and reports what it finds.
//!
//! No check changes the instance. One pushes a key whose private half is discarded, one reads sshd's greeting
//! in a session, and the real ssh logs in without running a command. The walk stops at the first broken
//! layer, because the layers behind it cannot be checked; `--all` continues. `report` has the data and its
//! two formats.

mod channel;
mod client;
pub(crate) mod diagnosis;
mod instance;
mod login;
mod remote;
pub(crate) mod report;

use std::error::Error;
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use crate::aws::{Aws, AwsError, Caller, Instance, Settings};
use crate::doctor::report::{Check, Layer, Report, Verdict};
use crate::instances::cache::Cache;
use crate::instances::resolve::Choice;
use crate::net::network::Network;
use crate::net::websocket::{Way, prepare_within};
use crate::policy::{Feature, Policy, Wanted};
use crate::road::probe::{Interrupt, Prober};
use crate::ssh::config::ProxyOptions;
use crate::ssh::known_hosts::Store;
use crate::ssh::own_files::OwnFiles;
use crate::system::age::Age;
use crate::system::explain::Explain;
use crate::system::text::{self, foreign_text};
use crate::target::{InstanceId, OsUser, Port, Target};

/// The options of one run.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// The instance. Without one, only the layers that all instances share are checked.
    pub target: Option<Target>,
    /// The host as the user would type it for plain ssh.
    pub host: Option<String>,
    /// The choice among several matching instances.
    pub choice: Choice,
    /// The profile, the region and how to sign in.
    pub settings: Settings,
    /// The login name, if the user gave one.
    pub user: Option<OsUser>,
    /// sshd's port.
    pub port: Port,
    /// Whether to continue behind a broken layer.
    pub all: bool,
}

/// This machine's part: network settings, files and the program itself.
#[derive(Debug)]
pub(crate) struct Means<'a> {
    /// Certificates and proxies of all connections.
    pub network: &'a Network,
    /// The instances that names were resolved to.
    pub cache: &'a Cache,
    /// The known host keys.
    pub store: &'a Store,
    /// The path of this program, for ssh's ProxyCommand.
    pub program: PathBuf,
    /// The paths of this program's files.
    pub places: &'a OwnFiles,
    /// The options of the ProxyCommand of the login check.
    pub options: ProxyOptions,
    /// Cancels the check that is running.
    pub interrupt: &'a Interrupt,
}

/// Checks the layers in order.
pub(crate) async fn examine(request: &Request, means: &Means<'_>) -> Report {
    let report = Report { target: request.host.clone(), ..Report::default() };
    let mut walk = Walk { request, means, report };
    let _ = walk.all().await;
    walk.report.healthy = walk.report.broken().is_none();
    walk.report
}

struct Walk<'a> {
    request: &'a Request,
    means: &'a Means<'a>,
    report: Report,
}

/// The result of one check.
struct Finding {
    verdict: Verdict,
    fact: String,
    hints: Vec<String>,
    details: Vec<String>,
}

impl Finding {
    fn new(verdict: Verdict, fact: impl Into<String>) -> Self {
        Self { verdict, fact: fact.into(), hints: Vec::new(), details: Vec::new() }
    }

    fn ok(fact: impl Into<String>) -> Self {
        Self::new(Verdict::Ok, fact)
    }

    fn warning(fact: impl Into<String>) -> Self {
        Self::new(Verdict::Warning, fact)
    }

    fn skipped(fact: impl Into<String>) -> Self {
        Self::new(Verdict::Skipped, fact)
    }

    fn broken(fact: impl Into<String>) -> Self {
        Self::new(Verdict::Broken, fact)
    }

    /// A broken layer, in the words of the error.
    fn of(error: &dyn Explain) -> Self {
        let details = error.details(SystemTime::now());
        Self {
            hints: error.hints(),
            details: details.iter().map(|line| foreign_text(line, 200)).collect(),
            ..Self::broken(chain(error))
        }
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }
}

impl From<diagnosis::Diagnosis> for Finding {
    fn from(cause: diagnosis::Diagnosis) -> Self {
        Self::of(&cause)
    }
}

/// The instance to check and the user to log in as.
struct Subject {
    instance: InstanceId,
    user: OsUser,
    described: Option<Instance>,
}

impl Walk<'_> {
    async fn all(&mut self) -> ControlFlow<()> {
        self.client()?;
        let aws = self.account().await?;
        self.endpoints(&aws).await?;
        let Some(target) = &self.request.target else { return ControlFlow::Continue(()) };
        let subject = self.find(&aws, target).await?;
        self.session_manager(&aws, &subject).await?;
        self.push_key(&aws, &subject).await?;
        self.tunnel(&aws, &subject).await?;
        self.host_key(&aws, &subject).await?;
        self.log_in(&aws, &subject).await
    }

    /// Adds a check to the report. A break ends the walk.
    fn note(&mut self, layer: Layer, since: Instant, finding: Finding) -> ControlFlow<()> {
        self.note_timed(layer, since.elapsed(), finding)
    }

    fn note_timed(&mut self, layer: Layer, took: Duration, finding: Finding) -> ControlFlow<()> {
        let Finding { verdict, fact, hints, details } = finding;
        self.report.checks.push(Check { layer, verdict, fact, hints, details, took });
        if self.means.interrupt.is_cancelled() || (verdict == Verdict::Broken && !self.request.all) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }

    /// Region, credentials, clock. Without them no other layer can be checked.
    async fn account(&mut self) -> ControlFlow<(), Aws> {
        let since = Instant::now();
        let aws = match Aws::load(&self.request.settings, self.means.network).await {
            Ok(aws) => aws.with_patience(THROTTLED_PATIENCE).within(CALL_TIMEOUT),
            Err(error) => {
                let layer = match error {
                    AwsError::NoRegion | AwsError::BadRegion { .. } => Layer::Region,
                    _ => Layer::Credentials,
                };
                let _ = self.note(layer, since, Finding::of(&error));
                return ControlFlow::Break(());
            }
        };
        self.report.region = Some(aws.region().to_owned());
        self.note(Layer::Region, since, Finding::ok(aws.region()))?;
        let since = Instant::now();
        if let Err(error) = aws.sign_in().await {
            let _ = self.note(Layer::Credentials, since, Finding::of(&error));
            return ControlFlow::Break(());
        }
        let caller = aws.caller().await;
        if matches!(caller, Err(AwsError::RejectedCredentials { .. })) && aws.has_region_off().await {
            let _ = self.note(Layer::Region, since, disabled(aws.region()));
            return ControlFlow::Break(());
        }
        let finding = self.credentials(&aws, caller).await;
        let broken = finding.verdict == Verdict::Broken;
        let (skew, behind) = aws.clock_skew();
        if skew >= TOLERATED_SKEW {
            let direction = if behind { "behind" } else { "ahead of" };
            let fact = format!("this machine is {} minutes {direction} AWS", (skew.as_secs() + 30) / 60);
            let clock = if broken {
                Finding::broken(fact)
            } else {
                Finding::warning(fact + ", which ssh_ec2 corrects")
            };
            self.note(
                Layer::Clock,
                since,
                clock.hint("set the clock: other programs than this need it right"),
            )?;
        }
        self.note(Layer::Credentials, since, finding)?;
        if broken { ControlFlow::Break(()) } else { ControlFlow::Continue(aws) }
    }

    async fn credentials(&mut self, aws: &Aws, caller: Result<Caller, AwsError>) -> Finding {
        match caller {
            Ok(Caller { account, arn }) => {
                let ends = aws.credentials_end().await.ok().flatten();
                let ends = ends.map(|end| format!(", for {} more", Age::between(SystemTime::now(), end)));
                let source = aws.credentials_source();
                let fact = format!("{} from {source}{}", foreign_text(&arn, 200), ends.unwrap_or_default());
                self.report.account = Some(foreign_text(&account, 20));
                Finding::ok(fact)
            }
            // The other calls use other hosts and permissions, and may succeed.
            Err(
                error @ (AwsError::NoConnection { .. }
                | AwsError::Unreachable { .. }
                | AwsError::AccessDenied { .. }
                | AwsError::Throttled { .. }),
            ) => Finding::warning(format!("cannot get the caller's identity: {}", chain(&error))),
            Err(error) => Finding::of(&error),
        }
    }

    /// Whether the endpoints can be reached: name, proxy, TCP, TLS. Concurrently, as each may take seconds.
    async fn endpoints(&mut self, aws: &Aws) -> ControlFlow<()> {
        let since = Instant::now();
        let endpoints = match aws.endpoints() {
            Ok(endpoints) => endpoints,
            Err(error) => return self.note(Layer::Endpoints, since, Finding::of(&error)),
        };
        let network = self.means.network;
        let looks = endpoints.iter().map(async |endpoint| {
            let since = Instant::now();
            let finding = match prepare_within(ENDPOINT_TIMEOUT, &endpoint.url, network).await {
                Ok(prepared) => {
                    Finding::ok(format!("{} answers{}", endpoint.url.host(), way(prepared.way())))
                }
                Err(error) => Finding::of(&error),
            };
            // A target that is an id needs no call to EC2.
            let is_optional =
                endpoint.service == "ec2" && matches!(self.request.target, Some(Target::Id(_)) | None);
            let verdict = match finding.verdict {
                Verdict::Broken if is_optional => Verdict::Warning,
                verdict => verdict,
            };
            let fact = format!("{}: {}", endpoint.service, finding.fact);
            (since.elapsed(), Finding { verdict, fact, ..finding })
        });
        for (took, finding) in futures_util::future::join_all(looks).await {
            self.note_timed(Layer::Endpoints, took, finding)?;
        }
        ControlFlow::Continue(())
    }

    /// Runs sessions on the instance for the checks.
    fn prober<'a>(&'a self, aws: &'a Aws, instance: &'a InstanceId) -> Prober<'a> {
        let (network, interrupt) = (self.means.network, self.means.interrupt);
        Prober { aws, network, instance, reason: REASON, interrupt }
    }

    /// Adds the policy statement that the caller lacks.
    fn with_statement(
        &self,
        mut finding: Finding,
        action: Option<&str>,
        aws: &Aws,
        user: Option<&OsUser>,
    ) -> Finding {
        let Some(action) = action else { return finding };
        let is_node = self.report.instance.as_deref().is_some_and(|id| id.starts_with("mi-"));
        let wanted = Wanted {
            // Other features allow more session documents, one of which runs commands.
            features: Feature::ALL
                .into_iter()
                .filter(|feature| {
                    action != "ssm:StartSession"
                        || feature.is_harmless()
                        || is_node && *feature == Feature::ManagedNodes
                })
                .collect(),
            users: user.cloned().into_iter().collect(),
            region: aws.region().parse().ok(),
            account: self.report.account.as_deref().and_then(|account| account.parse().ok()),
            ..Wanted::default()
        };
        if let Ok(policy) = Policy::least(&wanted).granting(action).json() {
            finding.hints.push("ask an administrator to add to your policies:".into());
            finding.details.extend(policy.lines().map(str::to_owned));
        }
        finding
    }
}

/// In a region that is not enabled, the services reject all of the account's credentials.
fn disabled(region: &str) -> Finding {
    Finding::broken(format!("the region {region} is not enabled for this account")).hint(format!(
        "enable it: `aws account enable-region --region-name {region}`; or choose another with `--region`"
    ))
}

/// How the endpoint was reached, if not over the internet. Loopback is not shown.
fn way(way: &Way) -> String {
    match way {
        Way::Proxy(proxy) => format!(" through the proxy {}", foreign_text(proxy, 100)),
        Way::Direct(address) => match address.ip() {
            IpAddr::V4(ip) if ip.is_private() => format!(" at {ip}, an interface endpoint"),
            IpAddr::V6(ip) if ip.is_unique_local() => format!(" at {ip}, an interface endpoint"),
            _ => String::new(),
        },
    }
}

/// The action that IAM denied.
fn denied(error: &AwsError) -> Option<&str> {
    match error {
        AwsError::AccessDenied { action, .. } => Some(action),
        _ => None,
    }
}

/// An error and its causes in one line.
fn chain(error: &dyn Error) -> String {
    foreign_text(&text::chain(error), 1000)
}

/// The reason that Session Manager records for the session.
const REASON: &str = "ssh_ec2 doctor looks for what is wrong";
/// AWS rejects signatures that are five minutes off.
const TOLERATED_SKEW: Duration = Duration::from_secs(4 * 60);
/// A run makes a dozen calls while the user waits.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// AWS starts three sessions a second for an account in a region. The checks start a few, one after the
/// other; a quota that other callers exhaust for a moment is not a broken layer.
const THROTTLED_PATIENCE: Duration = Duration::from_secs(5);
/// A firewall that drops packets never answers.
const ENDPOINT_TIMEOUT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unusual_way_is_shown() {
        for (address, shown) in [
            ("10.0.3.7:443", " at 10.0.3.7, an interface endpoint"),
            ("52.94.1.1:443", ""),
            ("127.0.0.1:1", ""),
            ("[fd00::1]:443", " at fd00::1, an interface endpoint"),
        ] {
            assert_eq!(way(&Way::Direct(address.parse().unwrap())), shown);
        }
        assert_eq!(way(&Way::Proxy("proxy:3128".into())), " through the proxy proxy:3128");
    }
}
