//! sshd's options for a login, from its readable configuration files. (Pure.)
//!
//! sshd uses the first value of an option outside of `Match`; a matching `Match` block overrides it
//! (sshd_config(5)). A value is reported only if no such block and no unreadable file can change it.

/// The files, by the names that the script on the instance gives them.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct SshdFiles {
    files: Vec<File>,
    /// Files that exist and cannot be read.
    hidden: Vec<String>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
struct File {
    name: String,
    lines: Vec<String>,
}

/// The value of an option, if the readable files determine it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Setting {
    /// It may have any value.
    Unknown,
    /// It has sshd's own default.
    Unset,
    /// Its values; several only for options whose lines add up.
    Set(Vec<String>),
}

impl SshdFiles {
    /// Reads the lines about files in the script's output.
    pub(super) fn parse(text: &str) -> Self {
        let mut files = Self::default();
        for line in text.lines() {
            if let Some(name) = line.strip_prefix("file=") {
                files.files.push(File { name: name.trim().to_owned(), lines: Vec::new() });
            } else if let Some(name) = line.strip_prefix("hidden=") {
                files.hidden.push(name.trim().to_owned());
            } else if let (Some(line), Some(file)) = (line.strip_prefix("line="), files.files.last_mut()) {
                file.lines.push(line.trim().to_owned());
            }
        }
        files
    }

    /// An option whose first value counts. `names` are its names in lower case.
    pub(super) fn first(&self, names: &[&str]) -> Setting {
        let Search { values, is_whole, is_conditional, .. } = self.search(names);
        match values.into_iter().next() {
            _ if is_conditional => Setting::Unknown,
            Some(first) => Setting::Set(vec![first]),
            None if is_whole => Setting::Unset,
            None => Setting::Unknown,
        }
    }

    /// An option whose lines add up.
    pub(super) fn every(&self, name: &str) -> Setting {
        let Search { values, is_whole, is_conditional, .. } = self.search(&[name]);
        match values {
            _ if is_conditional || !is_whole => Setting::Unknown,
            values if values.is_empty() => Setting::Unset,
            values => Setting::Set(values),
        }
    }

    fn search<'a>(&'a self, names: &'a [&'a str]) -> Search<'a> {
        let mut search =
            Search { files: self, names, values: Vec::new(), is_whole: true, is_conditional: false };
        search.file(MAIN);
        search
    }

    /// The algorithms that the system-wide crypto policy of Red Hat's systems accepts. sshd gets the policy
    /// through an `Include` or on its command line.
    pub(super) fn crypto_policy(&self) -> Option<&str> {
        let file = self.files.iter().find(|file| file.name == CRYPTO_POLICY)?;
        file.lines.iter().find_map(|line| {
            let (name, value) = split(line)?;
            ACCEPTED_ALGORITHMS.contains(&&*name).then(|| value.trim_end_matches('\''))
        })
    }
}

struct Search<'a> {
    files: &'a SshdFiles,
    names: &'a [&'a str],
    values: Vec<String>,
    /// Whether all files up to here are readable.
    is_whole: bool,
    /// Whether a `Match` block has the option.
    is_conditional: bool,
}

impl Search<'_> {
    fn file(&mut self, name: &str) {
        let files = self.files;
        let Some(file) = files.files.iter().find(|file| file.name == name) else {
            self.is_whole = false;
            return;
        };
        let mut is_in_match = false;
        for line in &file.lines {
            let Some((keyword, value)) = split(line) else { continue };
            match &*keyword {
                "match" => is_in_match = true,
                // The block may or may not match this login.
                "include" if is_in_match => self.is_whole = false,
                // Only the main file's includes are followed, so that no circle can occur.
                "include" if name == MAIN || value.ends_with(CRYPTO_POLICY_FILE) => self.include(value),
                "include" => self.is_whole = false,
                keyword if !self.names.contains(&keyword) => {}
                _ if is_in_match => self.is_conditional = true,
                // If not all files were read, an unreadable one before this line may have the first value,
                // which counts.
                _ if self.is_whole => self.values.push(value.to_owned()),
                _ => {}
            }
        }
    }

    fn include(&mut self, patterns: &str) {
        for pattern in patterns.split_ascii_whitespace().map(|pattern| pattern.trim_matches('"')) {
            if pattern == CRYPTO_POLICY_FILE {
                self.file(CRYPTO_POLICY);
                continue;
            }
            let relative = pattern.strip_prefix("/etc/ssh/").unwrap_or(pattern);
            let Some(pattern) = relative.strip_prefix(DROP_INS).filter(|name| !name.contains('/')) else {
                self.is_whole = false;
                continue;
            };
            let is_included = |name: &str| name.strip_prefix("d/").is_some_and(|name| matches(pattern, name));
            let files = self.files;
            self.is_whole &= !files.hidden.iter().any(|name| name == "d" || is_included(name));
            let names = files.files.iter().map(|file| &*file.name);
            let mut names: Vec<_> = names.filter(|name| is_included(name)).collect();
            // As glob(3) sorts them.
            names.sort_unstable();
            names.into_iter().for_each(|name| self.file(name));
        }
    }
}

/// A line's keyword, in lower case, and its value. An `=` may separate them.
fn split(line: &str) -> Option<(String, &str)> {
    let line = line.trim();
    let end = line.find(|character: char| character.is_ascii_whitespace() || character == '=')?;
    let value =
        line[end..].trim_start_matches(|character: char| character.is_ascii_whitespace() || character == '=');
    (!line.starts_with('#')).then(|| (line[..end].to_ascii_lowercase(), value))
}

/// Whether `pattern`, with `*` and `?`, matches all of `text`. The time is at most proportional to the
/// product of the lengths, as the pattern comes from the instance.
pub(super) fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut at, mut position) = (0, 0);
    // The last star, and the end of the text that it matches so far.
    let mut star = None;
    while position < text.len() {
        match pattern.get(at) {
            Some('*') => {
                star = Some((at, position));
                at += 1;
            }
            Some(wanted) if *wanted == '?' || *wanted == text[position] => {
                at += 1;
                position += 1;
            }
            _ => {
                let Some((star_at, end)) = star else { return false };
                star = Some((star_at, end + 1));
                (at, position) = (star_at + 1, end + 1);
            }
        }
    }
    pattern[at..].iter().all(|left| *left == '*')
}

/// The option with the keys that sshd accepts, and its name before OpenSSH 8.5.
pub(super) const ACCEPTED_ALGORITHMS: [&str; 2] = ["pubkeyacceptedalgorithms", "pubkeyacceptedkeytypes"];
/// sshd's main file.
const MAIN: &str = "main";
const CRYPTO_POLICY: &str = "crypto";
const CRYPTO_POLICY_FILE: &str = "/etc/crypto-policies/back-ends/opensshserver.config";
const DROP_INS: &str = "sshd_config.d/";

#[cfg(test)]
mod tests {
    use super::*;

    fn first(text: &str, name: &str) -> Setting {
        SshdFiles::parse(text).first(&[name])
    }

    fn set(value: &str) -> Setting {
        Setting::Set(vec![value.into()])
    }

    const INCLUDE: &str = "line=Include /etc/ssh/sshd_config.d/*.conf\n";

    #[test]
    fn the_first_value_counts_wherever_it_stands() {
        let name = "pubkeyauthentication";
        let main =
            format!("file=main\n{INCLUDE}line=PubkeyAuthentication yes\nline=PubkeyAuthentication no\n");
        assert_eq!(first(&main, name), set("yes"));
        let dropped = format!("{main}file=d/b.conf\nline=pubkeyauthentication=no\nfile=d/a.txt\nline=x y\n");
        assert_eq!(first(&dropped, name), set("no"));
        let earlier = format!("{dropped}file=d/a.conf\nline=\tPubkeyAuthentication   maybe\n");
        assert_eq!(first(&earlier, name), set("maybe"));
        assert_eq!(first("file=main\nline=Port 22\n", name), Setting::Unset);
        assert_eq!(first("file=main\nline=#PubkeyAuthentication no\n", name), Setting::Unset);
    }

    #[test]
    fn what_cannot_be_seen_may_be_anything() {
        let name = "pubkeyauthentication";
        let later = format!("file=main\n{INCLUDE}line=PubkeyAuthentication no\n");
        for text in [
            String::new(),
            "hidden=main\n".into(),
            format!("{later}hidden=d/a.conf\n"),
            format!("{later}hidden=d\n"),
            "file=main\nline=Include /opt/x\nline=PubkeyAuthentication no\n".into(),
            "file=main\nline=PubkeyAuthentication yes\nline=Match User x\nline=PubkeyAuthentication no\n"
                .into(),
            "file=main\nline=Match all\nline=Include sshd_config.d/x\n".into(),
            // A circle.
            format!("{later}file=d/a.conf\n{INCLUDE}"),
        ] {
            assert_eq!(first(&text, name), Setting::Unknown, "{text}");
        }
        // It stands in front of what is hidden, or that is not included.
        let sooner =
            "file=main\nline=PubkeyAuthentication no\nline=Include sshd_config.d/*.conf\nhidden=d/a.conf\n";
        assert_eq!(first(sooner, name), set("no"));
        assert_eq!(first(&format!("{later}hidden=d/a.rpmsave\n"), name), set("no"));
    }

    #[test]
    fn lists_of_users_add_up() {
        let text = format!("file=main\n{INCLUDE}line=AllowUsers a b\nfile=d/x.conf\nline=AllowUsers c\n");
        let files = SshdFiles::parse(&text);
        assert_eq!(files.every("allowusers"), Setting::Set(vec!["c".into(), "a b".into()]));
        assert_eq!(
            SshdFiles::parse(&format!("{text}hidden=d/y.conf\n")).every("allowusers"),
            Setting::Unknown
        );
        assert_eq!(files.every("denyusers"), Setting::Unset);
    }

    #[test]
    fn the_policy_of_the_system_is_found_in_both_its_forms() {
        for line in ["PubkeyAcceptedAlgorithms a,b", "-oPubkeyAcceptedKeyTypes=a,b'"] {
            let text = format!("file=crypto\nline={}\n", line.trim_start_matches("-o"));
            assert_eq!(SshdFiles::parse(&text).crypto_policy(), Some("a,b"));
        }
        let text = format!(
            "file=main\n{INCLUDE}file=d/50-redhat.conf\nline=Include {CRYPTO_POLICY_FILE}\n\
             file=crypto\nline=PubkeyAcceptedAlgorithms rsa-sha2-512\n"
        );
        assert_eq!(SshdFiles::parse(&text).first(&ACCEPTED_ALGORITHMS), set("rsa-sha2-512"));
    }

    #[test]
    fn patterns_match_as_sshd_has_them() {
        for (pattern, text, expected) in [
            ("*.conf", "a.conf", true),
            ("*.conf", "a.conf.bak", false),
            ("ec2-*", "ec2-user", true),
            ("?c2", "ec2", true),
            ("", "", true),
            ("*", "", true),
            ("a", "", false),
            ("*a*b", "xaxxb", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
        assert!(!matches(&"*a".repeat(1000), &"a".repeat(999)), "in a moment");
    }
}
