//! The checks of this machine: the ssh client, and its configuration for the host.

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

use super::{Finding, Walk};
use crate::doctor::report::{Layer, Verdict};
use crate::ssh::client::Version;
use crate::ssh::config::{Keys, install_commands, is_outdated};
use crate::ssh::error::{NEWER_HINT, SshError};
use crate::ssh::options::SshOptions;
use crate::target::Target;

impl Walk<'_> {
    /// Checks ssh's version and its configuration.
    pub(super) fn client(&mut self) -> ControlFlow<()> {
        let since = Instant::now();
        let finding = match Version::of_ssh() {
            Ok(Some(found)) if found < Version::NEEDED => Finding::of(&SshError::Old { found }),
            Ok(Some(version)) => match version.danger() {
                Some(danger) => Finding::warning(danger).hint(NEWER_HINT),
                None => Finding::ok(format!("OpenSSH {version}")),
            },
            Ok(None) => Finding::warning("the ssh in PATH does not call itself OpenSSH"),
            Err(source) => Finding::of(&SshError::NotRun { program: "ssh".into(), source }),
        };
        self.note(Layer::Ssh, since, finding)?;
        let Some(host) = self.request.host.clone() else { return ControlFlow::Continue(()) };
        let since = Instant::now();
        let finding = match SshOptions::for_host(&host) {
            Ok(Ok(options)) => {
                let installed = fs::read_to_string(self.means.places.config()).unwrap_or_default();
                let keys = match &self.request.target {
                    Some(Target::Id(id)) if id.is_managed_node() => Keys::Own,
                    _ => Keys::Pushed,
                };
                match check_options(&host, &options, !installed.is_empty(), keys) {
                    Finding { verdict: Verdict::Ok, .. } if is_outdated(&installed) => Finding::warning(
                        "plain ssh works with the blocks of an earlier version, which match other hosts too",
                    )
                    .hint(format!("`{}` renews them", install_commands(&installed).join(" && "))),
                    finding => finding,
                }
            }
            Ok(Err(complaint)) => {
                Finding::broken(format!("ssh does not accept its configuration: {complaint}"))
                    .hint(format!("`ssh -G {host}` says where"))
            }
            Err(error) => Finding::skipped(format!("cannot run `ssh -G`: {error}")),
        };
        self.note(Layer::SshConfig, since, finding)
    }
}

/// Whether ssh's configuration allows connections to the host. `ssh_ec2` puts its settings on ssh's command
/// line, where they override all files. So only a setting that it leaves alone can stop it; the others break
/// plain ssh.
fn check_options(host: &str, options: &SshOptions, installed: bool, keys: Keys) -> Finding {
    let value = |keyword: &str| options.get(keyword).unwrap_or_default();
    let is_alias = !value("hostname").is_empty() && !value("hostname").eq_ignore_ascii_case(host);
    let to_the_top = if is_alias { IN_THE_ALIAS } else { TO_THE_TOP };
    let obstacle = if keys == Keys::Own { None } else { obstacle_to_every_key(options) };
    if let Some((obstacle, instead)) = obstacle {
        return Finding::broken(format!("{obstacle} for {host}, and ssh_ec2 logs in by key only"))
            .hint(format!("put `Host i-* *.ec2` with `{instead}` in front of it"));
    }
    let only_plain = |fact: String, hint: &str| {
        Finding::warning(format!("plain ssh: {fact}"))
            .hint(format!("{hint}; `ssh_ec2` itself works without it"))
    };
    let proxy = value("proxycommand");
    let Some(program) = own_program(proxy, " proxy ") else {
        return match (proxy, installed) {
            (_, true) if is_alias => only_plain(format!("the installed blocks do not apply to the alias {host}"), to_the_top),
            ("" | "none", _) => Finding::warning(format!("plain ssh does not go through ssh_ec2 for {host}"))
                .hint("`ssh_ec2 config --install` makes `ssh USER@INSTANCE` work; `ssh_ec2` itself works without it"),
            (_, true) => only_plain(format!("another ProxyCommand comes first for {host}"), to_the_top),
            (_, false) => Finding::warning(format!("plain ssh has another ProxyCommand for {host}"))
                .hint("`ssh_ec2 config --install` replaces it; `ssh_ec2` itself works without it"),
        };
    };
    if !is_runnable(Path::new(&program)) {
        let fact = format!("ProxyCommand runs {program}, which does not exist");
        return only_plain(fact, "`ssh_ec2 config --install` writes it again");
    }
    // For a managed node, these options are about the user's own keys or passwords.
    if keys != Keys::Own
        && let Some(obstacle) = obstacle_to_the_one_time_key(options)
    {
        return only_plain(format!("{obstacle} ({host})"), to_the_top);
    }
    if own_program(value("knownhostscommand"), " known-hosts ").is_none() {
        return Finding::warning(format!(
            "another KnownHostsCommand comes first for {host}: host keys are not checked by ssh_ec2"
        ))
        .hint(to_the_top);
    }
    Finding::ok(format!("plain ssh goes through {program} for {host}"))
}

/// The setting that keeps ssh from offering any key, and the one that would allow it.
fn obstacle_to_every_key(options: &SshOptions) -> Option<(&'static str, &'static str)> {
    if matches!(options.get("pubkeyauthentication"), Some("false" | "no")) {
        return Some(("PubkeyAuthentication is off", "PubkeyAuthentication yes"));
    }
    if options.get("preferredauthentications").is_some_and(|methods| !methods.contains("publickey")) {
        return Some(("PreferredAuthentications leaves out publickey", "PreferredAuthentications publickey"));
    }
    let takes = |key: &&str| options.lists("pubkeyacceptedalgorithms", key) != Some(false);
    (!ONE_TIME_KEYS.iter().any(takes)).then_some((
        "PubkeyAcceptedAlgorithms leaves out ssh-ed25519",
        "PubkeyAcceptedAlgorithms +ssh-ed25519",
    ))
}

/// The setting that keeps ssh from offering the one-time key, where our ProxyCommand is in use.
fn obstacle_to_the_one_time_key(options: &SshOptions) -> Option<&'static str> {
    let value = |keyword: &str| options.get(keyword).unwrap_or_default();
    if value("identitiesonly") == "yes" && value("identityfile") == "none" {
        return Some("IdentitiesOnly keeps ssh from offering the one-time key");
    }
    let (proxy, agent) = (value("proxycommand"), value("identityagent"));
    let is_another = proxy.contains("--agent-socket") && !agent.contains('@')
        || proxy.contains("--sockets") && !is_of_a_connection(agent);
    is_another.then_some("another IdentityAgent comes first, which does not have the one-time key")
}

/// Whether a path ends in a hash, as ssh expands `%C`.
fn is_of_a_connection(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    name.len() == 40 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The path of `ssh_ec2` in one of its own commands: the text in front of the subcommand.
fn own_program(command: &str, subcommand: &str) -> Option<String> {
    let (program, _) = command.split_once(subcommand)?;
    let program = program.trim_matches(['\'', '"']);
    Path::new(program).file_name().is_some_and(|name| name == "ssh_ec2").then(|| program.to_owned())
}

fn is_runnable(program: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    program.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

/// The signature algorithms of one-time keys.
const ONE_TIME_KEYS: [&str; 3] = ["ssh-ed25519", "rsa-sha2-512", "rsa-sha2-256"];
/// The hint for names and ids.
const TO_THE_TOP: &str = "put the line `Include …/ssh_ec2/config` at the top of ~/.ssh/config, as `ssh_ec2 config --install` does: ssh takes the first value it finds";
/// The hint for an alias, whose `HostName` ssh reads after the blocks at the top.
const IN_THE_ALIAS: &str = "put the line `Include ~/.ssh/ssh_ec2/alias` into the `Host` block of the alias, below its HostName, and that block in front of `Host *`: ssh takes the first value it finds";

#[cfg(test)]
mod tests {
    use super::*;

    /// The finding for an installed configuration with one option changed.
    fn finding(keyword: &str, value: &str) -> Finding {
        finding_with(keyword, value, Keys::Pushed)
    }

    fn finding_with(keyword: &str, value: &str, keys: Keys) -> Finding {
        let own = std::env::current_exe().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("ssh_ec2");
        std::os::unix::fs::symlink(own, &program).unwrap();
        let program = program.display();
        // ssh prints each keyword once; here the first one counts.
        let options = SshOptions::parse(&format!(
            "{keyword} {value}\n\
             proxycommand {program} proxy --sockets /a '%r' '%h' '%p'\n\
             knownhostscommand {program} known-hosts --file /k -- %h\n\
             identityagent /a/b437c388824dad02a616a346678d4babdb75c47e\n\
             identityfile none\n\
             identitiesonly no\n\
             pubkeyauthentication true\n"
        ));
        check_options("i-0a1b2c3d", &options, true, keys)
    }

    #[test]
    fn the_installed_settings_are_ok() {
        assert_eq!(finding("loglevel", "INFO").verdict, Verdict::Ok);
    }

    #[test]
    fn a_managed_node_needs_no_one_time_key() {
        for (keyword, value) in [("identityagent", "SSH_AUTH_SOCK"), ("identitiesonly", "yes")] {
            assert_eq!(finding_with(keyword, value, Keys::Own).verdict, Verdict::Ok, "{keyword}");
        }
    }

    #[test]
    fn an_option_that_comes_before_ours_is_reported() {
        for (keyword, value, verdict, fact) in [
            (
                "proxycommand",
                "nc %h %p",
                Verdict::Warning,
                "plain ssh: another ProxyCommand comes first for i-0a1b2c3d",
            ),
            (
                "proxycommand",
                "/gone/ssh_ec2 proxy a b c",
                Verdict::Warning,
                "plain ssh: ProxyCommand runs /gone/ssh_ec2, which does not exist",
            ),
            ("pubkeyauthentication", "false", Verdict::Broken, "PubkeyAuthentication is off"),
            (
                "pubkeyacceptedalgorithms",
                "ecdsa-sha2-nistp256",
                Verdict::Broken,
                "PubkeyAcceptedAlgorithms leaves out ssh-ed25519",
            ),
            (
                "preferredauthentications",
                "password",
                Verdict::Broken,
                "PreferredAuthentications leaves out publickey",
            ),
            (
                "identitiesonly",
                "yes",
                Verdict::Warning,
                "plain ssh: IdentitiesOnly keeps ssh from offering the one-time key",
            ),
            (
                "identityagent",
                "SSH_AUTH_SOCK",
                Verdict::Warning,
                "plain ssh: another IdentityAgent comes first",
            ),
        ] {
            let finding = finding(keyword, value);
            assert_eq!(finding.verdict, verdict, "{keyword}");
            assert!(finding.fact.starts_with(fact) && !finding.hints.is_empty(), "{}", finding.fact);
        }
        assert_eq!(finding("proxycommand", "none").verdict, Verdict::Warning);
        assert_eq!(finding("knownhostscommand", "none").verdict, Verdict::Warning);
    }
}
