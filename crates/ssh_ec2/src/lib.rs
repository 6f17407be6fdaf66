//! The library behind the program `ssh_ec2`. It exists so that tests, benches and fuzz targets reach inside, and
//! promises no stable interface.
//!
//! Top: [`cli`] reads what was typed, [`commands`] has one story each, [`error`] knows how each can fail, [`ui`]
//! prints, [`environment`] is read once.
//!
//! Middle: [`aws`] makes the calls, [`resolve`] finds the instance that is meant with them and with
//! [`cache`], [`inventory`] finds all, [`diagnosis`] finds out why one is out of reach, [`doctor`] examines
//! every layer, [`push`] keeps the key known with them, [`agent`] serves the key, [`tunnel`] is the loop,
//! [`probe`] holds short sessions with it.
//!
//! Ground: [`descriptors`], [`host_key`], [`job`], [`key`], [`known_hosts`], [`login`], [`memory`],
//! [`network`], [`openssh`], [`pace`], [`picker`], [`policy`], [`private_file`], [`private_socket`],
//! [`report`], [`ssh_config`], [`ssh_options`], [`stdio`], [`target`], [`transfer`], [`tty`], [`websocket`].
//!
//! A module uses those below it; `tests/layering.rs` has the whole table.

pub mod aws;
pub mod cli;
pub mod commands;
pub mod doctor;
pub mod environment;
pub mod error;
pub mod instances;
pub mod key;
pub mod net;
pub mod policy;
pub mod road;
#[cfg(test)]
#[path = "../tests/snapshot/mod.rs"]
mod snapshot;
pub mod ssh;
pub mod system;
pub mod target;
pub mod ui;

use std::ffi::OsString;
use std::future::Future;
use std::path::Path;
use std::rc::Rc;

use tracing_subscriber::Registry;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::aws::Settings;
use crate::cli::{Carry, Command, Common, Connect, Parsed, Pick, Shape};
use crate::commands::connect::{Answer, Question};
use crate::commands::doctor::Form;
use crate::commands::pick::Chosen;
use crate::commands::proxy::{Client, Words};
use crate::commands::{
    complete, config, connect, copy, first_process, interrupt, list, options, proxy, send_key, signals,
};
use crate::environment::Environment;
use crate::error::{ExitCode, Failure, PlainHost};
use crate::net::network::{Network, NetworkEnvironment};
use crate::road::probe::Interrupt;
use crate::ssh::client::{Invocation, InvocationError};
use crate::ssh::config::Connection;
use crate::ssh::error::SshError;
use crate::ssh::job::Child;
use crate::ssh::known_hosts::Store;
use crate::ssh::options::SshOptions;
use crate::ssh::transfer::Tool;
use crate::ssh::{client, options as ssh_options};
use crate::system::{descriptors, memory};
use crate::target::{Host, OsUser, Target};

/// Runs the program with the arguments that follow its name.
pub fn run(arguments: &[OsString]) -> ExitCode {
    if let Some(code) = first_process::run_child(arguments) {
        return code;
    }
    if let Some(child) = Child::parse(arguments) {
        return become_program(&child);
    }
    let parsed = cli::parse(arguments);
    if is_for_a_connection(&parsed) {
        // Before this program opens any itself.
        descriptors::close_inherited(arguments);
    }
    if let Err(source) = signals::keep_exit_statuses() {
        return fail(&Failure::System { action: "handle signals", source });
    }
    let result = match parsed {
        Parsed::Clap(error) if error.use_stderr() => {
            ui::explain(&error.render().to_string());
            return ExitCode::Usage;
        }
        Parsed::Clap(help) => {
            ui::print(&help.render().to_string()).map(|()| ExitCode::Success).map_err(Failure::Output)
        }
        Parsed::Usage(mistake) => Err(Failure::Usage(mistake)),
        Parsed::Query { version, arguments } => run_query(version, arguments),
        Parsed::Pick(pick) if ui::is_interactive() => run_pick(&pick),
        Parsed::Pick(pick) if pick == Pick::default() => {
            ui::explain(&cli::usage());
            return ExitCode::Usage;
        }
        Parsed::Pick(_) => Err(InvocationError::NoDestination.into()),
        Parsed::Connect(connect) => run_connect(&connect),
        Parsed::Command(cli) => run_command(cli.common, cli.command),
    };
    result.unwrap_or_else(|error| fail(&error))
}

fn fail(error: &Failure) -> ExitCode {
    ui::error(error);
    error.exit_code()
}

/// Whether the command carries a connection of its caller. The others may have to pass descriptors on, to a
/// command in the sandbox or to rsync.
fn is_for_a_connection(parsed: &Parsed) -> bool {
    match parsed {
        Parsed::Connect(_) => true,
        Parsed::Command(cli) => matches!(cli.command, Command::Proxy(_) | Command::KnownHosts(_)),
        _ => false,
    }
}

fn become_program(child: &Child) -> ExitCode {
    if let Some(source) = child.exec() {
        let program = child.command.program.to_string_lossy().into_owned();
        ui::error(&SshError::NotRun { program, source }.into());
    }
    ExitCode::Failure
}

/// Lets ssh answer `-V` and `-Q`. Editors look for ssh's version, which it writes to standard error; ours
/// goes to standard output.
fn run_query(version: bool, arguments: Vec<OsString>) -> Result<ExitCode, Failure> {
    if version {
        ui::print(concat!("ssh_ec2 ", env!("CARGO_PKG_VERSION"), "\n")).map_err(Failure::Output)?;
    }
    match (client::Command { program: "ssh".into(), arguments }).exec() {
        Err(source) => Err(SshError::NotRun { program: "ssh".into(), source }.into()),
    }
}

fn run_pick(pick: &Pick) -> Result<ExitCode, Failure> {
    // Whoever chooses may take their time.
    memory::forbid_dumps();
    let environment = Environment::read()?;
    let first = Settings { profile: pick.profiles.first().cloned(), ..Settings::default() };
    let chosen =
        on_runtime(async { commands::pick::run(pick, &network(&first).await?, &environment.cache).await })?;
    let Some(Chosen { instance, profile, region }) = chosen else { return Ok(ExitCode::Interrupted) };
    let common = Common { profile, region: Some(region), ..pick.common.clone() };
    let (options, destination) = (pick.options.clone(), instance.as_str().into());
    let shape = Shape::Ssh(Invocation { options, destination, command: Vec::new() });
    run_connect(&Connect { common, dry_run: false, shape })
}

fn run_connect(connect: &Connect) -> Result<ExitCode, Failure> {
    let environment = Environment::read()?;
    let Shape::Script { user, instance, send_key_only: true } = &connect.shape else {
        return connect::run(connect, &environment.surroundings, |question| find(question, &environment));
    };
    log_to_stderr(connect.common.verbose);
    let options = send_key::Options {
        user: user.parse()?,
        instance: instance.parse()?,
        key_file: connect.common.key_file.clone(),
        settings: options::aws_settings(&connect.common),
    };
    on_runtime(interrupt::unless_ended(async {
        let network = network(&options.settings).await?;
        send_key::run(&options, &network, environment.ssh_directory.as_deref()).await
    }))
}

fn find(question: &Question, environment: &Environment) -> Result<Answer, Failure> {
    log_to_stderr(question.verbosity);
    let network = network(&question.settings);
    on_runtime(interrupt::unless_ended(async {
        connect::find(question, &network.await?, &environment.cache).await
    }))
}

fn run_command(before: Common, command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Proxy(proxy) => {
            let report = proxy.report.clone();
            let words = Rc::new(Words::promise(proxy.words.as_deref()));
            let result = written_down(run_proxy(proxy, before, Rc::clone(&words)), report.as_deref());
            // Before `words` is dropped, which ends the wait of `ssh_ec2`.
            Ok(result.unwrap_or_else(|error| {
                let code = fail(&error);
                words.pass_on(&error);
                code
            }))
        }
        Command::KnownHosts(command) => {
            let report = command.report.clone();
            written_down(run_known_hosts(command, before), report.as_deref())
        }
        Command::Doctor(command) => run_doctor(command, before),
        Command::Completions { shell } => complete::script(shell),
        Command::Complete { words } => {
            let cache = Environment::read()?.cache;
            on_runtime(async { complete::complete(&words, &cache).await })
        }
        Command::Scp(carry) => run_tool(Tool::Scp, &carry, &before),
        Command::Sftp(carry) => run_tool(Tool::Sftp, &carry, &before),
        Command::Rsync(carry) => run_tool(Tool::Rsync, &carry, &before),
        Command::List(mut list) => {
            log_to_stderr(list.verbose.max(before.verbose));
            list.region = list.region.or(before.region);
            if list.profile.is_empty() {
                list.profile.extend(before.profile);
            }
            let cache = Environment::read()?.cache;
            let first = Settings { profile: list.profile.first().cloned(), ..Settings::default() };
            on_runtime(interrupt::unless_ended(async {
                list::run(&list, before.batch, &network(&first).await?, &cache).await
            }))
        }
        Command::Config(mut config) => {
            config.common = config.common.over(before);
            let environment = Environment::read()?;
            let installation = config::Installation {
                program: &environment::installed_program(&environment.surroundings.program),
                places: &environment.surroundings.places,
                user_config: environment.user_config.as_deref(),
            };
            config::run(&config, &installation)
        }
        Command::Policy(mut policy) => {
            policy.region = policy.region.or(before.region);
            commands::policy::run(&policy)
        }
        #[cfg(feature = "sandbox")]
        Command::Sandbox(sandbox) => {
            log_to_stderr(sandbox.verbose.max(before.verbose));
            on_runtime(commands::sandbox::run(&sandbox))
        }
    }
}

fn run_proxy(proxy: cli::Proxy, before: Common, words: Rc<Words>) -> Result<ExitCode, Failure> {
    let mut common = proxy.common.clone().over(before);
    // ssh does not tell its ProxyCommand.
    let parent = environment::parent();
    common.batch |= client::is_batch(&parent);
    log_to_stderr(common.verbose);
    memory::forbid_dumps();
    let plain_host = proxy::plain_host(&proxy, &parent);
    let run = run_proxy_for(proxy, common, parent, plain_host.clone(), words);
    match &plain_host {
        Some(host) => run.map_err(|error| error.in_plain_ssh(host)),
        None => run,
    }
}

fn run_proxy_for(
    proxy: cli::Proxy,
    common: Common,
    parent: Vec<OsString>,
    plain_host: Option<PlainHost>,
    words: Rc<Words>,
) -> Result<ExitCode, Failure> {
    let Environment { cache, surroundings, .. } = Environment::read()?;
    // From the environment, which known-hosts inherits from the same ssh; the options may be older, from the
    // user's ssh_config.
    let sockets = surroundings.places.sockets();
    let agent_socket = proxy.agent_socket.clone().unwrap_or_else(|| {
        let local_host = &environment::local_host();
        let connection = Connection { local_host, host: &proxy.host, port: &proxy.port, user: &proxy.user };
        connection.socket(proxy.sockets.as_ref().unwrap_or(&sockets))
    });
    let (target, region) = host_target(&proxy.host, proxy.typed.as_deref(), proxy.suffix.as_deref())?;
    let settings = options::aws_settings(&common);
    let options = proxy::Options {
        user: OsUser::on(&target, &proxy.user)?,
        port: proxy.port.parse()?,
        // The option is that of the block; what stands in the host is more particular.
        settings: Settings { region: region.or(settings.region), ..settings },
        reason: common.reason.clone(),
        key_file: common.key_file.clone(),
        key_type: common.key_type,
        agent_socket,
        report: proxy.report.clone(),
        client: if client::is_ssh(&parent) { Client::Ssh } else { Client::Other },
        ssh: parent,
        plain_host,
        words,
    };
    let found_by = proxy.found_by.as_deref().map(str::parse).transpose()?;
    let request = proxy::Request { target, choice: options::choice(&common), found_by, sockets, options };
    on_runtime(async { proxy::run(&request, &network(&request.options.settings).await?, &cache).await })
}

/// For whoever asked for it in a file: standard error is everybody's.
fn written_down(result: Result<ExitCode, Failure>, report: Option<&Path>) -> Result<ExitCode, Failure> {
    if let (Err(error), Some(file)) = (&result, report) {
        error.write_down(file);
    }
    result
}

fn run_tool(tool: Tool, carry: &Carry, common: &Common) -> Result<ExitCode, Failure> {
    let environment = Environment::read()?;
    let find = |question: &Question| find(question, &environment);
    copy::run(tool, &carry.arguments, common, &environment.surroundings, find)
}

fn run_doctor(command: cli::Doctor, before: Common) -> Result<ExitCode, Failure> {
    let mut common = command.common.over(before);
    // A report is no conversation, and the ssh that logs in could not hold one.
    common.batch = true;
    log_to_stderr(common.verbose);
    let environment = Environment::read()?;
    let places = &environment.surroundings.places;
    let mut request = doctor::Request {
        target: None,
        host: None,
        choice: options::choice(&common),
        settings: options::aws_settings(&common),
        user: None,
        port: command.port.parse()?,
        all: command.all,
    };
    if let Some(typed) = &command.target {
        let ssh = Invocation { options: Vec::new(), destination: typed.into(), command: Vec::new() };
        let host = ssh.host();
        let alias = ssh_options::alias(&host).filter(|name| options::is_ours(name, places));
        let (target, placed) = options::place(alias.as_deref().unwrap_or(&host), common.clone(), places)?;
        let user = ssh.user().or_else(|| SshOptions::configured(&ssh)?.user());
        request.user = user.map(|user| OsUser::on(&target, &user)).transpose()?;
        request.settings = options::aws_settings(&placed);
        request.host = Some(if alias.is_some() { host } else { options::plain_host(&host, &target) });
        request.target = Some(target);
        common = placed;
    }
    let options = options::proxy_options(&common, 0)?;
    let store = Store::new(places.known_hosts(), environment.user);
    let interrupt = Interrupt::default();
    on_runtime(async {
        let network = network(&request.settings).await?;
        let means = doctor::Means {
            network: &network,
            cache: &environment.cache,
            store: &store,
            program: environment.surroundings.program.clone(),
            places,
            options,
            interrupt: &interrupt,
        };
        let form = if command.json { Form::Json } else { Form::Text };
        interrupt::guard(commands::doctor::run(&request, &means, form), &interrupt).await
    })
}

fn run_known_hosts(command: cli::KnownHosts, before: Common) -> Result<ExitCode, Failure> {
    let common = command.common.over(before);
    log_to_stderr(common.verbose);
    let environment = Environment::read()?;
    let file = command.file.unwrap_or_else(|| environment.surroundings.places.known_hosts());
    let store = Store::new(file, environment.user);
    let places = &environment.surroundings.places;
    let Some(host) = command.target else { return commands::known_hosts::list(&store) };
    let (target, common) = match command.suffix {
        Some(suffix) => {
            let (target, region) = host_target(&host, command.typed.as_deref(), Some(&suffix))?;
            (target, Common { region: region.or(common.region.clone()), ..common })
        }
        None if command.host.is_some() => (host.parse()?, common),
        None => options::place(&host, common, places)?,
    };
    let request = commands::known_hosts::Request {
        target,
        choice: options::choice(&common),
        settings: options::aws_settings(&common),
        port: command.port.parse()?,
        typed: Some(host).filter(|host| command.host.is_none() && options::is_ours(host, places)),
        host: command.host,
        presented: command.presented,
    };
    let interrupt = Interrupt::default();
    on_runtime(async {
        let network = network(&request.settings).await?;
        let (store, cache) = (&store, &environment.cache);
        let sockets = &environment.surroundings.places.sockets();
        let (network, interrupt) = (&network, &interrupt);
        let means = commands::known_hosts::Means { store, network, cache, interrupt, sockets };
        let work = async {
            match command.trust {
                Some(key) => commands::known_hosts::trust(&request, &key, means).await,
                None if command.forget => commands::known_hosts::forget(&request, means).await,
                None => commands::known_hosts::run(&request, means).await,
            }
        };
        interrupt::guard(work, interrupt).await
    })
}

/// What ssh's host stands for. ssh makes it lower case, unless an alias was typed; then the alias says nothing.
fn host_target(
    host: &str,
    typed: Option<&str>,
    suffix: Option<&str>,
) -> Result<(Target, Option<String>), Failure> {
    let host = typed.filter(|typed| typed.eq_ignore_ascii_case(host)).unwrap_or(host);
    match suffix.and_then(|suffix| Host::below(host, suffix)) {
        Some(host) => host.map(|Host { target, region }| (target, region)).map_err(Failure::from),
        None => Ok((host.parse()?, None)),
    }
}

/// Proxies and certificates, from the environment or else from the profile.
async fn network(settings: &Settings) -> Result<Network, Failure> {
    let mut environment = NetworkEnvironment::from_env();
    if environment.ca_bundle.is_none() {
        environment.ca_bundle = aws::ca_bundle(settings);
    }
    Ok(Network::new(&environment)?)
}

/// Standard error, explicitly: the library's default is standard output, which is ssh's.
fn log_to_stderr(verbose: u8) {
    let level = match verbose {
        0 => return,
        1 => LevelFilter::INFO,
        _ => LevelFilter::DEBUG,
    };
    let format = tracing_subscriber::fmt::layer()
        .with_writer(|| ui::Log)
        .with_timer(tracing_subscriber::fmt::time::uptime())
        .with_target(false)
        .with_ansi(false);
    // Our own story only: the libraries' would drown it, and would show stream URLs at their lowest level.
    let own = ["ssh_ec2", "ssm_channel", "ec2_sandbox"].map(|target| (target, level));
    let subscriber = Registry::default().with(Targets::new().with_targets(own)).with(format);
    // Only a second call in one process would fail, and then logging is set up.
    let _ = subscriber.try_init();
}

/// One thread, one task: nothing here is worth a second one.
fn on_runtime<T>(command: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| Failure::System { action: "wait for events", source })?;
    let result = runtime.block_on(command);
    // A thread that waits in a read of standard input must not hold up the exit.
    runtime.shutdown_background();
    result
}
