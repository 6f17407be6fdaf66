//! What a command on the instance reports about a refused key, and the cause that it leads to.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{Cleared, ED25519};
use crate::doctor::diagnosis::Diagnosis;
use crate::doctor::diagnosis::sshd_files::{ACCEPTED_ALGORITHMS, Setting, SshdFiles, matches};
use crate::system::text::foreign_text;
use crate::target::{InstanceId, OsUser};

/// The facts that the script prints. The script changes nothing and needs no privileges.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Facts {
    user: Option<bool>,
    package: Option<bool>,
    keys_command: Option<bool>,
    /// Whether the package's user, as which sshd runs its program, is missing.
    lacks_keys_user: bool,
    clock: Option<u64>,
    pub(super) is_enforcing: bool,
    is_fips: bool,
    /// The user's groups.
    groups: Vec<String>,
    /// The user's login shell, if it does not exist.
    missing_shell: Option<String>,
    /// A nologin file.
    nologin: Option<String>,
    files: SshdFiles,
}

/// The script. A user name has no character that could end the single quotes.
pub(super) fn script(user: &OsUser) -> String {
    format!(
        "for f in {CONTAINER_FILES}; do test -e $f && echo container=yes; done; \
         test -n \"$container\" && echo container=yes; \
         grep -qs '^ID=\"*bottlerocket' /etc/os-release && echo container=yes; \
         test -e /etc/ssh/sshd_config || test -e /usr/etc/ssh/sshd_config || \
         command -v sshd >/dev/null 2>&1 || echo container=yes; \
         id -u '{user}' >/dev/null 2>&1 && echo user=yes || echo user=no; \
         echo groups=$(id -Gn '{user}' 2>/dev/null); \
         s=$(getent passwd '{user}' 2>/dev/null | cut -d: -f7); \
         test -z \"$s\" || test -e \"$s\" || echo \"shell=$s\"; \
         id -u {KEYS_USER} >/dev/null 2>&1 || echo keys-user=no; \
         for f in {NOLOGIN_FILES}; do test -e $f && echo nologin=$f; done; \
         for f in {PACKAGE_FILES}; do test -e $f && echo package=yes; done; echo package=no; \
         for f in {CONFIGURATION}; do test -e \"$f\" || continue; \
         if test -d \"$f\"; then test -r \"$f\" && test -x \"$f\" || echo keys=hidden; \
         elif test -r \"$f\"; then \
         grep -v '^[[:space:]]*#' \"$f\" | grep -q eic_run_authorized_keys && echo keys=yes; \
         else echo keys=hidden; fi; done; \
         test -e /etc/ssh/sshd_config && echo keys=no; \
         show() {{ if test -r \"$2\"; then echo \"file=$1\"; grep -Ei \"$3\" \"$2\" | sed 's/^/line=/'; \
         else echo \"hidden=$1\"; fi; }}; \
         for f in /etc/ssh/sshd_config; do test -e $f && show main $f '{OPTIONS}'; done; \
         for d in /etc/ssh/sshd_config.d; do test -d $d || continue; \
         test -r $d && test -x $d || echo hidden=d; \
         for f in $d/*; do test -f \"$f\" && show \"d/${{f##*/}}\" \"$f\" '{OPTIONS}'; done; done; \
         for f in /etc/crypto-policies/back-ends/opensshserver.config; do test -r $f && echo file=crypto && \
         grep -Eio 'pubkeyaccepted(algorithms|keytypes)[ =][^ ]*' $f | sed 's/^/line=/'; done; \
         grep -qs 1 /proc/sys/crypto/fips_enabled && echo fips=yes; \
         command -v getenforce >/dev/null 2>&1 && echo selinux=$(getenforce); \
         echo clock=$(date +%s); echo end=yes"
    )
}

impl Facts {
    /// None if the script was cut short.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let values = |name: &'static str| {
            text.lines().filter_map(move |line| line.trim().strip_prefix(name)?.strip_prefix('='))
        };
        let value = |name| values(name).next();
        value("end")?;
        let clock = value("clock").and_then(|seconds| seconds.parse().ok());
        if value("container").is_some() {
            // sshd's users and files are outside of the container; the clock is the same.
            return Some(Self { clock, ..Self::default() });
        }
        let is_yes = |name| value(name).map(|value| value == "yes");
        let says = |answer| values("keys").any(|value| value == answer);
        let keys_command = match () {
            () if says("yes") => Some(true),
            // Unknown: a file that the script could not read may have the command.
            () if says("hidden") => None,
            () => says("no").then_some(false),
        };
        let text_of = |name| value(name).map(|text| foreign_text(text, SHOWN_PATH));
        Some(Self {
            user: is_yes("user"),
            package: is_yes("package"),
            keys_command,
            lacks_keys_user: is_yes("keys-user") == Some(false),
            clock,
            is_enforcing: value("selinux") == Some("Enforcing"),
            is_fips: is_yes("fips") == Some(true),
            groups: value("groups").unwrap_or_default().split_whitespace().map(str::to_owned).collect(),
            missing_shell: text_of("shell"),
            nologin: text_of("nologin"),
            files: SshdFiles::parse(text),
        })
    }

    /// The causes that the facts exclude.
    pub(super) fn cleared(&self) -> Cleared {
        let package = self.package == Some(true) && self.keys_command == Some(true);
        Cleared { user: self.user == Some(true), package: package && self.clock.is_some() }
    }

    /// The first cause that the facts show, the most certain checked first.
    pub(super) fn cause(
        &self,
        instance: &InstanceId,
        user: &OsUser,
        algorithm: &str,
        now: SystemTime,
    ) -> Option<Diagnosis> {
        let of_instance = || instance.clone();
        if self.user == Some(false) {
            return Some(Diagnosis::User { instance: of_instance(), user: user.clone() });
        }
        if let Some(option) = self.without_publickey() {
            return Some(Diagnosis::NoPublicKey { instance: of_instance(), option });
        }
        if let Some(option) = self.keeps_out(user) {
            return Some(Diagnosis::KeptOut { instance: of_instance(), user: user.clone(), option });
        }
        if let Some(shell) = self.missing_shell.clone() {
            return Some(Diagnosis::Shell { instance: of_instance(), user: user.clone(), shell });
        }
        if self.package == Some(false) {
            return Some(Diagnosis::NotInstalled { instance: of_instance() });
        }
        if self.keys_command == Some(false) {
            return Some(Diagnosis::KeysCommand { instance: of_instance() });
        }
        if self.lacks_keys_user && self.is_set(&["authorizedkeyscommanduser"], |user| user == KEYS_USER) {
            return Some(Diagnosis::KeysUser { instance: of_instance(), user: KEYS_USER.to_owned() });
        }
        if let Some(reason) = self.refuses(algorithm) {
            let algorithm = algorithm.to_owned();
            return Some(Diagnosis::Algorithm { instance: of_instance(), algorithm, reason });
        }
        // A clock that is behind only extends the keys' life.
        let theirs = self.clock.map(|clock| UNIX_EPOCH + Duration::from_secs(clock));
        let off = theirs.and_then(|theirs| theirs.duration_since(now).ok());
        if let Some(off) = off.filter(|off| *off > TOLERATED_CLOCK) {
            return Some(Diagnosis::Clock { instance: of_instance(), off });
        }
        let file = self.nologin.clone().filter(|_| user.as_str() != ROOT)?;
        Some(Diagnosis::NoLogin { instance: of_instance(), file })
    }

    fn is_set(&self, names: &[&str], is_so: impl Fn(&str) -> bool) -> bool {
        matches!(self.files.first(names), Setting::Set(values) if values.iter().any(|value| is_so(value)))
    }

    /// The option with which sshd accepts no public key, or requires another method first.
    fn without_publickey(&self) -> Option<String> {
        let is_no = |value: &str| value.eq_ignore_ascii_case("no");
        if self.is_set(&["pubkeyauthentication"], is_no) {
            return Some("PubkeyAuthentication no".into());
        }
        let Setting::Set(values) = self.files.first(&["authenticationmethods"]) else { return None };
        let methods = values.concat();
        // Each list of methods begins with the one that sshd offers first.
        let begins = |list: &str| {
            let first = list.split([',', ':']).next().unwrap_or_default();
            first == "publickey" || first == "any"
        };
        let is_offered = methods.trim_matches('"').split_ascii_whitespace().any(begins);
        (!is_offered).then(|| foreign_text(&format!("AuthenticationMethods {methods}"), SHOWN_PATH))
    }

    /// The option that excludes the user.
    fn keeps_out(&self, user: &OsUser) -> Option<String> {
        let user = user.as_str();
        // Whether the option names one of `wanted`. None if that also depends on the client's address, or if
        // a pattern is negated.
        let names = |option: &str, wanted: &[&str]| {
            let Setting::Set(values) = self.files.every(option) else { return None };
            let mut is_named = false;
            for pattern in values.iter().flat_map(|value| value.split_ascii_whitespace()) {
                if pattern.contains(['@', '!', '"']) {
                    return None;
                }
                is_named |= wanted.iter().any(|wanted| matches(pattern, wanted));
            }
            Some(is_named)
        };
        let groups: Vec<_> = self.groups.iter().map(String::as_str).collect();
        if user == ROOT {
            for value in ["no", "forced-commands-only"] {
                if self.is_set(&["permitrootlogin"], |found| found.eq_ignore_ascii_case(value)) {
                    return Some(format!("PermitRootLogin {value}"));
                }
            }
        }
        let users: &[&str] = &[user];
        let kept = [
            ("DenyUsers", users, true),
            ("AllowUsers", users, false),
            ("DenyGroups", &groups, true),
            ("AllowGroups", &groups, false),
        ];
        let kept = kept.into_iter().filter(|(_, wanted, _)| !wanted.is_empty());
        kept.filter(|(option, wanted, out)| names(&option.to_ascii_lowercase(), wanted) == Some(*out))
            .map(|(option, ..)| option.to_owned())
            .next()
    }

    /// Why sshd rejects keys of the algorithm.
    fn refuses(&self, algorithm: &str) -> Option<String> {
        if self.is_fips && algorithm == ED25519 {
            return Some("it is in FIPS mode".into());
        }
        match self.files.first(&ACCEPTED_ALGORITHMS) {
            Setting::Set(values) if values.iter().all(|list| !accepts(list, algorithm)) => {
                Some("its sshd has PubkeyAcceptedAlgorithms without them".into())
            }
            Setting::Set(_) | Setting::Unset => None,
            // Red Hat's systems let only root read sshd's own files, which include the crypto policy.
            Setting::Unknown => {
                let policy = self.files.crypto_policy()?;
                (!accepts(policy, algorithm)).then(|| "its crypto policy leaves them out".into())
            }
        }
    }
}

/// Whether a value of `PubkeyAcceptedAlgorithms` accepts the key. The value is a list of patterns, or a list
/// to add to or remove from the defaults (sshd_config(5)). The defaults have the algorithms of all one-time
/// keys.
fn accepts(list: &str, algorithm: &str) -> bool {
    let signatures: &[&str] = match algorithm {
        // RFC 8332. The key agent makes no `ssh-rsa` signatures, which use SHA-1.
        "ssh-rsa" => &["rsa-sha2-256", "rsa-sha2-512"],
        _ => &[algorithm],
    };
    let has = |list: &str| {
        let mut patterns = list.split(',').map(str::trim);
        patterns.any(|pattern| signatures.iter().any(|signature| matches(pattern, signature)))
    };
    let list = list.trim().trim_matches('"');
    match list.split_at_checked(1) {
        Some(("+" | "^", _)) => true,
        Some(("-", taken)) => !signatures
            .iter()
            .all(|signature| taken.split(',').any(|pattern| matches(pattern.trim(), signature))),
        _ => has(list),
    }
}

/// Signs of a container: Docker, Podman, Bottlerocket. If the SSM agent runs in one, the session sees the
/// container's files, and sshd's are elsewhere.
const CONTAINER_FILES: &str = "/.dockerenv /run/.containerenv /.bottlerocket";
/// The package's program, on Amazon Linux and on the other systems.
const PACKAGE_FILES: &str =
    "/opt/aws/bin/eic_run_authorized_keys /usr/share/ec2-instance-connect/eic_run_authorized_keys";
/// The files that can have `AuthorizedKeysCommand`: sshd's own, the systemd drop-ins of Ubuntu's and Debian's
/// package, those of an administrator. The directories are listed too, because their files may be unreadable.
const CONFIGURATION: &str = "/etc/ssh/sshd_config /etc/ssh/sshd_config.d /etc/ssh/sshd_config.d/* \
                             /usr/lib/systemd/system/ssh*.service.d/* /lib/systemd/system/ssh*.service.d/* \
                             /etc/systemd/system/ssh*.service.d /etc/systemd/system/ssh*.service.d/*";
/// The user as which sshd runs the package's program.
const KEYS_USER: &str = "ec2-instance-connect";
/// pam_nologin(8), and sshd itself.
const NOLOGIN_FILES: &str = "/etc/nologin /run/nologin";
/// The options of sshd that the script prints.
const OPTIONS: &str = "^[[:space:]]*(match|include|pubkeyauthentication|authenticationmethods|pubkeyacceptedalgorithms|pubkeyacceptedkeytypes|allowusers|denyusers|allowgroups|denygroups|permitrootlogin|authorizedkeyscommanduser)[[:space:]=]";
const ROOT: &str = "root";
/// The limit for a path or a list of methods from the instance, in characters.
const SHOWN_PATH: usize = 200;
/// A pushed key is valid for a minute.
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
        Facts::parse(text)?.cause(&instance, &user, "ssh-ed25519", now).map(|cause| cause.to_string())
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
                "the clock of i-0a1b2c3d is 10 minutes ahead: pushed keys count as expired there",
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

    /// Runs the script where the files of an instance are below `root`. What `hidden` names cannot be read
    /// there, not even by root.
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
    fn a_container_does_not_have_the_users_of_sshd() {
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
