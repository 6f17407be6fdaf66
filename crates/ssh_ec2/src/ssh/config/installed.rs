//! Reads the file that `ssh_ec2 config --install` wrote. (Pure.)

use super::{BLOCK, SECTION, Suffix};
use crate::ssh::own_options::takes_value;
use crate::ssh::quote::shell_word;

/// The sections of an installed file, the longest suffix first, so that ssh finds `prod.ec2` before `ec2`.
pub(crate) fn sections(file: &str) -> Vec<(Suffix, String)> {
    let mut found: Vec<(Suffix, String)> = Vec::new();
    let mut open = false;
    for line in file.split_inclusive('\n') {
        let described = line.strip_prefix(SECTION).and_then(|text| serde_json::from_str(text).ok());
        if let Some(suffix) = described {
            found.push((suffix, line.to_owned()));
            open = true;
        } else if line == BLOCK {
            open = false;
        } else if let (true, Some((_, text))) = (open, found.last_mut()) {
            text.push_str(line);
        }
    }
    found.sort_by(|(a, _), (b, _)| b.suffix.len().cmp(&a.suffix.len()).then_with(|| a.suffix.cmp(&b.suffix)));
    found
}

/// An installed file without the section of a suffix.
pub(crate) fn without_section(file: &str, suffix: &str) -> String {
    let section = sections(file).into_iter().find(|(found, _)| found.suffix == suffix);
    section.map_or_else(|| file.to_owned(), |(_, text)| file.replacen(&text, "", 1))
}

/// The block for instance ids in an installed file.
pub(crate) fn installed_block(file: &str) -> Option<String> {
    file.find(BLOCK).map(|at| file[at..].to_owned())
}

/// Whether an earlier version wrote the file. Its blocks work, but match more hosts, and its paths of the key
/// agent's socket are too long for long host names.
pub(crate) fn is_outdated(file: &str) -> bool {
    let count = |keyword: &str| file.lines().filter(|line| line.trim_start().starts_with(keyword)).count();
    // Version 0.1.0 wrote no VerifyHostKeyDNS beside its ProxyCommand.
    count("ProxyCommand ") > count("VerifyHostKeyDNS ")
}

/// The commands that install the blocks of `file` again with the same options: one for each suffix, and one
/// for ids. For a file without blocks it is the plain command.
pub(crate) fn install_commands(file: &str) -> Vec<String> {
    let suffixes = sections(file).into_iter().map(|(suffix, text)| {
        let user = text.lines().find_map(|line| line.trim_start().strip_prefix("User "));
        let user = user.map(|user| format!(" --user {}", shell_word(user.as_ref()))).unwrap_or_default();
        format!("ssh_ec2{} config --install --suffix {}{user}", common_options(&text), suffix.suffix)
    });
    let block = installed_block(file).unwrap_or_default();
    suffixes.chain([format!("ssh_ec2{} config --install", common_options(&block))]).collect()
}

/// The options of `config` in the first ProxyCommand, in which they come before all others.
fn common_options(block: &str) -> String {
    let command = block.lines().find_map(|line| line.trim_start().strip_prefix("ProxyCommand "));
    let mut options = String::new();
    let mut words = shell_words(command.unwrap_or_default()).into_iter().skip(2);
    while let Some(word) = words.next() {
        match takes_value(&word) {
            None if word != "-v" => break,
            None | Some(false) => options.push_str(&format!(" {word}")),
            Some(true) => {
                let value = words.next().unwrap_or_default();
                options.push_str(&format!(" {word} {}", shell_word(value.as_ref())));
            }
        }
    }
    options
}

/// The words of a ProxyCommand, without the quotes of [`proxy_word`](crate::ssh::quote::proxy_word).
fn shell_words(command: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    let mut characters = command.chars();
    while let Some(character) = characters.next() {
        let word = match character {
            '\'' => {
                quoted = !quoted;
                continue;
            }
            ' ' if !quoted => {
                words.push(String::new());
                continue;
            }
            // Outside quotes, only a quote is escaped.
            '\\' if !quoted => characters.next(),
            character => Some(character),
        };
        if let (Some(last), Some(character)) = (words.last_mut(), word) {
            last.push(character);
        }
    }
    words.into_iter().map(|word| word.replace("%%", "%")).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::ssh::config::{ProxyOptions, block, section};
    use crate::ssh::own_files::OwnFiles;

    #[test]
    fn the_install_command_repeats_what_was_installed() {
        let places = OwnFiles::below(Path::new("/home/me/.ssh/ssh_ec2"), Path::new("/tmp/short"));
        let program = Path::new("/opt/my tools/ssh_ec2");
        assert_eq!(install_commands(""), ["ssh_ec2 config --install"]);
        let plain = block(program, &places, &ProxyOptions::default());
        assert_eq!(install_commands(&plain), ["ssh_ec2 config --install"]);
        let options = ProxyOptions {
            arguments: ["--profile", "my prod's 100%", "--region", "eu-west-1", "--newest", "-v"]
                .map(str::to_owned)
                .to_vec(),
            proxy_arguments: ["--reason", "$x", "--key-file", "/k.pub", "--batch"]
                .map(str::to_owned)
                .to_vec(),
            identity: Some("/k".into()),
            ..ProxyOptions::default()
        };
        let words = r"--profile 'my prod'\''s 100%' --region eu-west-1 --newest -v --reason '$x' --key-file /k.pub --batch";
        let ids = block(program, &places, &options);
        assert_eq!(install_commands(&ids), [format!("ssh_ec2 {words} config --install")]);
        let suffix = Suffix { suffix: "prod.ec2".into(), ..Suffix::default() };
        let section = |user| section(program, &places, &options, user, &suffix);
        let prod = format!("ssh_ec2 {words} config --install --suffix prod.ec2");
        assert_eq!(
            install_commands(&(section(Some("a$b")) + &plain)),
            [format!("{prod} --user 'a$b'"), "ssh_ec2 config --install".into()]
        );
        assert_eq!(install_commands(&(section(None) + &plain))[0], prod);
        let proxy_arguments = vec!["--key-type".to_owned(), "rsa".to_owned()];
        let rsa = block(program, &places, &ProxyOptions { proxy_arguments, ..ProxyOptions::default() });
        assert_eq!(install_commands(&rsa), ["ssh_ec2 --key-type rsa config --install"]);
    }
}
