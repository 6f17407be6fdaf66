//! The settings that ssh needs for an instance, for its command line and for ssh_config. (Pure.)
//!
//! The blocks of ssh_config are installed in a file of their own, which the user's file includes by a single
//! line at its top; without that line, every byte of it is as before. The installed file has a section for
//! each suffix of host names, described by the section's first line, and ends with the block for instance
//! ids.

mod agent_socket;
mod hosts;
mod include;
mod installed;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub(crate) use self::agent_socket::Connection;
pub(crate) use self::include::{exclude, include, include_line};
pub(crate) use self::installed::{install_commands, installed_block, is_outdated, sections, without_section};
use crate::ssh::own_files::OwnFiles;
use crate::ssh::quote::{escape_tokens, proxy_word, split_word};

/// The options of `ssh_ec2 proxy` and `ssh_ec2 known-hosts` in the settings, besides ssh's tokens.
#[derive(Clone, Debug, Default)]
pub struct ProxyOptions {
    /// Options for both commands.
    pub arguments: Vec<String>,
    /// Options for `proxy` alone.
    pub proxy_arguments: Vec<String>,
    /// The target by which the instance was found, for the proxy to resolve it again.
    pub found_by: Option<String>,
    /// The user's own private key, instead of a one-time key.
    pub identity: Option<PathBuf>,
}

/// The keys that ssh offers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Keys {
    /// The user's keys, as ssh finds them: no key can be pushed to a managed node.
    Own,
    /// The key that is pushed.
    Pushed,
}

/// A suffix of host names, with the profile and region in which those hosts are.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Suffix {
    /// Without the first dot: `prod.ec2`.
    pub suffix: String,
    /// The AWS profile; the default one if it is None.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// The AWS region; that of the profile if it is None.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
}

/// The settings for one instance, as keyword and value, for ssh's option `-o`.
pub(crate) fn settings(
    program: &Path,
    files: &OwnFiles,
    options: &ProxyOptions,
    keys: Keys,
) -> Vec<(&'static str, String)> {
    let key = match keys {
        Keys::Own if options.identity.is_none() => Vec::new(),
        Keys::Own | Keys::Pushed => key_settings(files, options),
    };
    [tunnel_settings(program, files, options, keys, None), key].concat()
}

/// The settings for the connection to the instance and for its host key.
fn tunnel_settings(
    program: &Path,
    files: &OwnFiles,
    options: &ProxyOptions,
    keys: Keys,
    suffix: Option<&str>,
) -> Vec<(&'static str, String)> {
    let mut proxy = format!("{} proxy", proxy_word(&program.to_string_lossy()));
    for argument in options.arguments.iter().chain(&options.proxy_arguments) {
        proxy.push(' ');
        proxy.push_str(&proxy_word(argument));
    }
    if let Some(target) = &options.found_by {
        proxy.push_str(&format!(" --found-by {}", proxy_word(target)));
    }
    if options.identity.is_none() && keys == Keys::Pushed {
        let sockets = proxy_word(&files.sockets().to_string_lossy());
        proxy.push_str(&format!(" --sockets {sockets}"));
    }
    if let Some(suffix) = suffix {
        // Besides `%h`, which ssh makes lower case.
        proxy.push_str(&format!(" --suffix {suffix} --typed '%n'"));
    }
    // Quoted, since a user name may have a dollar sign and a host name wildcards, which the shell would
    // expand.
    proxy.push_str(" '%r' '%h' '%p'");
    vec![
        ("ProxyCommand", proxy),
        // With `yes` ssh would wait for a socket from the command, which forwards the bytes itself.
        ("ProxyUseFdpass", "no".into()),
        // It lists keys by instance id, whatever the host is called: no id is ever given to another instance.
        ("KnownHostsCommand", known_hosts_command(program, files, options, suffix)),
        ("UserKnownHostsFile", "/dev/null".into()),
        ("StrictHostKeyChecking", "yes".into()),
        // With `yes` ssh would trust a key in DNS without asking the command.
        ("VerifyHostKeyDNS", "no".into()),
    ]
}

/// The value of KnownHostsCommand. ssh runs it without a shell: it splits it into words, and then replaces
/// tokens in all words but the first.
fn known_hosts_command(
    program: &Path,
    files: &OwnFiles,
    options: &ProxyOptions,
    suffix: Option<&str>,
) -> String {
    let word = |text: &str| split_word(&escape_tokens(text));
    let mut command = format!("{} known-hosts", split_word(&program.to_string_lossy()));
    for argument in &options.arguments {
        command.push(' ');
        command.push_str(&word(argument));
    }
    command.push_str(&format!(" --file {}", word(&files.known_hosts().to_string_lossy())));
    if let Some(suffix) = suffix {
        command.push_str(&format!(" --suffix {suffix} --typed %n"));
    }
    command.push_str(" --port %p --host %H --presented %t:%K -- %h");
    command
}

/// The settings for the key that ssh offers.
fn key_settings(files: &OwnFiles, options: &ProxyOptions) -> Vec<(&'static str, String)> {
    match &options.identity {
        None => {
            let socket = format!("{}/%C", escape_tokens(&files.sockets().to_string_lossy()));
            // The key agent has one key. Without `none`, ssh would offer the user's own keys after it.
            vec![
                ("IdentityAgent", split_word(&socket)),
                ("IdentityFile", "none".into()),
                // With `yes`, which many users set for all hosts, ssh would not offer an agent's keys.
                ("IdentitiesOnly", "no".into()),
            ]
        }
        Some(identity) => vec![
            // Not our key agent, which a block further down may name.
            ("IdentityAgent", "SSH_AUTH_SOCK".into()),
            ("IdentityFile", split_word(&escape_tokens(&identity.to_string_lossy()))),
            ("IdentitiesOnly", "yes".into()),
        ],
    }
}

/// The section for hosts with a suffix. [`sections`] recognizes it by its first line.
pub(crate) fn section(
    program: &Path,
    files: &OwnFiles,
    options: &ProxyOptions,
    user: Option<&str>,
    suffix: &Suffix,
) -> String {
    // It cannot fail: all fields are strings.
    let description = serde_json::to_string(suffix).unwrap_or_default();
    let mut section = format!("{SECTION}{description}\n{}", hosts::names(&suffix.suffix));
    let user = user.map(|user| ("User", user.to_owned()));
    let tunnel = tunnel_settings(program, files, options, Keys::Pushed, Some(&suffix.suffix));
    for (keyword, value) in user.into_iter().chain(tunnel) {
        section.push_str(&format!("    {keyword} {value}\n"));
    }
    section.push_str(&hosts::names_of_instances(&suffix.suffix));
    for (keyword, value) in key_settings(files, options) {
        section.push_str(&format!("    {keyword} {value}\n"));
    }
    section
}

/// Whether `config --suffix` accepts this: labels of lower-case letters, digits and hyphens, joined by dots.
pub(crate) fn is_suffix(suffix: &str) -> bool {
    let is_label = |label: &str| {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !label.is_empty() && label.bytes().all(allowed) && !label.starts_with('-') && !label.ends_with('-')
    };
    suffix.len() <= 100 && suffix.split('.').all(is_label)
}

/// The block for every instance id, and for names with the `DEFAULT_SUFFIX`. ssh offers managed nodes
/// (`mi-…`) the user's own keys: EC2 Instance Connect pushes no key to a machine outside EC2.
pub fn block(program: &Path, files: &OwnFiles, options: &ProxyOptions) -> String {
    let mut block = BLOCK.to_owned();
    let mut write = |header: String, settings: Vec<(&str, String)>| {
        block.push_str(&header);
        for (keyword, value) in settings {
            block.push_str(&format!("    {keyword} {value}\n"));
        }
    };
    let tunnel = |suffix| tunnel_settings(program, files, options, Keys::Pushed, suffix);
    // First, since an id may have the suffix as well.
    write(hosts::names(DEFAULT_SUFFIX), tunnel(Some(DEFAULT_SUFFIX)));
    write(hosts::names_of_instances(DEFAULT_SUFFIX), key_settings(files, options));
    write(hosts::ids(), tunnel(None));
    write(hosts::instances(), key_settings(files, options));
    block
}

/// The same blocks for an alias to include: they match the alias's `HostName`.
///
/// An alias has to include them itself. When ssh reads the blocks at the top of the user's file, an alias
/// further down has not set `HostName` yet; when ssh reads the file a second time, for `Match final`, the
/// settings that the user has for all hosts are set already, and ssh keeps the first value.
pub(crate) fn for_aliases(file: &str) -> String {
    hosts::by_host_name(file)
}

/// The suffix of host names when no other is installed: `web-1.ec2`.
pub(crate) const DEFAULT_SUFFIX: &str = "ec2";
const BLOCK: &str = "# Written by `ssh_ec2 config`.\n";
/// Begins a section. Its [`Suffix`] follows as JSON.
const SECTION: &str = "# ssh_ec2 suffix ";

#[cfg(test)]
mod tests;
