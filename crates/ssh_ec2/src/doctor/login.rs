//! The login, by the real ssh with our proxy, and what is made of its failure.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use super::channel::Channel;
use super::{Finding, Subject, Walk};
use crate::aws::Aws;
use crate::diagnosis;
use crate::network::foreign_text;
use crate::openssh::{Command, Invocation, Login};
use crate::report::{Layer, Told};
use crate::ssh_config::{Keys, settings};
use crate::target::{InstanceId, OsUser};

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
        // Behind what is broken ssh hardly gets in, and a login that waits for nothing is not worth the whole time.
        let limit = if self.report.broken().is_some() { BROKEN_LOGIN_TIMEOUT } else { LOGIN_TIMEOUT };
        let login = match command.log_in(limit).await {
            Ok(login) => login,
            Err(error) => {
                return self.note(
                    Layer::Login,
                    since,
                    Finding::broken(format!("ssh cannot be run: {error}")),
                );
            }
        };
        let (layer, finding) = match login {
            Login::Accepted => (Layer::Login, Finding::ok(format!("sshd lets `{user}` in"))),
            Login::Refused(said) => self.why_not(aws, subject, channel.told(), &said).await,
            Login::Late => {
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
            let refusal = diagnosis::of_refusal(self.prober(aws, instance), user, REFUSAL_TIMEOUT).await;
            let finding = match refusal.cause {
                Some(cause) => cause.into(),
                None => refused(instance, user, told, refusal.is_enforcing),
            };
            return (Layer::Login, finding);
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

/// Nothing was seen that would be the cause. What our proxy told of it knows how sshd greets.
fn refused(instance: &InstanceId, user: &OsUser, told: Option<Told>, is_enforcing: bool) -> Finding {
    let finding = Finding::broken(format!("{instance} refused the one-time key for the user `{user}`"));
    if is_enforcing {
        // Who knows that has looked at the rest as well.
        return finding.hint(diagnosis::SELINUX_HINT);
    }
    let finding = match told {
        Some(told) => told.hints.into_iter().fold(finding, Finding::hint),
        None => finding.hint(format!("check that the user `{user}` exists there, that the package ec2-instance-connect is installed, and that the clock is right")),
    };
    finding.hint("who may start AWS-StartNonInteractiveCommand is told which of them it is")
}

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
/// A slow SSM agent, after calls that are made again and again, and host keys that are read through a session of their
/// own.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(60);
const BROKEN_LOGIN_TIMEOUT: Duration = Duration::from_secs(15);
/// For commands on the instance, over sessions of their own.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(25);
