//! The command lines of scp, sftp and rsync, as far as to find the hosts in them. (Pure.)
//!
//! A host becomes an instance id in place, and ssh's settings are put where the program takes them. All else stays as
//! it was typed.

mod ssh;

use std::ffi::OsString;

/// A program that carries files over ssh.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Tool {
    /// OpenSSH's.
    Scp,
    /// OpenSSH's.
    Sftp,
    /// `rsync -e ssh`.
    Rsync,
}

/// An argument that names a file on a host.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Remote {
    /// Which argument.
    pub index: usize,
    /// `scp://` or `sftp://`, if it is written as a URI.
    pub scheme: &'static str,
    /// The user, if one is named.
    pub user: Option<String>,
    /// The host.
    pub host: String,
    /// What stands behind it, the colon included; nothing for sftp's plain host.
    pub rest: String,
}

impl Tool {
    /// Its name.
    pub fn program(self) -> &'static str {
        match self {
            Self::Scp => "scp",
            Self::Sftp => "sftp",
            Self::Rsync => "rsync",
        }
    }

    /// The arguments that name hosts, and where the first operand stands: options go before it.
    pub fn remotes(self, arguments: &[OsString]) -> (Vec<Remote>, usize) {
        let mut remotes = Vec::new();
        let mut first = None;
        let mut only_operands = false;
        let mut at = 0;
        while let Some(argument) = arguments.get(at) {
            let text = argument.to_string_lossy();
            let index = at;
            at += 1;
            if !only_operands && text == "--" {
                first.get_or_insert(index);
                only_operands = true;
            } else if !only_operands && text.len() > 1 && text.starts_with('-') {
                at += usize::from(self.takes_value(&text));
            } else {
                first.get_or_insert(index);
                // A name that is not text is a file here; so is what follows on sftp's host.
                let is_file = self == Self::Sftp && !remotes.is_empty();
                let remote = argument.to_str().filter(|_| !is_file).and_then(|text| self.remote(text));
                remotes.extend(remote.map(|remote| Remote { index, ..remote }));
            }
        }
        (remotes, first.unwrap_or(arguments.len()))
    }

    /// Whether the program is told to ask nothing.
    pub fn is_batch(self, arguments: &[OsString]) -> bool {
        let (_, first) = self.remotes(arguments);
        let options =
            arguments[..first].iter().map(|argument| argument.to_string_lossy().to_ascii_lowercase());
        let batch = match self {
            Self::Scp => 'B',
            Self::Sftp => 'b',
            Self::Rsync => '\0',
        };
        let letter = arguments[..first].iter().any(|argument| {
            let text = argument.to_string_lossy();
            text.starts_with('-') && !text.starts_with("-o") && text.contains(batch)
        });
        let mut options = options.peekable();
        let setting =
            options.any(|option| option.contains("batchmode=yes") || option.contains("batchmode yes"));
        letter || setting
    }

    /// Whether the value of an option is the next argument.
    fn takes_value(self, option: &str) -> bool {
        if option.starts_with("--") {
            return self == Self::Rsync && RSYNC_LONG.contains(&option);
        }
        let with_value = match self {
            Self::Scp => "cDFiJloPSX",
            Self::Sftp => "BbcDFiJloPRSsX",
            Self::Rsync => "eBfTM",
        };
        // Letters without a value may stand in front; a value may stand behind, without a space.
        option.find(|letter| with_value.contains(letter)).is_some_and(|at| at + 1 == option.len())
    }

    /// Why the arguments cannot be passed on: they have an option of ssh_ec2, or name a module of an rsync
    /// daemon, which is not reached through ssh.
    pub fn mistake(self, arguments: &[OsString]) -> Option<String> {
        let program = self.program();
        let mut at = 0;
        while let Some(text) = arguments.get(at).map(|argument| argument.to_string_lossy()) {
            if text == "--" {
                at += 1;
                break;
            }
            let name = text.split('=').next().unwrap_or_default();
            if OWN_OPTIONS.contains(&name) {
                return Some(format!(
                    "`{name}` is an option of ssh_ec2, and goes in front of {program}: `ssh_ec2 {name} … {program} …`"
                ));
            }
            let is_option = text.len() > 1 && text.starts_with('-');
            // rsync takes options behind operands as well.
            if !is_option && self != Self::Rsync {
                return None;
            }
            if !is_option && is_daemon(&text) {
                return Some(daemon(&text));
            }
            at += 1 + usize::from(is_option && self.takes_value(&text));
        }
        let mut operands =
            arguments.get(at..).unwrap_or_default().iter().map(|argument| argument.to_string_lossy());
        operands.find(|text| self == Self::Rsync && is_daemon(text)).map(|text| daemon(&text))
    }

    /// The host of a URI. scp and sftp take it apart themselves (`misc.c`, `parse_uri`), so the rest stays.
    fn remote_of_uri(self, text: &str) -> Option<Remote> {
        let scheme = match self {
            Self::Scp => "scp://",
            Self::Sftp => "sftp://",
            Self::Rsync => return None,
        };
        let rest = text.strip_prefix(scheme)?;
        let (authority, _) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let start = authority.rfind('@').map_or(0, |at| at + 1);
        let user = authority[..start].strip_suffix('@').map(str::to_owned);
        let target = &authority[start..];
        let end = match target.starts_with('[') {
            true => target.find(']').map(|at| at + 1)?,
            false => target.find(':').unwrap_or(target.len()),
        };
        let (host, port) = target.split_at(end);
        let is_port = port.is_empty()
            || port.strip_prefix(':').is_some_and(|port| port.bytes().all(|byte| byte.is_ascii_digit()));
        let rest = rest[start + end..].to_owned();
        let host = host.trim_matches(['[', ']']).to_owned();
        (is_port && !host.is_empty()).then_some(Remote { index: 0, scheme, user, host, rest })
    }

    fn remote(self, text: &str) -> Option<Remote> {
        if text.contains("://") {
            return self.remote_of_uri(text);
        }
        let start = text.find('@').filter(|at| !text[..*at].contains([':', '/'])).map_or(0, |at| at + 1);
        let user = text[..start].strip_suffix('@').map(str::to_owned);
        let target = &text[start..];
        let end = match target {
            _ if target.starts_with('[') => target.find(']').map(|at| at + 1),
            // These have a colon of their own.
            _ if target.starts_with("tag:") => {
                let value = target.find('=').unwrap_or(target.len());
                target[value..].find(':').map(|at| at + value).or(Some(target.len()))
            }
            _ if target.starts_with("asg:") => target[4..].find(':').map(|at| at + 4).or(Some(target.len())),
            _ => target.find(':').or((self == Self::Sftp).then_some(target.len())),
        }?;
        let (host, rest) = target.split_at(end);
        let is_path = host.contains('/') && !host.starts_with("tag:");
        let is_whole = rest.starts_with(':') || (self == Self::Sftp && rest.is_empty());
        let is_daemon = self == Self::Rsync && rest.starts_with("::");
        if host.is_empty() || is_path || !is_whole || is_daemon {
            return None;
        }
        Some(Remote {
            index: 0,
            scheme: "",
            user,
            host: host.trim_matches(['[', ']']).to_owned(),
            rest: rest.to_owned(),
        })
    }

    /// The arguments with ssh's settings in them.
    pub fn with_settings(
        self,
        mut arguments: Vec<OsString>,
        first: usize,
        settings: &[(&str, String)],
    ) -> Vec<OsString> {
        if self != Self::Rsync {
            let options = settings
                .iter()
                .flat_map(|(keyword, value)| ["-o".into(), OsString::from(format!("{keyword}={value}"))]);
            arguments.splice(first..first, options);
            return arguments;
        }
        let mut shell = String::from("ssh");
        let mut at = 0;
        while let Some(text) = arguments.get(at).map(|argument| argument.to_string_lossy().into_owned()) {
            if text == "--" {
                break;
            }
            // Options may stand behind operands.
            if !text.starts_with('-') {
                at += 1;
                continue;
            }
            let joined = text.strip_prefix("--rsh=").or_else(|| text.strip_prefix("-e"));
            // `-e`, alone or behind other letters.
            let letters =
                text.strip_suffix('e').filter(|_| !text.starts_with("--") && self.takes_value(&text));
            if let Some(value) = joined.filter(|value| !value.is_empty()) {
                value.clone_into(&mut shell);
                arguments.remove(at);
            } else if text == "--rsh" || letters.is_some() {
                match letters.filter(|letters| letters.len() > 1) {
                    Some(letters) => {
                        arguments[at] = letters.into();
                        at += 1;
                    }
                    None => drop(arguments.remove(at)),
                }
                if at < arguments.len() {
                    shell = arguments.remove(at).to_string_lossy().into_owned();
                }
            } else {
                at += 1 + usize::from(self.takes_value(&text));
            }
        }
        for (keyword, value) in settings {
            // rsync's own quoting: a quote within is doubled.
            shell.push_str(&format!(" -o '{keyword}={}'", value.replace('\'', "''")));
        }
        arguments.splice(0..0, ["-e".into(), shell.into()]);
        arguments
    }
}

/// Whether an operand names a module of rsync's daemon (rsync(1), "USING RSYNC-DAEMON FEATURES").
fn is_daemon(text: &str) -> bool {
    let host_end = match text.find(']').filter(|_| text.starts_with('[') || text.contains("@[")) {
        Some(end) => end + 1,
        None => text.find(':').unwrap_or(text.len()),
    };
    text.starts_with("rsync://") || (text[host_end..].starts_with("::") && !text[..host_end].contains('/'))
}

fn daemon(text: &str) -> String {
    format!("{text:?} is a module of rsync's daemon, which is not reached through ssh; write TARGET:PATH")
}

/// Those that people write behind the program.
const OWN_OPTIONS: [&str; 8] =
    ["--profile", "--region", "--newest", "--any", "--batch", "--reason", "--key-file", "--key-type"];
/// rsync's options whose value may be the next argument (rsync 3.2, `rsync --help`).
const RSYNC_LONG: [&str; 46] = [
    "--address",
    "--backup-dir",
    "--block-size",
    "--bwlimit",
    "--checksum-choice",
    "--checksum-seed",
    "--chmod",
    "--chown",
    "--compare-dest",
    "--compress-choice",
    "--compress-level",
    "--contimeout",
    "--copy-as",
    "--copy-dest",
    "--debug",
    "--early-input",
    "--exclude",
    "--exclude-from",
    "--files-from",
    "--filter",
    "--groupmap",
    "--iconv",
    "--include",
    "--include-from",
    "--info",
    "--link-dest",
    "--log-file",
    "--log-file-format",
    "--max-alloc",
    "--max-delete",
    "--max-size",
    "--min-size",
    "--modify-window",
    "--out-format",
    "--partial-dir",
    "--password-file",
    "--port",
    "--protocol",
    "--remote-option",
    "--rsh",
    "--rsync-path",
    "--skip-compress",
    "--suffix",
    "--temp-dir",
    "--timeout",
    "--usermap",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<OsString> {
        text.split_whitespace().map(OsString::from).collect()
    }

    fn found(tool: Tool, line: &str) -> Vec<(usize, Option<String>, String, String)> {
        let (remotes, _) = tool.remotes(&words(line));
        remotes.into_iter().map(|remote| (remote.index, remote.user, remote.host, remote.rest)).collect()
    }

    fn remote(
        index: usize,
        user: Option<&str>,
        host: &str,
        rest: &str,
    ) -> (usize, Option<String>, String, String) {
        (index, user.map(str::to_owned), host.into(), rest.into())
    }

    #[test]
    fn hosts_are_told_from_files() {
        for (line, expected) in [
            ("web-1:/etc/hosts .", vec![remote(0, None, "web-1", ":/etc/hosts")]),
            ("-r -P 22 me@web-1:x ./a:b", vec![remote(3, Some("me"), "web-1", ":x")]),
            ("-o User=a:b web-1: web-2:", vec![remote(2, None, "web-1", ":"), remote(3, None, "web-2", ":")]),
            (
                "-rP22 tag:Team=web:/x asg:a:y",
                vec![remote(1, None, "tag:Team=web", ":/x"), remote(2, None, "asg:a", ":y")],
            ),
            ("[2001:db8::1]:x .", vec![remote(0, None, "2001:db8::1", ":x")]),
            ("/a:b c", vec![]),
            (":x .", vec![]),
            ("-- -odd:x", vec![remote(1, None, "-odd", ":x")]),
        ] {
            assert_eq!(found(Tool::Scp, line), expected, "{line}");
        }
        assert_eq!(found(Tool::Sftp, "-b - me@web-1"), vec![remote(2, Some("me"), "web-1", "")]);
        assert_eq!(found(Tool::Sftp, "web-1:dir"), vec![remote(0, None, "web-1", ":dir")]);
        let line = "-av --exclude a:b --exclude=c:d -e ssh src/ web-1:dst";
        assert_eq!(found(Tool::Rsync, line), vec![remote(7, None, "web-1", ":dst")]);
        assert_eq!(found(Tool::Rsync, "host::module rsync://host/x"), vec![]);
        assert_eq!(
            found(Tool::Rsync, "[2001:db8::17]:f me@[2001:db8::17]:f ."),
            vec![remote(0, None, "2001:db8::17", ":f"), remote(1, Some("me"), "2001:db8::17", ":f"),]
        );
        assert_eq!(found(Tool::Sftp, "web-1:/tmp/f local"), vec![remote(0, None, "web-1", ":/tmp/f")]);
        let tag = "tag:aws:autoscaling:groupName=web";
        assert_eq!(found(Tool::Scp, &format!("f {tag}:/x")), vec![remote(1, None, tag, ":/x")]);
        for (tool, line, batch) in [
            (Tool::Scp, "-B a:b c", true),
            (Tool::Scp, "-q -oBatchMode=yes a:b c", true),
            (Tool::Scp, "-q a:B c", false),
            (Tool::Sftp, "-b - a", true),
            (Tool::Rsync, "-ab x a:b", false),
        ] {
            assert_eq!(tool.is_batch(&words(line)), batch, "{line}");
        }
    }

    #[test]
    fn uris_have_hosts() {
        for (tool, text, user, host, rest) in [
            (Tool::Scp, "scp://web-1//f", None, "web-1", "//f"),
            (Tool::Scp, "scp://web-1", None, "web-1", ""),
            (Tool::Scp, "scp://me@web-1:2222/f", Some("me"), "web-1", ":2222/f"),
            (Tool::Scp, "scp://me@web-1/a@b:c", Some("me"), "web-1", "/a@b:c"),
            (Tool::Scp, "scp://[2001:db8::17]:22/f", None, "2001:db8::17", ":22/f"),
            (Tool::Sftp, "sftp://web-1/f", None, "web-1", "/f"),
            (Tool::Sftp, "sftp://web-1.eu-west-1.ec2", None, "web-1.eu-west-1.ec2", ""),
        ] {
            let scheme = if tool == Tool::Scp { "scp://" } else { "sftp://" };
            let (remotes, _) = tool.remotes(&words(text));
            let user = user.map(str::to_owned);
            let expected = Remote { index: 0, scheme, user, host: host.into(), rest: rest.into() };
            assert_eq!(remotes, [expected], "{text}");
        }
        for (tool, text) in [
            (Tool::Scp, "sftp://web-1/f"),
            (Tool::Sftp, "scp://web-1/f"),
            (Tool::Scp, "scp:///f"),
            (Tool::Scp, "scp://web-1:x/f"),
            (Tool::Rsync, "scp://web-1/f"),
        ] {
            assert_eq!(tool.remotes(&words(text)).0, [], "{text}");
        }
    }

    #[test]
    fn what_cannot_be_passed_on_is_named() {
        let own = |name: &str, program: &str| {
            Some(format!(
                "`{name}` is an option of ssh_ec2, and goes in front of {program}: `ssh_ec2 {name} … {program} …`"
            ))
        };
        let module = |text: &str| {
            Some(format!(
                "{text:?} is a module of rsync's daemon, which is not reached through ssh; write TARGET:PATH"
            ))
        };
        for (tool, line, mistake) in [
            (Tool::Scp, "--region us-east-1 web-1:f .", own("--region", "scp")),
            (Tool::Scp, "-q --profile=x web-1:f .", own("--profile", "scp")),
            (Tool::Sftp, "--newest web-1", own("--newest", "sftp")),
            (Tool::Rsync, "-a web-1:f . --key-file k.pub", own("--key-file", "rsync")),
            (Tool::Scp, "-- --region web-1:f", None),
            (Tool::Scp, "web-1:f --region", None),
            (Tool::Rsync, "--exclude --region web-1:f .", None),
            (Tool::Rsync, "-a web-1::m .", module("web-1::m")),
            (Tool::Rsync, "-a . me@[2001:db8::17]::m", module("me@[2001:db8::17]::m")),
            (Tool::Rsync, "rsync://web-1/m .", module("rsync://web-1/m")),
            (Tool::Rsync, "-- web-1::m .", module("web-1::m")),
            (Tool::Rsync, "--exclude a::b ./c::d [2001:db8::17]:f .", None),
            (Tool::Rsync, "web-1:a::b .", None),
            (Tool::Scp, "web-1::m .", None),
        ] {
            assert_eq!(tool.mistake(&words(line)), mistake, "{line}");
        }
    }

    #[test]
    fn settings_stand_behind_the_users_options() {
        let settings = [("ProxyCommand", "a 'b c' %h".to_owned())];
        let with = |tool: Tool, line: &str| {
            let (_, first) = tool.remotes(&words(line));
            tool.with_settings(words(line), first, &settings)
        };
        let line = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
        assert_eq!(
            with(Tool::Scp, "-P 2 -- a:b c"),
            line(&["-P", "2", "-o", "ProxyCommand=a 'b c' %h", "--", "a:b", "c"])
        );
        let shell = " -o 'ProxyCommand=a ''b c'' %h'";
        for (given, ssh) in [
            ("-a x a:b", "ssh"),
            ("-e ssh\u{a0}-v -a x a:b", "ssh\u{a0}-v"),
            ("--rsh=s -a x a:b", "s"),
            ("--rsh s -a x a:b", "s"),
            ("-ae s x a:b", "s"),
        ] {
            // A space that does not split words here.
            let ours: Vec<_> = with(Tool::Rsync, &given.replace('\u{a0}', "_"));
            let ssh = ssh.replace('\u{a0}', "_");
            assert_eq!(ours, line(&["-e", &format!("{ssh}{shell}"), "-a", "x", "a:b"]), "{given}");
        }
    }
}
