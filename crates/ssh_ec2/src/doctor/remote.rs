//! The checks of the key push, the session, sshd and its host key.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use super::{Finding, Subject, Walk, chain, denied};
use crate::aws::{Aws, AwsError};
use crate::doctor::report::Layer;
use crate::instances::default_user;
use crate::key::one_time::{KeyType, OneTimeKey};
use crate::net::websocket::DialError;
use crate::road::error::RoadError;
use crate::road::probe::{self, Answer, ProbeError, Question};
use crate::road::tunnel::Closed;
use crate::ssh::known_hosts::Host;
use crate::system::explain::Explain as _;
use crate::system::text::foreign_text;
use crate::target::{OsUser, Port};

impl Walk<'_> {
    /// Pushes a public key whose private half is discarded.
    pub(super) async fn push_key(&mut self, aws: &Aws, subject: &Subject) -> ControlFlow<()> {
        let since = Instant::now();
        let Subject { instance, user, .. } = subject;
        if instance.is_managed_node() {
            let fact = "keys cannot be pushed to managed nodes; ssh offers your own";
            return self.note(Layer::KeyPush, since, Finding::skipped(fact));
        }
        let key = match OneTimeKey::generate(KeyType::Ed25519) {
            Ok(key) => key.public_line(),
            Err(error) => return self.note(Layer::KeyPush, since, Finding::of(&error)),
        };
        match aws.push_key(instance, user, &key).await {
            Ok(_) => {
                let fact = format!("EC2 Instance Connect accepts keys for `{user}`");
                self.note(Layer::KeyPush, since, Finding::ok(fact))
            }
            Err(error) => self.blame(Layer::KeyPush, since, aws, &error, Some(user)),
        }
    }

    /// Opens a session to sshd's port and reads its greeting.
    pub(super) async fn tunnel(&mut self, aws: &Aws, subject: &Subject) -> ControlFlow<()> {
        let since = Instant::now();
        let (instance, port) = (&subject.instance, self.request.port);
        let asked = probe::ask(self.prober(aws, instance), Question::Port(port), HANDSHAKE_TIMEOUT).await;
        let answer = match asked {
            Ok(answer) => answer,
            Err(ProbeError::Interrupted) => return ControlFlow::Break(()),
            Err(ProbeError::Road(RoadError::Aws(error))) => {
                return self.blame(Layer::Tunnel, since, aws, &error, None);
            }
            Err(ProbeError::Road(RoadError::Dial(error @ DialError::Denied { .. }))) => {
                let finding = Finding::of(&error);
                let finding = self.with_statement(finding, Some("ssmmessages:OpenDataChannel"), aws, None);
                return self.note(Layer::Permissions, since, finding);
            }
            Err(error) => return self.note(Layer::Tunnel, since, Finding::of(&error)),
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
        let finding = if ready < SLOW_HANDSHAKE {
            Finding::ok(fact)
        } else {
            Finding::warning(fact + ", which is slow")
                .hint("check the load of the instance and of its SSM agent")
        };
        self.note(Layer::Tunnel, since, finding)?;
        self.note(Layer::Sshd, since, greeting(subject, port, &answer))
    }

    /// Whether the caller may resume and terminate its own sessions: tries both on the session that has
    /// ended.
    async fn own_session(&mut self, aws: &Aws, answer: &Answer, since: Instant) -> ControlFlow<()> {
        let resumed = aws.resume_session(&answer.session, &answer.stream_url).await.map(|_| ());
        let terminated = aws.terminate_session(&answer.session).await.map(|_| ());
        let consequences = [
            (resumed, "a lost websocket cannot be replaced"),
            (terminated, "sessions are ended on the instance, but not at AWS"),
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

    /// Whether a host key is known. The login check compares it with the key that sshd presents.
    pub(super) async fn host_key(&mut self, aws: &Aws, subject: &Subject) -> ControlFlow<()> {
        let since = Instant::now();
        let instance = &subject.instance;
        let finding = match self.means.store.find(&Host::new(instance, self.request.port)) {
            Ok(known) => match known.first() {
                Some(entry) => {
                    Finding::ok(format!("{} known, from {}", count(known.len(), "key"), entry.source))
                }
                None if instance.is_managed_node() => {
                    Finding::ok("none known yet; it is asked for at the first connection")
                }
                None => match aws.console_output(instance, crate::aws::Latest::No).await {
                    Ok(_) => Finding::ok("none known yet; AWS is asked at the first connection"),
                    Err(error) => {
                        let fact = format!(
                            "none known yet, and the console output cannot be read: {}",
                            chain(&error)
                        );
                        self.with_statement(Finding::warning(fact), denied(&error), aws, None)
                    }
                },
            },
            Err(error) => Finding::of(&error),
        };
        self.note(Layer::HostKey, since, finding)
    }

    /// A failed call, at its layer or, if IAM denied it, at the permissions.
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
            AwsError::NoConnection { .. } | AwsError::Unreachable { .. } => Layer::Endpoints,
            _ => layer,
        };
        let finding = self.with_statement(Finding::of(error), denied(error), aws, user);
        self.note(layer, since, finding)
    }
}

/// sshd's greeting, or the error of what came instead.
fn greeting(subject: &Subject, port: Port, answer: &Answer) -> Finding {
    let target = subject.instance.clone().into();
    let output = String::from_utf8_lossy(&answer.output);
    let Some(line) = output.lines().find(|line| line.starts_with("SSH-")).or(output.lines().next()) else {
        return Finding::of(&RoadError::NothingAnswered {
            target,
            port,
            reason: String::new(),
            is_noted: false,
        });
    };
    let greeting = foreign_text(line, 60);
    if line.starts_with("SSH-") {
        Finding::ok(foreign_text(line, 100))
    } else if default_user::is_turned_away(line) {
        Finding::of(&RoadError::SshdBusy { target, port, greeting })
    } else {
        Finding::of(&RoadError::NotSsh { target, port, greeting })
    }
}

/// The session was started, but the SSM agent did not complete its handshake.
fn not_ready(subject: &Subject, answer: &Answer) -> Finding {
    let target = subject.instance.clone().into();
    let reason = match &answer.closed {
        Some(Closed::ByPeer { reason } | Closed::Refused { reason }) => reason.as_str(),
        _ => "",
    };
    if !reason.is_empty() {
        return Finding::of(&RoadError::ChannelRefused { target, reason: foreign_text(reason, 300) });
    }
    let fact = format!(
        "the session started after {} ms, its websocket opened after {} ms, and the SSM agent of {target} sent nothing \
         within {} seconds",
        answer.started.as_millis(),
        answer.opened.as_millis(),
        HANDSHAKE_TIMEOUT.as_secs()
    );
    Finding { hints: RoadError::HandshakeTimeout { target }.hints(), ..Finding::broken(fact) }
}

fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// An SSM agent completes the handshake within a second or two, and within [`SLOW_HANDSHAKE`] on a busy
/// instance. A connection waits for a minute; a report should not.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const SLOW_HANDSHAKE: Duration = Duration::from_secs(6);
