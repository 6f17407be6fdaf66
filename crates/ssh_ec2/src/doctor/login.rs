//! The login, by the real ssh with our proxy, and what is made of its failure.

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};

use super::channel::Channel;
use super::{Finding, Subject, Walk};
use crate::aws::{Aws, Document};
use crate::doctor::diagnosis::{self, Cleared, Refusal, RefusedKey};
use crate::doctor::report::{Layer, Told};
use crate::ssh::client::{Command, Invocation, Login};
use crate::ssh::config::{Keys, settings};
use crate::ssh::error::SshError;
use crate::system::text::foreign_text;

impl Walk<'_> {
    /// Lets the real ssh log in, without running anything there.
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
                let finding = Finding::broken(format!("cannot make a directory in {directory}: {error}"))
                    .hint(format!("check the permissions of {directory}"));
                return self.note(Layer::Login, since, finding);
            }
        };
        let mut options = means.options.clone();
        options.arguments.extend(["--report".into(), channel.file().to_string_lossy().into_owned()]);
        let keys = if instance.is_managed_node() { Keys::Own } else { Keys::Pushed };
        let command = Command::ssh(&invocation, &settings(&means.program, means.places, &options, keys));
        // After a broken check a login rarely succeeds, and is not worth the whole time.
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
            Login::Refused(said) => self.why_not(aws, subject, channel.told(), &said).await,
            Login::TimedOut => {
                let fact = format!("ssh was not let in within {} seconds", limit.as_secs());
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

    /// From what our own programs told, and else what ssh said, to the cause.
    async fn why_not(
        &self,
        aws: &Aws,
        subject: &Subject,
        told: Option<Told>,
        said: &str,
    ) -> (Layer, Finding) {
        let Subject { instance, user, .. } = subject;
        let is_refused = match &told {
            Some(told) => told.is("key-refused"),
            None => said.lines().any(|line| line.contains("Permission denied (")),
        };
        if is_refused && instance.is_managed_node() {
            let fact = format!("{instance} refused the keys of yours that ssh offers for the user `{user}`");
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
        if let Some(told) = told {
            let about_host_key = HOST_KEY_ANCHORS.iter().any(|anchor| told.is(anchor));
            let layer = if about_host_key { Layer::HostKey } else { Layer::Login };
            let hints = told.hints.iter().map(|hint| foreign_text(hint, 1000)).collect();
            return (layer, Finding { hints, ..Finding::broken(foreign_text(&told.message, 1000)) });
        }
        let fact = match said.lines().rev().find(|line| !line.starts_with("debug")) {
            Some(last) => format!("ssh gave up, and says {:?}", foreign_text(last, 300)),
            None => "ssh gave up, and says nothing".to_owned(),
        };
        (Layer::Login, Finding::broken(fact).hint("`ssh -v` says more"))
    }
}

/// No cause was seen.
fn refused(refused: &RefusedKey) -> Finding {
    let finding = Finding::of(refused);
    if refused.cleared == Cleared::default() {
        let document = Document::NonInteractiveCommand.name();
        return finding.hint(format!("a caller who may start {document} learns which of them it is"));
    }
    finding
}

/// The algorithm of a key of the user's own, by the file that has its public half.
fn algorithm_of(identity: &Path) -> Option<String> {
    let mut beside = identity.as_os_str().to_owned();
    beside.push(".pub");
    let text = fs::read_to_string(beside).or_else(|_| fs::read_to_string(identity)).ok()?;
    text.split_ascii_whitespace().next().map(str::to_owned)
}

/// The type of the one-time key, unless the user asks for another one.
const ONE_TIME_KEY: &str = "ssh-ed25519";
/// Nothing is asked, run, forwarded or shared.
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
/// What is wrong with a host key, or with what is known of it.
const HOST_KEY_ANCHORS: [&str; 4] =
    ["host-key-changed", "host-key-unchecked", "host-key-unknown", "known-hosts-file"];
/// A slow SSM agent, after calls that are made again and again, and host keys that are read through a session
/// of their own.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(60);
const BROKEN_LOGIN_TIMEOUT: Duration = Duration::from_secs(15);
/// For a command on the instance, in a session of its own.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(25);
