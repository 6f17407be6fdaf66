//! The server against russh's own client, over a pipe in memory.

use std::fs::File;
use std::io::Read;

use russh::client;
use russh::keys::ssh_key::private::Ed25519Keypair;
use russh::keys::{PrivateKeyWithHashAlg, PublicKeyOrCertificate};
use russh::{Channel, ChannelMsg, Sig};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::task::{JoinHandle, spawn_blocking};

use super::*;

fn generate_host_key() -> Result<PrivateKey, getrandom::Error> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed)?;
    Ok(PrivateKey::from(Ed25519Keypair::from_seed(&seed)))
}

struct Client;

impl client::Handler for Client {
    type Error = russh::Error;

    async fn check_server_key(&mut self, _: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        Ok(true)
    }
}

struct Host {
    home: TempDir,
    key: PrivateKey,
    server: JoinHandle<Result<(), russh::Error>>,
    client: client::Handle<Client>,
}

impl Host {
    async fn start() -> Self {
        let home = tempfile::tempdir().unwrap();
        let key = generate_host_key().unwrap();
        let authorized = key.public_key().key_data().clone();
        let config = SshConfig {
            host_key: generate_host_key().unwrap(),
            hostname: "host".to_owned(),
            home: home.path().to_owned(),
            shell: "/bin/sh".into(),
            environment: Vec::new(),
            takes_public_keys: true,
            authorize: Box::new(move |user, key| user == "me" && *key.key_data() == authorized),
        };
        // russh does not read while it writes: over a small pipe two of them would deadlock.
        let (near, far) = tokio::io::duplex(64 * 1024 * 1024);
        let server = tokio::spawn(serve(far, Arc::new(config)));
        let client = client::connect_stream(Arc::default(), near, Client).await.unwrap();
        Self { home, key, server, client }
    }

    async fn log_in(&mut self, user: &str, key: PrivateKey) -> bool {
        let key = PrivateKeyWithHashAlg::new(Arc::new(key), None);
        self.client.authenticate_publickey(user, key).await.unwrap().success()
    }

    async fn run(&mut self, command: &str) -> Channel<client::Msg> {
        assert!(self.log_in("me", self.key.clone()).await);
        let channel = self.client.channel_open_session().await.unwrap();
        channel.exec(false, command).await.unwrap();
        channel
    }

    /// Starts processes that ignore SIGHUP, and returns a pipe that they hold open.
    async fn hold_pipe(&mut self) -> (Channel<client::Msg>, File) {
        let mut channel =
            self.run("mkfifo p; echo made; trap '' HUP TERM; exec 3>p; sleep 600 & sleep 600").await;
        while !matches!(channel.wait().await.unwrap(), ChannelMsg::Data { .. }) {}
        let pipe = self.home.path().join("p");
        // Opening the pipe waits for the command to do the same.
        (channel, spawn_blocking(move || File::open(pipe)).await.unwrap().unwrap())
    }
}

#[derive(Debug, Default, PartialEq)]
struct Outcome {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    status: Option<u32>,
    signal: Option<String>,
}

async fn outcome(mut channel: Channel<client::Msg>) -> Outcome {
    let mut outcome = Outcome::default();
    while let Some(message) = channel.wait().await {
        match message {
            ChannelMsg::Data { data } => outcome.stdout.extend_from_slice(&data),
            ChannelMsg::ExtendedData { data, ext: 1 } => outcome.stderr.extend_from_slice(&data),
            ChannelMsg::ExitStatus { exit_status } => outcome.status = Some(exit_status),
            ChannelMsg::ExitSignal { signal_name, .. } => outcome.signal = Some(format!("{signal_name:?}")),
            _ => {}
        }
    }
    outcome
}

/// Reads a pipe until its last writer has gone.
async fn drain(mut pipe: File) -> usize {
    spawn_blocking(move || pipe.read_to_end(&mut Vec::new())).await.unwrap().unwrap()
}

#[tokio::test]
async fn output_and_status_of_a_command_arrive() {
    let mut host = Host::start().await;
    let channel =
        host.run("echo out; echo err >&2; pwd -P | grep -q \"$(cd ~ && pwd -P)\"; exit $(($? + 5))").await;
    let expected =
        Outcome { stdout: b"out\n".into(), stderr: b"err\n".into(), status: Some(5), signal: None };
    assert_eq!(outcome(channel).await, expected);
}

#[tokio::test]
async fn only_the_authorized_key_and_user_get_in() {
    let mut host = Host::start().await;
    let key = host.key.clone();
    assert!(!host.log_in("me", generate_host_key().unwrap()).await);
    assert!(!host.log_in("root", key.clone()).await);
    assert!(host.log_in("me", key).await);
}

#[tokio::test]
async fn signal_request_reaches_the_command() {
    let mut host = Host::start().await;
    let mut channel = host.run("echo ready; exec sleep 600").await;
    while !matches!(channel.wait().await.unwrap(), ChannelMsg::Data { .. }) {}
    channel.signal(Sig::TERM).await.unwrap();
    assert_eq!(outcome(channel).await, Outcome { signal: Some("TERM".to_owned()), ..Outcome::default() });
}

#[tokio::test]
async fn echo_larger_than_every_buffer_comes_back() {
    let mut host = Host::start().await;
    let channel = host.run("cat").await;
    let sent: Vec<u8> = (0..24 * 1024 * 1024_u32).map(|number| number.to_le_bytes()[1]).collect();
    let mut writer = channel.make_writer();
    let upload = async {
        writer.write_all(&sent).await.unwrap();
        writer.shutdown().await.unwrap();
    };
    let ((), outcome) = tokio::join!(upload, outcome(channel));
    assert_eq!(outcome.status, Some(0));
    assert!(outcome.stdout == sent);
}

#[tokio::test]
async fn processes_die_with_a_dropped_server() {
    let mut host = Host::start().await;
    let (_channel, pipe) = host.hold_pipe().await;
    host.server.abort();
    assert_eq!(drain(pipe).await, 0);
}

#[tokio::test]
async fn processes_die_with_the_client() {
    let mut host = Host::start().await;
    let (channel, pipe) = host.hold_pipe().await;
    drop((channel, host.client));
    host.server.await.unwrap().unwrap();
    assert_eq!(drain(pipe).await, 0);
}
