//! The options of each subcommand.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::cli::common::Common;

/// `ssh_ec2 proxy`
#[derive(Args, Debug)]
pub(crate) struct Proxy {
    /// Profile, region, and so on
    #[command(flatten)]
    pub common: Common,
    /// Serve the one-time key on this socket, which `IdentityAgent` names as well
    #[arg(long, value_name = "PATH")]
    pub agent_socket: Option<PathBuf>,
    /// Serve the one-time key in this directory, on the socket named by ssh's `%C`
    #[arg(long, value_name = "PATH", hide = true, conflicts_with = "agent_socket")]
    pub sockets: Option<PathBuf>,
    /// The host as it was typed (`%n`), since ssh makes `%h` lower case
    #[arg(long, value_name = "HOST")]
    pub typed: Option<String>,
    /// The suffix of this block's hosts, which is removed
    #[arg(long, value_name = "SUFFIX")]
    pub suffix: Option<String>,
    /// The name that the instance was found by, to look it up again if the instance is gone
    #[arg(long, value_name = "TARGET", hide = true)]
    pub found_by: Option<String>,
    /// Write the error to this file as well
    #[arg(long, value_name = "PATH", hide = true)]
    pub report: Option<PathBuf>,
    /// Stay connected to this socket until an error has been explained
    #[arg(long, value_name = "PATH", hide = true)]
    pub words: Option<PathBuf>,
    /// The user to log in as (`%r`)
    pub user: String,
    /// The instance (`%h`)
    pub host: String,
    /// The port of sshd (`%p`)
    pub port: String,
}

/// `ssh_ec2 doctor`
#[derive(Args, Debug)]
pub(crate) struct Doctor {
    /// Profile, region, and so on
    #[command(flatten)]
    pub common: Common,
    /// Continue after a broken layer
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
pub(crate) struct KnownHosts {
    /// Profile, region, and so on
    #[command(flatten)]
    pub common: Common,
    /// List all known host keys, each with its source
    #[arg(long, conflicts_with_all = ["forget", "trust", "target"])]
    pub list: bool,
    /// Forget the host keys of TARGET
    #[arg(long, conflicts_with = "trust", requires = "target")]
    pub forget: bool,
    /// Trust this host key of TARGET from now on
    #[arg(long, value_name = "KEY", requires = "target")]
    pub trust: Option<String>,
    /// The port of sshd (`%p`)
    #[arg(long, value_name = "PORT", default_value = "22", hide_default_value = true)]
    pub port: String,
    /// Keep the host keys in this file
    #[arg(long, value_name = "PATH", hide = true)]
    pub file: Option<PathBuf>,
    /// The host as it was typed (`%n`), since ssh makes `%h` lower case
    #[arg(long, value_name = "HOST", hide = true)]
    pub typed: Option<String>,
    /// The suffix of this block's hosts, which is removed
    #[arg(long, value_name = "SUFFIX", hide = true)]
    pub suffix: Option<String>,
    /// The name under which ssh looks up host keys (`%H`)
    #[arg(long, value_name = "HOST", hide = true)]
    pub host: Option<String>,
    /// The key that the server presented (`%t:%K`)
    #[arg(long, value_name = "KEY", hide = true)]
    pub presented: Option<String>,
    /// Write the error to this file as well
    #[arg(long, value_name = "PATH", hide = true)]
    pub report: Option<PathBuf>,
    /// The instance
    #[arg(required_unless_present = "list")]
    pub target: Option<String>,
}

/// `ssh_ec2 completions`
#[derive(Args, Debug)]
pub(crate) struct Completions {
    /// The shell to print a script for
    pub shell: Shell,
}

/// A shell with completions.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Shell {
    /// `eval "$(ssh_ec2 completions bash)"` in `~/.bashrc`
    Bash,
    /// `eval "$(ssh_ec2 completions zsh)"` in `~/.zshrc`, after `compinit`
    Zsh,
    /// `ssh_ec2 completions fish | source` in `config.fish`
    Fish,
}

/// `ssh_ec2 scp`, `sftp` and `rsync`
#[derive(Args, Debug)]
pub(crate) struct ToolArguments {
    /// Passed to the program, with instances for targets
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENT")]
    pub arguments: Vec<OsString>,
}

/// `ssh_ec2 list`
#[derive(Args, Debug)]
pub(crate) struct List {
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
    /// List instances that are not running as well
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
pub(crate) struct Config {
    /// Profile, region, and so on
    #[command(flatten)]
    pub common: Common,
    /// Write the blocks to a file of their own, and include it from ~/.ssh/config
    #[arg(long, conflicts_with = "uninstall")]
    pub install: bool,
    /// Remove that file and its Include; with --suffix, only the block of that suffix
    #[arg(long)]
    pub uninstall: bool,
    /// Match hosts with this suffix, as web-1.prod.ec2 has the suffix prod.ec2
    #[arg(long, value_name = "SUFFIX")]
    pub suffix: Option<String>,
    /// Log in as this user to hosts with the suffix, unless another one is given
    #[arg(long, value_name = "NAME", requires = "suffix")]
    pub user: Option<String>,
}

/// `ssh_ec2 policy`
#[derive(Args, Debug)]
pub(crate) struct Policy {
    /// Allow this as well, and not only connecting by id; may be repeated
    #[arg(long, value_name = "FEATURE", value_delimiter = ',')]
    pub with: Vec<Extra>,
    /// Only for instances with this tag; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub tag: Vec<String>,
    /// Only as this user; may be repeated. The default is the default users of EC2 images
    #[arg(long, value_name = "NAME")]
    pub user: Vec<String>,
    /// Only in this region
    #[arg(long, value_name = "NAME")]
    pub region: Option<String>,
    /// Only in this account
    #[arg(long, value_name = "NUMBER")]
    pub account: Option<String>,
    /// Write JSON, as IAM takes it; this is the default
    #[arg(long, conflicts_with = "terraform")]
    pub json: bool,
    /// Write a data source for Terraform
    #[arg(long)]
    pub terraform: bool,
}

/// What a policy can allow besides connecting by id.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Extra {
    /// Run any command as ssm-user, who can usually become root; used to read host keys and to find out why
    /// sshd refused a key
    Commands,
    /// Find out why a connection fails
    Doctor,
    /// Forward ports without sshd, as the aws CLI does; `ssh -L` needs no permission for it
    Forwarding,
    /// Read host keys from the EC2 console output
    HostKeys,
    /// Connect to mi-… targets
    ManagedNodes,
    /// Connect by name, list instances, choose from them
    Names,
}

/// `ssh_ec2 sandbox`
#[cfg(feature = "sandbox")]
#[derive(Args, Debug)]
pub(crate) struct Sandbox {
    /// Show each step of the emulated region on standard error; twice for more
    #[arg(long, short, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Serve SSH with this OpenSSH sshd instead of the built-in server; log in as yourself
    #[arg(long, value_name = "PATH")]
    pub sshd: Option<PathBuf>,
    /// Answer API calls only after this long, for example `50ms`
    #[arg(long, value_name = "TIME")]
    pub latency: Option<String>,
    /// Add this many instances, spread over four regions
    #[arg(long, value_name = "COUNT", default_value_t = 0, hide_default_value = true)]
    pub fleet: usize,
    /// Inject this fault; may be repeated. `help` lists them
    #[arg(long, value_name = "FAULT[=VALUE]")]
    pub fault: Vec<String>,
    /// Allow only what this IAM policy allows
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,
    /// Run this command in the region; without one, your shell
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}
