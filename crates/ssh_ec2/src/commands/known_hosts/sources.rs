//! Asks AWS for the host keys of an instance: EC2 for its console output, then the instance itself, in a
//! session.
//!
//! Only two results mean that there is no listed key: the instance shows none, and IAM denies the calls. An
//! error of the service, the page of an HTTP proxy or a time-out is no answer. After those a key that only
//! the server presents must not be accepted, or an attacker who can disturb a call could present any key.

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

/// What AWS lists of an instance's host keys.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::commands) enum Listing {
    /// The keys, and the source that lists them.
    Keys(Evidence, Source),
    /// AWS answered that it lists no key, or IAM denies the calls.
    Nothing,
    /// No connection to EC2 can be made, and the instance shows no key. The text is the error.
    OutOfReach(String),
    /// There is no answer.
    Unknown(Reason),
}

/// The error of a call that got no answer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::commands) struct Reason {
    /// The message with its causes.
    pub(in crate::commands) why: String,
    /// The hints.
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
    /// The client for calls that can be cancelled at any time.
    ec2: Aws,
    /// The client for sessions. A call that starts one must not be cancelled, since the session must be
    /// ended.
    session_manager: Aws,
    network: &'a Network,
    instance: &'a InstanceId,
    interrupt: &'a Interrupt,
    /// The answer so far. ssh asks twice within a second, and AWS should be asked once.
    listing: RefCell<Option<Listing>>,
}

impl<'a> Sources<'a> {
    /// The sources, with the credentials of `aws`. They must be loaded already: their time must not count for
    /// EC2's time limit.
    pub(in crate::commands) fn new(
        aws: &Aws,
        network: &'a Network,
        instance: &'a InstanceId,
        interrupt: &'a Interrupt,
    ) -> Self {
        let session_manager = aws.again().with_patience(PATIENCE);
        let ec2 = session_manager.again().with_limit(CONSOLE_TIMEOUT);
        Self { ec2, session_manager, network, instance, interrupt, listing: RefCell::default() }
    }

    /// The keys from the first source that lists any.
    ///
    /// Not cancel-safe: a session may be open. [`Interrupt`] cancels it.
    ///
    /// # Errors
    ///
    /// [`Failure::Interrupted`].
    pub(in crate::commands) async fn ask(&self) -> Result<Listing, Failure> {
        if let Some(listing) = self.listing.borrow().clone() {
            return Ok(listing);
        }
        let listing = match self.console().await {
            keys @ Listing::Keys(..) => keys,
            listing => listing.and(self.files().await?),
        };
        // The cause may be temporary, so the next request asks AWS again.
        if !matches!(listing, Listing::Unknown(_)) {
            self.listing.replace(Some(listing.clone()));
        }
        Ok(listing)
    }

    /// Which source lists this key.
    ///
    /// Not cancel-safe, as [`ask`](Self::ask).
    pub(in crate::commands) async fn source_of(&self, key: &HostKey) -> Option<Source> {
        if lists(&self.console().await, key) {
            return Some(Source::Console);
        }
        lists(&self.files().await.ok()?, key).then_some(Source::Session)
    }

    /// The keys that cloud-init printed to the console at the first start.
    async fn console(&self) -> Listing {
        if self.instance.is_managed_node() {
            return Listing::Nothing;
        }
        let mut is_unclear = false;
        for latest in [Latest::No, Latest::Yes] {
            let text = match self.ec2.console_output(self.instance, latest).await {
                Ok(text) => text,
                Err(error) => {
                    tracing::info!("EC2's console output has no host keys: {error}");
                    match of_console_error(error, latest) {
                        Listing::Nothing if is_unclear => break,
                        listing => return listing,
                    }
                }
            };
            let evidence = Evidence::of_console(&text);
            if !evidence.is_empty() {
                return Listing::Keys(evidence, Source::Console);
            }
            is_unclear |= Evidence::is_unclear(&text);
        }
        if is_unclear {
            let instance = self.instance;
            return Listing::Unknown(Reason::new(format!(
                "the console output of {instance} lists different host keys in different places, or only a part of them"
            )));
        }
        Listing::Nothing
    }

    /// The keys in sshd's files, if the caller may start sessions that run a command.
    async fn files(&self) -> Result<Listing, Failure> {
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

impl Listing {
    /// Combines the answers of two sources: keys first, then the answer that forbids to accept an unlisted
    /// key.
    fn and(self, second: Self) -> Self {
        match (self, second) {
            (_, keys @ Self::Keys(..)) | (keys @ Self::Keys(..), _) => keys,
            (unknown @ Self::Unknown(_), _) | (_, unknown @ Self::Unknown(_)) => unknown,
            (out @ Self::OutOfReach(_), _) | (_, out @ Self::OutOfReach(_)) => out,
            (Self::Nothing, Self::Nothing) => Self::Nothing,
        }
    }
}

/// The listing after an error of EC2.
fn of_console_error(error: AwsError, latest: Latest) -> Listing {
    match error {
        AwsError::AccessDenied { .. } => Listing::Nothing,
        // Instances that are not on the Nitro system do not support the latest console output.
        AwsError::Unsupported { .. } if latest == Latest::Yes => Listing::Nothing,
        error @ AwsError::NoConnection { .. } => Listing::OutOfReach(chain(&error)),
        error => Listing::Unknown(error.into()),
    }
}

/// The listing after an error of Session Manager: IAM denies it, or the session document does not exist.
fn of_files_error(error: ProbeError) -> Listing {
    match error {
        ProbeError::Road(RoadError::Aws(
            AwsError::AccessDenied { .. } | AwsError::InvalidDocument { .. },
        )) => Listing::Nothing,
        error => Listing::Unknown(error.into()),
    }
}

/// The listing in the script's output, if the script ran to its end.
fn of_files(answer: &Answer, instance: &InstanceId) -> Listing {
    let text = String::from_utf8_lossy(&answer.output);
    let evidence = Evidence::of_files(&text);
    match &answer.closed {
        _ if !evidence.is_empty() => Listing::Keys(evidence, Source::Session),
        _ if text.lines().any(|line| line.trim_end() == ALL_READ) => Listing::Nothing,
        Some(Closed::ByPeer { .. }) => Listing::Unknown(Reason::new(format!(
            "the session that reads the host keys of {instance} ended before it had read them"
        ))),
        _ => Listing::Unknown(Reason::new(format!(
            "{instance} did not answer a session of Session Manager within {} seconds",
            READ_TIMEOUT.as_secs()
        ))),
    }
}

fn lists(listing: &Listing, key: &HostKey) -> bool {
    matches!(listing, Listing::Keys(evidence, _) if evidence.lists(key))
}

/// How long throttled calls are repeated while the user waits.
const PATIENCE: Duration = Duration::from_secs(4);
/// The time limit of GetConsoleOutput with all retries.
const CONSOLE_TIMEOUT: Duration = Duration::from_secs(6);
/// A session closes alike when its command ended, was killed, when the SSM agent was restarted, or when the
/// session was terminated at AWS. The last line shows that all was read. `cat` exits with 1 if there are no
/// such files.
const READ_KEYS: &str = "cat /etc/ssh/ssh_host_*_key.pub; [ $? -le 1 ] && echo ssh_ec2: all read";
/// The script's last line.
const ALL_READ: &str = "ssh_ec2: all read";
/// The reason that Session Manager records for the session.
const REASON: &str = "ssh_ec2 reads the public host keys";
/// Includes the second for which the SSM agent waits for acknowledgements at the end.
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
