//! The texts of `--help`, and what the completions of a shell are made from.

use clap::{Command, CommandFactory as _, Subcommand as _};

use crate::cli::{Cli, Command as Subcommands, RESERVED, connect};

/// The names of the subcommands that a user calls.
pub(crate) fn subcommand_names() -> Vec<String> {
    let command = Cli::command();
    let shown = command.get_subcommands().filter(|command| !command.is_hide_set());
    let shown = shown.map(Command::get_name).filter(|name| *name != "proxy");
    let missing = RESERVED.iter().copied().filter(|name| command.find_subcommand(name).is_none());
    shown.chain(missing).map(str::to_owned).collect()
}

/// Whether a word is the name of a subcommand, or is reserved for one.
pub(crate) fn is_subcommand_name(word: &str) -> bool {
    RESERVED.contains(&word) || Subcommands::has_subcommand(word)
}

/// The long options that may follow the words of a command line.
pub(crate) fn long_options(words: &[String]) -> Vec<String> {
    let command = Cli::command();
    let subcommand = words.iter().find_map(|word| command.find_subcommand(word));
    let mut options = subcommand.map_or_else(|| shown_options(&connect::options()), shown_options);
    if subcommand.is_none() {
        options.extend(["--help", "--version"].map(str::to_owned));
    }
    options.sort();
    options
}

fn shown_options(command: &Command) -> Vec<String> {
    let shown = command.get_arguments().filter(|option| !option.is_hide_set());
    shown.filter_map(|option| option.get_long().map(|name| format!("--{name}"))).collect()
}

/// The usage alone, for standard error.
pub(crate) fn usage() -> String {
    format!("Usage: {USAGE}\n\n`ssh_ec2 --help` says more.\n")
}

pub(super) const USAGE: &str = "\
ssh_ec2 [OPTIONS] [SSH OPTIONS] [USER@]TARGET [COMMAND …]
       ssh_ec2 [OPTIONS] USER INSTANCE [--send-key-only]
       ssh_ec2 [--profile NAME]… [--all-regions] [SSH OPTIONS]
       ssh_ec2 [OPTIONS] scp|sftp|rsync ARGUMENT…
       ssh_ec2 list [NAME] [--tag KEY=VALUE] [--all-regions] [--json]
       ssh_ec2 config [--install | --uninstall] [--suffix SUFFIX]
       ssh_ec2 doctor [[USER@]TARGET] [--all] [--json]
       ssh_ec2 known-hosts [--forget | --trust KEY] TARGET
       ssh_ec2 known-hosts --list
       ssh_ec2 policy [--with FEATURE,…] [--user NAME] [--tag KEY=VALUE] [--terraform]
       ssh_ec2 completions bash|zsh|fish
       ssh_ec2 proxy USER HOST PORT
       ssh_ec2 sandbox [COMMAND …]";
pub(super) const AFTER_HELP: &str = "\
Without a TARGET, on a terminal, you choose from all instances.

TARGET is an instance id, a Name tag (with * and ? as wildcards), tag:KEY=VALUE,
an address, an EC2 DNS name, or asg:GROUP; also NAME.ec2 and
NAME.REGION.ec2, as plain ssh takes them after `ssh_ec2 config --install`.

For a connection, in front of the remote command:
      --dry-run        Print the command line of ssh instead of running it
      --send-key-only  Push your own public key to INSTANCE for 60 seconds, and
                       do not connect

Exit status: ssh's own for a connection; 0 success, 1 an error, which is
printed, 2 wrong usage, 130 interrupted.

The region, credentials and proxies are found as the aws CLI finds them:
AWS_PROFILE, AWS_REGION, ~/.aws/config, AWS_ENDPOINT_URL, HTTPS_PROXY, NO_PROXY,
AWS_CA_BUNDLE. SSH_EC2_DIR replaces ~/.ssh/ssh_ec2, where host keys and sockets
are kept, and holds the cache of names, which is otherwise below XDG_CACHE_HOME
or ~/.cache.";
