//! Finds ssh's options in the command lines of scp, sftp and rsync.

use std::ffi::OsString;
use std::path::Path;

use super::Tool;

impl Tool {
    /// The options that determine how ssh connects and whether it forwards an agent, as ssh itself takes
    /// them.
    pub(crate) fn ssh_options(self, arguments: &[OsString]) -> Vec<OsString> {
        if self == Self::Rsync {
            // The remote shell from rsync's options, or its default.
            let with_shell = self.with_settings(arguments.to_vec(), 0, &[]);
            let words = words(&with_shell[1].to_string_lossy());
            let is_ssh = words.first().is_some_and(|word| Path::new(word).ends_with("ssh"));
            return words.into_iter().skip(if is_ssh { 1 } else { usize::MAX }).map(OsString::from).collect();
        }
        let (_, first) = self.remotes(arguments);
        let mut options = Vec::new();
        let mut words = arguments[..first].iter().map(|word| word.to_string_lossy());
        while let Some(word) = words.next() {
            let Some(letters) = word.strip_prefix('-') else { continue };
            for (at, letter) in letters.char_indices() {
                let option = format!("-{letter}");
                if self.takes_value(&option) {
                    let joined = &letters[at + letter.len_utf8()..];
                    let value =
                        if joined.is_empty() { words.next().unwrap_or_default() } else { joined.into() };
                    if matches!(letter, 'J' | 'o') {
                        options.extend([option.into(), value.into_owned().into()]);
                    }
                    break;
                }
                if letter == 'A' {
                    options.push(option.into());
                }
            }
        }
        options
    }
}

/// The words of a command, split as by rsync: inside quotes, a quote of the same kind is doubled.
fn words(command: &str) -> Vec<String> {
    let (mut words, mut open) = (Vec::new(), None);
    let mut word: Option<String> = None;
    let mut rest = command.chars().peekable();
    while let Some(character) = rest.next() {
        match (open, character) {
            (Some(quote), _) if character == quote => {
                if rest.next_if_eq(&quote).is_some() {
                    word.get_or_insert_default().push(quote);
                } else {
                    open = None;
                }
            }
            (None, '\'' | '"') => {
                open = Some(character);
                word.get_or_insert_default();
            }
            (None, ' ') => words.extend(word.take()),
            _ => word.get_or_insert_default().push(character),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ssh_is_told_is_found_in_every_tools_own_way() {
        let split = |line: &str| words(line).into_iter().map(OsString::from).collect::<Vec<_>>();
        for (tool, line, options) in [
            (
                Tool::Scp,
                "-qJ bastion -P 22 -oUser=x -o 'ProxyJump a b' f web-1:g",
                "-J bastion -o User=x -o 'ProxyJump a b'",
            ),
            (Tool::Scp, "-rA -Jbastion f web-1:g", "-A -J bastion"),
            (Tool::Scp, "f web-1:-J", ""),
            (Tool::Sftp, "-b -J -R 4 web-1", ""),
            (Tool::Rsync, "-a -e 'ssh -J ''x'' -A' f web-1:g", "-J x -A"),
            (Tool::Rsync, "-ae 'ssh -oProxyJump=x' f web-1:g", "-oProxyJump=x"),
            (Tool::Rsync, "--rsh='/usr/bin/ssh -J \"x y\"' f web-1:g", "-J 'x y'"),
            (Tool::Rsync, "-e 'rsh -J x' f web-1:g", ""),
            (Tool::Rsync, "-a f web-1:g", ""),
        ] {
            assert_eq!(tool.ssh_options(&split(line)), split(options), "{tool:?} {line}");
        }
    }
}
