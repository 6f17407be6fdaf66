//! The host keys that a text lists: EC2's console output, or sshd's files. (Pure.)
//!
//! Everything else in the text is passed over: the kernel and all programs write to the console. Of the
//! console only whole blocks count; if two blocks differ, none does.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use super::HostKey;

/// The host keys that a text lists.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Evidence {
    /// Empty if the text lists fingerprints alone.
    pub keys: Vec<HostKey>,
    /// `SHA256:…`. Empty if the text lists keys.
    pub fingerprints: Vec<String>,
}

impl Evidence {
    /// Reads the console output: the blocks that cloud-init prints when an instance starts for the first
    /// time.
    pub fn of_console(text: &str) -> Self {
        let keys = keys_block(text).ok().flatten().unwrap_or_default();
        let fingerprints = if keys.is_empty() { fingerprints_block(text).ok().flatten() } else { None };
        Self { keys, fingerprints: fingerprints.unwrap_or_default() }
    }

    /// Whether a console has blocks that differ, or only a part of one. If it lists no key then, the instance
    /// may have printed one all the same.
    pub(crate) fn is_unclear(console: &str) -> bool {
        keys_block(console).is_err() || fingerprints_block(console).is_err()
    }

    /// Reads the contents of `ssh_host_*_key.pub`.
    pub fn of_files(text: &str) -> Self {
        Self { keys: text.lines().filter_map(HostKey::parse).collect(), fingerprints: Vec::new() }
    }

    /// Whether the text lists nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.fingerprints.is_empty()
    }

    /// Whether the text lists this key, or its fingerprint.
    pub(crate) fn lists(&self, key: &HostKey) -> bool {
        self.keys.contains(key) || self.fingerprints.contains(&key.fingerprint())
    }

    /// The fingerprints of all keys, and those that the text lists itself.
    pub fn all_fingerprints(&self) -> Vec<String> {
        let of_keys = self.keys.iter().map(HostKey::fingerprint);
        of_keys.chain(self.fingerprints.iter().cloned()).collect()
    }
}

fn keys_block(text: &str) -> Result<Option<Vec<HostKey>>, Unclear> {
    block(text, "SSH HOST KEY KEYS", |lines| keys_in(&lines))
}

fn fingerprints_block(text: &str) -> Result<Option<Vec<String>>, Unclear> {
    block(text, "SSH HOST KEY FINGERPRINTS", |lines| {
        let words = lines.into_iter().flat_map(str::split_ascii_whitespace);
        words.filter(|word| is_fingerprint(word)).map(str::to_owned).collect()
    })
}

/// Two blocks list different keys, or there is only a part of one.
struct Unclear;

/// The content between cloud-init's marks, if there is one block, or several with the same content: on some
/// systems others than root can write to the console as well. EC2 keeps the last 64 KiB of a console, and may
/// copy it while cloud-init writes, so either mark may be missing.
fn block<'a, T: PartialEq>(
    text: &'a str,
    title: &str,
    read: impl Fn(Vec<&'a str>) -> T,
) -> Result<Option<T>, Unclear> {
    let (begin, end) = (format!("-----BEGIN {title}-----"), format!("-----END {title}-----"));
    let mut found = None;
    let mut is_cut = false;
    let mut open: Option<Vec<&str>> = None;
    for line in text.lines().map(str::trim_end) {
        if line.ends_with(&begin) {
            open = Some(Vec::new());
        } else if line.ends_with(&end) {
            let Some(content) = open.take().map(&read) else {
                is_cut = true;
                continue;
            };
            if found.as_ref().is_some_and(|before| *before != content) {
                return Err(Unclear);
            }
            found = Some(content);
        } else if let Some(lines) = &mut open {
            lines.push(line);
        }
    }
    if found.is_none() && (is_cut || open.is_some()) { Err(Unclear) } else { Ok(found) }
}

/// The keys of lines that may begin with something else, such as `ec2: ` or a time.
fn keys_in(lines: &[&str]) -> Vec<HostKey> {
    let key = |line: &str| {
        let starts = line.match_indices(['s', 'e']).filter(|(at, _)| is_word_start(line, *at));
        starts.map(|(at, _)| &line[at..]).find_map(HostKey::parse)
    };
    lines.iter().filter_map(|line| key(line)).collect()
}

fn is_word_start(line: &str, at: usize) -> bool {
    line[..at].chars().next_back().is_none_or(|before| before.is_ascii_whitespace())
}

fn is_fingerprint(word: &str) -> bool {
    let encoded = word.strip_prefix("SHA256:").unwrap_or_default();
    STANDARD_NO_PAD.decode(encoded).is_ok_and(|digest| digest.len() == 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ED25519: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ1yIq8JQTmR8cYqk0kWkKqk9m0nNQ0yqGq5mJm1oGxk";
    /// As `ssh-keygen -l` prints it.
    const FINGERPRINT: &str = "SHA256:JKkgnV0Zt34NaU4uODLtYFBa3W/7xdN89nitkDtdZ30";

    #[test]
    fn sshs_fingerprint_is_one() {
        assert!(is_fingerprint(FINGERPRINT));
    }

    #[test]
    fn a_console_tells_keys_among_other_words() {
        let text = format!(
            "[    0.0] Linux version\r\nci-info: x\r\n-----BEGIN SSH HOST KEY KEYS-----\r\n{ED25519} root@a\r\n\
             [   12.3] cloud-init[812]: {ED25519} root@a\r\nec2: ssh-ed25519 nonsense\r\n\
             -----END SSH HOST KEY KEYS-----\r\nlogin: "
        );
        let key = HostKey::parse(ED25519).unwrap();
        assert_eq!(Evidence::of_console(&text).keys, [key.clone(), key]);
    }

    #[test]
    fn only_whole_blocks_count_and_none_that_are_contradicted() {
        let begin = "-----BEGIN SSH HOST KEY KEYS-----\n";
        let end = "-----END SSH HOST KEY KEYS-----\n";
        assert!(Evidence::of_console(&format!("{begin}{ED25519}\n")).is_empty());
        assert!(Evidence::of_console(&format!("{ED25519}\n{end}")).is_empty());
        for cut in [format!("{begin}{ED25519}\n"), format!("{ED25519}\n{end}"), begin.into(), end.into()] {
            assert!(Evidence::of_console(&cut).is_empty() && Evidence::is_unclear(&cut), "{cut}");
            let whole = format!("{begin}{ED25519}\n{end}");
            for both in [format!("{cut}{whole}"), format!("{whole}{cut}")] {
                assert_eq!(Evidence::of_console(&both).keys.len(), 1, "{both}");
                assert!(!Evidence::is_unclear(&both), "{both}");
            }
        }
        assert!(Evidence::of_console(ED25519).is_empty());
        let other = format!("{begin}{ED25519}\n{end}{begin}nothing\n{end}");
        assert!(Evidence::of_console(&other).is_empty() && Evidence::is_unclear(&other));
        let again = format!("{begin}{ED25519}\n{end}").repeat(2);
        assert_eq!(Evidence::of_console(&again).keys.len(), 1);
        assert!(!Evidence::is_unclear(&again) && !Evidence::is_unclear(ED25519));
        let in_one_line = format!("{} {ED25519} {}", begin.trim(), end.trim());
        assert!(Evidence::of_console(&in_one_line).is_empty());
    }

    #[test]
    fn fingerprints_count_where_keys_are_not_told() {
        let prints = format!(
            "ec2: -----BEGIN SSH HOST KEY FINGERPRINTS-----\nec2: 256 {FINGERPRINT} root@a (ED25519)\n\
             ec2: 256 SHA256:short root@a (ECDSA)\nec2: -----END SSH HOST KEY FINGERPRINTS-----\n"
        );
        let evidence = Evidence::of_console(&prints);
        assert_eq!(evidence.all_fingerprints(), [FINGERPRINT]);
        assert!(evidence.lists(&HostKey::parse(ED25519).unwrap()));
        let keys = format!("-----BEGIN SSH HOST KEY KEYS-----\n{ED25519}\n-----END SSH HOST KEY KEYS-----\n");
        assert_eq!(Evidence::of_console(&(prints + &keys)).fingerprints, Vec::<String>::new());
    }
}
