//! Refuses arguments that the program would misunderstand or connect elsewhere with. (Pure.)

use std::ffi::OsString;

use super::Tool;
use crate::ssh::own_options::takes_value;

impl Tool {
    /// The reason for which the arguments cannot be passed on: an option of ssh_ec2 among them, or a module
    /// of an rsync daemon, to which rsync connects without ssh.
    pub(crate) fn mistake(self, arguments: &[OsString]) -> Option<String> {
        let program = self.program();
        let mut at = 0;
        while let Some(text) = arguments.get(at).map(|argument| argument.to_string_lossy()) {
            if text == "--" {
                at += 1;
                break;
            }
            let name = text.split('=').next().unwrap_or_default();
            if takes_value(name).is_some() {
                return Some(format!(
                    "`{name}` is an option of ssh_ec2, and goes in front of {program}: `ssh_ec2 {name} … {program} …`"
                ));
            }
            let is_option = text.len() > 1 && text.starts_with('-');
            // rsync also takes options after operands.
            if !is_option && self != Self::Rsync {
                return None;
            }
            if !is_option && is_daemon(&text) {
                return Some(daemon(&text));
            }
            at += 1 + usize::from(is_option && self.takes_value(&text));
        }
        let mut operands =
            arguments.get(at..).unwrap_or_default().iter().map(|argument| argument.to_string_lossy());
        operands.find(|text| self == Self::Rsync && is_daemon(text)).map(|text| daemon(&text))
    }
}

/// Whether an operand names a module of rsync's daemon (rsync(1), "USING RSYNC-DAEMON FEATURES").
fn is_daemon(text: &str) -> bool {
    let host_end = match text.find(']').filter(|_| text.starts_with('[') || text.contains("@[")) {
        Some(end) => end + 1,
        None => text.find(':').unwrap_or(text.len()),
    };
    text.starts_with("rsync://") || (text[host_end..].starts_with("::") && !text[..host_end].contains('/'))
}

fn daemon(text: &str) -> String {
    format!("{text:?} is a module of rsync's daemon, which is not reached through ssh; write TARGET:PATH")
}
