//! `ssh_ec2 known-hosts`, from its options to the [`Request`](known_hosts::Request).

use crate::cli::{self, Common};
use crate::commands::options::{self, matches_blocks, target_of_host, target_of_proxy_host};
use crate::commands::runtime::{log_to_stderr, network, on_runtime};
use crate::commands::{interrupt, known_hosts, write_report};
use crate::environment::Environment;
use crate::error::{ExitCode, Failure};
use crate::road::probe::Interrupt;
use crate::ssh::known_hosts::Store;

pub(super) fn start(command: cli::KnownHosts, before: Common) -> Result<ExitCode, Failure> {
    let report = command.report.clone();
    write_report(run(command, before), report.as_deref())
}

fn run(command: cli::KnownHosts, before: Common) -> Result<ExitCode, Failure> {
    let common = command.common.over(before);
    log_to_stderr(common.verbose);
    let environment = Environment::read()?;
    let file = command.file.unwrap_or_else(|| environment.places.known_hosts());
    let store = Store::new(file, environment.user);
    let places = &environment.places;
    let Some(host) = command.target else { return known_hosts::list(&store) };
    let (target, common) = match command.suffix {
        Some(suffix) => {
            let (target, region) = target_of_proxy_host(&host, command.typed.as_deref(), Some(&suffix))?;
            (target, Common { region: region.or(common.region.clone()), ..common })
        }
        None if command.host.is_some() => (host.parse()?, common),
        None => target_of_host(&host, common, places)?,
    };
    let request = known_hosts::Request {
        target,
        choice: options::choice(&common),
        settings: options::aws_settings(&common),
        port: command.port.parse()?,
        typed: Some(host).filter(|host| command.host.is_none() && matches_blocks(host, places)),
        host: command.host,
        presented: command.presented,
    };
    let interrupt = Interrupt::default();
    on_runtime(async {
        let network = network(&request.settings).await?;
        let (store, cache, network, interrupt) = (&store, &environment.cache, &network, &interrupt);
        let means = known_hosts::Means { store, network, cache, interrupt, sockets: &places.sockets() };
        let work = async {
            match command.trust {
                Some(key) => known_hosts::trust(&request, &key, means).await,
                None if command.forget => known_hosts::forget(&request, means).await,
                None => known_hosts::run(&request, means).await,
            }
        };
        interrupt::guard(work, interrupt).await
    })
}
