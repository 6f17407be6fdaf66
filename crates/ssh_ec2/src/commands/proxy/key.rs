//! The key that ssh will offer: pushed to the instance, and served by the key agent.

use std::future::pending;

use super::{Failure, Job};
use crate::agent::socket::{AgentSocket, Usage, serve};
use crate::aws::Aws;
use crate::commands::send_key::read_public_key;
use crate::key::OneTimeKey;
use crate::push::Push;

/// The key that ssh will offer.
pub(super) enum Identity {
    /// Whatever the user has: nothing can be pushed to a managed node.
    Any,
    /// The user's own, as a public line.
    Own(String),
    /// Ours.
    OneTime(Box<OneTimeKey>, AgentSocket),
}

impl Identity {
    pub(super) fn prepare(options: &Job<'_>) -> Result<Self, Failure> {
        if options.instance.is_managed_node() {
            return Ok(Self::Any);
        }
        if let Some(path) = &options.key_file {
            return Ok(Self::Own(read_public_key(path)?));
        }
        Ok(Self::OneTime(Box::new(OneTimeKey::generate()?), AgentSocket::bind(&options.agent_socket)?))
    }
}

/// Pushes the key and serves the key agent. Ends only by failing.
pub(super) async fn keep_key_ready(
    options: &Job<'_>,
    aws: &Aws,
    identity: &Identity,
    usage: &Usage,
) -> Failure {
    let public_line = match identity {
        Identity::Any => return pending().await,
        Identity::Own(line) => line.clone(),
        Identity::OneTime(key, _) => key.public_line(),
    };
    let push = Push::new(aws, &options.instance, &options.user, public_line, options.pace.clone());
    let serve_key = async {
        match identity {
            Identity::OneTime(key, socket) => serve(socket, key, usage, async || push.ensure().await).await,
            _ => pending().await,
        }
    };
    match tokio::try_join!(push.ensure(), serve_key) {
        Ok(_) => pending().await,
        Err(error) => error.into(),
    }
}
