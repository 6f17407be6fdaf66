//! The options that every command shares, wherever they stand.

use std::path::PathBuf;

use clap::{ArgAction, Args, Command};

use crate::key::one_time::KeyType;

/// Which account and region, which of several instances, which key, and how much to print.
///
/// This is the only list of these options: how they are parsed, completed and split from ssh's own words
/// follows from it. What takes it apart does so without `..`, so that a new option does not compile until it
/// is used there.
#[derive(Args, Clone, Debug, Default, PartialEq)]
pub(crate) struct Common {
    /// Use the credentials and the region of this AWS profile
    #[arg(long, value_name = "NAME")]
    pub profile: Option<String>,
    /// Look for the instance in this AWS region
    #[arg(long, value_name = "NAME")]
    pub region: Option<String>,
    /// If several instances match, take the one started last
    #[arg(long, conflicts_with = "any")]
    pub newest: bool,
    /// If several instances match, take any of them
    #[arg(long)]
    pub any: bool,
    /// Never prompt; the same as ssh's BatchMode
    #[arg(long)]
    pub batch: bool,
    /// Record this reason in Session Manager's session history
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Use this key pair of your own instead of a one-time key
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// Make a one-time key of this type, `ed25519` or `rsa`, whatever ssh's options accept
    #[arg(long, value_name = "TYPE", conflicts_with = "key_file")]
    pub key_type: Option<KeyType>,
    /// Show each step on standard error; twice for more
    #[arg(long, short, action = ArgAction::Count)]
    pub verbose: u8,
}

impl Common {
    /// These options, completed by those of `before`, which stood in front of the subcommand.
    pub(crate) fn over(self, before: Self) -> Self {
        // `--key-file` and `--key-type` exclude each other: either of them replaces both.
        let (key_file, key_type) = match (self.key_file, self.key_type) {
            (None, None) => (before.key_file, before.key_type),
            key => key,
        };
        Self {
            profile: self.profile.or(before.profile),
            region: self.region.or(before.region),
            newest: self.newest || before.newest,
            any: self.any || before.any,
            batch: self.batch || before.batch,
            reason: self.reason.or(before.reason),
            key_file,
            key_type,
            verbose: self.verbose.max(before.verbose),
        }
    }

    /// The first option that was given and is not among `used`: a command that does not use it must refuse
    /// it.
    pub(crate) fn unused(&self, used: &[&str]) -> Option<&'static str> {
        let Self { profile, region, newest, any, batch, reason, key_file, key_type, verbose } = self;
        let given = [
            ("--profile", profile.is_some()),
            ("--region", region.is_some()),
            ("--newest", *newest),
            ("--any", *any),
            ("--batch", *batch),
            ("--reason", reason.is_some()),
            ("--key-file", key_file.is_some()),
            ("--key-type", key_type.is_some()),
            ("--verbose", *verbose > 0),
        ];
        let mut given = given.into_iter().filter_map(|(name, is_given)| is_given.then_some(name));
        given.find(|name| !used.contains(name))
    }
}

/// The option of `command` with this long name, without its dashes.
pub(super) fn long_option<'a>(command: &'a Command, name: &str) -> Option<&'a clap::Arg> {
    command.get_arguments().find(|option| {
        let aliases = option.get_all_aliases().unwrap_or_default();
        option.get_long() == Some(name) || aliases.contains(&name)
    })
}

/// Whether an option of `command` takes the next word for its value.
pub(super) fn takes_next_word(command: &Command, word: &str) -> bool {
    let option = word.strip_prefix("--").and_then(|name| long_option(command, name));
    option.is_some_and(|option| option.get_action().takes_values())
}

/// Each common option, set on its own, by its long name. `key` is a file for options that take one.
#[cfg(test)]
pub(crate) fn common_options(key: &std::path::Path) -> Vec<(String, Common)> {
    use clap::FromArgMatches as _;

    let command = Common::augment_args(Command::new("common").no_binary_name(true));
    let options = command.get_arguments().map(|option| {
        let name = format!("--{}", option.get_long().unwrap());
        let value = match option.get_id().as_str() {
            _ if !option.get_action().takes_values() => None,
            "key_file" => Some(key.to_str().unwrap().to_owned()),
            "key_type" => Some("rsa".to_owned()),
            _ => Some("value".to_owned()),
        };
        let words = std::iter::once(name.clone()).chain(value);
        let matches = command.clone().try_get_matches_from(words).unwrap();
        (name, Common::from_arg_matches(&matches).unwrap())
    });
    options.collect()
}
