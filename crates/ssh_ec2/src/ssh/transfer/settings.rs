//! Inserts ssh's settings into the arguments. (Pure.)

use std::ffi::OsString;

use super::Tool;

impl Tool {
    /// The arguments with ssh's settings: as options before `first`, the first operand, or in rsync's remote
    /// shell.
    pub(crate) fn with_settings(
        self,
        mut arguments: Vec<OsString>,
        first: usize,
        settings: &[(&str, String)],
    ) -> Vec<OsString> {
        if self != Self::Rsync {
            let options = settings
                .iter()
                .flat_map(|(keyword, value)| ["-o".into(), OsString::from(format!("{keyword}={value}"))]);
            arguments.splice(first..first, options);
            return arguments;
        }
        let mut shell = String::from("ssh");
        let mut at = 0;
        while let Some(text) = arguments.get(at).map(|argument| argument.to_string_lossy().into_owned()) {
            if text == "--" {
                break;
            }
            // Options may follow operands.
            if !text.starts_with('-') {
                at += 1;
                continue;
            }
            let joined = text.strip_prefix("--rsh=").or_else(|| text.strip_prefix("-e"));
            // `-e`, alone or after other letters.
            let letters =
                text.strip_suffix('e').filter(|_| !text.starts_with("--") && self.takes_value(&text));
            if let Some(value) = joined.filter(|value| !value.is_empty()) {
                value.clone_into(&mut shell);
                arguments.remove(at);
            } else if text == "--rsh" || letters.is_some() {
                match letters.filter(|letters| letters.len() > 1) {
                    Some(letters) => {
                        arguments[at] = letters.into();
                        at += 1;
                    }
                    None => drop(arguments.remove(at)),
                }
                if at < arguments.len() {
                    shell = arguments.remove(at).to_string_lossy().into_owned();
                }
            } else {
                at += 1 + usize::from(self.takes_value(&text));
            }
        }
        for (keyword, value) in settings {
            // rsync's own quoting: a quote inside is doubled.
            shell.push_str(&format!(" -o '{keyword}={}'", value.replace('\'', "''")));
        }
        arguments.splice(0..0, ["-e".into(), shell.into()]);
        arguments
    }
}
