//! One client's connection: its authentication, and the channels that it opens.
//!
//! russh calls this type between two packets, so nothing here waits: each channel gets a task, which
//! [`serve`](super::serve) runs. Agent and X11 forwarding, passwords and certificates are refused.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use super::SshConfig;
use super::exec::Process;
use super::forward::{self, Listening};
use super::inbox::{self, Backlog};
use super::jobs::Jobs;
use super::process::Registry;
use super::sftp;
use super::shell::{self, SessionSetup, Terminal};
use pty_process::Size;
use russh::keys::PublicKey;
use russh::server::{Auth, ChannelOpenHandle, Handler, Msg, PublicKeyOffer, Session, VerifiedPublicKey};
use russh::{Channel, ChannelId, ChannelOpenFailure};

/// russh's handler for one connection.
pub(super) struct Connection {
    config: Arc<SshConfig>,
    user: String,
    registry: Registry,
    jobs: Jobs,
    backlog: Arc<Backlog>,
    /// Session channels that have no command yet.
    waiting: HashMap<ChannelId, (Channel<Msg>, SessionSetup)>,
    /// The ports of `-R`, by the address that the client requested and the port that is bound.
    listening: HashMap<(String, u32), Listening>,
}

impl Connection {
    pub(super) fn new(config: Arc<SshConfig>, registry: Registry, jobs: Jobs) -> Self {
        Self {
            config,
            user: String::new(),
            registry,
            jobs,
            backlog: Arc::default(),
            waiting: HashMap::new(),
            listening: HashMap::new(),
        }
    }

    fn judge(&self, user: &str, key: &PublicKey) -> Auth {
        if (self.config.authorize)(user, key) { Auth::Accept } else { Auth::reject() }
    }

    /// Starts a command, or a shell without one, on a session channel that has none yet.
    fn start(
        &mut self,
        id: ChannelId,
        command: Option<&[u8]>,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        let Some((channel, setup)) = self.waiting.remove(&id) else {
            return session.channel_failure(id);
        };
        let process = shell::start(&self.config, &self.user, setup, command)
            .and_then(|(child, pty)| Process::adopt(child, pty, self.registry.clone()));
        match process {
            Ok(process) => {
                session.channel_success(id)?;
                let (incoming, outgoing) = channel.split();
                let (intake, inbox) = inbox::open(id, incoming, Arc::clone(&self.backlog));
                self.jobs.start(process.run(intake, inbox, outgoing, session.handle()));
                Ok(())
            }
            Err(error) => {
                tracing::warn!(%error, shell = %self.config.shell.display(), "cannot start a process");
                session.channel_failure(id)
            }
        }
    }
}

impl Handler for Connection {
    type Error = russh::Error;

    async fn auth_publickey_offered(
        &mut self,
        user: &str,
        offer: PublicKeyOffer<'_>,
    ) -> Result<Auth, Self::Error> {
        Ok(self.judge(user, offer.public_key))
    }

    async fn auth_publickey(&mut self, user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, Self::Error> {
        let verdict = self.judge(user, key.public_key);
        if verdict == Auth::Accept {
            user.clone_into(&mut self.user);
        }
        Ok(verdict)
    }

    async fn data(&mut self, channel: ChannelId, data: &[u8], _: &mut Session) -> Result<(), Self::Error> {
        self.backlog.pace(channel.into(), data.len()).await;
        Ok(())
    }

    fn adjust_window(&mut self, channel: ChannelId, _: u32) -> u32 {
        self.backlog.grant(channel.into())
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        self.waiting.insert(channel.id(), (channel, SessionSetup::default()));
        reply.accept().await;
        Ok(())
    }

    async fn channel_close(&mut self, channel: ChannelId, _: &mut Session) -> Result<(), Self::Error> {
        self.waiting.remove(&channel);
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host: &str,
        port: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        let Ok(port) = u16::try_from(port) else {
            reply.reject(ChannelOpenFailure::ConnectFailed).await;
            return Ok(());
        };
        let backlog = Arc::clone(&self.backlog);
        self.jobs.start(forward::connect_tcp(host.to_owned(), port, channel, reply, backlog));
        Ok(())
    }

    async fn channel_open_direct_streamlocal(
        &mut self,
        channel: Channel<Msg>,
        path: &str,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        let path = self.config.home.join(Path::new(path));
        self.jobs.start(forward::connect_unix(path, channel, reply, Arc::clone(&self.backlog)));
        Ok(())
    }

    async fn tcpip_forward(
        &mut self,
        address: &str,
        port: &mut u32,
        session: &mut Session,
    ) -> Result<bool, Self::Error> {
        let Ok(wanted) = u16::try_from(*port) else { return Ok(false) };
        let (jobs, backlog) = (self.jobs.clone(), Arc::clone(&self.backlog));
        match forward::listen(address, wanted, session.handle(), jobs, backlog).await {
            Ok((bound, listening)) => {
                *port = bound.into();
                self.listening.insert((address.to_owned(), *port), listening);
                Ok(true)
            }
            Err(error) => {
                tracing::debug!(%error, port = wanted, "cannot listen for the client");
                Ok(false)
            }
        }
    }

    async fn cancel_tcpip_forward(
        &mut self,
        address: &str,
        port: u32,
        _: &mut Session,
    ) -> Result<bool, Self::Error> {
        Ok(self.listening.remove(&(address.to_owned(), port)).is_some())
    }

    async fn pty_request(
        &mut self,
        channel: ChannelId,
        term: &str,
        columns: u32,
        rows: u32,
        width: u32,
        height: u32,
        _: &[(russh::Pty, u32)],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let size: Size = shell::size(columns, rows, width, height);
        match (self.waiting.get_mut(&channel), Terminal::open(term, size)) {
            (Some((_, setup)), Ok(terminal)) => {
                setup.terminal = Some(terminal);
                session.channel_success(channel)
            }
            (_, opened) => {
                if let Err(error) = opened {
                    tracing::warn!(%error, "cannot open a terminal");
                }
                session.channel_failure(channel)
            }
        }
    }

    async fn env_request(
        &mut self,
        channel: ChannelId,
        name: &str,
        value: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        match self.waiting.get_mut(&channel) {
            Some((_, setup)) if shell::accepts_variable(name) => {
                setup.environment.push((name.to_owned(), value.to_owned()));
                session.channel_success(channel)
            }
            _ => session.channel_failure(channel),
        }
    }

    async fn shell_request(&mut self, channel: ChannelId, session: &mut Session) -> Result<(), Self::Error> {
        self.start(channel, None, session)
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        command: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.start(channel, Some(command), session)
    }

    async fn subsystem_request(
        &mut self,
        id: ChannelId,
        name: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        if name != "sftp" {
            return session.channel_failure(id);
        }
        let Some((channel, _)) = self.waiting.remove(&id) else {
            return session.channel_failure(id);
        };
        session.channel_success(id)?;
        let home = self.config.home.clone();
        self.jobs.start(sftp::run(channel, home, Arc::clone(&self.backlog)));
        Ok(())
    }

    async fn x11_request(
        &mut self,
        channel: ChannelId,
        _: bool,
        _: &str,
        _: &str,
        _: u32,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_failure(channel)
    }
}
