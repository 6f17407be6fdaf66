//! Reads an operand that names a host. (Pure.)

use super::{Remote, Tool};

impl Tool {
    /// The host of a URI. scp and sftp parse URIs themselves (`misc.c`, `parse_uri`), so the rest stays as it
    /// is.
    fn remote_of_uri(self, text: &str) -> Option<Remote> {
        let scheme = match self {
            Self::Scp => "scp://",
            Self::Sftp => "sftp://",
            Self::Rsync => return None,
        };
        let rest = text.strip_prefix(scheme)?;
        let (authority, _) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let start = authority.rfind('@').map_or(0, |at| at + 1);
        let user = authority[..start].strip_suffix('@').map(str::to_owned);
        let target = &authority[start..];
        let end = match target.starts_with('[') {
            true => target.find(']').map(|at| at + 1)?,
            false => target.find(':').unwrap_or(target.len()),
        };
        let (host, port) = target.split_at(end);
        let is_port = port.is_empty()
            || port.strip_prefix(':').is_some_and(|port| port.bytes().all(|byte| byte.is_ascii_digit()));
        let rest = rest[start + end..].to_owned();
        let host = host.trim_matches(['[', ']']).to_owned();
        (is_port && !host.is_empty()).then_some(Remote { index: 0, scheme, user, host, rest })
    }

    /// The host of an operand such as `user@host:path`. None if it names a local file.
    pub(super) fn remote(self, text: &str) -> Option<Remote> {
        if text.contains("://") {
            return self.remote_of_uri(text);
        }
        let start = text.find('@').filter(|at| !text[..*at].contains([':', '/'])).map_or(0, |at| at + 1);
        let user = text[..start].strip_suffix('@').map(str::to_owned);
        let target = &text[start..];
        let end = match target {
            _ if target.starts_with('[') => target.find(']').map(|at| at + 1),
            // Targets with a colon of their own.
            _ if target.starts_with("tag:") => {
                let value = target.find('=').unwrap_or(target.len());
                target[value..].find(':').map(|at| at + value).or(Some(target.len()))
            }
            _ if target.starts_with("asg:") => target[4..].find(':').map(|at| at + 4).or(Some(target.len())),
            _ => target.find(':').or((self == Self::Sftp).then_some(target.len())),
        }?;
        let (host, rest) = target.split_at(end);
        let is_path = host.contains('/') && !host.starts_with("tag:");
        let is_whole = rest.starts_with(':') || (self == Self::Sftp && rest.is_empty());
        let is_daemon = self == Self::Rsync && rest.starts_with("::");
        if host.is_empty() || is_path || !is_whole || is_daemon {
            return None;
        }
        Some(Remote {
            index: 0,
            scheme: "",
            user,
            host: host.trim_matches(['[', ']']).to_owned(),
            rest: rest.to_owned(),
        })
    }
}
