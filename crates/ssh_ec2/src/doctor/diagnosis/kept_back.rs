//! The options of the user's ssh that keep it from offering the key. (Pure.)
//!
//! To the key agent, a key that ssh does not offer looks like a key that the server refuses: ssh lists it and
//! asks for no signature. So an option is reported as the cause only where `ssh -G` shows that it is in
//! effect.

use std::fmt;
use std::path::Path;

use crate::key::file::rsa_bits;
use crate::ssh::client::Invocation;
use crate::ssh::options::SshOptions;

/// The key that ssh should have offered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Offered<'a> {
    /// The public half, as a line of `authorized_keys`.
    pub line: &'a str,
    /// The key agent's socket as ssh's options name it. None for a key in a file or in the user's own agent.
    pub socket: Option<&'a Path>,
    /// Whether ssh has listed the key agent's keys.
    pub was_listed: bool,
}

/// An option that keeps the key back.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct KeptBack {
    option: Keyword,
    /// The value in effect, from all files and the command line.
    value: String,
    /// Whether it is on ssh's command line, not in a file.
    is_on_command_line: bool,
    /// The setting that would allow the key.
    instead: String,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Keyword {
    IdentitiesOnly,
    IdentityAgent,
    PreferredAuthentications,
    PubkeyAcceptedAlgorithms,
    PubkeyAuthentication,
    RequiredRsaSize,
}

/// All options that keep the key back: each alone is enough. `invocation` is ssh's command line.
pub(crate) fn kept_back(
    options: &SshOptions,
    invocation: Option<&Invocation>,
    key: Offered<'_>,
) -> Vec<KeptBack> {
    let algorithm = key.line.split_ascii_whitespace().next().unwrap_or_default();
    let found = [
        authentication_is_off(options),
        publickey_is_left_out(options),
        other_agent(options, key),
        files_only(options, key),
        algorithm_is_left_out(options, algorithm, key),
        too_short(options, algorithm, key.line),
    ];
    let found = found.into_iter().flatten();
    found
        .map(|(option, value, instead)| {
            let is_on_command_line =
                invocation.is_some_and(|ssh| option.names().iter().any(|name| ssh.option(name).is_some()));
            KeptBack { option, value, is_on_command_line, instead }
        })
        .collect()
}

type Found = Option<(Keyword, String, String)>;

fn authentication_is_off(options: &SshOptions) -> Found {
    // `ssh -G` prints `yes` and `no` as `true` and `false` here.
    let is_off = matches!(options.get("pubkeyauthentication")?, "false" | "no");
    is_off.then(|| (Keyword::PubkeyAuthentication, "no".into(), "`PubkeyAuthentication yes`".into()))
}

fn publickey_is_left_out(options: &SshOptions) -> Found {
    let value = options.get("preferredauthentications")?;
    let is_left_out = options.lists("preferredauthentications", "publickey") == Some(false);
    is_left_out.then(|| {
        let instead = "add `publickey` to PreferredAuthentications".to_owned();
        (Keyword::PreferredAuthentications, value.to_owned(), instead)
    })
}

fn other_agent(options: &SshOptions, key: Offered<'_>) -> Found {
    let socket = key.socket?;
    let value = options.get("identityagent");
    if key.was_listed || value.is_some_and(|value| leads_to(value, socket)) {
        return None;
    }
    let instead = "the `Include` line of `ssh_ec2 config --install`".into();
    // Without the option ssh uses the agent of this variable.
    Some((Keyword::IdentityAgent, value.unwrap_or("SSH_AUTH_SOCK").to_owned(), instead))
}

/// Whether the value of `IdentityAgent` is our socket. `ssh -G` prints most values with their tokens
/// replaced.
fn leads_to(value: &str, socket: &Path) -> bool {
    let path = Path::new(value);
    let has_tokens = path.file_name().is_some_and(|name| name == "%C" || name == "%r@%h:%p");
    path == socket || has_tokens && path.parent() == socket.parent()
}

fn files_only(options: &SshOptions, key: Offered<'_>) -> Found {
    key.socket?;
    (options.get("identitiesonly")? == "yes")
        .then(|| (Keyword::IdentitiesOnly, "yes".into(), "`IdentitiesOnly no`".into()))
}

fn algorithm_is_left_out(options: &SshOptions, algorithm: &str, key: Offered<'_>) -> Found {
    let value = options.accepted_algorithms()?;
    let accepts = |name: &str| value.split(',').any(|accepted| accepted == name);
    let takes_rsa = ["rsa-sha2-256", "rsa-sha2-512"].into_iter().any(accepts);
    let is_accepted = match algorithm {
        // Under this name ssh asks for signatures with SHA-1, which the key agent does not make.
        RSA => takes_rsa || key.socket.is_none() && accepts(RSA),
        _ => accepts(algorithm),
    };
    if is_accepted {
        return None;
    }
    let wanted = if algorithm == RSA { "rsa-sha2-512" } else { algorithm };
    let or_rsa = if takes_rsa { ", or use a one-time RSA key: `--key-type rsa`" } else { "" };
    let instead = format!("add `{wanted}` to PubkeyAcceptedAlgorithms{or_rsa}");
    Some((Keyword::PubkeyAcceptedAlgorithms, value.to_owned(), instead))
}

fn too_short(options: &SshOptions, algorithm: &str, line: &str) -> Found {
    let required: u32 = options.get("requiredrsasize")?.parse().ok()?;
    let bits = (algorithm == RSA).then(|| rsa_bits(line))??;
    // One-time RSA keys have a fixed length. Without Ed25519 there is no other type.
    let or_other = match options.lists("pubkeyacceptedalgorithms", "ssh-ed25519") {
        Some(false) => "",
        _ => ", or use an Ed25519 key",
    };
    (bits < required).then(|| {
        let instead = format!("lower RequiredRSASize to the {bits} bits of the key{or_other}");
        (Keyword::RequiredRsaSize, required.to_string(), instead)
    })
}

impl Keyword {
    /// The name in ssh_config(5), and other names that ssh accepts.
    fn names(self) -> &'static [&'static str] {
        match self {
            Self::IdentitiesOnly => &["IdentitiesOnly"],
            Self::IdentityAgent => &["IdentityAgent"],
            Self::PreferredAuthentications => &["PreferredAuthentications"],
            // The second is the name before OpenSSH 8.5.
            Self::PubkeyAcceptedAlgorithms => &["PubkeyAcceptedAlgorithms", "PubkeyAcceptedKeyTypes"],
            Self::PubkeyAuthentication => &["PubkeyAuthentication"],
            Self::RequiredRsaSize => &["RequiredRSASize"],
        }
    }

    fn name(self) -> &'static str {
        self.names()[0]
    }
}

impl KeptBack {
    /// The change that lets ssh offer the key.
    pub(crate) fn hint(&self) -> String {
        let (name, value) = (self.option.name(), shown(&self.value));
        let instead = &self.instead;
        match self.option {
            Keyword::PubkeyAcceptedAlgorithms | Keyword::RequiredRsaSize if self.is_on_command_line => {
                format!("leave out `-o {name}=…`, or {instead}")
            }
            _ if self.is_on_command_line => format!("leave out `-o {name}={value}`"),
            Keyword::PreferredAuthentications
            | Keyword::PubkeyAcceptedAlgorithms
            | Keyword::RequiredRsaSize => instead.clone(),
            Keyword::IdentitiesOnly | Keyword::IdentityAgent | Keyword::PubkeyAuthentication => {
                format!("put {instead} in front of `{name} {value}`: ssh takes the first value it finds")
            }
        }
    }
}

impl fmt::Display for KeptBack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let origin =
            if self.is_on_command_line { "on ssh's command line" } else { "in your ssh configuration" };
        write!(f, "`{} {}` {origin}", self.option.name(), shown(&self.value))
    }
}

/// Options as the subject of a sentence, with their verb: "`IdentitiesOnly yes` on ssh's command line keeps".
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeptBackList<'a>(pub &'a [KeptBack]);

impl fmt::Display for KeptBackList<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let options: Vec<_> = self.0.iter().map(KeptBack::to_string).collect();
        write!(f, "{} {}", options.join(" and "), if options.len() == 1 { "keeps" } else { "keep" })
    }
}

/// Shortens the value: a list of algorithms can be long.
fn shown(value: &str) -> String {
    if value.chars().count() <= SHOWN_VALUE {
        return value.to_owned();
    }
    value.chars().take(SHOWN_VALUE).chain(['…']).collect()
}

const RSA: &str = "ssh-rsa";
const SHOWN_VALUE: usize = 60;

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;

    const LINE: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAA= ssh_ec2";
    const SOCKET: &str = "/home/me/.ssh/ssh_ec2/agent/07b142fd8bb80309016a1d712e44338199c5e3c5";
    const DEFAULTS: &str = "ecdsa-sha2-nistp256,ssh-ed25519,rsa-sha2-512,rsa-sha2-256";

    /// The output of `ssh -G` for an instance, with other lines in front.
    fn options(lines: &str) -> SshOptions {
        SshOptions::parse(&format!(
            "{lines}\nidentitiesonly no\nidentityagent {SOCKET}\nidentityfile none\npubkeyauthentication true\n\
             pubkeyacceptedalgorithms {DEFAULTS}\nrequiredrsasize 1024\n"
        ))
    }

    fn offered(line: &str) -> Offered<'_> {
        Offered { line, socket: Some(Path::new(SOCKET)), was_listed: false }
    }

    fn found(lines: &str, command_line: &str, key: Offered<'_>) -> Vec<String> {
        let words: Vec<OsString> = command_line.split_whitespace().map(OsString::from).collect();
        let ssh = Invocation::parse(&words).ok();
        kept_back(&options(lines), ssh.as_ref(), key).iter().map(KeptBack::to_string).collect()
    }

    #[test]
    fn each_option_that_keeps_the_key_back_is_named_with_its_value() {
        for (line, said) in [
            ("identitiesonly yes", "`IdentitiesOnly yes`"),
            ("identityagent none", "`IdentityAgent none`"),
            ("identityagent SSH_AUTH_SOCK", "`IdentityAgent SSH_AUTH_SOCK`"),
            ("identityagent $OTHER", "`IdentityAgent $OTHER`"),
            (
                "identityagent /home/me/.1password/agent.sock",
                "`IdentityAgent /home/me/.1password/agent.sock`",
            ),
            ("pubkeyauthentication false", "`PubkeyAuthentication no`"),
            ("pubkeyauthentication no", "`PubkeyAuthentication no`"),
            (
                "preferredauthentications password,keyboard-interactive",
                "`PreferredAuthentications password,keyboard-interactive`",
            ),
            ("pubkeyacceptedalgorithms rsa-sha2-512", "`PubkeyAcceptedAlgorithms rsa-sha2-512`"),
        ] {
            assert_eq!(
                found(line, "me@box", offered(LINE)),
                [format!("{said} in your ssh configuration")],
                "{line}"
            );
        }
    }

    #[test]
    fn harmless_options_keep_nothing_back() {
        for line in [
            "",
            "identitiesonly no",
            "preferredauthentications gssapi-with-mic,publickey",
            "pubkeyauthentication unbound",
            "pubkeyauthentication host-bound",
            "pubkeyacceptedalgorithms ssh-ed25519",
            "identityfile /home/me/.ssh/id_rsa",
            "identityagent /home/me/.ssh/ssh_ec2/agent/%C",
            "identityagent /home/me/.ssh/ssh_ec2/agent/%r@%h:%p",
            // Of RSA keys alone.
            "requiredrsasize 4096",
        ] {
            assert_eq!(found(line, "-oIdentitiesOnly=no -i k me@box", offered(LINE)), [""; 0], "{line}");
        }
        let listed = Offered { was_listed: true, ..offered(LINE) };
        assert_eq!(
            found("identityagent /a/link/to/it", "me@box", listed),
            [""; 0],
            "ssh has asked the agent"
        );
    }

    #[test]
    fn an_option_on_the_command_line_is_not_taken_for_one_in_a_file() {
        for (line, ssh) in [
            ("identitiesonly yes", "-o IdentitiesOnly=yes me@box"),
            ("identitiesonly yes", "me@box -oidentitiesonly=yes ls"),
            ("pubkeyacceptedalgorithms rsa-sha2-512", "-o PubkeyAcceptedKeyTypes=rsa-sha2-512 me@box"),
        ] {
            let [option] = &found(line, ssh, offered(LINE))[..] else { panic!("{line}") };
            assert!(option.ends_with("on ssh's command line"), "{option}");
        }
        assert_eq!(
            found("identitiesonly yes\nidentityagent none", "-oIdentityAgent=none me@box", offered(LINE)),
            ["`IdentityAgent none` on ssh's command line", "`IdentitiesOnly yes` in your ssh configuration"]
        );
    }

    #[test]
    fn without_an_identity_agent_ssh_asks_that_of_the_environment() {
        let options = SshOptions::parse("identitiesonly no\npubkeyauthentication true\n");
        let [only] = &kept_back(&options, None, offered(LINE))[..] else { panic!("one") };
        assert_eq!(only.to_string(), "`IdentityAgent SSH_AUTH_SOCK` in your ssh configuration");
        assert_eq!(kept_back(&SshOptions::default(), None, Offered { socket: None, ..offered(LINE) }), []);
    }

    #[test]
    fn a_key_of_the_users_own_is_not_for_the_agent() {
        let own = Offered { socket: None, ..offered(LINE) };
        for line in ["identitiesonly yes", "identityagent none"] {
            assert_eq!(found(line, "me@box", own), [""; 0], "{line}");
        }
        assert_eq!(found("pubkeyauthentication false", "me@box", own).len(), 1);
    }

    #[test]
    fn rsa_keys_have_a_length_and_signatures_of_their_own() {
        // An exponent of three bytes, and a modulus of 2048 bits behind a zero byte.
        let mut blob = b"\0\0\0\x07ssh-rsa\0\0\0\x03\x01\0\x01\0\0\x01\x01\0".to_vec();
        blob.extend([0xc5; 256]);
        use base64::Engine as _;
        let line = format!("ssh-rsa {} own", base64::engine::general_purpose::STANDARD.encode(blob));
        let key = offered(&line);
        assert_eq!(
            found("requiredrsasize 3072", "h", key),
            ["`RequiredRSASize 3072` in your ssh configuration"]
        );
        assert_eq!(found("requiredrsasize 2048", "h", key), [""; 0]);
        assert_eq!(found("pubkeyacceptedalgorithms rsa-sha2-256", "h", key), [""; 0]);
        assert_eq!(found("pubkeyacceptedalgorithms ssh-ed25519", "h", key).len(), 1);
        assert_eq!(found("pubkeyacceptedalgorithms ssh-rsa", "h", key).len(), 1, "that is SHA-1");
        let own = Offered { socket: None, ..key };
        assert_eq!(found("pubkeyacceptedalgorithms ssh-rsa", "h", own), [""; 0]);
    }

    #[test]
    fn hints_name_what_to_change() {
        let hints = |line: &str, ssh: &str| {
            let words: Vec<OsString> = ssh.split_whitespace().map(OsString::from).collect();
            let ssh = Invocation::parse(&words).ok();
            kept_back(&options(line), ssh.as_ref(), offered(LINE))
                .iter()
                .map(KeptBack::hint)
                .collect::<Vec<_>>()
        };
        assert_eq!(
            hints("identitiesonly yes", "box"),
            ["put `IdentitiesOnly no` in front of `IdentitiesOnly yes`: ssh takes the first value it finds"]
        );
        assert_eq!(
            hints("identitiesonly yes", "-oIdentitiesOnly=yes h"),
            ["leave out `-o IdentitiesOnly=yes`"]
        );
        let long = format!("pubkeyacceptedalgorithms {}", "rsa-sha2-512,".repeat(20));
        let [hint] = &hints(&long, "box")[..] else { panic!("one") };
        assert!(hint.contains("`--key-type rsa`"), "{hint}");
        let [option] = &found(&long, "box", offered(LINE))[..] else { panic!("one") };
        assert!(option.contains('…') && option.len() < 150, "{option}");
    }
}
