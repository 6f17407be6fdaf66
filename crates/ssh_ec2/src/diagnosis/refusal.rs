//! Why a key that was pushed is refused: facts that a command on the instance tells, and what they lead to.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::Diagnosis;
use crate::probe::{self, Prober, Question};
use crate::target::{InstanceId, OsUser};

/// What a look at an instance that refused a key has shown.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Refusal {
    /// The cause, if it was seen.
    pub cause: Option<Diagnosis>,
    /// Whether SELinux is enforcing, which is no cause by itself: some systems come so, and let sshd run what it needs.
    pub is_enforcing: bool,
}

/// What to do where it is, and nothing else was seen.
pub const SELINUX_HINT: &str = "SELinux is enforcing there, and may keep sshd from asking for keys: look for denials with `ausearch -m avc -c sshd` through a session shell";

/// Why an instance does not take a key that was pushed, from facts that a command on it tells, if the caller may run
/// one. No cause if they are well, or not known.
pub async fn of_refusal(prober: Prober<'_>, user: &OsUser, limit: Duration) -> Refusal {
    let script = script(user);
    let (question, instance) = (Question::Script(&script), prober.instance);
    match probe::ask(Prober { reason: REASON, ..prober }, question, limit).await {
        Ok(answer) => {
            let facts = Facts::parse(&String::from_utf8_lossy(&answer.output)).unwrap_or_default();
            // After the answer, so that what it took does not count for the clock. AWS dates the keys.
            let cause = facts.cause(instance, user, prober.aws.now());
            Refusal { cause, is_enforcing: facts.is_enforcing }
        }
        Err(error) => {
            tracing::info!("the instance cannot be asked why: {error}");
            Refusal::default()
        }
    }
}

/// What the script prints. Nothing in it changes anything, and it needs no privileges.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Facts {
    user: Option<bool>,
    package: Option<bool>,
    keys_command: Option<bool>,
    clock: Option<u64>,
    is_enforcing: bool,
}

/// A user has no character that ends single quotes.
fn script(user: &OsUser) -> String {
    format!(
        "for f in {CONTAINER_FILES}; do test -e $f && echo container=yes; done; \
         test -n \"$container\" && echo container=yes; \
         grep -qs '^ID=\"*bottlerocket' /etc/os-release && echo container=yes; \
         test -e /etc/ssh/sshd_config || test -e /usr/etc/ssh/sshd_config || \
         command -v sshd >/dev/null 2>&1 || echo container=yes; \
         id -u '{user}' >/dev/null 2>&1 && echo user=yes || echo user=no; \
         for f in {PACKAGE_FILES}; do test -e $f && echo package=yes; done; echo package=no; \
         for f in {CONFIGURATION}; do test -e \"$f\" || continue; \
         if test -d \"$f\"; then test -r \"$f\" && test -x \"$f\" || echo keys=hidden; \
         elif test -r \"$f\"; then \
         grep -v '^[[:space:]]*#' \"$f\" | grep -q eic_run_authorized_keys && echo keys=yes; \
         else echo keys=hidden; fi; done; \
         test -e /etc/ssh/sshd_config && echo keys=no; \
         command -v getenforce >/dev/null 2>&1 && echo selinux=$(getenforce); \
         echo clock=$(date +%s); echo end=yes"
    )
}

impl Facts {
    /// None if the script was cut short.
    fn parse(text: &str) -> Option<Self> {
        let values = |name: &'static str| {
            text.lines().filter_map(move |line| line.trim().strip_prefix(name)?.strip_prefix('='))
        };
        let value = |name| values(name).next();
        value("end")?;
        let clock = value("clock").and_then(|seconds| seconds.parse().ok());
        if value("container").is_some() {
            // sshd's users and files are somewhere else; the clock is the same.
            return Some(Self { clock, ..Self::default() });
        }
        let is_yes = |name| value(name).map(|value| value == "yes");
        let says = |answer| values("keys").any(|value| value == answer);
        let keys_command = match () {
            () if says("yes") => Some(true),
            // It may stand in the file that cannot be read.
            () if says("hidden") => None,
            () => says("no").then_some(false),
        };
        Some(Self {
            user: is_yes("user"),
            package: is_yes("package"),
            keys_command,
            clock,
            is_enforcing: value("selinux") == Some("Enforcing"),
        })
    }

    /// The surest first.
    fn cause(&self, instance: &InstanceId, user: &OsUser, now: SystemTime) -> Option<Diagnosis> {
        let instance = instance.clone();
        if self.user == Some(false) {
            return Some(Diagnosis::User { instance, user: user.clone() });
        }
        if self.package == Some(false) {
            return Some(Diagnosis::NotInstalled { instance });
        }
        if self.keys_command == Some(false) {
            return Some(Diagnosis::KeysCommand { instance });
        }
        let theirs = self.clock.map(|clock| UNIX_EPOCH + Duration::from_secs(clock));
        // One that is behind takes keys for longer, and that is all.
        let off = theirs?.duration_since(now).ok().filter(|off| *off > TOLERATED_CLOCK)?;
        Some(Diagnosis::Clock { instance, off })
    }
}

/// Where Session Manager leads into a container, in which sshd is not: those of Docker and Podman, and what
/// Bottlerocket's own containers have.
const CONTAINER_FILES: &str = "/.dockerenv /run/.containerenv /.bottlerocket";
/// Amazon Linux and the others have the package's program in different places.
const PACKAGE_FILES: &str =
    "/opt/aws/bin/eic_run_authorized_keys /usr/share/ec2-instance-connect/eic_run_authorized_keys";
/// sshd's own files, where Ubuntu's and Debian's package puts it instead, and where an administrator may; with the
/// directories, whose files could be hidden.
const CONFIGURATION: &str = "/etc/ssh/sshd_config /etc/ssh/sshd_config.d /etc/ssh/sshd_config.d/* \
                             /usr/lib/systemd/system/ssh*.service.d/* /lib/systemd/system/ssh*.service.d/* \
                             /etc/systemd/system/ssh*.service.d /etc/systemd/system/ssh*.service.d/*";
/// For Session Manager's records.
const REASON: &str = "ssh_ec2 looks for why a key was refused";
/// A pushed key is good for a minute.
const TOLERATED_CLOCK: Duration = Duration::from_secs(45);

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::process::Command;

    use super::*;

    const GOOD: &str =
        "user=yes\npackage=yes\npackage=no\nkeys=yes\nkeys=no\nselinux=Permissive\nclock=1000\nend=yes\n";

    fn cause(text: &str) -> Option<String> {
        let (instance, user) = ("i-0a1b2c3d".parse().unwrap(), "sam".parse().unwrap());
        let now = UNIX_EPOCH + Duration::from_secs(1000);
        Facts::parse(text)?.cause(&instance, &user, now).map(|cause| cause.to_string())
    }

    #[test]
    fn facts_lead_to_one_cause() {
        assert_eq!(cause(GOOD), None);
        for (good, bad, said) in [
            ("user=yes", "user=no", "there is no user `sam` on i-0a1b2c3d"),
            (
                "package=yes\n",
                "",
                "i-0a1b2c3d does not have EC2 Instance Connect: nothing there reads pushed keys",
            ),
            ("keys=yes\n", "", "i-0a1b2c3d has EC2 Instance Connect, but its sshd does not ask it for keys"),
            (
                "clock=1000",
                "clock=1600",
                "the clock of i-0a1b2c3d is 10 minutes ahead: it takes pushed keys for expired",
            ),
        ] {
            assert_eq!(cause(&GOOD.replacen(good, bad, 1)).as_deref(), Some(said));
        }
    }

    #[test]
    fn what_is_not_seen_is_no_cause() {
        assert_eq!(
            cause(&GOOD.replace("keys=yes\nkeys=no\n", "")),
            None,
            "the configuration could not be read"
        );
        assert_eq!(cause(&GOOD.replace("end=yes", "")), None, "it was cut short");
        assert_eq!(cause("sh: not found\nend=yes\n"), None);
        assert_eq!(cause(&GOOD.replace("clock=1000", "clock=nonsense")), None);
        assert_eq!(cause(&GOOD.replace("clock=1000", "clock=10")), None, "keys last longer there");
        assert_eq!(cause(&GOOD.replace("Permissive", "Enforcing")), None, "some come so, and work");
        assert!(Facts::parse(&GOOD.replace("Permissive", "Enforcing")).unwrap().is_enforcing);
    }

    /// Runs the script where the files of an instance are below `root`. What `hidden` names cannot be read there, whoever
    /// asks.
    fn facts(root: &Path, hidden: &str) -> Facts {
        let script = script(&"root".parse().unwrap());
        let own = ["/etc/", "/.dockerenv", "/run/.containerenv", "/.bottlerocket", "/opt/aws", "/usr/"];
        let script = own.iter().fold(script, |script, path| {
            script.replace(&format!(" {path}"), &format!(" {}{path}", root.display()))
        });
        let test = format!(
            "test() {{ case \"$1 $2\" in '-r '*/{hidden}) return 1;; esac; command test \"$@\"; }}; {script}"
        );
        let output = Command::new("sh").args(["-c", &test]).env_remove("container").output().unwrap();
        Facts::parse(&String::from_utf8_lossy(&output.stdout)).unwrap()
    }

    #[test]
    fn what_sshd_does_is_known_when_all_its_files_can_be_read() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        let drop_in = "etc/systemd/system/ssh.service.d";
        for directory in ["etc/ssh/sshd_config.d", drop_in] {
            fs::create_dir_all(path(directory)).unwrap();
        }
        let command = "AuthorizedKeysCommand /opt/aws/bin/eic_run_authorized_keys %u %f\n";
        fs::write(path("etc/ssh/sshd_config"), format!("\t# {command}")).unwrap();
        fs::write(path("etc/ssh/sshd_config.d/50-x y.conf"), "# nothing\n").unwrap();
        let keys_command = |hidden: &str| facts(root.path(), hidden).keys_command;
        assert_eq!(keys_command("none"), Some(false));
        for hidden in ["sshd_config", "sshd_config.d", "'50-x y.conf'", "ssh.service.d"] {
            assert_eq!(keys_command(hidden), None, "{hidden}");
        }
        fs::write(path(&format!("{drop_in}/eic.conf")), command).unwrap();
        assert_eq!((keys_command("none"), keys_command("sshd_config")), (Some(true), Some(true)));
        assert_eq!(facts(root.path(), "none").user, Some(true));
    }

    #[test]
    fn a_container_does_not_tell_of_the_users_of_sshd() {
        for file in [".bottlerocket", ".dockerenv", "etc/os-release"] {
            let root = tempfile::tempdir().unwrap();
            fs::create_dir_all(root.path().join("etc/ssh")).unwrap();
            fs::write(root.path().join("etc/ssh/sshd_config"), "").unwrap();
            assert_eq!(facts(root.path(), "none").package, Some(false));
            fs::write(root.path().join(file), "NAME=Bottlerocket\nID=bottlerocket\n").unwrap();
            let facts = facts(root.path(), "none");
            assert!(facts.user.is_none() && facts.package.is_none() && facts.clock.is_some(), "{file}");
        }
    }
}
