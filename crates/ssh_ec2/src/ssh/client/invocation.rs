//! Reads ssh's command line as ssh does. Words that are passed on stay byte for byte as they were typed.
//! (Pure.)

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use thiserror::Error;

use crate::system::explain::{Anchor, Explain};

/// ssh's command line, in three parts.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Invocation {
    /// Options and their values, from before and after the destination.
    pub options: Vec<OsString>,
    /// `[user@]host` or `ssh://…`.
    pub destination: OsString,
    /// The remote command, with a `--` before it if there was one.
    pub command: Vec<OsString>,
}

/// A command line that ssh would refuse as well.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub(crate) enum InvocationError {
    /// The option with this letter is the last word, and needs a value.
    #[error("the ssh option `-{0}` needs a value")]
    MissingValue(char),
    /// There are options alone.
    #[error("there is no destination")]
    NoDestination,
    /// A destination that begins with a hyphen, after `--`.
    #[error("{0:?} is not a destination")]
    Destination(String),
    /// A word with a letter that is no option of ssh.
    #[error("ssh has no option {0:?}")]
    UnknownOption(String),
}

impl Explain for InvocationError {
    fn hints(&self) -> Vec<String> {
        vec!["`ssh_ec2 --help` shows how to call it".into()]
    }

    fn anchor(&self) -> Option<Anchor> {
        None
    }
}

impl Invocation {
    /// Reads ssh's arguments: options, the destination, more options, the command. As in ssh, the first word
    /// after the destination that is no option begins the command.
    ///
    /// # Errors
    ///
    /// When ssh would refuse them as well.
    pub(crate) fn parse(arguments: &[OsString]) -> Result<Self, InvocationError> {
        let mut options = Vec::new();
        let rest = take_options(arguments, &mut options)?;
        let rest = if rest.first().is_some_and(|word| word == "--") { &rest[1..] } else { rest };
        let Some((destination, rest)) = rest.split_first() else {
            return Err(InvocationError::NoDestination);
        };
        if destination.as_bytes().starts_with(b"-") {
            return Err(InvocationError::Destination(destination.to_string_lossy().into_owned()));
        }
        let command = take_options(rest, &mut options)?;
        Ok(Self { options, destination: destination.clone(), command: command.to_vec() })
    }

    /// The host of the destination, without user, port or scheme.
    pub(crate) fn host(&self) -> String {
        let text = self.destination.to_string_lossy();
        let (_, host, _) = parts(&text);
        host.trim_matches(['[', ']']).to_owned()
    }

    /// The user to log in as. None if the command line names none.
    pub(crate) fn user(&self) -> Option<String> {
        let text = self.destination.to_string_lossy();
        let authority = text.strip_prefix("ssh://").unwrap_or(&text);
        if let Some((user, _)) = authority.rsplit_once('@') {
            return Some(user.to_owned());
        }
        let mut values = self.values();
        values.find_map(|(letter, value)| match letter {
            b'l' => Some(value),
            b'o' => setting(&value, "user").map(str::to_owned),
            _ => None,
        })
    }

    /// The value of `keyword` in the options `-o`. As in ssh, the first one counts.
    pub(crate) fn option(&self, keyword: &str) -> Option<String> {
        let mut values = self.values().filter(|(letter, _)| *letter == b'o');
        values.find_map(|(_, value)| setting(&value, keyword).map(str::to_owned))
    }

    /// Whether BatchMode is on: ssh asks the user nothing.
    pub(crate) fn is_batch(&self) -> bool {
        self.option("batchmode").is_some_and(|value| value.eq_ignore_ascii_case("yes"))
    }

    /// The same command line for another host.
    pub(crate) fn for_host(&self, host: &str) -> Self {
        let text = self.destination.to_string_lossy();
        let (user, _, port) = parts(&text);
        let destination = match port {
            "" => format!("{user}{host}"),
            port => format!("ssh://{user}{host}{port}"),
        };
        Self { destination: destination.into(), ..self.clone() }
    }

    /// The configuration file: the value of the last `-F`.
    pub(crate) fn config_file(&self) -> Option<String> {
        self.values().filter(|(letter, _)| *letter == b'F').last().map(|(_, file)| file)
    }

    /// The option, as it was typed, with which ssh does not use our ProxyCommand: ssh takes the first
    /// ProxyCommand or ProxyJump, and the user's options come before ours.
    pub(crate) fn other_way(&self) -> Option<String> {
        other_way(self.values())
    }

    /// `V` if ssh would print its version, `Q` if it would list its algorithms. Neither needs a destination.
    pub(crate) fn query(arguments: &[OsString]) -> Option<u8> {
        let invocation = match Self::parse(arguments) {
            Ok(invocation) => invocation,
            Err(InvocationError::NoDestination) => {
                Self { options: arguments.to_vec(), destination: OsString::new(), command: Vec::new() }
            }
            Err(_) => return None,
        };
        let version = invocation.flags().find(|flag| *flag == b'V');
        version.or_else(|| invocation.values().map(|(letter, _)| letter).find(|letter| *letter == b'Q'))
    }

    /// The number of `-v` among the options.
    pub(crate) fn verbosity(&self) -> usize {
        self.flags().filter(|flag| *flag == b'v').count()
    }

    /// Whether the last of `-A` and `-a` is `-A`: ssh forwards the agent.
    pub(crate) fn forwards_agent(&self) -> bool {
        self.flags().filter(|flag| matches!(flag, b'A' | b'a')).last() == Some(b'A')
    }

    /// The options with a value, as letter and value.
    fn values(&self) -> impl Iterator<Item = (u8, String)> + '_ {
        let mut words = self.options.iter();
        std::iter::from_fn(move || {
            loop {
                let letters = words.next()?.as_bytes().strip_prefix(b"-").unwrap_or_default();
                let Some(at) = letters.iter().position(|letter| WITH_VALUE.contains(letter)) else {
                    continue;
                };
                let joined = &letters[at + 1..];
                let value = if joined.is_empty() { words.next()?.as_bytes() } else { joined };
                return Some((letters[at], String::from_utf8_lossy(value).into_owned()));
            }
        })
    }

    /// The letters of options without a value.
    fn flags(&self) -> impl Iterator<Item = u8> + '_ {
        let mut value_follows = false;
        self.options
            .iter()
            .flat_map(move |word| {
                if std::mem::take(&mut value_follows) {
                    return &[][..];
                }
                let letters = word.as_bytes().strip_prefix(b"-").unwrap_or_default();
                let end = letters.iter().position(|letter| WITH_VALUE.contains(letter));
                value_follows = end.is_some_and(|end| end + 1 == letters.len());
                &letters[..end.unwrap_or(letters.len())]
            })
            .copied()
    }
}

/// The first of these options, given as letter and value, with which ssh does not use our ProxyCommand.
pub(super) fn other_way(mut options: impl Iterator<Item = (u8, String)>) -> Option<String> {
    options.find_map(|(letter, value)| match letter {
        b'J' => Some(format!("-J {value}")),
        b'o' => ["proxyjump", "proxycommand"]
            .iter()
            .any(|keyword| setting(&value, keyword).is_some())
            .then(|| format!("-o '{value}'")),
        _ => None,
    })
}

/// The parts of a destination: the user with its `@`, the host, and the port of a URI with its colon.
fn parts(destination: &str) -> (&str, &str, &str) {
    let uri = destination.strip_prefix("ssh://").map(|uri| uri.trim_end_matches('/'));
    let text = uri.unwrap_or(destination);
    // ssh splits at the last `@`: user names may contain one.
    let (user, host) = text.split_at(text.rfind('@').map_or(0, |at| at + 1));
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    match host.rfind(':') {
        Some(at) if uri.is_some() && is_port(&host[at + 1..]) => (user, &host[..at], &host[at..]),
        _ => (user, host, ""),
    }
}

/// The value of `keyword` in an option `-o`, such as `User=x` or `user x`. None if it sets another keyword.
fn setting<'a>(option: &'a str, keyword: &str) -> Option<&'a str> {
    let (found, value) = option.trim_start().split_at_checked(keyword.len())?;
    let value = value.strip_prefix(|separator: char| separator == '=' || separator.is_whitespace())?;
    let value = value.trim_matches(|character: char| character == '=' || character.is_whitespace());
    found.eq_ignore_ascii_case(keyword).then_some(value)
}

/// Moves options from the front of `arguments` to `options`, and returns the rest.
fn take_options<'a>(
    mut arguments: &'a [OsString],
    options: &mut Vec<OsString>,
) -> Result<&'a [OsString], InvocationError> {
    while let Some((word, rest)) = arguments.split_first() {
        let Some(letters) = word.as_bytes().strip_prefix(b"-").filter(|letters| !letters.is_empty()) else {
            break;
        };
        if letters == b"-" {
            break;
        }
        arguments = rest;
        options.push(word.clone());
        for (index, letter) in letters.iter().enumerate() {
            if WITH_VALUE.contains(letter) {
                if index + 1 == letters.len() {
                    let (value, rest) =
                        rest.split_first().ok_or(InvocationError::MissingValue(char::from(*letter)))?;
                    options.push(value.clone());
                    arguments = rest;
                }
                break;
            }
            if !WITHOUT_VALUE.contains(letter) {
                return Err(InvocationError::UnknownOption(word.to_string_lossy().into_owned()));
            }
        }
    }
    Ok(arguments)
}

/// Whether this is the command line of an ssh that asks the user nothing.
pub(crate) fn is_batch(command_line: &[OsString]) -> bool {
    command_line.get(1..).is_some_and(|words| Invocation::parse(words).is_ok_and(|ssh| ssh.is_batch()))
}

/// Whether this is the command line of an ssh. True if it is empty, since not every system shows command
/// lines.
pub(crate) fn is_ssh(command_line: &[OsString]) -> bool {
    let program = command_line.first().map(|word| Path::new(word).file_name());
    program.is_none_or(|name| name.is_some_and(|name| name == "ssh"))
}

/// The options with a value, as in `ssh.c` of OpenSSH 10 (`P` and `B` came with 9.x and 7.7).
const WITH_VALUE: &[u8] = b"BDEFIJLOPQRSWbceilmopw";
const WITHOUT_VALUE: &[u8] = b"1246AaCfGgKkMNnqsTtVvXxYy";

#[cfg(test)]
mod tests;
