//! Asks AWS which host keys an instance has: EC2 for its console output, then the instance itself, through a
//! session.
//!
//! Only some outcomes are an answer: that an instance shows no host keys, and that this caller may not ask.
//! An error of the service, the page of an HTTP proxy, a time-out and the like are none. A key that only the
//! server itself presents must not be accepted after those, or an attacker who can disturb a call could
//! present any key.

use std::cell::RefCell;
use std::time::Duration;

use crate::aws::{Aws, AwsError, Latest};
use crate::error::Failure;
use crate::net::network::Network;
use crate::road::error::RoadError;
use crate::road::probe::{self, Answer, Interrupt, ProbeError, Prober, Question};
use crate::road::tunnel::Closed;
use crate::ssh::host_key::{Evidence, HostKey, Source};
use crate::system::explain::Explain as _;
use crate::system::text::chain;
use crate::target::InstanceId;

/// What is known of an instance's host keys.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::commands) enum Told {
    /// These are its keys.
    Keys(Evidence, Source),
    /// AWS answered, and lists no key.
    Nothing,
    /// No connection to EC2 can be made, and the instance shows no key.
    OutOfReach(String),
    /// There is no answer.
    Unknown(Reason),
}

/// Why there is no answer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::commands) struct Reason {
    /// The fact.
    pub(in crate::commands) why: String,
    /// What to do about it, an action a line.
    pub(in crate::commands) hints: Vec<String>,
}

impl Reason {
    pub(in crate::commands) fn new(why: impl Into<String>) -> Self {
        Self { why: why.into(), hints: Vec::new() }
    }
}

impl From<AwsError> for Reason {
    fn from(error: AwsError) -> Self {
        let hints = error.hints();
        Self { why: chain(&error), hints }
    }
}

impl From<ProbeError> for Reason {
    fn from(error: ProbeError) -> Self {
        match error {
            ProbeError::Road(RoadError::Aws(error)) => error.into(),
            error => Self { hints: error.hints(), why: chain(&error) },
        }
    }
}

/// The sources for one instance.
pub(in crate::commands) struct Sources<'a> {
    /// For calls that can be cancelled at any time.
    ec2: Aws,
    /// For sessions: one that AWS has begun to start has to be waited for, and ended.
    session_manager: Aws,
    network: &'a Network,
    instance: &'a InstanceId,
    interrupt: &'a Interrupt,
    /// What was found out before. ssh asks twice within a second, and AWS need not be asked twice.
    told: RefCell<Option<Told>>,
}

impl<'a> Sources<'a> {
    /// The sources, with the credentials of `aws`, which have to be there already: they may take any time,
    /// and EC2 would be blamed for it.
    pub(in crate::commands) fn new(
        aws: &Aws,
        network: &'a Network,
        instance: &'a InstanceId,
        interrupt: &'a Interrupt,
    ) -> Self {
        let session_manager = aws.again().with_patience(PATIENCE);
        let ec2 = session_manager.again().with_limit(CONSOLE_TIMEOUT);
        Self { ec2, session_manager, network, instance, interrupt, told: RefCell::default() }
    }

    /// The keys from the first source that lists any, or why there are none.
    ///
    /// Not to be dropped half-way: a session may be open. [`Interrupt`] ends it.
    ///
    /// # Errors
    /// [`Failure::Interrupted`].
    pub(in crate::commands) async fn ask(&self) -> Result<Told, Failure> {
        if let Some(told) = self.told.borrow().clone() {
            return Ok(told);
        }
        let told = match self.console().await {
            told @ Told::Keys(..) => told,
            told => told.and(self.files().await?),
        };
        // Its cause may pass, so the next question asks AWS again.
        if !matches!(told, Told::Unknown(_)) {
            self.told.replace(Some(told.clone()));
        }
        Ok(told)
    }

    /// Which source lists this key.
    ///
    /// Not to be dropped half-way, as [`ask`](Self::ask).
    pub(in crate::commands) async fn who_tells(&self, key: &HostKey) -> Option<Source> {
        if tells(&self.console().await, key) {
            return Some(Source::Console);
        }
        tells(&self.files().await.ok()?, key).then_some(Source::Session)
    }

    /// What cloud-init printed when the instance started for the first time.
    async fn console(&self) -> Told {
        if self.instance.is_managed_node() {
            return Told::Nothing;
        }
        let mut is_unclear = false;
        for latest in [Latest::No, Latest::Yes] {
            let text = match self.ec2.console_output(self.instance, latest).await {
                Ok(text) => text,
                Err(error) => {
                    tracing::info!("EC2's console output has no host keys: {error}");
                    match of_console_error(error, latest) {
                        Told::Nothing if is_unclear => break,
                        told => return told,
                    }
                }
            };
            let evidence = Evidence::of_console(&text);
            if !evidence.is_empty() {
                return Told::Keys(evidence, Source::Console);
            }
            is_unclear |= Evidence::is_unclear(&text);
        }
        if is_unclear {
            let instance = self.instance;
            return Told::Unknown(Reason::new(format!(
                "the console output of {instance} lists different host keys in different places, or only a part of them"
            )));
        }
        Told::Nothing
    }

    /// What sshd's files say, if the caller may start sessions that run a command.
    async fn files(&self) -> Result<Told, Failure> {
        let Self { session_manager: aws, network, instance, interrupt, .. } = self;
        let prober = Prober { aws, network, instance, reason: REASON, interrupt };
        match probe::ask(prober, Question::Script(READ_KEYS), READ_TIMEOUT).await {
            Ok(answer) => Ok(of_files(&answer, instance)),
            Err(ProbeError::Interrupted) => Err(Failure::Interrupted),
            Err(error) => {
                tracing::info!("the host keys cannot be read through Session Manager: {error}");
                Ok(of_files_error(error))
            }
        }
    }
}

impl Told {
    /// Combines the answers of two sources: keys first, then whatever keeps a key from being accepted.
    fn and(self, second: Self) -> Self {
        match (self, second) {
            (_, keys @ Self::Keys(..)) | (keys @ Self::Keys(..), _) => keys,
            (unknown @ Self::Unknown(_), _) | (_, unknown @ Self::Unknown(_)) => unknown,
            (out @ Self::OutOfReach(_), _) | (_, out @ Self::OutOfReach(_)) => out,
            (Self::Nothing, Self::Nothing) => Self::Nothing,
        }
    }
}

/// Which refusals of EC2 are an answer.
fn of_console_error(error: AwsError, latest: Latest) -> Told {
    match error {
        AwsError::AccessDenied { .. } => Told::Nothing,
        // Instances that are not on the Nitro system have no console that could be read now.
        AwsError::Unsupported { .. } if latest == Latest::Yes => Told::Nothing,
        error @ AwsError::NoConnection { .. } => Told::OutOfReach(chain(&error)),
        error => Told::Unknown(error.into()),
    }
}

/// Which refusals of Session Manager are an answer: this caller may not, or there is no such document.
fn of_files_error(error: ProbeError) -> Told {
    match error {
        ProbeError::Road(RoadError::Aws(
            AwsError::AccessDenied { .. } | AwsError::InvalidDocument { .. },
        )) => Told::Nothing,
        error => Told::Unknown(error.into()),
    }
}

/// Whether the script ran to its end, with or without keys in what it printed.
fn of_files(answer: &Answer, instance: &InstanceId) -> Told {
    let text = String::from_utf8_lossy(&answer.output);
    let evidence = Evidence::of_files(&text);
    match &answer.closed {
        _ if !evidence.is_empty() => Told::Keys(evidence, Source::Session),
        _ if text.lines().any(|line| line.trim_end() == ALL_READ) => Told::Nothing,
        Some(Closed::ByPeer { .. }) => Told::Unknown(Reason::new(format!(
            "the session that reads the host keys of {instance} ended before it had read them"
        ))),
        _ => Told::Unknown(Reason::new(format!(
            "{instance} did not answer a session of Session Manager within {} seconds",
            READ_TIMEOUT.as_secs()
        ))),
    }
}

fn tells(told: &Told, key: &HostKey) -> bool {
    matches!(told, Told::Keys(evidence, _) if evidence.lists(key))
}

/// For calls that AWS throttles: ssh's user waits.
const PATIENCE: Duration = Duration::from_secs(4);
/// For one call of GetConsoleOutput with all its attempts.
const CONSOLE_TIMEOUT: Duration = Duration::from_secs(6);
/// A session whose command was killed, whose SSM agent was restarted, or which somebody ended at AWS, closes
/// like one whose command is done. The last line shows that all was read. `cat` ends with 1 where there are
/// no such files.
const READ_KEYS: &str = "cat /etc/ssh/ssh_host_*_key.pub; [ $? -le 1 ] && echo ssh_ec2: all read";
/// What that prints last.
const ALL_READ: &str = "ssh_ec2: all read";
/// For Session Manager's records.
const REASON: &str = "ssh_ec2 reads the public host keys";
/// The SSM agent waits a second for acknowledgements at the end.
const READ_TIMEOUT: Duration = Duration::from_secs(8);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_says_that_all_was_read_only_if_it_was() {
        for (cat, is_read) in
            [("true", true), ("false", true), ("(exit 127)", false), ("sh -c 'kill -9 $$'", false)]
        {
            let script = format!("cat() {{ {cat}; }}; {READ_KEYS}");
            let ended = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
            let said = String::from_utf8(ended.stdout).unwrap();
            assert_eq!(said.lines().any(|line| line == ALL_READ), is_read, "{cat}: {said}");
        }
    }
}
