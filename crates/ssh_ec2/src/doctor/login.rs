//! The login check: the real ssh logs in through `ssh_ec2 proxy`; a failure leads to its cause.

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};

use super::channel::Channel;
use super::{Finding, Subject, Walk};
use crate::aws::{Aws, Document};
use crate::doctor::diagnosis::{self, Cleared, Refusal, RefusedKey};
use crate::doctor::report::{Layer, Reported};
use crate::ssh::client::{Command, Invocation, Login};
use crate::ssh::config::{Keys, settings};
use crate::ssh::error::SshError;
use crate::system::explain::Anchor;
use crate::system::text::foreign_text;

impl Walk<'_> {
    /// Logs in with the real ssh, without running a command.
    pub(super) async fn log_in(&mut self, aws: &Aws, subject: &Subject) -> ControlFlow<()> {
        let since = Instant::now();
        let Subject { instance, user, .. } = subject;
        let means = self.means;
        let invocation = Invocation {
            options: [
                &["-p".to_owned(), self.request.port.to_string()][..],
                &LOGIN_OPTIONS.map(str::to_owned),
            ]
            .concat()
            .into_iter()
            .map(Into::into)
            .collect(),
            destination: format!("{user}@{instance}").into(),
            command: Vec::new(),
        };
        let channel = match Channel::below(means.places.directory()) {
            Ok(channel) => channel,
            Err(error) => {
                let directory = means.places.directory().display();
                let finding = Finding::broken(format!("cannot create a directory in {directory}: {error}"))
                    .hint(format!("check the permissions of {directory}"));
                return self.note(Layer::Login, since, finding);
            }
        };
        let mut options = means.options.clone();
        options.arguments.extend(["--report".into(), channel.file().to_string_lossy().into_owned()]);
        let keys = if instance.is_managed_node() { Keys::Own } else { Keys::Pushed };
        let command = Command::ssh(&invocation, &settings(&means.program, means.places, &options, keys));
        // After a broken check a login rarely succeeds and is not worth the full time limit.
        let limit = if self.report.broken().is_some() { BROKEN_LOGIN_TIMEOUT } else { LOGIN_TIMEOUT };
        let login = match command.log_in(limit).await {
            Ok(login) => login,
            Err(source) => {
                let program = "ssh".to_owned();
                return self.note(Layer::Login, since, Finding::of(&SshError::NotRun { program, source }));
            }
        };
        let (layer, finding) = match login {
            Login::Accepted => (Layer::Login, Finding::ok(format!("sshd lets `{user}` in"))),
            Login::Refused(said) => self.why_not(aws, subject, channel.reported(), &said).await,
            Login::TimedOut => {
                let fact = format!("ssh did not log in within {} seconds", limit.as_secs());
                let finding = match self.report.broken() {
                    Some(cause) => {
                        Finding::skipped(format!("{fact}, since {} is broken", cause.layer.name()))
                    }
                    None => Finding::broken(fact).hint("`ssh -v` shows where it waits"),
                };
                (Layer::Login, finding)
            }
        };
        self.note(layer, since, finding)
    }

    /// The cause, from the report of `ssh_ec2 proxy` or `known-hosts`, else from ssh's output.
    async fn why_not(
        &self,
        aws: &Aws,
        subject: &Subject,
        reported: Option<Reported>,
        said: &str,
    ) -> (Layer, Finding) {
        let Subject { instance, user, .. } = subject;
        let is_refused = match &reported {
            Some(reported) => reported.is(Anchor::KeyRefused),
            None => said.lines().any(|line| line.contains("Permission denied (")),
        };
        if is_refused && instance.is_managed_node() {
            let fact = format!("{instance} refused your own keys, which ssh offers, for the user `{user}`");
            let hint = format!("add one of your public keys to ~/.ssh/authorized_keys of `{user}` there");
            return (Layer::Login, Finding::broken(fact).hint(hint));
        }
        if is_refused {
            let prober = self.prober(aws, instance);
            let identity = self.means.options.identity.as_deref();
            let algorithm = identity.and_then(algorithm_of).unwrap_or_else(|| ONE_TIME_KEY.to_owned());
            let Refusal { cause, cleared, is_enforcing } =
                diagnosis::of_refusal(prober, user, &algorithm, REFUSAL_TIMEOUT).await;
            let refused_key = RefusedKey {
                instance: instance.clone(),
                user: user.clone(),
                is_own: identity.is_some(),
                algorithm,
                system_user: None,
                cleared,
                is_enforcing,
            };
            return (Layer::Login, cause.map_or_else(|| refused(&refused_key), Finding::from));
        }
        if let Some(reported) = reported {
            let about_host_key = HOST_KEY_ANCHORS.into_iter().any(|anchor| reported.is(anchor));
            let layer = if about_host_key { Layer::HostKey } else { Layer::Login };
            let hints = reported.hints.iter().map(|hint| foreign_text(hint, 1000)).collect();
            return (layer, Finding { hints, ..Finding::broken(foreign_text(&reported.message, 1000)) });
        }
        let fact = match said.lines().rev().find(|line| !line.starts_with("debug")) {
            Some(last) => format!("ssh failed, with the message {:?}", foreign_text(last, 300)),
            None => "ssh failed without a message".to_owned(),
        };
        (Layer::Login, Finding::broken(fact).hint("`ssh -v` shows each step"))
    }
}

/// No cause was found.
fn refused(refused: &RefusedKey) -> Finding {
    let finding = Finding::of(refused);
    if refused.cleared == Cleared::default() {
        let document = Document::NonInteractiveCommand.name();
        return finding.hint(format!("a caller who may start {document} learns which of them it is"));
    }
    finding
}

/// The algorithm of the user's own key, from the file with its public half.
fn algorithm_of(identity: &Path) -> Option<String> {
    let mut beside = identity.as_os_str().to_owned();
    beside.push(".pub");
    let text = fs::read_to_string(beside).or_else(|_| fs::read_to_string(identity)).ok()?;
    text.split_ascii_whitespace().next().map(str::to_owned)
}

/// The type of the one-time key, unless the user asks for another one.
const ONE_TIME_KEY: &str = "ssh-ed25519";
/// ssh asks for nothing, runs nothing, and forwards or shares no connection.
const LOGIN_OPTIONS: [&str; 14] = [
    "-N",
    "-v",
    "-oBatchMode=yes",
    "-oControlMaster=no",
    "-oControlPath=none",
    "-oClearAllForwardings=yes",
    "-oForwardAgent=no",
    "-oForwardX11=no",
    "-oPermitLocalCommand=no",
    "-oRemoteCommand=none",
    "-oNumberOfPasswordPrompts=0",
    "-oPreferredAuthentications=publickey",
    "-oUpdateHostKeys=no",
    "-oTunnel=no",
];
/// Errors that belong to the host key check.
const HOST_KEY_ANCHORS: [Anchor; 4] =
    [Anchor::HostKeyChanged, Anchor::HostKeyUnchecked, Anchor::HostKeyUnknown, Anchor::KnownHostsFile];
/// Enough for a slow SSM agent after retried calls, with host keys that are read in a session of their own.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(60);
const BROKEN_LOGIN_TIMEOUT: Duration = Duration::from_secs(15);
/// The time limit for the command that looks for the cause, in a session of its own.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(25);
