//! Why sshd refused a pushed key, from facts that a command on the instance collects.

mod facts;

use std::time::Duration;

use thiserror::Error;

use self::facts::Facts;
use super::Diagnosis;
use crate::instances::default_user::COMMON_USERS;
use crate::road::probe::{self, Prober, Question};
use crate::system::explain::{Anchor, Explain};
use crate::target::{InstanceId, OsUser};

/// The result of looking for the cause on an instance that refused a key.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Refusal {
    /// The cause, if it was found.
    pub cause: Option<Diagnosis>,
    /// The causes that are excluded.
    pub cleared: Cleared,
    /// Whether SELinux is enforcing. That alone is no cause: some systems ship like this and allow sshd to
    /// run the program that reads pushed keys.
    pub is_enforcing: bool,
}

/// Common causes that are excluded.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Cleared {
    /// The user exists on the instance.
    pub user: bool,
    /// The program that reads pushed keys is installed and configured, and the clock is right.
    pub package: bool,
}

/// sshd refused a pushed key, and the cause is not known.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("{instance} refused {} for the user `{user}`", if *.is_own { "the key of `--key-file`" } else { "the one-time key" })]
pub(crate) struct RefusedKey {
    /// The instance that refused it.
    pub instance: InstanceId,
    /// The user for whom the key was pushed.
    pub user: OsUser,
    /// Whether the key is the user's own, from `--key-file`.
    pub is_own: bool,
    /// The key's algorithm.
    pub algorithm: String,
    /// The default user of the system that sshd's greeting names.
    pub system_user: Option<&'static str>,
    /// The causes that are excluded.
    pub cleared: Cleared,
    /// Whether SELinux is enforcing on the instance.
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
    /// The hints, the likeliest cause first. `rsa_key` says how to use an RSA key.
    pub(crate) fn hints_with(&self, rsa_key: &str) -> Vec<String> {
        let user = self.user.as_str();
        let mut hints = Vec::new();
        // SELinux is checked last, so package, user and clock are in order.
        if self.is_enforcing {
            hints.push(SELINUX_HINT.to_owned());
        }
        let are_files_in_order = self.is_enforcing || self.cleared.package;
        if !self.cleared.user && !self.is_enforcing {
            let images = match self.system_user.filter(|usual| *usual != user) {
                Some(usual) => {
                    format!("its sshd looks like that of a system with the default user `{usual}`")
                }
                None => format!("images have {}", other_users(user)),
            };
            hints.push(format!("check that the user `{user}` exists there; {images}"));
        }
        if !are_files_in_order {
            hints.push("check that the package ec2-instance-connect is installed on the instance, and that its clock is right".into());
        }
        if self.algorithm == ED25519 {
            hints.push(format!("an sshd in FIPS mode, or with PubkeyAcceptedAlgorithms of its own, may accept no Ed25519 keys: {rsa_key}"));
        }
        if are_files_in_order {
            hints.push(
                "sshd's log has the reason: `journalctl -u ssh -u sshd` in a Session Manager shell".into(),
            );
        }
        hints
    }
}

/// The default users of images, without this one.
pub(super) fn other_users(user: &str) -> String {
    COMMON_USERS.into_iter().filter(|usual| *usual != user).collect::<Vec<_>>().join(", ")
}

/// Looks for the cause with a command on the instance, if the caller may run one. No cause is reported if
/// nothing is wrong or the command cannot be run.
pub(crate) async fn of_refusal(
    prober: Prober<'_>,
    user: &OsUser,
    algorithm: &str,
    limit: Duration,
) -> Refusal {
    let script = facts::script(user);
    let (question, instance) = (Question::Script(&script), prober.instance);
    match probe::ask(Prober { reason: REASON, ..prober }, question, limit).await {
        Ok(answer) => {
            let facts = Facts::parse(&String::from_utf8_lossy(&answer.output)).unwrap_or_default();
            // The time is read after the answer arrived, as a slow answer must not count as a wrong clock.
            // AWS's clock dates the keys.
            let cause = facts.cause(instance, user, algorithm, prober.aws.now());
            Refusal { cause, cleared: facts.cleared(), is_enforcing: facts.is_enforcing }
        }
        Err(error) => {
            tracing::info!("cannot look for the cause on the instance: {error}");
            Refusal::default()
        }
    }
}

const ED25519: &str = "ssh-ed25519";
/// The reason that Session Manager records for the session.
const REASON: &str = "ssh_ec2 looks for the reason of a refused key";
/// The hint if SELinux is enforcing and no other cause was found.
const SELINUX_HINT: &str = "SELinux is enforcing there, and may keep sshd from asking for keys: look for denials with `ausearch -m avc -c sshd` in a Session Manager shell";
