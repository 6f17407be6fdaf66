//! Agent forwarding: ssh forwards the user's own agent, although it logs in with the key agent of the
//! one-time key.

use std::path::Path;

use crate::environment::Environment;
use crate::error::Failure;
use crate::ssh::options::SshOptions;
use crate::ssh::quote::{escape_tokens, is_literal, split_word};

/// The agent to forward instead of the key agent.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Agent {
    /// The user's agent, as this value of `ForwardAgent`.
    At(String),
    /// The user has no agent.
    Missing,
}

/// The agent to forward. None if ssh's options need no change: they forward no agent, or name one.
///
/// # Errors
///
/// When the path cannot be written as a value of `ForwardAgent`.
pub(super) fn to_forward(
    is_asked: bool,
    configured: Option<&SshOptions>,
    environment: &Environment,
) -> Result<Option<Agent>, Failure> {
    let get = |keyword| configured.and_then(|configured| configured.get(keyword));
    let forwards = match get("forwardagent") {
        // ssh sets this variable to its IdentityAgent before it reads it.
        Some(value) => matches!(value, "yes" | "$SSH_AUTH_SOCK"),
        None => is_asked,
    };
    if !forwards {
        return Ok(None);
    }
    // Plain ssh forwards its `IdentityAgent`. One among our sockets comes from an installed block.
    let sockets = environment.places.sockets();
    let named = get("identityagent").filter(|path| *path != "SSH_AUTH_SOCK");
    // The blocks may have been installed with another SSH_EC2_DIR.
    let is_block = |command: &str| command.contains("--sockets ") || command.contains("--agent-socket ");
    let is_installed = get("proxycommand").is_some_and(is_block);
    let named = named.filter(|path| !is_installed && !Path::new(path).starts_with(&sockets));
    Ok(Some(match named.or(environment.user_agent.as_deref()) {
        None | Some("none") => Agent::Missing,
        // The name of a variable.
        Some(name) if named.is_some() && name.starts_with('$') => Agent::At(name.to_owned()),
        Some(path) if !is_literal(path) => {
            let mistake =
                format!("the agent at {path:?} cannot be forwarded: ssh would replace `${{…}}` in its path");
            return Err(Failure::Usage(mistake));
        }
        // `ssh -G` prints paths without quotes, and with the values of tokens. A relative path could look
        // like a word that ssh knows, such as `yes`.
        Some(path) => {
            let start = if path.starts_with('/') { "" } else { "./" };
            Agent::At(split_word(&escape_tokens(&format!("{start}{path}"))))
        }
    }))
}
