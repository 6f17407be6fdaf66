//! Asks AWS which host keys an instance has: EC2 for its console, then, if the caller may, the instance itself through a
//! session.
//!
//! That a source has nothing to tell, or is not for this caller, is an answer. That it cannot be reached is none.

use std::time::{Duration, SystemTime};

use tokio::time::timeout;

use super::{Means, Request};
use crate::aws::{Aws, AwsError, Latest, Settings};
use crate::cache::{Entry, Key};
use crate::error::Failure;
use crate::host_key::{Evidence, HostKey, Source};
use crate::probe::{self, ProbeError, Prober, Question};
use crate::resolve::{Resolver, scope};
use crate::target::{InstanceId, Target};

/// What is told.
pub(super) enum Told {
    /// These, by this one.
    Keys(Evidence, Source),
    /// Nothing, by nobody.
    Nothing,
    /// There is no way to whoever would tell; why.
    OutOfReach(String),
    /// Who would tell does not, for a reason that may pass.
    Unknown(String),
}

pub(super) struct Sources<'a> {
    request: &'a Request,
    means: Means<'a>,
    aws: Option<Aws>,
}

impl<'a> Sources<'a> {
    pub(super) fn new(request: &'a Request, means: Means<'a>) -> Self {
        Self { request, means, aws: None }
    }

    /// The account, if it was needed.
    pub(super) fn loaded(&self) -> Option<&Aws> {
        self.aws.as_ref()
    }

    /// Only a name needs AWS, and the proxy has just found out what it means.
    pub(super) async fn instance(&mut self) -> Result<InstanceId, Failure> {
        if let Target::Id(id) = &self.request.target {
            return Ok(id.clone());
        }
        let (cache, target, choice) = (self.means.cache, &self.request.target, self.request.choice);
        let aws = self.aws().await?;
        Ok(Resolver::new(aws, cache).instance(target, choice).await?.id)
    }

    async fn aws(&mut self) -> Result<&Aws, Failure> {
        let aws = match self.aws.take() {
            Some(aws) => aws,
            None => {
                let settings = Settings { batch: true, ..self.request.settings.clone() };
                Aws::load(&settings, self.means.network).await?.with_patience(PATIENCE)
            }
        };
        Ok(self.aws.insert(aws))
    }

    /// What the first source tells that tells anything. ssh asks twice within a second, and AWS need not be.
    pub(super) async fn ask(&mut self, instance: &InstanceId) -> Result<Told, Failure> {
        if self.was_noted(instance).await? {
            return Ok(Told::Nothing);
        }
        let told = match self.console(instance).await? {
            told @ Told::Keys(..) => return Ok(told),
            told => match (self.files(instance).await?, told) {
                (told @ Told::Keys(..), _) => return Ok(told),
                (told, Told::Nothing) => told,
                (_, told) => told,
            },
        };
        if matches!(told, Told::Nothing) {
            self.note(instance).await?;
        }
        Ok(told)
    }

    /// Which source tells this key.
    pub(super) async fn who_tells(&mut self, instance: &InstanceId, key: &HostKey) -> Option<Source> {
        let console = self.console(instance).await;
        if tells(console.ok()?, key) {
            return Some(Source::Console);
        }
        tells(self.files(instance).await.ok()?, key).then_some(Source::Session)
    }

    /// What cloud-init printed when the instance started for the first time.
    async fn console(&mut self, instance: &InstanceId) -> Result<Told, Failure> {
        if instance.is_managed_node() {
            return Ok(Told::Nothing);
        }
        let aws = self.aws().await?;
        for latest in [Latest::No, Latest::Yes] {
            let answer = timeout(CONSOLE_TIMEOUT, aws.console_output(instance, latest)).await;
            let seconds = CONSOLE_TIMEOUT.as_secs();
            let late = || Told::OutOfReach(format!("EC2 does not answer within {seconds} seconds"));
            let Ok(answer) = answer else { return Ok(late()) };
            match answer.map(|text| Evidence::of_console(&text)) {
                Ok(evidence) if evidence.is_empty() => {}
                Ok(evidence) => return Ok(Told::Keys(evidence, Source::Console)),
                Err(error) => {
                    tracing::info!("the console tells no host keys: {error}");
                    return Ok(match error {
                        AwsError::AccessDenied { .. } => Told::Nothing,
                        // Of instances that are not on the Nitro system.
                        AwsError::Service { .. } if latest == Latest::Yes => Told::Nothing,
                        error @ AwsError::Unreachable { .. } => Told::OutOfReach(error.to_string()),
                        error => Told::Unknown(error.to_string()),
                    });
                }
            }
        }
        Ok(Told::Nothing)
    }

    /// What sshd's files say, if the caller may start sessions that run a command.
    async fn files(&mut self, instance: &InstanceId) -> Result<Told, Failure> {
        let Means { network, interrupt, .. } = self.means;
        let aws = self.aws().await?;
        let prober = Prober { aws, network, instance, reason: REASON, interrupt };
        let answer = match probe::ask(prober, Question::Script(READ_KEYS), READ_TIMEOUT).await {
            Ok(answer) => answer,
            Err(ProbeError::Interrupted) => return Err(Failure::Interrupted),
            Err(error) => {
                tracing::info!("the host keys cannot be read through Session Manager: {error}");
                return Ok(match error {
                    ProbeError::Aws(AwsError::AccessDenied { .. } | AwsError::InvalidDocument { .. }) => {
                        Told::Nothing
                    }
                    error => Told::Unknown(error.to_string()),
                });
            }
        };
        let evidence = Evidence::of_files(&String::from_utf8_lossy(&answer.output));
        Ok(match (evidence.is_empty(), answer.closed) {
            (false, _) => Told::Keys(evidence, Source::Session),
            (true, Some(_)) => Told::Nothing,
            (true, None) => Told::Unknown(format!("{instance} did not answer in time")),
        })
    }

    async fn was_noted(&mut self, instance: &InstanceId) -> Result<bool, Failure> {
        let cache = self.means.cache;
        let scope = scope(self.aws().await?);
        Ok(cache.was_kept_within(&scope, &noted(instance), SystemTime::now(), MOMENT))
    }

    async fn note(&mut self, instance: &InstanceId) -> Result<(), Failure> {
        let cache = self.means.cache;
        let scope = scope(self.aws().await?);
        let entry = Entry { id: instance.clone(), user: None };
        cache.keep(&scope, &[(noted(instance), entry)], SystemTime::now());
        Ok(())
    }
}

fn tells(told: Told, key: &HostKey) -> bool {
    matches!(told, Told::Keys(evidence, _) if evidence.tells(key))
}

fn noted(instance: &InstanceId) -> Key {
    Key::of(&["nothing tells its host keys", instance.as_str()])
}

/// Between the two questions of one connection.
const MOMENT: Duration = Duration::from_secs(15);
/// ssh's user waits.
const PATIENCE: Duration = Duration::from_secs(4);
const CONSOLE_TIMEOUT: Duration = Duration::from_secs(6);
const READ_KEYS: &str = "cat /etc/ssh/ssh_host_*_key.pub";
/// For Session Manager's records.
const REASON: &str = "ssh_ec2 reads the public host keys";
/// The SSM agent waits a second for acknowledgements at the end.
const READ_TIMEOUT: Duration = Duration::from_secs(8);
