//! `ssh_ec2 doctor`, from its options to the [`Request`](doctor::Request).

use crate::cli::{self, Common};
use crate::commands::doctor::Form;
use crate::commands::options::{self, matches_blocks, target_of_host};
use crate::commands::runtime::{log_to_stderr, network, on_runtime};
use crate::commands::{self, interrupt};
use crate::doctor;
use crate::environment::Environment;
use crate::error::{ExitCode, Failure};
use crate::road::probe::Interrupt;
use crate::ssh::client::Invocation;
use crate::ssh::known_hosts::Store;
use crate::ssh::options::{self as ssh_options, SshOptions};
use crate::ssh::own_files::OwnFiles;
use crate::target::OsUser;

pub(super) fn start(command: cli::Doctor, before: Common) -> Result<ExitCode, Failure> {
    let form = if command.json { Form::Json } else { Form::Text };
    let mut common = command.common.clone().over(before);
    // Neither a report nor the ssh that logs in for it can prompt.
    common.batch = true;
    log_to_stderr(common.verbose);
    let environment = Environment::read()?;
    let (request, common) = request(command, common, &environment.places)?;
    let options = options::proxy_options(&common, 0)?;
    let store = Store::new(environment.places.known_hosts(), environment.user);
    let interrupt = Interrupt::default();
    on_runtime(async {
        let network = network(&request.settings).await?;
        let means = doctor::Means {
            network: &network,
            cache: &environment.cache,
            store: &store,
            program: environment.program.clone(),
            places: &environment.places,
            options,
            interrupt: &interrupt,
        };
        interrupt::guard(commands::doctor::run(&request, &means, form), &interrupt).await
    })
}

/// What to examine, and the options with what the target's suffix adds.
fn request(
    command: cli::Doctor,
    common: Common,
    places: &OwnFiles,
) -> Result<(doctor::Request, Common), Failure> {
    let mut request = doctor::Request {
        target: None,
        host: None,
        choice: options::choice(&common),
        settings: options::aws_settings(&common),
        user: None,
        port: command.port.parse()?,
        all: command.all,
    };
    let Some(typed) = command.target else { return Ok((request, common)) };
    let ssh = Invocation { options: Vec::new(), destination: typed.into(), command: Vec::new() };
    let host = ssh.host();
    let alias = ssh_options::alias(&host).filter(|name| matches_blocks(name, places));
    let (target, common) = target_of_host(alias.as_deref().unwrap_or(&host), common, places)?;
    let user = ssh.user().or_else(|| SshOptions::configured(&ssh)?.user());
    request.user = user.map(|user| OsUser::on(&target, &user)).transpose()?;
    request.settings = options::aws_settings(&common);
    request.host = Some(if alias.is_some() { host } else { options::plain_host(&host, &target) });
    request.target = Some(target);
    Ok((request, common))
}
