//! AWS's part and the instance's: the key, the session, sshd, the login.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use ssm_channel::Closed;

use super::channel::Channel;
use super::{Finding, Subject, Walk, chain, denied};
use crate::aws::{Aws, AwsError};
use crate::diagnosis;
use crate::key::OneTimeKey;
use crate::known_hosts::Host;
use crate::network::foreign_text;
use crate::openssh::{Command, Invocation, Login};
use crate::probe::{self, Answer, ProbeError, Question};
use crate::report::{Layer, Told};
use crate::ssh_config::{Keys, settings};
use crate::target::{InstanceId, OsUser};
use crate::websocket::DialError;

impl Walk<'_> {
    /// Pushes a key that nobody has.
    pub(super) async fn push_key(&mut self, aws: &Aws, subject: &Subject) -> ControlFlow<()> {
        let since = Instant::now();
        let Subject { instance, user, .. } = subject;
        if instance.is_managed_node() {
            let fact = "keys cannot be pushed to managed nodes; ssh offers your own";
            return self.note(Layer::KeyPush, since, Finding::skipped(fact));
        }
        let key = match OneTimeKey::generate() {
            Ok(key) => key.public_line(),
            Err(error) => return self.note(Layer::KeyPush, since, Finding::failed(&error, Vec::new())),
        };
        match aws.push_key(instance, user, &key).await {
            Ok(_) => {
                let fact = format!("EC2 Instance Connect takes keys for `{user}`");
                self.note(Layer::KeyPush, since, Finding::ok(fact))
            }
            Err(error) => self.blame(Layer::KeyPush, since, aws, &error, Some(user)),
        }
    }

    /// Opens a session to sshd's port and hears its greeting.
    pub(super) async fn tunnel(&mut self, aws: &Aws, subject: &Subject) -> ControlFlow<()> {
        let since = Instant::now();
        let (instance, port) = (&subject.instance, self.request.port);
        let asked =
            probe::ask(aws, self.means.network, instance, Question::Port(port), REASON, HEAR_TIMEOUT).await;
        let answer = match asked {
            Ok(answer) => answer,
            Err(ProbeError::Aws(error)) => return self.blame(Layer::Tunnel, since, aws, &error, None),
            Err(ProbeError::Dial(error @ DialError::Denied { .. })) => {
                let finding = Finding::failed(&error, error.hints());
                let finding = self.with_statement(finding, Some("ssmmessages:OpenDataChannel"), aws, None);
                return self.note(Layer::Permissions, since, finding);
            }
            Err(error) => return self.note(Layer::Tunnel, since, Finding::failed(&error, error.hints())),
        };
        self.own_session(aws, &answer, since).await?;
        let Some(ready) = answer.ready else {
            return self.note(Layer::Tunnel, since, not_ready(subject, &answer));
        };
        let fact = format!(
            "session after {} ms, websocket after {} ms, SSM agent after {} ms",
            answer.started.as_millis(),
            answer.opened.as_millis(),
            ready.as_millis()
        );
        self.note(Layer::Tunnel, since, Finding::ok(fact))?;
        let line = String::from_utf8_lossy(&answer.output);
        let greeting = line.lines().find(|line| line.starts_with("SSH-")).or(line.lines().next());
        let finding = match greeting {
            Some(greeting) if greeting.starts_with("SSH-") => Finding::ok(foreign_text(greeting, 100)),
            Some(greeting) => Finding::broken(format!(
                "port {port} of {instance} answers, but not as an SSH server: {:?}",
                foreign_text(greeting, 60)
            ))
            .hint(format!("give the port that sshd listens on: `--port PORT` (tried {port})")),
            None => Finding::broken(format!("nothing answers on port {port} of {instance}")).hint(format!(
                "start sshd on the instance, or give the port it listens on: `--port PORT` (tried {port})"
            )),
        };
        self.note(Layer::Sshd, since, finding)
    }

    /// What a caller may do with a session of its own: both are tried on one that is over.
    async fn own_session(&mut self, aws: &Aws, answer: &Answer, since: Instant) -> ControlFlow<()> {
        let resumed = aws.resume_session(&answer.session, &answer.stream_url).await.map(|_| ());
        let terminated = aws.terminate_session(&answer.session).await.map(|_| ());
        let consequences = [
            (resumed, "a lost websocket cannot be replaced"),
            (terminated, "sessions are ended by the instance alone"),
        ];
        for (result, consequence) in consequences {
            if let Err(error @ AwsError::AccessDenied { .. }) = result {
                let finding = Finding::warning(format!("{consequence}: {}", chain(&error)));
                let finding = self.with_statement(finding, denied(&error), aws, None);
                self.note(Layer::Permissions, since, finding)?;
            }
        }
        ControlFlow::Continue(())
    }

    /// What is known of the host key; whether it is the one that is presented, the login shows.
    pub(super) async fn host_key(&mut self, aws: &Aws, subject: &Subject) -> ControlFlow<()> {
        let since = Instant::now();
        let instance = &subject.instance;
        let finding = match self.means.store.find(&Host::new(instance, self.request.port)) {
            Ok(known) => match known.first() {
                Some(entry) => {
                    Finding::ok(format!("{} known, told by {}", count(known.len(), "key"), entry.source))
                }
                None if instance.is_managed_node() => {
                    Finding::ok("none known yet; it is asked for at the first connection")
                }
                None => match aws.console_output(instance, crate::aws::Latest::No).await {
                    Ok(_) => Finding::ok("none known yet; AWS is asked at the first connection"),
                    Err(error) => {
                        let fact =
                            format!("none known yet, and the console does not tell: {}", chain(&error));
                        self.with_statement(Finding::warning(fact), denied(&error), aws, None)
                    }
                },
            },
            Err(error) => Finding::failed(&error, error.hints()),
        };
        self.note(Layer::HostKey, since, finding)
    }

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
        let login = match command.log_in(LOGIN_TIMEOUT).await {
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
                let fact = format!("ssh was not let in within {} seconds", LOGIN_TIMEOUT.as_secs());
                (Layer::Login, Finding::broken(fact).hint("`ssh -v` shows where it waits"))
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
            let limit = HEAR_TIMEOUT;
            let refusal = diagnosis::of_refusal(aws, self.means.network, instance, user, limit).await;
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

    /// A failed call, at its layer or, if IAM said no, among the permissions.
    fn blame(
        &mut self,
        layer: Layer,
        since: Instant,
        aws: &Aws,
        error: &AwsError,
        user: Option<&OsUser>,
    ) -> ControlFlow<()> {
        let layer = match error {
            AwsError::AccessDenied { .. } => Layer::Permissions,
            AwsError::InstanceNotFound { .. } | AwsError::InstanceNotRunning { .. } => Layer::Instance,
            AwsError::TargetNotConnected { .. } => Layer::SessionManager,
            AwsError::Unreachable { .. } => Layer::Endpoints,
            _ => layer,
        };
        let finding = self.with_statement(Finding::failed(error, error.hints()), denied(error), aws, user);
        self.note(layer, since, finding)
    }
}

/// The session was started, and nobody took it up.
fn not_ready(subject: &Subject, answer: &Answer) -> Finding {
    let instance = &subject.instance;
    let output = match &answer.closed {
        Some(Closed::ByGateway { output } | Closed::HandshakeFailed { output }) => output.as_str(),
        _ => "",
    };
    if output.is_empty() {
        let fact = format!(
            "the SSM agent of {instance} did not take a session up within {} seconds",
            HEAR_TIMEOUT.as_secs()
        );
        return Finding::broken(fact)
            .hint("restart the SSM agent, or reboot the instance, and check that it can reach ssmmessages on port 443");
    }
    Finding::broken(format!("the session on {instance} could not begin: {}", foreign_text(output, 300)))
        .hint("check the SSM agent's version, and update it")
}

/// Nothing was seen that would be the cause. What our proxy told of it knows how sshd greets.
fn refused(instance: &InstanceId, user: &OsUser, told: Option<Told>, is_enforcing: bool) -> Finding {
    let finding = Finding::broken(format!("{instance} refused the one-time key for the user `{user}`"));
    let finding = match told {
        Some(told) => told.hints.into_iter().fold(finding, Finding::hint),
        None => finding.hint(format!("check that the user `{user}` exists there, that the package ec2-instance-connect is installed, and that the clock is right")),
    };
    finding.hint(match is_enforcing {
        true => diagnosis::SELINUX_HINT,
        false => "who may start AWS-StartNonInteractiveCommand is told which of them it is",
    })
}

fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
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
const HOST_KEY_ANCHORS: [&str; 3] = ["host-key-changed", "host-key-unknown", "known-hosts-file"];
/// For Session Manager's records.
const REASON: &str = "ssh_ec2 doctor looks for what is wrong";
/// sshd greets at once, and the SSM agent takes a session up within a second or two.
const HEAR_TIMEOUT: Duration = Duration::from_secs(6);
/// Host keys may have to be read through a session of their own.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(30);
