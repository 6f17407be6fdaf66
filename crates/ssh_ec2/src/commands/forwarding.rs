//! The agent that ssh forwards: the user's, although ssh itself uses the one with the one-time key.

use std::path::Path;

use crate::commands::connect::Surroundings;
use crate::error::Failure;
use crate::openssh::Settings;
use crate::ssh_config::{escape_tokens, is_literal, split_word};

/// What stands for "the agent" in the user's options and configuration.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Agent {
    /// This value of `ForwardAgent`.
    At(String),
    /// There is none, and plain ssh would forward none.
    Missing,
}

/// The agent to be forwarded. None where nothing is to be changed: none is forwarded, or the one that is named.
///
/// # Errors
/// When ssh cannot be told its path.
pub(super) fn to_forward(
    is_asked: bool,
    configured: Option<&Settings>,
    surroundings: &Surroundings,
) -> Result<Option<Agent>, Failure> {
    let get = |keyword| configured.and_then(|configured| configured.get(keyword));
    let forwards = match get("forwardagent") {
        // ssh looks this variable up after it has put the agent there that it uses itself.
        Some(value) => matches!(value, "yes" | "$SSH_AUTH_SOCK"),
        None => is_asked,
    };
    if !forwards {
        return Ok(None);
    }
    // The user's `IdentityAgent` is what plain ssh forwards. In an installed block that is ours.
    let sockets = surroundings.places.sockets();
    let named = get("identityagent").filter(|path| *path != "SSH_AUTH_SOCK");
    // Blocks may have been installed with another SSH_EC2_DIR than this process has.
    let is_block = |command: &str| command.contains("--sockets ") || command.contains("--agent-socket ");
    let is_installed = get("proxycommand").is_some_and(is_block);
    let named = named.filter(|path| !is_installed && !Path::new(path).starts_with(&sockets));
    Ok(Some(match named.or(surroundings.user_agent.as_deref()) {
        None | Some("none") => Agent::Missing,
        // The name of a variable.
        Some(name) if named.is_some() && name.starts_with('$') => Agent::At(name.to_owned()),
        Some(path) if !is_literal(path) => {
            let mistake =
                format!("the agent at {path:?} cannot be forwarded: ssh would replace `${{…}}` in its path");
            return Err(Failure::Usage(mistake));
        }
        // `ssh -G` prints paths without quotes, and with the values of tokens. One that is relative could look like
        // one of ssh's own words.
        Some(path) => {
            let start = if path.starts_with('/') { "" } else { "./" };
            Agent::At(split_word(&escape_tokens(&format!("{start}{path}"))))
        }
    }))
}
