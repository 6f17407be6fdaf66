//! The library behind the program `ssh_ec2`. It exists so that tests, benches and fuzz targets reach inside, and
//! promises no stable interface.
//!
//! Top: [`cli`] reads what was typed, [`commands`] has one story each, [`error`] knows how each can fail, [`ui`]
//! prints, [`environment`] is read once.
//! Middle: [`aws`] makes the calls, [`push`] keeps the key known with them, [`agent`] serves the key, [`tunnel`]
//! is the loop.
//! Ground: [`key`], [`network`], [`openssh`], [`ssh_config`], [`stdio`], [`target`], [`websocket`].
//! A module uses those below it; `tests/layering.rs` has the whole table.

pub mod agent;
pub mod aws;
pub mod cli;
pub mod commands;
pub mod environment;
pub mod error;
pub mod key;
pub mod network;
pub mod openssh;
pub mod push;
pub mod ssh_config;
pub mod stdio;
pub mod target;
pub mod tunnel;
pub mod ui;
pub mod websocket;

use std::ffi::OsString;
use std::future::Future;
use std::io;

use tracing_subscriber::Registry;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::aws::Settings;
use crate::cli::{Command, Connect, Parsed, Shape};
use crate::commands::{config, connect, proxy, send_key};
use crate::environment::Environment;
use crate::error::{ExitCode, Failure};
use crate::network::{Network, NetworkEnvironment};

/// Runs the program with the arguments that follow its name.
pub fn run(arguments: &[OsString]) -> ExitCode {
    let result = match cli::parse(arguments) {
        Parsed::Nothing => {
            ui::explain(&cli::usage());
            return ExitCode::Usage;
        }
        Parsed::Clap(error) if error.use_stderr() => {
            ui::explain(&error.render().to_string());
            return ExitCode::Usage;
        }
        Parsed::Clap(help) => {
            ui::print(&help.render().to_string()).map(|()| ExitCode::Success).map_err(Failure::Stdio)
        }
        Parsed::Usage(mistake) => Err(Failure::Usage(mistake)),
        Parsed::Connect(connect) => run_connect(&connect),
        Parsed::Command(cli) => run_command(cli.common, cli.command),
    };
    result.unwrap_or_else(|error| {
        ui::error(&error);
        error.exit_code()
    })
}

fn run_connect(connect: &Connect) -> Result<ExitCode, Failure> {
    let environment = Environment::read()?;
    let Shape::Script { user, instance, send_key_only: true } = &connect.shape else {
        return connect::run(connect, &environment.surroundings);
    };
    log_to_stderr(connect.common.verbose);
    let options = send_key::Options {
        user: user.parse()?,
        instance: instance.parse()?,
        key_file: connect.common.key_file.clone(),
        settings: connect::aws_settings(&connect.common),
    };
    block_on(async {
        let network = network(&options.settings).await?;
        send_key::run(&options, &network, &environment.ssh_directory).await
    })
}

fn run_command(before: cli::Common, command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Proxy(proxy) => {
            let common = proxy.common.over(before);
            log_to_stderr(common.verbose);
            let agent_socket = match proxy.agent_socket {
                Some(path) => path,
                None => {
                    Environment::read()?.surroundings.places.socket(&proxy.user, &proxy.host, &proxy.port)
                }
            };
            let options = proxy::Options {
                user: proxy.user.parse()?,
                instance: proxy.host.parse()?,
                port: proxy.port.parse()?,
                settings: connect::aws_settings(&common),
                reason: common.reason,
                key_file: common.key_file,
                agent_socket,
            };
            block_on(async { proxy::run(&options, &network(&options.settings).await?).await })
        }
        Command::Config(mut config) => {
            config.common = config.common.over(before);
            let environment = Environment::read()?;
            config::run(&config, &environment.surroundings, &environment.ssh_directory)
        }
        #[cfg(feature = "sandbox")]
        Command::Sandbox(sandbox) => {
            log_to_stderr(sandbox.verbose.max(before.verbose));
            block_on(commands::sandbox::run(&sandbox))
        }
    }
}

/// Proxies and certificates, from the environment or else from the profile.
async fn network(settings: &Settings) -> Result<Network, Failure> {
    let mut environment = NetworkEnvironment::from_env();
    if environment.ca_bundle.is_none() {
        environment.ca_bundle = aws::ca_bundle(settings).await;
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
        .with_writer(io::stderr)
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
fn block_on(command: impl Future<Output = Result<ExitCode, Failure>>) -> Result<ExitCode, Failure> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::Stdio)?;
    let result = runtime.block_on(command);
    // A thread that waits in a read of standard input must not hold up the exit.
    runtime.shutdown_background();
    result
}
