//! Completions: a script for each shell, and what the script asks for.
//!
//! Targets are the names in the cache: AWS is not called while a user presses Tab.

use std::collections::BTreeSet;
use std::time::SystemTime;

use crate::aws;
use crate::cli::{self, Shell};
use crate::commands::runtime::on_runtime;
use crate::environment::Environment;
use crate::error::{ExitCode, Failure};
use crate::instances::cache::Cache;
use crate::key::one_time::KeyType;
use crate::ui;

/// Prints the script for a shell.
///
/// # Errors
///
/// When standard output does not take it.
pub(super) fn script(shell: Shell) -> Result<ExitCode, Failure> {
    let script = match shell {
        Shell::Bash => include_str!("complete/bash.sh"),
        Shell::Zsh => include_str!("complete/zsh.zsh"),
        Shell::Fish => include_str!("complete/fish.fish"),
    };
    ui::print(script).map_err(Failure::Output)?;
    Ok(ExitCode::Success)
}

pub(super) fn start(words: &[String]) -> Result<ExitCode, Failure> {
    let cache = Environment::read()?.cache;
    on_runtime(async { complete(words, &cache) })
}

/// Prints the words that the last of `words` can become, one a line.
fn complete(words: &[String], cache: &Cache) -> Result<ExitCode, Failure> {
    let (current, before) =
        words.split_last().map_or(("", &[][..]), |(last, before)| (last.as_str(), before));
    let found = match before.last().map(String::as_str) {
        Some("--profile") => aws::profile_names(),
        Some("--region") => regions(cache),
        Some("--key-type") => KeyType::NAMES.map(str::to_owned).to_vec(),
        _ if current.starts_with('-') => cli::long_options(before),
        _ => targets(before, current, cache),
    };
    let text: String =
        found.into_iter().filter(|word| word.starts_with(current)).map(|word| word + "\n").collect();
    ui::print(&text).map_err(Failure::Output)?;
    Ok(ExitCode::Success)
}

fn regions(cache: &Cache) -> Vec<String> {
    let known = cache.names(SystemTime::now()).into_iter().map(|(scope, _)| scope.region);
    let regions: BTreeSet<_> = REGIONS.iter().map(ToString::to_string).chain(known).collect();
    regions.into_iter().collect()
}

fn targets(before: &[String], current: &str, cache: &Cache) -> Vec<String> {
    let value = |option: &str| {
        let at = before.iter().position(|word| word == option)?;
        before.get(at + 1)
    };
    let (profile, region) = (value("--profile"), value("--region"));
    let names: BTreeSet<_> = cache
        .names(SystemTime::now())
        .into_iter()
        .filter(|(scope, _)| region.is_none_or(|region| scope.region == *region))
        .filter(|(scope, _)| profile.is_none_or(|profile| scope.account == format!("profile {profile}")))
        .map(|(_, name)| name)
        // The scripts do not quote, so only names of letters, digits, `.`, `_` and `-` are offered.
        .filter(|name| name.chars().all(|character| character.is_alphanumeric() || "._-".contains(character)))
        .collect();
    let subcommand = before.iter().find(|word| !word.starts_with('-')).map(String::as_str);
    let user = current.rsplit_once('@').map(|(user, _)| format!("{user}@")).unwrap_or_default();
    match subcommand {
        Some("scp" | "rsync") => names.into_iter().map(|name| format!("{user}{name}:")).collect(),
        Some("doctor" | "known-hosts" | "list" | "sftp") => {
            names.into_iter().map(|name| format!("{user}{name}")).collect()
        }
        Some(other) if cli::is_subcommand_name(other) => Vec::new(),
        // A subcommand, or ssh's destination.
        None => cli::subcommand_names()
            .into_iter()
            .chain(names.into_iter().map(|name| format!("{user}{name}")))
            .collect(),
        Some(_) => names.into_iter().map(|name| format!("{user}{name}")).collect(),
    }
}

/// The regions of the partition `aws` that are enabled in every account.
const REGIONS: [&str; 17] = [
    "ap-northeast-1",
    "ap-northeast-2",
    "ap-northeast-3",
    "ap-south-1",
    "ap-southeast-1",
    "ap-southeast-2",
    "ca-central-1",
    "eu-central-1",
    "eu-north-1",
    "eu-west-1",
    "eu-west-2",
    "eu-west-3",
    "sa-east-1",
    "us-east-1",
    "us-east-2",
    "us-west-1",
    "us-west-2",
];
