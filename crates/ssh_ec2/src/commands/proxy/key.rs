//! The key that ssh will offer: pushed to the instance, and served by the key agent.

use std::future::pending;

use super::door::Door;
use super::{Failure, Job};
use crate::agent::serve::serve;
use crate::agent::socket::AgentPath;
use crate::aws::Aws;
use crate::commands::send_key::read_public_key;
use crate::key::OneTimeKey;
use crate::push::Push;

/// The key that ssh will offer.
pub(super) enum Identity {
    /// One that the user has: nothing can be pushed to a managed node.
    Any,
    /// The user's own, as a public line.
    Own(String),
    /// Ours, and where ssh looks for the agent that has it.
    OneTime(AgentPath),
}

impl Identity {
    /// Checks the key file or the agent's path before a session is started.
    pub(super) fn check(options: &Job<'_>) -> Result<Self, Failure> {
        if options.instance.is_managed_node() {
            return Ok(Self::Any);
        }
        if let Some(path) = &options.key_file {
            return Ok(Self::Own(read_public_key(path)?));
        }
        Ok(Self::OneTime(AgentPath::check(&options.agent_socket)?))
    }
}

/// Pushes the key, opens the door to ssh, and serves the key agent. Ends only by failing.
pub(super) async fn keep_key_ready(
    options: &Job<'_>,
    aws: &Aws,
    identity: &Identity,
    door: &Door,
) -> Failure {
    match keep_ready(options, aws, identity, door).await {
        Err(error) => error,
        Ok(()) => pending().await,
    }
}

async fn keep_ready(options: &Job<'_>, aws: &Aws, identity: &Identity, door: &Door) -> Result<(), Failure> {
    let push = |line| Push::new(aws, &options.instance, &options.user, line, options.pace.clone());
    match identity {
        Identity::Any => door.open(),
        Identity::Own(line) => {
            options.pushed_key.replace(Some(line.clone()));
            push(line.clone()).ensure().await?;
            door.open();
        }
        Identity::OneTime(path) => {
            let key = OneTimeKey::generate()?;
            options.pushed_key.replace(Some(key.public_line()));
            let push = push(key.public_line());
            push.ensure().await?;
            let socket = door.open_with(path.clone().bind().await?);
            serve(socket, &key, &door.usage, async || push.ensure().await).await?;
        }
    }
    Ok(())
}
