//! The key that ssh will offer: pushed to the instance, and served by the key agent.

use std::future::pending;
use std::io;

use tokio::task::{spawn_blocking, yield_now};

use super::Failure;
use super::door::Door;
use super::job::Job;
use crate::aws::Aws;
use crate::key::agent::serve::serve;
use crate::key::agent::socket::AgentPath;
use crate::key::file::read_public_key;
use crate::key::one_time::{KeyType, OneTimeKey};
use crate::key::push::Push;

/// The key that ssh will offer.
pub(super) enum Identity {
    /// A key that is on the node already: EC2 Instance Connect cannot push keys to managed nodes.
    Any,
    /// The user's own public key, as a line, which is pushed.
    Own(String),
    /// A one-time key, and the path at which ssh looks for the agent that has it.
    OneTime(AgentPath),
}

impl Identity {
    /// Checks the key file or the agent's path before a session is started.
    pub(super) fn check(job: &Job<'_>) -> Result<Self, Failure> {
        if job.instance.is_managed_node() {
            return Ok(Self::Any);
        }
        if let Some(path) = &job.options.key_file {
            return Ok(Self::Own(read_public_key(path)?));
        }
        Ok(Self::OneTime(AgentPath::check(&job.options.agent_socket)?))
    }
}

/// Pushes the key, opens the door to ssh, and serves the key agent. Returns only on failure.
pub(super) async fn keep_key_ready(job: &Job<'_>, aws: &Aws, identity: &Identity, door: &Door) -> Failure {
    match keep_ready(job, aws, identity, door).await {
        Err(error) => error,
        Ok(()) => pending().await,
    }
}

async fn keep_ready(job: &Job<'_>, aws: &Aws, identity: &Identity, door: &Door) -> Result<(), Failure> {
    let push = |line| Push::new(aws, &job.instance, &job.options.user, line, job.pace.clone());
    match identity {
        Identity::Any => door.open(),
        Identity::Own(line) => {
            job.pushed_key.replace(Some(line.clone()));
            push(line.clone()).ensure().await?;
            door.open();
        }
        Identity::OneTime(path) => {
            let key = generate(job).await?;
            job.pushed_key.replace(Some(key.public_line()));
            let push = push(key.public_line());
            push.ensure().await?;
            let socket = door.open_with(path.clone().bind()?);
            serve(socket, &key, &door.usage, async || push.ensure().await).await?;
        }
    }
    Ok(())
}

/// Makes the one-time key, of the type that the user chose or that ssh accepts.
async fn generate(job: &Job<'_>) -> Result<OneTimeKey, Failure> {
    let key_type = match job.options.key_type {
        Some(key_type) => key_type,
        None => {
            // Lets StartSession begin first: it takes longer than `ssh -G` and the push together.
            yield_now().await;
            match job.ssh_options().await {
                Some(ssh) if ssh.want_rsa() => KeyType::Rsa,
                _ => KeyType::Ed25519,
            }
        }
    };
    tracing::debug!("the one-time key is of the type {key_type}");
    if key_type == KeyType::Ed25519 {
        return Ok(OneTimeKey::generate(key_type)?);
    }
    // On a thread of its own, since it computes for so long that it would block this one.
    match spawn_blocking(move || OneTimeKey::generate(key_type)).await {
        Ok(key) => Ok(key?),
        Err(error) => Err(Failure::System { action: "make an RSA key", source: io::Error::other(error) }),
    }
}
