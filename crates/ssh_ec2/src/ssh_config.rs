//! The text for ssh_config: our blocks, and the one line by which a user's file includes them. No I/O.
//!
//! Our blocks live in a file of their own; the user's file gets a single `Include` at its top. Taking the line
//! out again gives back every byte. The file has a section for each suffix of host names, which its first line
//! describes, and at its end the one for instance ids.

mod installed;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use self::installed::{install_commands, installed_block, is_outdated, sections, without_section};

/// Where the tool keeps its files.
#[derive(Clone, Debug)]
pub struct Places {
    directory: PathBuf,
    sockets: PathBuf,
}

impl Places {
    /// All files below `directory`; its sockets below `shorter` when they could not be below `directory`.
    pub fn below(directory: &Path, shorter: &Path) -> Self {
        let sockets = directory.join("agent");
        let fits = sockets.as_os_str().len() + SOCKET_NAME_LENGTH <= SOCKET_PATH_LIMIT;
        let sockets = if fits { sockets } else { shorter.to_owned() };
        Self { directory: directory.to_owned(), sockets }
    }

    /// The installed block.
    pub fn config(&self) -> PathBuf {
        self.directory.join("config")
    }

    /// Host keys, by instance id.
    pub fn known_hosts(&self) -> PathBuf {
        self.directory.join("known_hosts")
    }

    /// The key agents' sockets.
    pub fn sockets(&self) -> PathBuf {
        self.sockets.clone()
    }

    /// The key agent's socket of one connection, as ssh works it out.
    pub fn socket(&self, user: &str, host: &str, port: &str) -> PathBuf {
        self.sockets().join(format!("{user}@{host}:{port}"))
    }

    /// The directory itself.
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

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
        proxy.push_str(&format!(" --agent-socket {sockets}/'{SOCKET_NAME}'"));
    }
    if let Some(suffix) = suffix {
        // ssh makes `%h` lower case.
        proxy.push_str(&format!(" --suffix {suffix} --typed '%n'"));
    }
    // Quoted, since users may have a dollar sign and names wildcards, none of which are for the shell.
    proxy.push_str(" '%r' '%h' '%p'");
    vec![
        ("ProxyCommand", proxy),
        // Knows keys by instance id, which is never given to another instance, whatever the host is called.
        ("KnownHostsCommand", known_hosts_command(program, places, options, suffix)),
        ("UserKnownHostsFile", "/dev/null".into()),
        ("StrictHostKeyChecking", "yes".into()),
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
            let socket = format!("{}/{SOCKET_NAME}", escape_tokens(&places.sockets().to_string_lossy()));
            // The key agent knows one key. Without `none`, ssh would go on to offer the user's own keys.
            vec![
                ("IdentityAgent", quote(&socket)),
                ("IdentityFile", "none".into()),
                // `yes`, which many have for all hosts, means that an agent's keys are not for offering.
                ("IdentitiesOnly", "no".into()),
            ]
        }
        Some(identity) => vec![
            // Not ours, which a block further down may name.
            ("IdentityAgent", "SSH_AUTH_SOCK".into()),
            ("IdentityFile", quote(&escape_tokens(&identity.to_string_lossy()))),
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
    let mut section = format!("{SECTION}{description}\nHost *.{}\n", suffix.suffix);
    let user = user.map(|user| ("User", user.to_owned()));
    let tunnel = tunnel_settings(program, places, options, Keys::Pushed, Some(&suffix.suffix));
    for (keyword, value) in user.into_iter().chain(tunnel) {
        section.push_str(&format!("    {keyword} {value}\n"));
    }
    section.push_str(&format!("Host *.{} !mi-*\n", suffix.suffix));
    for (keyword, value) in key_settings(places, options) {
        section.push_str(&format!("    {keyword} {value}\n"));
    }
    section
}

/// Whether ssh takes this for what it is, wherever it stands: in some values it replaces `${NAME}` by a variable of the
/// environment, and nothing keeps it from that.
pub fn is_literal(value: &str) -> bool {
    !value.contains("${")
}

/// Whether hosts can end in this: labels of lower-case letters, digits and hyphens.
pub fn is_suffix(suffix: &str) -> bool {
    let is_label = |label: &str| {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !label.is_empty() && label.bytes().all(allowed) && !label.starts_with('-') && !label.ends_with('-')
    };
    suffix.len() <= 100 && suffix.split('.').all(is_label)
}

/// The block for every instance id, and for names that end in [`DEFAULT_SUFFIX`]. Managed nodes (`mi-…`) are outside EC2: nothing can push a key to them, so the
/// user's own keys are offered there.
pub fn block(program: &Path, places: &Places, options: &ProxyOptions) -> String {
    let mut block = BLOCK.to_owned();
    let mut write = |settings: Vec<(&str, String)>, header: &str| {
        block.push_str(header);
        for (keyword, value) in settings {
            block.push_str(&format!("    {keyword} {value}\n"));
        }
    };
    // First, since an id may have the suffix as well.
    let names = tunnel_settings(program, places, options, Keys::Pushed, Some(DEFAULT_SUFFIX));
    write(names, &format!("Host *.{DEFAULT_SUFFIX}\n"));
    write(key_settings(places, options), &format!("Host *.{DEFAULT_SUFFIX} !mi-*\n"));
    write(tunnel_settings(program, places, options, Keys::Pushed, None), "Host i-* mi-*\n");
    write(key_settings(places, options), "Host i-*\n");
    block
}

/// The user's file with the line that includes `config` at its top; the same text when the line is there.
///
/// At the top, since a `Host` block lasts to the next one, and since ssh takes the first value it finds.
pub fn include(text: &[u8], config: &Path) -> Vec<u8> {
    let line = include_line(config);
    if text.starts_with(line.as_bytes()) { text.to_vec() } else { [line.as_bytes(), text].concat() }
}

/// The user's file without that line; the same text when it is not there.
pub fn exclude(text: &[u8], config: &Path) -> Vec<u8> {
    let line = include_line(config);
    text.strip_prefix(line.as_bytes()).unwrap_or(text).to_vec()
}

fn include_line(config: &Path) -> String {
    format!("Include {}\n", quote(&config.to_string_lossy()))
}

/// One word for ssh_config: it has quotes, and no escape for a quote within.
fn quote(text: &str) -> String {
    if text.contains([' ', '\t', '#']) { format!("\"{text}\"") } else { text.to_owned() }
}

/// ssh replaces `%` tokens in this value.
fn escape_tokens(text: &str) -> String {
    text.replace('%', "%%")
}

/// One word for ssh's own splitting of a command.
fn split_word(text: &str) -> String {
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
/// A slash, a user of 16 characters, `@`, a name of 30, `:`, a port. Longer ones are served while they fit.
const SOCKET_NAME_LENGTH: usize = 1 + 16 + 1 + 30 + 1 + 5;
/// What a socket address holds on every Unix.
const SOCKET_PATH_LIMIT: usize = 103;
/// The file name of a key agent's socket, in ssh's tokens.
const SOCKET_NAME: &str = "%r@%h:%p";

#[cfg(test)]
mod tests {
    use super::*;

    fn places() -> Places {
        Places::below(Path::new("/home/me/.ssh/ssh_ec2"), Path::new("/tmp/short"))
    }

    #[test]
    fn sockets_move_to_a_shorter_place_when_they_must() {
        assert_eq!(places().sockets(), Path::new("/home/me/.ssh/ssh_ec2/agent"));
        let deep = format!("/home/{}/.ssh/ssh_ec2", "x".repeat(60));
        let places = Places::below(Path::new(&deep), Path::new("/tmp/short"));
        assert_eq!(places.sockets(), Path::new("/tmp/short"));
        assert_eq!(places.known_hosts(), Path::new(&deep).join("known_hosts"));
    }

    #[test]
    fn the_block_is_what_the_documentation_shows() {
        let block = block(Path::new("/usr/bin/ssh_ec2"), &places(), &ProxyOptions::default());
        assert_eq!(
            block,
            "# Written by `ssh_ec2 config`.\n\
             Host *.ec2\n\
             \x20   ProxyCommand /usr/bin/ssh_ec2 proxy --agent-socket /home/me/.ssh/ssh_ec2/agent/'%r@%h:%p' --suffix ec2 --typed '%n' '%r' '%h' '%p'\n\
             \x20   KnownHostsCommand /usr/bin/ssh_ec2 known-hosts --file /home/me/.ssh/ssh_ec2/known_hosts --suffix ec2 --typed %n --port %p --host %H --presented %t:%K -- %h\n\
             \x20   UserKnownHostsFile /dev/null\n\
             \x20   StrictHostKeyChecking yes\n\
             Host *.ec2 !mi-*\n\
             \x20   IdentityAgent /home/me/.ssh/ssh_ec2/agent/%r@%h:%p\n\
             \x20   IdentityFile none\n\
             \x20   IdentitiesOnly no\n\
             Host i-* mi-*\n\
             \x20   ProxyCommand /usr/bin/ssh_ec2 proxy --agent-socket /home/me/.ssh/ssh_ec2/agent/'%r@%h:%p' '%r' '%h' '%p'\n\
             \x20   KnownHostsCommand /usr/bin/ssh_ec2 known-hosts --file /home/me/.ssh/ssh_ec2/known_hosts --port %p --host %H --presented %t:%K -- %h\n\
             \x20   UserKnownHostsFile /dev/null\n\
             \x20   StrictHostKeyChecking yes\n\
             Host i-*\n\
             \x20   IdentityAgent /home/me/.ssh/ssh_ec2/agent/%r@%h:%p\n\
             \x20   IdentityFile none\n\
             \x20   IdentitiesOnly no\n"
        );
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
                .starts_with(r"'/opt/my tools/ssh_ec2' proxy --profile 'my prod'\''s 100%%' --agent-socket"),
            "{}",
            settings[0].1
        );
        let known_hosts = &settings[1].1;
        let expected = r#""/opt/my tools/ssh_ec2" known-hosts --profile "my prod's 100%%" --file /home"#;
        assert!(known_hosts.starts_with(expected), "{known_hosts}");
    }

    #[test]
    fn a_node_gets_the_users_own_keys() {
        let keywords = |options: &ProxyOptions| {
            let settings = settings(Path::new("/ssh_ec2"), &places(), options, Keys::Own);
            assert!(!settings[0].1.contains("--agent-socket"), "{}", settings[0].1);
            settings.into_iter().skip(4).map(|(keyword, _)| keyword).collect::<Vec<_>>()
        };
        assert_eq!(keywords(&ProxyOptions::default()), Vec::<&str>::new());
        let chosen = ProxyOptions { identity: Some("/key".into()), ..ProxyOptions::default() };
        assert_eq!(keywords(&chosen), ["IdentityAgent", "IdentityFile", "IdentitiesOnly"]);
    }

    #[test]
    fn include_and_exclude_give_back_every_byte() {
        let config = places().config();
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
        let config = places().config();
        let text = b"Host x\n  Include /home/me/.ssh/ssh_ec2/config\n";
        assert_eq!(exclude(text, &config), text);
        assert_eq!(exclude(&include(text, &config), &config), text);
    }
}
