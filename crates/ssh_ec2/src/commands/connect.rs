//! A connection: works out what ssh needs, and becomes ssh.

use std::path::{Path, PathBuf};

use crate::aws::Settings;
use crate::cli::{Common, Connect, Shape};
use crate::commands::config::make_private_directory;
use crate::commands::send_key::read_public_key;
use crate::error::{ExitCode, Failure};
use crate::openssh::{Command, Invocation};
use crate::ssh_config::{Places, ProxyOptions, settings};
use crate::target::{InstanceId, OsUser};
use crate::ui;

/// What the environment says about a connection.
#[derive(Debug)]
pub struct Surroundings {
    /// This program, for the ProxyCommand.
    pub program: PathBuf,
    /// Where our files are.
    pub places: Places,
    /// `SSH_AUTH_SOCK`: the user's own agent, which ssh forwards on request.
    pub user_agent: Option<String>,
}

/// Becomes ssh, or says what ssh it would become.
///
/// # Errors
/// When the target is none, or ssh is not there.
pub fn run(connect: &Connect, surroundings: &Surroundings) -> Result<ExitCode, Failure> {
    let mut invocation = match &connect.shape {
        Shape::Ssh(invocation) => invocation.clone(),
        Shape::Script { user, instance, .. } => {
            let user: OsUser = user.parse()?;
            let destination = format!("{user}@{instance}").into();
            Invocation { options: Vec::new(), destination, command: Vec::new() }
        }
    };
    let _: InstanceId = invocation.host().parse()?;
    let options = proxy_options(&connect.common, invocation.verbosity())?;
    make_private_directory(surroundings.places.directory())?;
    let settings = settings(&surroundings.program, &surroundings.places, &options);
    if let (true, Some(socket)) = (invocation.forwards_agent(), &surroundings.user_agent) {
        // `-A` alone would forward the agent that ssh uses here, which is ours and has only the one-time key. In
        // front of it, since `-A` counts as a value and the first one is taken.
        invocation.options.splice(0..0, ["-o".into(), format!("ForwardAgent={socket}").into()]);
    }
    let command = Command::ssh(&invocation, &settings);
    if connect.dry_run {
        ui::print(&format!("{}\n", command.shell_line())).map_err(Failure::Stdio)?;
        return Ok(ExitCode::Success);
    }
    match command.exec() {
        Err(source) => Err(Failure::Ssh { program: "ssh".into(), source }),
    }
}

/// The proxy's share of the options.
///
/// # Errors
/// When the key file holds no public key.
pub fn proxy_options(common: &Common, verbosity: usize) -> Result<ProxyOptions, Failure> {
    let mut arguments = Vec::new();
    let mut push = |name: &str, value: &Option<String>| {
        if let Some(value) = value {
            arguments.extend([name.to_owned(), value.clone()]);
        }
    };
    push("--profile", &common.profile);
    push("--region", &common.region);
    push("--reason", &common.reason);
    let mut identity = None;
    if let Some(path) = &common.key_file {
        read_public_key(path)?;
        let path = std::path::absolute(path).map_err(|source| Failure::File {
            action: "find",
            path: path.clone(),
            source,
        })?;
        push("--key-file", &Some(path.to_string_lossy().into_owned()));
        identity = Some(private_half(&path));
    }
    arguments.extend((0..usize::from(common.verbose).max(verbosity).min(2)).map(|_| "-v".to_owned()));
    Ok(ProxyOptions { arguments, identity })
}

/// Profile and region, as the calls to AWS want them.
pub fn aws_settings(common: &Common) -> Settings {
    Settings { profile: common.profile.clone(), region: common.region.clone() }
}

/// What ssh signs with: beside the `.pub` file, or in the user's agent when only that file is here.
fn private_half(path: &Path) -> PathBuf {
    let private = path.with_extension("");
    if path.extension().is_some_and(|extension| extension == "pub") && private.exists() {
        return private;
    }
    path.to_owned()
}
