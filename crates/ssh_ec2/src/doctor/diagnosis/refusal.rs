//! Why a key that was pushed is refused: facts that a command on the instance tells, and what they lead to.

mod facts;

use std::time::Duration;

use thiserror::Error;

use self::facts::Facts;
use super::Diagnosis;
use crate::instances::default_user::COMMON_USERS;
use crate::road::probe::{self, Prober, Question};
use crate::system::explain::{Anchor, Explain};
use crate::target::{InstanceId, OsUser};

/// What a look at an instance that refused a key has shown.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Refusal {
    /// The cause, if it was seen.
    pub cause: Option<Diagnosis>,
    /// What is not the cause.
    pub cleared: Cleared,
    /// Whether SELinux is enforcing, which is no cause by itself: some systems come so, and let sshd run what
    /// it needs.
    pub is_enforcing: bool,
}

/// Usual causes that were checked and are not the cause.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Cleared {
    /// The user exists there.
    pub user: bool,
    /// The program that reads pushed keys is there, and the clock is right.
    pub package: bool,
}

/// A key that was pushed and is refused, without a cause that was seen.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("{instance} refused {} for the user `{user}`", if *.is_own { "the key of `--key-file`" } else { "the one-time key" })]
pub struct RefusedKey {
    /// The target.
    pub instance: InstanceId,
    /// For whom the key was pushed.
    pub user: OsUser,
    /// Whether it is a key of the user's own.
    pub is_own: bool,
    /// The key's algorithm.
    pub algorithm: String,
    /// The usual user of the system that sshd's version names.
    pub system_user: Option<&'static str>,
    /// What is not the cause.
    pub cleared: Cleared,
    /// Whether SELinux is enforcing there.
    pub is_enforcing: bool,
}

impl Explain for RefusedKey {
    fn hints(&self) -> Vec<String> {
        self.hints_with("try `--key-type rsa`")
    }

    fn anchor(&self) -> Option<Anchor> {
        Some(Anchor::KeyRefused)
    }
}

impl RefusedKey {
    /// What to look at, the likeliest first, with a way to ask for an RSA key.
    pub fn hints_with(&self, rsa_key: &str) -> Vec<String> {
        let user = self.user.as_str();
        let mut hints = Vec::new();
        // SELinux is checked last, so package, user and clock are in order.
        if self.is_enforcing {
            hints.push(SELINUX_HINT.to_owned());
        }
        let are_files_in_order = self.is_enforcing || self.cleared.package;
        if !self.cleared.user && !self.is_enforcing {
            let images = match self.system_user.filter(|usual| *usual != user) {
                Some(usual) => format!("its sshd greets like a system whose images have `{usual}`"),
                None => format!("images have {}", other_users(user)),
            };
            hints.push(format!("check that the user `{user}` exists there; {images}"));
        }
        if !are_files_in_order {
            hints.push("check that the package ec2-instance-connect is installed on the instance, and that its clock is right".into());
        }
        if self.algorithm == ED25519 {
            hints.push(format!("an sshd in FIPS mode, or with PubkeyAcceptedAlgorithms of its own, may take no Ed25519 keys: {rsa_key}"));
        }
        if are_files_in_order {
            hints.push(
                "sshd's log has the reason: `journalctl -u ssh -u sshd` through a session shell".into(),
            );
        }
        hints
    }
}

/// The users of images but one.
pub(super) fn other_users(user: &str) -> String {
    COMMON_USERS.into_iter().filter(|usual| *usual != user).collect::<Vec<_>>().join(", ")
}

/// Why an instance does not take a key of this algorithm that was pushed, from the output of a command on it,
/// if the caller may run one. No cause if all is in order, or nothing is known.
pub async fn of_refusal(prober: Prober<'_>, user: &OsUser, algorithm: &str, limit: Duration) -> Refusal {
    let script = facts::script(user);
    let (question, instance) = (Question::Script(&script), prober.instance);
    match probe::ask(Prober { reason: REASON, ..prober }, question, limit).await {
        Ok(answer) => {
            let facts = Facts::parse(&String::from_utf8_lossy(&answer.output)).unwrap_or_default();
            // After the answer, so that what it took does not count for the clock. AWS dates the keys.
            let cause = facts.cause(instance, user, algorithm, prober.aws.now());
            Refusal { cause, cleared: facts.cleared(), is_enforcing: facts.is_enforcing }
        }
        Err(error) => {
            tracing::info!("the instance cannot be asked why: {error}");
            Refusal::default()
        }
    }
}

const ED25519: &str = "ssh-ed25519";
/// For Session Manager's records.
const REASON: &str = "ssh_ec2 looks for why a key was refused";
/// Where SELinux is enforcing, and no other cause was seen.
const SELINUX_HINT: &str = "SELinux is enforcing there, and may keep sshd from asking for keys: look for denials with `ausearch -m avc -c sshd` through a session shell";
