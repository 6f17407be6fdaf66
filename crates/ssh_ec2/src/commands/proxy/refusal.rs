//! Looks for the cause of a failed connection before the failure is reported.

use std::pin::pin;
use std::time::Duration;

use tokio::time::timeout;

use super::Failure;
use super::job::Job;
use crate::aws::{Aws, AwsError};
use crate::doctor::diagnosis::{self, Diagnosis, Offered, Refusal, RefusedKey};
use crate::key::agent::serve::Usage;
use crate::net::network::Network;
use crate::road::error::RoadError;
use crate::road::probe::{Interrupt, Prober};
use crate::road::stdio;
use crate::ssh::client::Invocation;
use crate::target::InstanceId;

/// Replaces an error that does not name its cause by the cause, if that is found within
/// [`DIAGNOSIS_TIMEOUT`].
pub(super) async fn explain(error: Failure, aws: &Aws, instance: &InstanceId) -> Failure {
    let silent = matches!(
        error,
        Failure::Road(
            RoadError::ChannelRefused { .. }
                | RoadError::HandshakeTimeout { .. }
                | RoadError::NothingAnswered { .. }
        )
    );
    if !silent && !leads_nowhere(&error) {
        return error;
    }
    match timeout(DIAGNOSIS_TIMEOUT, diagnosis::of_reach(aws, instance)).await {
        Ok(Some(cause)) => cause.into(),
        _ => error,
    }
}

/// Whether no connection is possible: the instance does not exist, does not run, or is not connected to
/// Session Manager.
pub(super) fn leads_nowhere(error: &Failure) -> bool {
    use AwsError::{InstanceNotFound, InstanceNotRunning, TargetNotConnected};
    let Failure::Aws(error) = error else { return false };
    matches!(error, InstanceNotFound { .. } | InstanceNotRunning { .. } | TargetNotConnected { .. })
}

/// ssh's login, and the means to look for the cause if it fails.
pub(super) struct Login<'a> {
    pub(super) job: &'a Job<'a>,
    pub(super) aws: &'a Aws,
    pub(super) network: &'a Network,
    pub(super) usage: &'a Usage,
}

impl Login<'_> {
    /// Whether ssh has ended because authentication failed.
    pub(super) fn has_failed(&self) -> bool {
        let is_pushed = self.job.pushed_key.borrow().is_some();
        is_pushed && self.job.login.borrow().was_refused(stdio::has_unread())
    }

    /// Reports that the login failed, with the cause if it is found in time. Afterwards ends the session that
    /// was started to look for the cause, which may take longer.
    pub(super) async fn explain(&self) {
        let Some(key) = &self.job.pushed_key.borrow().clone() else { return };
        let (job, instance, user) = (self.job, &self.job.instance, &self.job.options.user);
        let limit = if job.options.words.are_awaited() { AWAITED_LIMIT } else { REFUSAL_LIMIT };
        if let Some(cause) = self.kept_back(key).await {
            job.options.complain(cause.into());
            return;
        }
        let algorithm = key.split(' ').next().unwrap_or_default();
        let interrupt = Interrupt::default();
        let prober =
            Prober { aws: self.aws, network: self.network, instance, reason: "", interrupt: &interrupt };
        let mut asked = pin!(async {
            match job.options.report {
                // `doctor` reads this report and runs its own, longer diagnosis.
                Some(_) => Refusal::default(),
                None => diagnosis::of_refusal(prober, user, algorithm, limit).await,
            }
        });
        let looked = timeout(limit, asked.as_mut()).await;
        let is_late = looked.is_err();
        let Refusal { cause, cleared, is_enforcing } = looked.unwrap_or_default();
        job.options.complain(match cause {
            Some(cause) => cause.into(),
            None => Failure::KeyRefused(Box::new(RefusedKey {
                instance: instance.clone(),
                user: user.clone(),
                is_own: job.options.key_file.is_some(),
                algorithm: algorithm.to_owned(),
                system_user: job.system_user(),
                cleared,
                is_enforcing,
            })),
        });
        if is_late {
            // A session can be ended only after it has started. Programs that read the output to its end must
            // not wait for that.
            interrupt.cancel();
            let _ = stdio::leave();
            asked.await;
        }
    }

    /// The options that kept ssh from offering the key, if `ssh -G` shows them. A key with which ssh had
    /// something signed was offered.
    async fn kept_back(&self, line: &str) -> Option<Diagnosis> {
        if self.usage.has_signed() {
            return None;
        }
        let job = self.job;
        let ssh_options = job.ssh_options().await?;
        let is_own = job.options.key_file.is_some();
        let socket = (!is_own).then_some(&*job.options.agent_socket);
        let offered = Offered { line, socket, was_listed: self.usage.was_listed() };
        let invocation = job.options.ssh.get(1..).and_then(|words| Invocation::parse(words).ok());
        let options = diagnosis::kept_back(ssh_options, invocation.as_ref(), offered);
        let instance = job.instance.clone();
        (!options.is_empty()).then_some(Diagnosis::KeptBack { instance, options, is_own })
    }
}

/// The time limit for a failed connection, while ssh still waits.
const DIAGNOSIS_TIMEOUT: Duration = Duration::from_secs(2);
/// The time limit for a session that examines the instance after ssh has ended. It takes a second if the
/// machines and the network are not busy.
const REFUSAL_LIMIT: Duration = Duration::from_millis(2800);
/// The same if `ssh_ec2` waits for the explanation: it waits for five seconds.
const AWAITED_LIMIT: Duration = Duration::from_millis(4500);
