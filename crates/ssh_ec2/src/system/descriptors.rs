//! Closes descriptors that the caller left open when it started this process.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;

/// Closes the inherited descriptors above standard error. To be called before anything is opened.
///
/// Some callers, such as libssh, leave the other end of our standard input open in this process, which would
/// then never see the end of its input. Descriptors that an argument or an environment variable names, as
/// with bash's `<(…)`, stay open.
pub(crate) fn close_inherited(arguments: &[OsString]) {
    let mut open = open_descriptors();
    let values = env::vars_os().map(|(_, value)| value);
    for word in arguments.iter().cloned().chain(values) {
        let named: Vec<i32> = named(&word).collect();
        open.retain(|descriptor| !named.contains(descriptor));
    }
    for descriptor in open {
        // One of them was the directory that was listed, which is closed already.
        let _ = nix::unistd::close(descriptor);
    }
}

/// The open descriptors above standard error. Empty where no directory lists them.
fn open_descriptors() -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc/self/fd").or_else(|_| fs::read_dir("/dev/fd")) else {
        return Vec::new();
    };
    let numbers = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.filter(|descriptor| *descriptor > 2).collect()
}

/// The descriptors in paths such as `/dev/fd/63` and `/proc/self/fd/63`.
fn named(word: &OsStr) -> impl Iterator<Item = i32> {
    let text = word.to_string_lossy().into_owned();
    let numbers: Vec<_> = text
        .split("/fd/")
        .skip(1)
        .map(|rest| {
            let digits = rest.len() - rest.trim_start_matches(|digit: char| digit.is_ascii_digit()).len();
            rest[..digits].parse().ok()
        })
        .collect();
    numbers.into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_descriptors() {
        for (word, descriptors) in [
            ("/dev/fd/63", &[63][..]),
            ("--key-file=/proc/self/fd/3", &[3]),
            ("/dev/fd/4:/dev/fd/11/x", &[4, 11]),
            ("/dev/fd/", &[]),
            ("/fd/99999999999", &[]),
            ("63", &[]),
        ] {
            assert_eq!(named(word.as_ref()).collect::<Vec<_>>(), descriptors, "{word}");
        }
    }
}
