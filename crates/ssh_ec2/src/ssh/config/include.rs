//! The one line of the user's ssh_config that includes the installed blocks.

use std::path::Path;

use crate::ssh::quote::split_word;

/// The user's file with the line that includes `config` at its top; the same text when the line is there.
///
/// At the top, since a `Host` block lasts to the next one, and since ssh takes the first value it finds. A
/// line that the user wrote before all blocks will do, in any form that ssh reads as this file.
pub(crate) fn include(text: &[u8], config: &Path, ssh_directory: &Path) -> Vec<u8> {
    let top = String::from_utf8_lossy(text);
    let lines = top.lines().map(words).take_while(|words| {
        !words.first().is_some_and(|keyword| ["host", "match"].contains(&keyword.to_lowercase().as_str()))
    });
    let is_config = |word: &String| {
        let path = match (word.strip_prefix("~/"), ssh_directory.parent()) {
            (Some(below), Some(home)) => home.join(below),
            _ => ssh_directory.join(word),
        };
        path == config
    };
    let includes = |words: Vec<String>| {
        words.split_first().is_some_and(|(keyword, files)| {
            keyword.eq_ignore_ascii_case("include") && files.iter().any(is_config)
        })
    };
    let line = include_line(config);
    if text.starts_with(line.as_bytes()) || lines.into_iter().any(includes) {
        return text.to_vec();
    }
    [line.as_bytes(), text].concat()
}

/// The user's file without that line; the same text when the file does not begin with it.
pub(crate) fn exclude(text: &[u8], config: &Path) -> Vec<u8> {
    let line = include_line(config);
    text.strip_prefix(line.as_bytes()).unwrap_or(text).to_vec()
}

/// The line itself. ssh reads its value as a glob pattern.
pub(crate) fn include_line(config: &Path) -> String {
    let mut pattern = String::new();
    for character in config.to_string_lossy().chars() {
        if matches!(character, '*' | '?' | '[' | '\\') {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    format!("Include {}\n", split_word(&pattern))
}

/// The words of a line of ssh_config: the keyword may end in `=`, and quotes keep words together.
fn words(line: &str) -> Vec<String> {
    let line = line.trim();
    let end =
        line.find(|character: char| character.is_whitespace() || character == '=').unwrap_or(line.len());
    let (keyword, values) = line.split_at(end);
    let values = values.trim_start_matches(|character: char| character.is_whitespace() || character == '=');
    let mut words = vec![keyword.to_owned()];
    for (index, part) in values.split('"').enumerate() {
        match index % 2 {
            0 => words.extend(part.split_whitespace().map(str::to_owned)),
            _ => words.push(part.to_owned()),
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn include_and_exclude_give_back_every_byte() {
        let config = Path::new("/home/me/.ssh/ssh_ec2/config");
        let include = |text: &[u8], config: &Path| include(text, config, Path::new("/home/me/.ssh"));
        for text in [&b""[..], b"Host a\n  User b\n", b"# no newline at the end", b"\xff\xfe\r\n\n\n", b"\n"]
        {
            let included = include(text, config);
            assert!(included.starts_with(b"Include /home/me/.ssh/ssh_ec2/config"));
            assert_eq!(include(&included, config), included, "a second time changes nothing");
            assert_eq!(exclude(&included, config), text);
        }
    }

    #[test]
    fn a_line_of_the_users_own_further_down_is_left_alone() {
        let (config, directory) = (Path::new("/home/me/.ssh/ssh_ec2/config"), Path::new("/home/me/.ssh"));
        let text = b"Host x\n  Include /home/me/.ssh/ssh_ec2/config\n";
        assert_eq!(exclude(text, config), text);
        assert_eq!(exclude(&include(text, config, directory), config), text);
    }

    #[test]
    fn a_line_of_the_users_own_at_the_top_is_enough() {
        let (config, directory) = (Path::new("/home/me/.ssh/ssh_ec2/config"), Path::new("/home/me/.ssh"));
        for line in [
            "# x\n\nInclude /home/me/.ssh/ssh_ec2/config",
            "include=~/.ssh/ssh_ec2/config",
            " INCLUDE other  ssh_ec2/config",
            "Include = \"ssh_ec2/config\" more",
        ] {
            let text = format!("{line}\nHost *\n");
            assert_eq!(include(text.as_bytes(), config, directory), text.as_bytes(), "{line}");
        }
        for line in ["Include other/config", "# Include ssh_ec2/config", "Match all\nInclude ssh_ec2/config"]
        {
            let text = format!("{line}\nHost *\n");
            assert_ne!(include(text.as_bytes(), config, directory), text.as_bytes(), "{line}");
        }
    }
}
