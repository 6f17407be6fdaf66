//! The host of a plain ssh that has started the proxy.

use std::ffi::OsString;

use crate::cli::Proxy;
use crate::error::PlainHost;
use crate::ssh::client::{Invocation, is_ssh};
use crate::ssh::config::DEFAULT_SUFFIX;
use crate::target::Host;

/// The host on the command line of plain ssh, for hints. None if `ssh_ec2` has started ssh: then the
/// ProxyCommand is on ssh's command line.
pub(crate) fn plain_host(proxy: &Proxy, ssh: &[OsString]) -> Option<PlainHost> {
    let has_command = || {
        let ssh = Invocation::parse(ssh.get(1..)?).ok()?;
        Some(ssh.option("ProxyCommand").is_some())
    };
    let is_plain = || is_ssh(ssh) && has_command() == Some(false);
    if proxy.suffix.is_none() && !is_plain() {
        return None;
    }
    // ssh converts a host to lower case.
    let typed = proxy.typed.as_deref().filter(|typed| typed.eq_ignore_ascii_case(&proxy.host));
    let host = typed.unwrap_or(&proxy.host);
    let suffix = proxy.suffix.as_deref().unwrap_or(DEFAULT_SUFFIX);
    let (name, region) = Host::split(host, suffix).unwrap_or((host, None));
    let (name, region, suffix) = (name.to_owned(), region.map(str::to_owned), suffix.to_owned());
    Some(PlainHost { name, region, suffix })
}
