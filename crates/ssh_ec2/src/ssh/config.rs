//! The text for ssh_config: our blocks, and the one line by which a user's file includes them. No I/O.
//!
//! Our blocks live in a file of their own; the user's file gets a single `Include` at its top. Taking the line
//! out again gives back every byte. The file has a section for each suffix of host names, which its first line
//! describes, and at its end the one for instance ids.

mod hosts;
mod installed;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use self::installed::{install_commands, installed_block, is_outdated, sections, without_section};
pub use crate::ssh::own_files::{Connection, Places};

/// How the proxy is to be called, besides the tokens that ssh fills in.
#[derive(Clone, Debug, Default)]
pub struct ProxyOptions {
    /// Options for every program of ours, in front of the host.
    pub arguments: Vec<String>,
    /// Options for the proxy alone.
    pub proxy_arguments: Vec<String>,
    /// The target that the instance was found by, for the proxy to find it anew.
    pub found_by: Option<String>,
    /// A key of the user's own, to be used instead of a one-time key.
    pub identity: Option<PathBuf>,
}

/// Which keys ssh offers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Keys {
    /// Those of the user, as ssh finds them: nothing can be pushed to a managed node.
    Own,
    /// The one that is pushed.
    Pushed,
}

/// A suffix of host names, and what it stands for.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Suffix {
    /// Without a dot in front: `prod.ec2`.
    pub suffix: String,
    /// The AWS profile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// The AWS region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
}

/// The settings of ssh for an instance, keyword and value, ready for ssh_config or `-o`.
pub fn settings(
    program: &Path,
    places: &Places,
    options: &ProxyOptions,
    keys: Keys,
) -> Vec<(&'static str, String)> {
    let key = match keys {
        Keys::Own if options.identity.is_none() => Vec::new(),
        Keys::Own | Keys::Pushed => key_settings(places, options),
    };
    [tunnel_settings(program, places, options, keys, None), key].concat()
}

/// The way to the instance, and its host key.
fn tunnel_settings(
    program: &Path,
    places: &Places,
    options: &ProxyOptions,
    keys: Keys,
    suffix: Option<&str>,
) -> Vec<(&'static str, String)> {
    let mut proxy = format!("{} proxy", shell_word(&program.to_string_lossy()));
    for argument in options.arguments.iter().chain(&options.proxy_arguments) {
        proxy.push(' ');
        proxy.push_str(&shell_word(argument));
    }
    if let Some(target) = &options.found_by {
        proxy.push_str(&format!(" --found-by {}", shell_word(target)));
    }
    if options.identity.is_none() && keys == Keys::Pushed {
        let sockets = shell_word(&places.sockets().to_string_lossy());
        proxy.push_str(&format!(" --sockets {sockets}"));
    }
    if let Some(suffix) = suffix {
        // ssh makes `%h` lower case.
        proxy.push_str(&format!(" --suffix {suffix} --typed '%n'"));
    }
    // Quoted, since users may have a dollar sign and names wildcards, none of which are for the shell.
    proxy.push_str(" '%r' '%h' '%p'");
    vec![
        ("ProxyCommand", proxy),
        // With `yes` ssh would wait for a descriptor from the command, which carries the bytes itself.
        ("ProxyUseFdpass", "no".into()),
        // Knows keys by instance id, which is never given to another instance, whatever the host is called.
        ("KnownHostsCommand", known_hosts_command(program, places, options, suffix)),
        ("UserKnownHostsFile", "/dev/null".into()),
        ("StrictHostKeyChecking", "yes".into()),
        // With `yes` ssh would trust a key in DNS without asking the command.
        ("VerifyHostKeyDNS", "no".into()),
    ]
}

/// ssh runs it without a shell, and splits it into words before it replaces tokens in all but the first.
fn known_hosts_command(
    program: &Path,
    places: &Places,
    options: &ProxyOptions,
    suffix: Option<&str>,
) -> String {
    let word = |text: &str| split_word(&escape_tokens(text));
    let mut command = format!("{} known-hosts", split_word(&program.to_string_lossy()));
    for argument in &options.arguments {
        command.push(' ');
        command.push_str(&word(argument));
    }
    command.push_str(&format!(" --file {}", word(&places.known_hosts().to_string_lossy())));
    if let Some(suffix) = suffix {
        command.push_str(&format!(" --suffix {suffix} --typed %n"));
    }
    command.push_str(" --port %p --host %H --presented %t:%K -- %h");
    command
}

/// The key that is offered.
fn key_settings(places: &Places, options: &ProxyOptions) -> Vec<(&'static str, String)> {
    match &options.identity {
        None => {
            let socket = format!("{}/%C", escape_tokens(&places.sockets().to_string_lossy()));
            // The key agent knows one key. Without `none`, ssh would go on to offer the user's own keys.
            vec![
                ("IdentityAgent", split_word(&socket)),
                ("IdentityFile", "none".into()),
                // `yes`, which many have for all hosts, means that an agent's keys are not for offering.
                ("IdentitiesOnly", "no".into()),
            ]
        }
        Some(identity) => vec![
            // Not ours, which a block further down may name.
            ("IdentityAgent", "SSH_AUTH_SOCK".into()),
            ("IdentityFile", split_word(&escape_tokens(&identity.to_string_lossy()))),
            ("IdentitiesOnly", "yes".into()),
        ],
    }
}

/// The section for hosts that end in a suffix, with a first line by which it is found again.
pub fn section(
    program: &Path,
    places: &Places,
    options: &ProxyOptions,
    user: Option<&str>,
    suffix: &Suffix,
) -> String {
    // Three strings, none of which could fail.
    let description = serde_json::to_string(suffix).unwrap_or_default();
    let mut section = format!("{SECTION}{description}\n{}", hosts::names(&suffix.suffix));
    let user = user.map(|user| ("User", user.to_owned()));
    let tunnel = tunnel_settings(program, places, options, Keys::Pushed, Some(&suffix.suffix));
    for (keyword, value) in user.into_iter().chain(tunnel) {
        section.push_str(&format!("    {keyword} {value}\n"));
    }
    section.push_str(&hosts::names_of_instances(&suffix.suffix));
    for (keyword, value) in key_settings(places, options) {
        section.push_str(&format!("    {keyword} {value}\n"));
    }
    section
}

/// Whether ssh takes this for what it is, wherever it stands: in some values it replaces `${NAME}` by a variable of the
/// environment, and nothing keeps it from that. A line ends where it ends.
pub fn is_literal(value: &str) -> bool {
    !value.contains("${") && !value.contains(['\n', '\r'])
}

/// Whether hosts can end in this: labels of lower-case letters, digits and hyphens.
pub fn is_suffix(suffix: &str) -> bool {
    let is_label = |label: &str| {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !label.is_empty() && label.bytes().all(allowed) && !label.starts_with('-') && !label.ends_with('-')
    };
    suffix.len() <= 100 && suffix.split('.').all(is_label)
}

/// The block for every instance id, and for names that end in [`DEFAULT_SUFFIX`]. Managed nodes (`mi-…`) are
/// outside EC2: nothing can push a key to them, so the user's own keys are offered there.
pub fn block(program: &Path, places: &Places, options: &ProxyOptions) -> String {
    let mut block = BLOCK.to_owned();
    let mut write = |header: String, settings: Vec<(&str, String)>| {
        block.push_str(&header);
        for (keyword, value) in settings {
            block.push_str(&format!("    {keyword} {value}\n"));
        }
    };
    let tunnel = |suffix| tunnel_settings(program, places, options, Keys::Pushed, suffix);
    // First, since an id may have the suffix as well.
    write(hosts::names(DEFAULT_SUFFIX), tunnel(Some(DEFAULT_SUFFIX)));
    write(hosts::names_of_instances(DEFAULT_SUFFIX), key_settings(places, options));
    write(hosts::ids(), tunnel(None));
    write(hosts::instances(), key_settings(places, options));
    block
}

/// The same blocks for an alias to include: they match the name that `HostName` gave it.
///
/// An alias has to include them itself. When ssh reads our blocks at the top of the user's file, an alias
/// further down has not set `HostName` yet; when ssh reads the file a second time, for `Match final`, the
/// settings that the user has for all hosts are already there, and the first value stays.
pub fn for_aliases(file: &str) -> String {
    hosts::by_host_name(file)
}

/// The user's file with the line that includes `config` at its top; the same text when the line is there.
///
/// At the top, since a `Host` block lasts to the next one, and since ssh takes the first value it finds. A
/// line that the user wrote in front of all blocks will do, in whatever form ssh reads as this file.
pub fn include(text: &[u8], config: &Path, ssh_directory: &Path) -> Vec<u8> {
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

/// The words of a line of ssh_config, in which a keyword may end in `=`, and quotes hold words together.
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

/// The user's file without that line; the same text when it is not there.
pub fn exclude(text: &[u8], config: &Path) -> Vec<u8> {
    let line = include_line(config);
    text.strip_prefix(line.as_bytes()).unwrap_or(text).to_vec()
}

/// That line. ssh takes its word for a pattern of files.
pub fn include_line(config: &Path) -> String {
    let mut pattern = String::new();
    for character in config.to_string_lossy().chars() {
        if matches!(character, '*' | '?' | '[' | '\\') {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    format!("Include {}\n", split_word(&pattern))
}

/// Keeps ssh from replacing `%` tokens in a value.
pub fn escape_tokens(text: &str) -> String {
    text.replace('%', "%%")
}

/// One word for ssh's own splitting of a command, or of the value of a setting.
pub fn split_word(text: &str) -> String {
    let special = |character: char| character.is_whitespace() || matches!(character, '"' | '\'' | '\\' | '#');
    if text.is_empty() || text.contains(special) {
        format!("\"{}\"", text.replace('\\', r"\\").replace('"', "\\\""))
    } else {
        text.to_owned()
    }
}

/// One word for the shell that ssh runs a `ProxyCommand` with, after ssh replaced tokens.
fn shell_word(text: &str) -> String {
    escape_tokens(&quote_for_shell(text))
}

fn quote_for_shell(text: &str) -> String {
    let harmless = |byte: u8| byte.is_ascii_alphanumeric() || b"_@:,./+=-".contains(&byte);
    if !text.is_empty() && text.bytes().all(harmless) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// What names end in where nothing else was chosen: `web-1.ec2`.
pub const DEFAULT_SUFFIX: &str = "ec2";
const BLOCK: &str = "# Written by `ssh_ec2 config`.\n";
/// Begins a section; its suffix follows as JSON.
const SECTION: &str = "# ssh_ec2 suffix ";

#[cfg(test)]
mod tests {
    use super::*;

    fn places() -> Places {
        Places::below(Path::new("/home/me/.ssh/ssh_ec2"), Path::new("/tmp/short"))
    }

    #[test]
    fn the_block_is_what_the_documentation_shows() {
        let block = block(Path::new("/usr/bin/ssh_ec2"), &places(), &ProxyOptions::default());
        let letters: String = ('g'..='z').chain('G'..='Z').map(|letter| format!(" !*-*{letter}*")).collect();
        let others = format!("!*.* !*_* !*-*-*{letters}");
        let proxy = "/usr/bin/ssh_ec2 proxy --sockets /home/me/.ssh/ssh_ec2/agent";
        let known_hosts = "/usr/bin/ssh_ec2 known-hosts --file /home/me/.ssh/ssh_ec2/known_hosts";
        let key = "    IdentityAgent /home/me/.ssh/ssh_ec2/agent/%C\n    IdentityFile none\n    IdentitiesOnly no\n";
        let checks =
            "    UserKnownHostsFile /dev/null\n    StrictHostKeyChecking yes\n    VerifyHostKeyDNS no\n";
        let asked = "--port %p --host %H --presented %t:%K -- %h";
        assert_eq!(
            block,
            format!(
                "# Written by `ssh_ec2 config`.\n\
                 Host *.ec2\n\
                 \x20   ProxyCommand {proxy} --suffix ec2 --typed '%n' '%r' '%h' '%p'\n\
                 \x20   ProxyUseFdpass no\n\
                 \x20   KnownHostsCommand {known_hosts} --suffix ec2 --typed %n {asked}\n{checks}\
                 Host *.ec2 !mi-?????????????????.*\n{key}\
                 Host i-???????? i-????????????????? mi-????????????????? {others}\n\
                 \x20   ProxyCommand {proxy} '%r' '%h' '%p'\n\
                 \x20   ProxyUseFdpass no\n\
                 \x20   KnownHostsCommand {known_hosts} {asked}\n{checks}\
                 Host i-???????? i-????????????????? {others}\n{key}"
            )
        );
        let aliases = for_aliases(&block);
        assert!(
            aliases.contains("\nMatch host *.ec2,!mi-?????????????????.*\n    IdentityAgent "),
            "{aliases}"
        );
        assert!(!aliases.contains("\nHost ") && aliases.lines().count() == block.lines().count());
    }

    #[test]
    fn sections_are_found_again_the_longest_suffix_first() {
        let suffix = |suffix: &str| Suffix {
            suffix: suffix.into(),
            profile: Some("my prod".into()),
            region: Some("eu-west-1".into()),
        };
        let section = |name: &str| {
            section(Path::new("/ssh_ec2"), &places(), &ProxyOptions::default(), Some("ubuntu"), &suffix(name))
        };
        assert!(section("ec2").contains("\nHost *.ec2\n    User ubuntu\n    ProxyCommand /ssh_ec2 proxy "));
        let block = block(Path::new("/ssh_ec2"), &places(), &ProxyOptions::default());
        let file = format!("# something\n{}{}{block}", section("ec2"), section("prod.ec2"));
        let expected = ["prod.ec2", "ec2"].map(|name| (suffix(name), section(name)));
        assert_eq!(sections(&file), expected);
        assert_eq!(sections(&block), []);
        assert_eq!(sections("# ssh_ec2 suffix {broken\nHost x\n"), []);
    }

    #[test]
    fn suffixes_are_labels() {
        for suffix in ["ec2", "prod.ec2", "a-1.b"] {
            assert!(is_suffix(suffix), "{suffix}");
        }
        for suffix in ["", ".ec2", "ec2.", "Prod", "a b", "*", "-a", "a..b", &"a".repeat(101)] {
            assert!(!is_suffix(suffix), "{suffix}");
        }
    }

    #[test]
    fn values_survive_the_shell_and_the_tokens() {
        let options = ProxyOptions {
            arguments: vec!["--profile".into(), "my prod's 100%".into()],
            ..ProxyOptions::default()
        };
        let settings = settings(Path::new("/opt/my tools/ssh_ec2"), &places(), &options, Keys::Pushed);
        assert!(
            settings[0]
                .1
                .starts_with(r"'/opt/my tools/ssh_ec2' proxy --profile 'my prod'\''s 100%%' --sockets"),
            "{}",
            settings[0].1
        );
        let known_hosts = &settings[2].1;
        let expected = r#""/opt/my tools/ssh_ec2" known-hosts --profile "my prod's 100%%" --file /home"#;
        assert!(known_hosts.starts_with(expected), "{known_hosts}");
    }

    #[test]
    fn a_node_gets_the_users_own_keys() {
        let keywords = |options: &ProxyOptions| {
            let settings = settings(Path::new("/ssh_ec2"), &places(), options, Keys::Own);
            assert!(!settings[0].1.contains("--sockets"), "{}", settings[0].1);
            settings.into_iter().skip(6).map(|(keyword, _)| keyword).collect::<Vec<_>>()
        };
        assert_eq!(keywords(&ProxyOptions::default()), Vec::<&str>::new());
        let chosen = ProxyOptions { identity: Some("/key".into()), ..ProxyOptions::default() };
        assert_eq!(keywords(&chosen), ["IdentityAgent", "IdentityFile", "IdentitiesOnly"]);
    }

    #[test]
    fn include_and_exclude_give_back_every_byte() {
        let config = places().config();
        let include = |text: &[u8], config: &Path| include(text, config, Path::new("/home/me/.ssh"));
        for text in [&b""[..], b"Host a\n  User b\n", b"# no newline at the end", b"\xff\xfe\r\n\n\n", b"\n"]
        {
            let included = include(text, &config);
            assert!(included.starts_with(b"Include /home/me/.ssh/ssh_ec2/config"));
            assert_eq!(include(&included, &config), included, "a second time changes nothing");
            assert_eq!(exclude(&included, &config), text);
        }
    }

    #[test]
    fn a_line_of_the_users_own_further_down_is_left_alone() {
        let (config, directory) = (places().config(), Path::new("/home/me/.ssh"));
        let text = b"Host x\n  Include /home/me/.ssh/ssh_ec2/config\n";
        assert_eq!(exclude(text, &config), text);
        assert_eq!(exclude(&include(text, &config, directory), &config), text);
    }

    #[test]
    fn a_line_of_the_users_own_at_the_top_is_enough() {
        let (config, directory) = (places().config(), Path::new("/home/me/.ssh"));
        for line in [
            "# x\n\nInclude /home/me/.ssh/ssh_ec2/config",
            "include=~/.ssh/ssh_ec2/config",
            " INCLUDE other  ssh_ec2/config",
            "Include = \"ssh_ec2/config\" more",
        ] {
            let text = format!("{line}\nHost *\n");
            assert_eq!(include(text.as_bytes(), &config, directory), text.as_bytes(), "{line}");
        }
        for line in ["Include other/config", "# Include ssh_ec2/config", "Match all\nInclude ssh_ec2/config"]
        {
            let text = format!("{line}\nHost *\n");
            assert_ne!(include(text.as_bytes(), &config, directory), text.as_bytes(), "{line}");
        }
    }
}
