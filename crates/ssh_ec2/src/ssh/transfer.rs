//! Finds the hosts and ssh's options in the command lines of scp, sftp and rsync. (Pure.)
//!
//! A host is replaced by its instance's id, and ssh's settings are inserted where the program reads them. All
//! other words stay as they were typed.

mod mistake;
mod remote;
mod settings;
mod ssh;

use std::ffi::OsString;

/// A program that copies files over ssh.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Tool {
    /// OpenSSH's scp.
    Scp,
    /// OpenSSH's sftp.
    Sftp,
    /// rsync, which runs ssh as its remote shell.
    Rsync,
}

/// An argument that names a file on a host.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Remote {
    /// Its position among the arguments.
    pub index: usize,
    /// `scp://` or `sftp://`; empty if it is no URI.
    pub scheme: &'static str,
    /// The user in front of `@`.
    pub user: Option<String>,
    /// The host, without the brackets of an IPv6 address.
    pub host: String,
    /// The text after the host, with its colon; empty for sftp's plain host.
    pub rest: String,
}

impl Tool {
    /// The program's name in PATH.
    pub(crate) fn program(self) -> &'static str {
        match self {
            Self::Scp => "scp",
            Self::Sftp => "sftp",
            Self::Rsync => "rsync",
        }
    }

    /// The arguments that name hosts, and the position of the first operand, before which options go.
    pub(crate) fn remotes(self, arguments: &[OsString]) -> (Vec<Remote>, usize) {
        let mut remotes = Vec::new();
        let mut first = None;
        let mut only_operands = false;
        let mut at = 0;
        while let Some(argument) = arguments.get(at) {
            let text = argument.to_string_lossy();
            let index = at;
            at += 1;
            if !only_operands && text == "--" {
                first.get_or_insert(index);
                only_operands = true;
            } else if !only_operands && text.len() > 1 && text.starts_with('-') {
                at += usize::from(self.takes_value(&text));
            } else {
                first.get_or_insert(index);
                // A word that is not UTF-8 is a local file, and so is every word after sftp's host.
                let is_file = self == Self::Sftp && !remotes.is_empty();
                let remote = argument.to_str().filter(|_| !is_file).and_then(|text| self.remote(text));
                remotes.extend(remote.map(|remote| Remote { index, ..remote }));
            }
        }
        (remotes, first.unwrap_or(arguments.len()))
    }

    /// Whether the options have the program ask the user nothing.
    pub(crate) fn is_batch(self, arguments: &[OsString]) -> bool {
        let (_, first) = self.remotes(arguments);
        let options =
            arguments[..first].iter().map(|argument| argument.to_string_lossy().to_ascii_lowercase());
        let batch = match self {
            Self::Scp => 'B',
            Self::Sftp => 'b',
            Self::Rsync => '\0',
        };
        let letter = arguments[..first].iter().any(|argument| {
            let text = argument.to_string_lossy();
            text.starts_with('-') && !text.starts_with("-o") && text.contains(batch)
        });
        let mut options = options.peekable();
        let setting =
            options.any(|option| option.contains("batchmode=yes") || option.contains("batchmode yes"));
        letter || setting
    }

    /// Whether the next argument is this option's value.
    fn takes_value(self, option: &str) -> bool {
        if option.starts_with("--") {
            return self == Self::Rsync && RSYNC_LONG.contains(&option);
        }
        let with_value = match self {
            Self::Scp => "cDFiJloPSX",
            Self::Sftp => "BbcDFiJloPRSsX",
            Self::Rsync => "eBfTM",
        };
        // Letters without a value may come before it. If more characters follow, they are its value.
        option.find(|letter| with_value.contains(letter)).is_some_and(|at| at + 1 == option.len())
    }
}

/// rsync's options with a value, which may be the next argument (rsync 3.2, `rsync --help`).
const RSYNC_LONG: [&str; 46] = [
    "--address",
    "--backup-dir",
    "--block-size",
    "--bwlimit",
    "--checksum-choice",
    "--checksum-seed",
    "--chmod",
    "--chown",
    "--compare-dest",
    "--compress-choice",
    "--compress-level",
    "--contimeout",
    "--copy-as",
    "--copy-dest",
    "--debug",
    "--early-input",
    "--exclude",
    "--exclude-from",
    "--files-from",
    "--filter",
    "--groupmap",
    "--iconv",
    "--include",
    "--include-from",
    "--info",
    "--link-dest",
    "--log-file",
    "--log-file-format",
    "--max-alloc",
    "--max-delete",
    "--max-size",
    "--min-size",
    "--modify-window",
    "--out-format",
    "--partial-dir",
    "--password-file",
    "--port",
    "--protocol",
    "--remote-option",
    "--rsh",
    "--rsync-path",
    "--skip-compress",
    "--suffix",
    "--temp-dir",
    "--timeout",
    "--usermap",
];

#[cfg(test)]
mod tests;
