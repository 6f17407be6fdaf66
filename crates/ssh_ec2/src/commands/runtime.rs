//! What a command needs before it can call AWS: the log, a runtime, proxies and certificates.

use std::future::Future;

use tracing_subscriber::Registry;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::aws::{self, Settings};
use crate::error::Failure;
use crate::net::network::{Network, NetworkEnvironment};
use crate::ui;

/// Sets up the log, on standard error: the default of `tracing_subscriber` is standard output, which carries
/// ssh's bytes.
pub(super) fn log_to_stderr(verbose: u8) {
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
    // Not the libraries' events: there are too many, and at the lowest level they contain stream URLs.
    let own = ["ssh_ec2", "ssm_channel", "ec2_sandbox"].map(|target| (target, level));
    let subscriber = Registry::default().with(Targets::new().with_targets(own)).with(format);
    // It fails only in a second call of one process, and then the log is set up.
    let _ = subscriber.try_init();
}

/// Runs a command on one thread: it is one task, and nothing in it is worth a second thread.
pub(super) fn on_runtime<T>(command: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| Failure::System { action: "wait for events", source })?;
    let result = runtime.block_on(command);
    // A thread that waits in a read of standard input must not delay the exit.
    runtime.shutdown_background();
    result
}

/// Proxies and certificates, from the environment or else from the profile.
pub(super) async fn network(settings: &Settings) -> Result<Network, Failure> {
    let mut environment = NetworkEnvironment::from_env();
    if environment.ca_bundle.is_none() {
        environment.ca_bundle = aws::ca_bundle(settings);
    }
    Ok(Network::new(&environment)?)
}
