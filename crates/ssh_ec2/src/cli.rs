//! The command line, as typed. No logic but the reading of it.
//!
//! Three shapes share one program name: our subcommands; ssh's own command line, with a few long options of ours
//! in front; and that of the script that this tool replaces, `USER INSTANCE`. The first word that is no option
//! tells which it is.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};

use crate::key::one_time::KeyType;
use crate::ssh::client::{Invocation, InvocationError};
use crate::target::InstanceId;

/// ssh to EC2 instances with IAM permissions only.
#[derive(Debug, Parser)]
#[command(name = "ssh_ec2", version, override_usage = USAGE, after_help = AFTER_HELP, disable_help_subcommand = true)]
pub struct Cli {
    /// Options that may stand in front of the target
    #[command(flatten)]
    pub common: Common,
    /// What to do, when it is not a connection.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of ours, whatever is done.
#[derive(Args, Clone, Debug, Default, PartialEq)]
pub struct Common {
    /// Take credentials and region from this AWS profile
    #[arg(long, value_name = "NAME")]
    pub profile: Option<String>,
    /// Look for the instance in this AWS region
    #[arg(long, value_name = "NAME")]
    pub region: Option<String>,
    /// When several instances match, take the one that was started last
    #[arg(long, conflicts_with = "any")]
    pub newest: bool,
    /// When several instances match, take any of them
    #[arg(long)]
    pub any: bool,
    /// Never ask anything; the same as ssh's BatchMode
    #[arg(long)]
    pub batch: bool,
    /// Tell this to Session Manager, for its records
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Use this key pair of your own instead of a one-time key
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// Make a one-time key of this type, and do not look at ssh's options for what it accepts
    #[arg(long, value_name = "TYPE", conflicts_with = "key_file", value_parser = key_type())]
    pub key_type: Option<KeyType>,
    /// Show each step on standard error; twice for more
    #[arg(long, short, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

fn key_type() -> impl clap::builder::TypedValueParser<Value = KeyType> {
    PossibleValuesParser::new(KeyType::NAMES).try_map(|name| name.parse())
}

impl Common {
    /// These options, and those of `before` where these say nothing.
    pub fn over(self, before: Self) -> Self {
        // Which key is one question, answered by either of two options.
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
}

/// What to do, when it is not a connection.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Carry SSH bytes between standard input and output and an instance, for ssh's ProxyCommand
    Proxy(Proxy),
    /// List the instances
    List(List),
    /// Copy files: scp, with a target for a host
    #[command(disable_help_flag = true)]
    Scp(Carry),
    /// Transfer files: sftp, with a target for a host
    #[command(disable_help_flag = true)]
    Sftp(Carry),
    /// Synchronise files: rsync, with a target for a host
    #[command(disable_help_flag = true)]
    Rsync(Carry),
    /// Print the ssh_config blocks for ids and names, or install them
    Config(Config),
    /// Print the host keys of an instance, for ssh's KnownHostsCommand; or look after those that are known
    KnownHosts(KnownHosts),
    /// Print the least IAM policy for what a user does
    Policy(Policy),
    /// Examine every layer between here and an instance, and name the one that is broken
    Doctor(Doctor),
    /// Print the completions for a shell
    Completions {
        /// Which shell.
        shell: Shell,
    },
    /// What the completions ask for
    #[command(name = "__complete", hide = true)]
    Complete {
        /// The command line up to the cursor, without the program.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
    /// Try it all without an AWS account: an emulated region on this machine
    #[cfg(feature = "sandbox")]
    Sandbox(Sandbox),
}

/// `ssh_ec2 proxy`
#[derive(Args, Debug)]
pub struct Proxy {
    /// Profile, region, and so on
    #[command(flatten)]
    pub common: Common,
    /// Serve the one-time key on this socket, which `IdentityAgent` names as well
    #[arg(long, value_name = "PATH")]
    pub agent_socket: Option<PathBuf>,
    /// Serve the one-time key in this directory, on the socket that ssh calls `%C`
    #[arg(long, value_name = "PATH", hide = true, conflicts_with = "agent_socket")]
    pub sockets: Option<PathBuf>,
    /// The host as it was typed (`%n`), since ssh makes `%h` lower case
    #[arg(long, value_name = "HOST")]
    pub typed: Option<String>,
    /// What the hosts of this block end in; it is taken off
    #[arg(long, value_name = "SUFFIX")]
    pub suffix: Option<String>,
    /// The name that the instance was found by, to be found anew if it is gone
    #[arg(long, value_name = "TARGET", hide = true)]
    pub found_by: Option<String>,
    /// Write what it fails with to this file as well
    #[arg(long, value_name = "PATH", hide = true)]
    pub report: Option<PathBuf>,
    /// Stay connected to this socket until a failure has been explained
    #[arg(long, value_name = "PATH", hide = true)]
    pub words: Option<PathBuf>,
    /// The login name (`%r`)
    pub user: String,
    /// The instance (`%h`)
    pub host: String,
    /// The port of sshd (`%p`)
    pub port: String,
}

/// `ssh_ec2 doctor`
#[derive(Args, Debug)]
pub struct Doctor {
    /// Profile, region, and so on
    #[command(flatten)]
    pub common: Common,
    /// Go on behind what is broken
    #[arg(long)]
    pub all: bool,
    /// Write JSON
    #[arg(long)]
    pub json: bool,
    /// The port of sshd
    #[arg(long, short, value_name = "PORT", default_value = "22", hide_default_value = true)]
    pub port: String,
    /// The instance, as for a connection
    #[arg(value_name = "[USER@]TARGET")]
    pub target: Option<String>,
}

/// `ssh_ec2 known-hosts`
#[derive(Args, Debug)]
pub struct KnownHosts {
    /// Profile, region, and so on
    #[command(flatten)]
    pub common: Common,
    /// Show all keys that are known, and who told each
    #[arg(long, conflicts_with_all = ["forget", "trust", "target"])]
    pub list: bool,
    /// Forget the keys of TARGET
    #[arg(long, conflicts_with = "trust", requires = "target")]
    pub forget: bool,
    /// Take this for the key of TARGET from now on
    #[arg(long, value_name = "KEY", requires = "target")]
    pub trust: Option<String>,
    /// The port of sshd (`%p`)
    #[arg(long, value_name = "PORT", default_value = "22", hide_default_value = true)]
    pub port: String,
    /// Keep the keys in this file
    #[arg(long, value_name = "PATH", hide = true)]
    pub file: Option<PathBuf>,
    /// The host as it was typed (`%n`), since ssh makes `%h` lower case
    #[arg(long, value_name = "HOST", hide = true)]
    pub typed: Option<String>,
    /// What the hosts of this block end in; it is taken off
    #[arg(long, value_name = "SUFFIX", hide = true)]
    pub suffix: Option<String>,
    /// What ssh looks keys up by (`%H`)
    #[arg(long, value_name = "HOST", hide = true)]
    pub host: Option<String>,
    /// The key that the server presented (`%t:%K`)
    #[arg(long, value_name = "KEY", hide = true)]
    pub presented: Option<String>,
    /// Write what it fails with to this file as well
    #[arg(long, value_name = "PATH", hide = true)]
    pub report: Option<PathBuf>,
    /// The instance
    #[arg(required_unless_present = "list")]
    pub target: Option<String>,
}

/// A shell that has completions.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Shell {
    /// GNU's.
    Bash,
    /// The one of macOS.
    Zsh,
    /// The friendly one.
    Fish,
}

/// `ssh_ec2 scp`, `sftp` and `rsync`
#[derive(Args, Debug)]
pub struct Carry {
    /// As the program takes them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENT")]
    pub arguments: Vec<OsString>,
}

/// `ssh_ec2 list`
#[derive(Args, Debug)]
pub struct List {
    /// Only those with this Name tag; * and ? are wildcards
    pub name: Option<String>,
    /// Only those with this tag; may be repeated
    #[arg(long, value_name = "KEY[=VALUE]")]
    pub tag: Vec<String>,
    /// Use this AWS profile; may be repeated
    #[arg(long, value_name = "NAME")]
    pub profile: Vec<String>,
    /// Look in this AWS region
    #[arg(long, value_name = "NAME", conflicts_with = "all_regions")]
    pub region: Option<String>,
    /// Look in every region that the account uses
    #[arg(long)]
    pub all_regions: bool,
    /// Show those that do not run as well
    #[arg(long)]
    pub all: bool,
    /// Write JSON: an array of objects
    #[arg(long)]
    pub json: bool,
    /// Show each step on standard error; twice for more
    #[arg(long, short, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

/// `ssh_ec2 config`
#[derive(Args, Debug)]
pub struct Config {
    /// Profile, region, and so on
    #[command(flatten)]
    pub common: Common,
    /// Write the block to a file of its own, and include it from ~/.ssh/config
    #[arg(long, conflicts_with = "uninstall")]
    pub install: bool,
    /// Take both out again; with --suffix, only that suffix
    #[arg(long)]
    pub uninstall: bool,
    /// Do it for hosts that end in this, like web-1.prod.ec2 in prod.ec2
    #[arg(long, value_name = "SUFFIX")]
    pub suffix: Option<String>,
    /// Log in there as this user, unless another one is given
    #[arg(long, value_name = "NAME", requires = "suffix")]
    pub user: Option<String>,
}

/// `ssh_ec2 policy`
#[derive(Args, Debug)]
pub struct Policy {
    /// Allow this as well, and not only connecting by id; may be repeated
    #[arg(long, value_name = "FEATURE", value_delimiter = ',')]
    pub with: Vec<Extra>,
    /// Only to instances with this tag; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub tag: Vec<String>,
    /// Only as this user; may be repeated. Without it, as those whom images have
    #[arg(long, value_name = "NAME")]
    pub user: Vec<String>,
    /// Only in this region
    #[arg(long, value_name = "NAME")]
    pub region: Option<String>,
    /// Only in this account
    #[arg(long, value_name = "NUMBER")]
    pub account: Option<String>,
    /// Write JSON, as IAM takes it; so it is without this option
    #[arg(long, conflicts_with = "terraform")]
    pub json: bool,
    /// Write a data source for Terraform
    #[arg(long)]
    pub terraform: bool,
}

/// What a policy may allow besides connecting by id.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Extra {
    /// Run commands as root, for host keys and for what is wrong with a refused key; no key is needed for that
    Commands,
    /// Find out why a connection fails
    Doctor,
    /// Forward ports without sshd
    Forwarding,
    /// Learn host keys from the console
    HostKeys,
    /// Connect to mi-… targets
    ManagedNodes,
    /// Connect by name, list, choose
    Names,
}

/// `ssh_ec2 sandbox`
#[cfg(feature = "sandbox")]
#[derive(Args, Debug)]
pub struct Sandbox {
    /// Show each step of the region on standard error; twice for more
    #[arg(long, short, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Serve SSH with this OpenSSH sshd instead of the built-in server; log in as yourself
    #[arg(long, value_name = "PATH")]
    pub sshd: Option<PathBuf>,
    /// Answer API calls only after this long, for example `50ms`
    #[arg(long, value_name = "TIME")]
    pub latency: Option<String>,
    /// Add so many instances, spread over four regions
    #[arg(long, value_name = "COUNT", default_value_t = 0, hide_default_value = true)]
    pub fleet: usize,
    /// Do this to the session's messages; may be repeated. `help` lists them
    #[arg(long, value_name = "FAULT[=VALUE]")]
    pub fault: Vec<String>,
    /// Allow only what this IAM policy allows
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,
    /// Run this in the region; your shell, when left out
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// A connection, or what a script did before one.
#[derive(Clone, Debug, PartialEq)]
pub struct Connect {
    /// Profile, region, and so on.
    pub common: Common,
    /// Print the command line of ssh instead of running it.
    pub dry_run: bool,
    /// What was asked for.
    pub shape: Shape,
}

/// The two ways to name a target.
#[derive(Clone, Debug, PartialEq)]
pub enum Shape {
    /// As ssh.
    Ssh(Invocation),
    /// As the script.
    Script {
        /// The login name.
        user: String,
        /// The instance.
        instance: String,
        /// Only push the key.
        send_key_only: bool,
    },
}

/// A connection to what the user is going to choose.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pick {
    /// Region, reason, and so on.
    pub common: Common,
    /// The profiles to search with.
    pub profiles: Vec<String>,
    /// Search all regions.
    pub all_regions: bool,
    /// Options for ssh.
    pub options: Vec<OsString>,
}

/// What the arguments ask for.
#[derive(Debug)]
pub enum Parsed {
    /// A subcommand.
    Command(Box<Cli>),
    /// A connection.
    Connect(Connect),
    /// Help or version, or a mistake that clap explains.
    Clap(clap::Error),
    /// A mistake in the command line of a connection.
    Usage(String),
    /// No target: to be chosen, where somebody can choose.
    Pick(Pick),
    /// `-V` or `-Q`, which ssh itself answers.
    Query {
        /// Whether to print our version as well.
        version: bool,
        /// For ssh.
        arguments: Vec<OsString>,
    },
}

/// Reads the arguments that follow the program's name.
pub fn parse(arguments: &[OsString]) -> Parsed {
    match first_word(arguments) {
        Some(at) if is_subcommand(&arguments[at..]) => parse_command(arguments),
        _ if arguments
            .first()
            .is_some_and(|word| matches!(word.to_str(), Some("--help" | "-h" | "--version"))) =>
        {
            parse_command(arguments)
        }
        _ => parse_connect(arguments),
    }
}

/// The names of our subcommands, for completions.
pub fn subcommand_names() -> impl Iterator<Item = &'static str> {
    SUBCOMMANDS.iter().copied().filter(|name| !name.starts_with('_') && *name != "proxy")
}

/// Whether a word is one of them.
pub fn is_subcommand_name(word: &str) -> bool {
    SUBCOMMANDS.contains(&word)
}

/// The long options that may follow on `words`.
pub fn long_options(words: &[String]) -> Vec<String> {
    let command = Cli::command();
    let subcommand = words.iter().find_map(|word| command.find_subcommand(word));
    let options = subcommand.unwrap_or(&command).get_arguments();
    let mut options: Vec<_> = options
        .filter(|option| !option.is_hide_set())
        .filter_map(|option| option.get_long().map(|name| format!("--{name}")))
        .collect();
    if subcommand.is_none() {
        options.extend(
            ["--all-regions", "--dry-run", "--send-key-only", "--help", "--version"].map(str::to_owned),
        );
    }
    options.sort();
    options
}

/// The usage, for standard error.
pub fn usage() -> String {
    format!("Usage: {USAGE}\n\n`ssh_ec2 --help` says more.\n")
}

fn parse_command(arguments: &[OsString]) -> Parsed {
    let name = std::iter::once(OsString::from("ssh_ec2"));
    match Cli::try_parse_from(name.chain(arguments.iter().cloned())) {
        Ok(cli) => Parsed::Command(Box::new(cli)),
        Err(error) => Parsed::Clap(error),
    }
}

/// A subcommand's name in front of an instance id is the user of the script's command line.
fn is_subcommand(words: &[OsString]) -> bool {
    let named = words[0].to_str().is_some_and(|word| SUBCOMMANDS.contains(&word));
    let before_instance =
        words.get(1).and_then(|word| word.to_str()).is_some_and(|word| word.parse::<InstanceId>().is_ok());
    let takes_instance = words[0].to_str().is_some_and(|word| OF_INSTANCES.contains(&word));
    named && (takes_instance || !before_instance)
}

/// The first word that is neither an option of ours nor its value.
fn first_word(arguments: &[OsString]) -> Option<usize> {
    let mut at = 0;
    while let Some(word) = arguments.get(at) {
        let word = word.to_str()?;
        if !word.starts_with("--") && !matches!(word, "-v" | "-vv") {
            return (!word.starts_with('-')).then_some(at);
        }
        at += if VALUED.contains(&word) { 2 } else { 1 };
    }
    None
}

/// Takes our long options wherever they stand before the remote command, and leaves the rest to ssh's rules.
fn parse_connect(arguments: &[OsString]) -> Parsed {
    let mut common = Common::default();
    let (mut profiles, mut all_regions) = (Vec::new(), false);
    let (mut dry_run, mut send_key_only) = (false, false);
    let mut rest = Vec::new();
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        let text = word.to_string_lossy();
        let (name, joined) = match text.split_once('=') {
            Some((name, value)) if name.starts_with("--") => (name.to_owned(), Some(value.to_owned())),
            _ => (text.into_owned(), None),
        };
        let mut value = || joined.clone().or_else(|| words.next()?.to_str().map(str::to_owned));
        let missing = || Parsed::Usage(format!("the option `{name}` needs a value"));
        match name.as_str() {
            "--profile" | "--region" | "--reason" | "--key-file" | "--key-type" => {
                let Some(value) = value() else { return missing() };
                match name.as_str() {
                    "--profile" => profiles.push(value),
                    "--region" => common.region = Some(value),
                    "--reason" => common.reason = Some(value),
                    "--key-type" => match value.parse() {
                        Ok(key_type) => common.key_type = Some(key_type),
                        Err(error) => return Parsed::Usage(error.to_string()),
                    },
                    _ => common.key_file = Some(value.into()),
                }
            }
            "--all-regions" => all_regions = true,
            "--newest" => common.newest = true,
            "--any" => common.any = true,
            "--batch" => common.batch = true,
            "--dry-run" => dry_run = true,
            "--send-key-only" => send_key_only = true,
            "--verbose" => common.verbose += 1,
            "--help" => return parse_command(&["--help".into()]),
            "--version" => return parse_command(&["--version".into()]),
            "--" => {
                rest.push(word.clone());
                rest.extend(words.by_ref().cloned());
            }
            name if name.starts_with("--") => return Parsed::Usage(format!("there is no option `{name}`")),
            _ => {
                rest.push(word.clone());
                // From the second plain word on it is the remote command, or the script's instance.
                if has_command(&rest) {
                    if script_words(&rest).is_some() {
                        continue;
                    }
                    rest.extend(words.by_ref().cloned());
                }
            }
        }
    }
    if common.newest && common.any {
        return Parsed::Usage("`--newest` and `--any` exclude each other".into());
    }
    if common.key_file.is_some() && common.key_type.is_some() {
        return Parsed::Usage("`--key-file` and `--key-type` exclude each other".into());
    }
    if let Some(query) = Invocation::query(&rest) {
        return Parsed::Query { version: query == b'V', arguments: rest };
    }
    let shape = match script_words(&rest) {
        Some(_) if send_key_only && common.key_type.is_some() => {
            return Parsed::Usage(
                "`--key-type` is for one-time keys, and `--send-key-only` pushes your own".into(),
            );
        }
        Some((user, instance)) => Shape::Script { user, instance, send_key_only },
        None if send_key_only => {
            return Parsed::Usage("`--send-key-only` needs a user and an instance id".into());
        }
        None => match Invocation::parse(&rest) {
            Ok(invocation) => Shape::Ssh(invocation),
            Err(InvocationError::NoDestination) if !dry_run => {
                return Parsed::Pick(Pick { common, profiles, all_regions, options: rest });
            }
            Err(error) => return Parsed::Usage(error.to_string()),
        },
    };
    if all_regions || profiles.len() > 1 {
        return Parsed::Usage(
            "several profiles, and `--all-regions`, are for choosing without a target".into(),
        );
    }
    common.profile = profiles.pop();
    Parsed::Connect(Connect { common, dry_run, shape })
}

fn has_command(words: &[OsString]) -> bool {
    Invocation::parse(words).is_ok_and(|invocation| !invocation.command.is_empty())
}

/// `USER INSTANCE`, where the first is no target itself.
fn script_words(words: &[OsString]) -> Option<(String, String)> {
    let [user, instance] = words else { return None };
    let (user, instance) = (user.to_str()?, instance.to_str()?);
    let is_user = !user.starts_with('-') && user.parse::<InstanceId>().is_err() && !names_instance(user);
    (is_user && instance.parse::<InstanceId>().is_ok()).then(|| (user.to_owned(), instance.to_owned()))
}

fn names_instance(destination: &str) -> bool {
    destination.rsplit_once('@').is_some_and(|(_, host)| host.parse::<InstanceId>().is_ok())
}

const SUBCOMMANDS: &[&str] = &[
    "proxy",
    "config",
    "doctor",
    "known-hosts",
    "list",
    "scp",
    "sftp",
    "rsync",
    "policy",
    "completions",
    "sandbox",
    "help",
    "__complete",
];
/// Those that an instance's id follows.
const OF_INSTANCES: &[&str] = &["doctor", "known-hosts"];
const VALUED: &[&str] = &["--profile", "--region", "--reason", "--key-file", "--key-type"];
const USAGE: &str = "\
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
const AFTER_HELP: &str = "\
Without a TARGET, on a terminal, you choose from all instances.

TARGET is an instance id, a Name tag (with * and ? as wildcards), tag:KEY=VALUE,
an address, a DNS name of EC2's, or asg:GROUP; also NAME.ec2 and
NAME.REGION.ec2, as plain ssh takes them after `ssh_ec2 config --install`.

For a connection, in front of the target:
      --dry-run        Print the command line of ssh instead of running it
      --send-key-only  Push your own public key to INSTANCE for 60 seconds, and
                       do not connect

Exit status: ssh's own for a connection; 0 success, 1 a failure that is
explained, 2 wrong usage, 130 interrupted.

The region, credentials and proxies are found as the aws CLI finds them:
AWS_PROFILE, AWS_REGION, ~/.aws/config, AWS_ENDPOINT_URL, HTTPS_PROXY, NO_PROXY,
AWS_CA_BUNDLE. SSH_EC2_DIR replaces ~/.ssh/ssh_ec2, where host keys and sockets
are kept, and holds the cache of names, which is otherwise below XDG_CACHE_HOME
or ~/.cache.";

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<OsString> {
        text.split_whitespace().map(OsString::from).collect()
    }

    fn connect(text: &str) -> Connect {
        match parse(&words(text)) {
            Parsed::Connect(connect) => connect,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn ssh_command_lines_pass_untouched() {
        let connect =
            connect("--profile prod -v -L 1:localhost:2 ec2-user@i-0a1b2c3d --region x ls --region y");
        assert_eq!(connect.common.profile.as_deref(), Some("prod"));
        assert_eq!(connect.common.region.as_deref(), Some("x"));
        let Shape::Ssh(invocation) = connect.shape else { panic!("{:?}", connect.shape) };
        assert_eq!(invocation.command, words("ls --region y"));
    }

    #[test]
    fn the_scripts_command_line_is_known_by_its_two_words() {
        let only = connect("ec2-user i-0a1b2c3d --send-key-only --key-file k.pub");
        assert_eq!(only.common.key_file, Some("k.pub".into()));
        let script = |user: &str, send_key_only| Shape::Script {
            user: user.into(),
            instance: "i-0a1b2c3d".into(),
            send_key_only,
        };
        assert_eq!(only.shape, script("ec2-user", true));
        assert_eq!(connect("ec2-user i-0a1b2c3d").shape, script("ec2-user", false));
        assert_eq!(connect("config i-0a1b2c3d").shape, script("config", false));
    }

    #[test]
    fn a_target_with_a_command_is_not_the_script() {
        for text in ["i-0a1b2c3d i-0a1b2c3d", "me@i-0a1b2c3d i-0a1b2c3d"] {
            assert!(matches!(connect(text).shape, Shape::Ssh(_)), "{text}");
        }
    }

    #[test]
    fn subcommands_are_found_behind_options() {
        for text in [
            "config",
            "--region x config --install",
            "-v proxy u i-0a1b2c3d 22",
            "--region x -vv proxy u i-0a1b2c3d 22",
            "doctor i-0a1b2c3d",
            "-v known-hosts i-0a1b2c3d",
        ] {
            assert!(matches!(parse(&words(text)), Parsed::Command(_)), "{text}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (text, mistake) in [
            ("--profile", "the option `--profile` needs a value"),
            ("--frobnicate i-0a1b2c3d", "there is no option `--frobnicate`"),
            (
                "--profile a --profile b i-0a1b2c3d",
                "several profiles, and `--all-regions`, are for choosing without a target",
            ),
            ("--key-type rsa --key-file k i-0a1b2c3d", "`--key-file` and `--key-type` exclude each other"),
            (
                "i-0a1b2c3d --key-type=dsa",
                "a one-time key cannot be of the type `dsa`: `ed25519` and `rsa` can be chosen",
            ),
            (
                "me i-0a1b2c3d --send-key-only --key-type rsa",
                "`--key-type` is for one-time keys, and `--send-key-only` pushes your own",
            ),
            ("i-0a1b2c3d --send-key-only", "`--send-key-only` needs a user and an instance id"),
        ] {
            assert!(matches!(parse(&words(text)), Parsed::Usage(said) if said == mistake), "{text}");
        }
    }

    #[test]
    fn what_ssh_is_asked_about_itself_needs_no_target() {
        for (text, is_version, passed) in [
            ("-V", true, "-V"),
            ("-vV", true, "-vV"),
            ("--region x -V", true, "-V"),
            ("-V web-1", true, "-V web-1"),
            ("-Q key", false, "-Q key"),
            ("-Qkex", false, "-Qkex"),
            ("-F none -Q mac", false, "-F none -Q mac"),
        ] {
            let Parsed::Query { version, arguments } = parse(&words(text)) else { panic!("{text}") };
            assert_eq!((version, arguments), (is_version, words(passed)), "{text}");
        }
        for text in ["web-1 ls -V", "-l V web-1", "-o Q web-1", "-v"] {
            assert!(!matches!(parse(&words(text)), Parsed::Query { .. }), "{text}");
        }
    }

    #[test]
    fn the_later_word_on_the_key_counts() {
        let common = |text: &str| connect(&format!("{text} i-0a1b2c3d")).common;
        let (file, rsa) = (|| common("--key-file k"), || common("--key-type=rsa"));
        assert_eq!(rsa().key_type, Some(KeyType::Rsa));
        for (later, before, both) in
            [(file(), rsa(), file()), (rsa(), file(), rsa()), (Common::default(), rsa(), rsa())]
        {
            assert_eq!(later.over(before), both);
        }
        for text in ["--key-type rsa config", "proxy --key-type rsa u i-0a1b2c3d 22"] {
            assert!(matches!(parse(&words(text)), Parsed::Command(_)), "{text}");
        }
        for text in ["--key-type dsa config", "proxy --key-type rsa --key-file k u i-0a1b2c3d 22"] {
            assert!(matches!(parse(&words(text)), Parsed::Clap(_)), "{text}");
        }
    }

    #[test]
    fn without_a_target_one_is_chosen() {
        assert!(matches!(parse(&[]), Parsed::Pick(pick) if pick == Pick::default()));
        let Parsed::Pick(pick) = parse(&words("--profile a --all-regions --profile b -v -L 1:h:2")) else {
            panic!("there is no target")
        };
        assert_eq!((pick.profiles, pick.all_regions), (vec!["a".to_owned(), "b".to_owned()], true));
        assert_eq!(pick.options, words("-v -L 1:h:2"));
    }
}
