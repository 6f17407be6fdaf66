//! Converts the common options for the modules below: settings for AWS, the choice among several instances,
//! the words of the ProxyCommand.

use std::path::{Path, PathBuf};

use crate::aws::Settings;
use crate::cli::Common;
use crate::commands::config::file::read;
use crate::error::Failure;
use crate::instances::resolve::Choice;
use crate::key::file::read_public_key;
use crate::ssh::config::{DEFAULT_SUFFIX, Keys, ProxyOptions, sections};
use crate::ssh::own_files::OwnFiles;
use crate::ssh::quote::is_literal;
use crate::target::{Host, InstanceId, Target};

/// The target that a host stands for, and the options, completed by the profile and the region of its suffix.
///
/// # Errors
///
/// When the host is no target.
pub(super) fn target_of_host(
    host: &str,
    mut common: Common,
    places: &OwnFiles,
) -> Result<(Target, Common), Failure> {
    let file = read(&places.config())?.unwrap_or_default();
    let installed = sections(&String::from_utf8_lossy(&file));
    for suffix in installed.into_iter().map(|(suffix, _)| suffix) {
        if let Some(found) = Host::below(host, &suffix.suffix) {
            let Host { target, region } = found?;
            common.region = common.region.or(region).or(suffix.region);
            common.profile = common.profile.or(suffix.profile);
            return Ok((target, common));
        }
    }
    match Host::below(host, DEFAULT_SUFFIX) {
        Some(found) => {
            let Host { target, region } = found?;
            common.region = common.region.or(region);
            Ok((target, common))
        }
        None => Ok((host.parse()?, common)),
    }
}

/// The target that the host of a ProxyCommand or KnownHostsCommand stands for, and the region in its name.
///
/// ssh converts `%h` to lower case, so `typed` (`%n`) is used if it is the same host; an alias is not.
pub(super) fn target_of_proxy_host(
    host: &str,
    typed: Option<&str>,
    suffix: Option<&str>,
) -> Result<(Target, Option<String>), Failure> {
    let host = typed.filter(|typed| typed.eq_ignore_ascii_case(host)).unwrap_or(host);
    match suffix.and_then(|suffix| Host::below(host, suffix)) {
        Some(host) => host.map(|Host { target, region }| (target, region)).map_err(Failure::from),
        None => Ok((host.parse()?, None)),
    }
}

/// Whether the installed blocks match a host: an id, or a name with a suffix.
pub(super) fn matches_blocks(host: &str, places: &OwnFiles) -> bool {
    match target_of_host(host, Common::default(), places) {
        Ok((Target::Id(_), _)) => true,
        Ok((target, _)) => target.to_string() != host,
        Err(_) => false,
    }
}

/// The host to give to plain ssh for a target: there, a name needs a suffix.
pub(super) fn plain_host(host: &str, target: &Target) -> String {
    match target {
        Target::Name(name) if name == host => format!("{host}.{DEFAULT_SUFFIX}"),
        _ => host.to_owned(),
    }
}

/// The options of the proxy that ssh starts for these options. `verbosity` is ssh's own.
///
/// # Errors
///
/// When the key file contains no public key, or ssh would change a value.
pub(super) fn proxy_options(common: &Common, verbosity: usize) -> Result<ProxyOptions, Failure> {
    // Without `..`: an option that is missing here would have no effect on a connection.
    let Common { profile, region, newest, any, batch, reason, key_file, key_type, verbose } = common;
    let verbosity = usize::from(*verbose).max(verbosity).min(2);
    let arguments = [
        valued("--profile", literal(profile.as_deref())?),
        valued("--region", literal(region.as_deref())?),
        flag("--newest", *newest),
        flag("--any", *any && !newest),
        vec!["-v".to_owned(); verbosity],
    ];
    let key_file = key_file.as_deref().map(absolute_key_file).transpose()?;
    let proxy_arguments = [
        valued("--reason", reason.clone()),
        valued("--key-file", key_file.as_ref().map(|path| path.to_string_lossy().into_owned())),
        valued("--key-type", key_type.map(|key_type| key_type.to_string())),
        flag("--batch", *batch),
    ];
    Ok(ProxyOptions {
        arguments: arguments.concat(),
        proxy_arguments: proxy_arguments.concat(),
        found_by: None,
        identity: key_file.as_deref().map(private_half),
    })
}

fn valued(name: &str, value: Option<String>) -> Vec<String> {
    value.map_or_else(Vec::new, |value| vec![name.to_owned(), value])
}

fn flag(name: &str, is_set: bool) -> Vec<String> {
    if is_set { vec![name.to_owned()] } else { Vec::new() }
}

/// A value for a setting in which ssh replaces environment variables.
fn literal(value: Option<&str>) -> Result<Option<String>, Failure> {
    match value {
        Some(value) if !is_literal(value) => {
            Err(Failure::Usage(format!("{value:?} cannot be given to ssh, which would replace `${{…}}`")))
        }
        value => Ok(value.map(str::to_owned)),
    }
}

/// The path of a public key for a proxy, which may run in another directory.
fn absolute_key_file(path: &Path) -> Result<PathBuf, Failure> {
    read_public_key(path)?;
    let failed = |source| Failure::File { action: "find", path: path.to_owned(), source };
    std::path::absolute(path).map_err(failed)
}

/// The file that ssh is given as IdentityFile: the private key beside the `.pub` file, or the `.pub` file if
/// the private key is only in the user's agent.
fn private_half(path: &Path) -> PathBuf {
    let private = path.with_extension("");
    if path.extension().is_some_and(|extension| extension == "pub") && private.exists() {
        return private;
    }
    path.to_owned()
}

/// The common options that the calls to AWS depend on.
pub(super) fn aws_settings(common: &Common) -> Settings {
    Settings { profile: common.profile.clone(), region: common.region.clone(), batch: common.batch }
}

/// What to do if several instances match.
pub(super) fn choice(common: &Common) -> Choice {
    match (common.newest, common.any) {
        (true, _) => Choice::Newest,
        (_, true) => Choice::Any,
        _ => Choice::Unique,
    }
}

/// The keys that ssh offers to an instance.
pub(super) fn keys_of(instance: &InstanceId) -> Keys {
    if instance.is_managed_node() { Keys::Own } else { Keys::Pushed }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::cli::common_options;
    use crate::ssh::config::{block, install_commands};
    use crate::ssh::transfer::Tool;

    /// The list of option names in `ssh/own_options.rs`, which does not know the command line.
    #[test]
    fn every_common_option_reaches_the_proxy_and_is_known_where_options_are_listed() {
        let directory = tempfile::tempdir().unwrap();
        let key = directory.path().join("key.pub");
        fs::write(&key, "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl\n")
            .unwrap();
        let places = OwnFiles::of_user(Path::new("/home/me/.ssh/ssh_ec2"), 1000);
        for (name, common) in common_options(&key) {
            let options = proxy_options(&common, 0).unwrap();
            let words = [options.arguments.as_slice(), &options.proxy_arguments].concat();
            let typed = if name == "--verbose" { "-v" } else { &name };
            assert!(words.iter().any(|word| word == typed), "the proxy is not given {name}");
            let repeated = install_commands(&block(Path::new("/ssh_ec2"), &places, &options));
            assert_eq!(repeated, [format!("ssh_ec2 {} config --install", words.join(" "))]);
            // `--verbose` is an option of rsync as well.
            let is_refused = Tool::Scp.mistake(&[name.clone().into()]).is_some();
            assert_eq!(is_refused, name != "--verbose", "{name} behind scp");
        }
    }
}
