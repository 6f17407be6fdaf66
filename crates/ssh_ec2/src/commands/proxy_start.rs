//! `ssh_ec2 proxy`, from its options and the ssh that runs it to the [`Request`](proxy::Request).

use std::ffi::OsString;
use std::rc::Rc;

use crate::aws::Settings;
use crate::cli::{self, Common};
use crate::commands::options::{self, target_of_proxy_host};
use crate::commands::proxy::{self, Client, Words};
use crate::commands::runtime::{log_to_stderr, network, on_runtime};
use crate::commands::{fail, write_report};
use crate::environment::{self, Environment};
use crate::error::{ExitCode, Failure, PlainHost};
use crate::ssh::client;
use crate::ssh::config::Connection;
use crate::system::memory;
use crate::target::OsUser;

pub(super) fn start(proxy: cli::Proxy, before: Common) -> Result<ExitCode, Failure> {
    let report = proxy.report.clone();
    let words = Rc::new(Words::promise(proxy.words.as_deref()));
    let result = write_report(run(proxy, before, Rc::clone(&words)), report.as_deref());
    // Must happen before `words` is dropped, which ends the wait of `ssh_ec2`.
    Ok(result.unwrap_or_else(|error| {
        let code = fail(&error);
        words.pass_on(&error);
        code
    }))
}

fn run(proxy: cli::Proxy, before: Common, words: Rc<Words>) -> Result<ExitCode, Failure> {
    let mut common = proxy.common.clone().over(before);
    // ssh does not pass its BatchMode to the ProxyCommand.
    let parent = environment::parent();
    common.batch |= client::is_batch(&parent);
    log_to_stderr(common.verbose);
    memory::forbid_dumps();
    let plain_host = proxy::plain_host(&proxy, &parent);
    let result = connect(proxy, common, parent, plain_host.clone(), words);
    match &plain_host {
        Some(host) => result.map_err(|error| error.in_plain_ssh(host)),
        None => result,
    }
}

fn connect(
    proxy: cli::Proxy,
    common: Common,
    parent: Vec<OsString>,
    plain_host: Option<PlainHost>,
    words: Rc<Words>,
) -> Result<ExitCode, Failure> {
    let environment = Environment::read()?;
    // Read from the environment, which `known-hosts` inherits from the same ssh. The options may come from
    // the user's ssh_config, and be older.
    let sockets = environment.places.sockets();
    let agent_socket = proxy.agent_socket.clone().unwrap_or_else(|| {
        let local_host = &environment::local_host();
        let connection = Connection { local_host, host: &proxy.host, port: &proxy.port, user: &proxy.user };
        connection.socket(proxy.sockets.as_ref().unwrap_or(&sockets))
    });
    let (target, region) =
        target_of_proxy_host(&proxy.host, proxy.typed.as_deref(), proxy.suffix.as_deref())?;
    let (settings, choice) = (options::aws_settings(&common), options::choice(&common));
    // Every option is named here, so that none is forgotten. Those with `_` are used by `settings`, `choice`
    // and the log.
    let Common { reason, key_file, key_type, profile: _, region: _, batch: _, newest: _, any: _, verbose: _ } =
        common;
    let options = proxy::Options {
        user: OsUser::on(&target, &proxy.user)?,
        port: proxy.port.parse()?,
        // A region in the host's name is more specific than the option, which is in the ssh_config block.
        settings: Settings { region: region.or(settings.region), ..settings },
        reason,
        key_file,
        key_type,
        agent_socket,
        report: proxy.report,
        client: if client::is_ssh(&parent) { Client::Ssh } else { Client::Other },
        ssh: parent,
        plain_host,
        words,
    };
    let found_by = proxy.found_by.as_deref().map(str::parse).transpose()?;
    let request = proxy::Request { target, choice, found_by, sockets, options };
    on_runtime(async {
        proxy::run(&request, &network(&request.options.settings).await?, &environment.cache).await
    })
}
