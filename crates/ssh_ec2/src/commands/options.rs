//! What the options that all commands share come to: where to look, whom to ask, what the proxy is given.

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

/// The target that a host stands for, and the options with what its suffix and region add to them.
///
/// # Errors
/// When the host names nothing.
pub fn place(host: &str, mut common: Common, places: &OwnFiles) -> Result<(Target, Common), Failure> {
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

/// Whether our blocks match a host: an id, or a name with a suffix.
pub fn is_ours(host: &str, places: &OwnFiles) -> bool {
    match place(host, Common::default(), places) {
        Ok((Target::Id(_), _)) => true,
        Ok((target, _)) => target.to_string() != host,
        Err(_) => false,
    }
}

/// The host that plain ssh takes for a target: a name has a suffix there.
pub fn plain_host(host: &str, target: &Target) -> String {
    match target {
        Target::Name(name) if name == host => format!("{host}.{DEFAULT_SUFFIX}"),
        _ => host.to_owned(),
    }
}

/// The proxy's share of the options.
///
/// # Errors
/// When the key file holds no public key.
pub fn proxy_options(common: &Common, verbosity: usize) -> Result<ProxyOptions, Failure> {
    let mut arguments = Vec::new();
    let mut proxy_arguments = Vec::new();
    for (name, value) in [("--profile", &common.profile), ("--region", &common.region)] {
        if let Some(value) = value {
            if !is_literal(value) {
                return Err(Failure::Usage(format!(
                    "{value:?} cannot be given to ssh, which would replace `${{…}}`"
                )));
            }
            arguments.extend([name.to_owned(), value.clone()]);
        }
    }
    if let Some(reason) = &common.reason {
        proxy_arguments.extend(["--reason".to_owned(), reason.clone()]);
    }
    let mut identity = None;
    if let Some(path) = &common.key_file {
        read_public_key(path)?;
        let path = std::path::absolute(path).map_err(|source| Failure::File {
            action: "find",
            path: path.clone(),
            source,
        })?;
        proxy_arguments.extend(["--key-file".to_owned(), path.to_string_lossy().into_owned()]);
        identity = Some(private_half(&path));
    }
    if let Some(key_type) = common.key_type {
        proxy_arguments.extend(["--key-type".to_owned(), key_type.to_string()]);
    }
    if common.batch {
        proxy_arguments.push("--batch".into());
    }
    match choice(common) {
        Choice::Unique => {}
        Choice::Newest => arguments.push("--newest".into()),
        Choice::Any => arguments.push("--any".into()),
    }
    arguments.extend((0..usize::from(common.verbose).max(verbosity).min(2)).map(|_| "-v".to_owned()));
    Ok(ProxyOptions { arguments, proxy_arguments, found_by: None, identity })
}

/// What ssh signs with: beside the `.pub` file, or in the user's agent when only that file is here.
fn private_half(path: &Path) -> PathBuf {
    let private = path.with_extension("");
    if path.extension().is_some_and(|extension| extension == "pub") && private.exists() {
        return private;
    }
    path.to_owned()
}

/// Profile and region, as the calls to AWS want them.
pub fn aws_settings(common: &Common) -> Settings {
    Settings { profile: common.profile.clone(), region: common.region.clone(), batch: common.batch }
}

/// What to do when several instances match.
pub fn choice(common: &Common) -> Choice {
    match (common.newest, common.any) {
        (true, _) => Choice::Newest,
        (_, true) => Choice::Any,
        _ => Choice::Unique,
    }
}

/// Which keys ssh is to offer there.
pub fn keys_of(instance: &InstanceId) -> Keys {
    if instance.is_managed_node() { Keys::Own } else { Keys::Pushed }
}
