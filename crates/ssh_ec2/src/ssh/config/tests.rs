use super::*;
use crate::ssh::own_files::OwnFiles;

fn files() -> OwnFiles {
    OwnFiles::below(Path::new("/home/me/.ssh/ssh_ec2"), Path::new("/tmp/short"))
}

#[test]
fn the_block_is_what_the_documentation_shows() {
    let block = block(Path::new("/usr/bin/ssh_ec2"), &files(), &ProxyOptions::default());
    let letters: String = ('g'..='z').chain('G'..='Z').map(|letter| format!(" !*-*{letter}*")).collect();
    let others = format!("!*.* !*_* !*-*-*{letters}");
    let proxy = "/usr/bin/ssh_ec2 proxy --sockets /home/me/.ssh/ssh_ec2/agent";
    let known_hosts = "/usr/bin/ssh_ec2 known-hosts --file /home/me/.ssh/ssh_ec2/known_hosts";
    let key =
        "    IdentityAgent /home/me/.ssh/ssh_ec2/agent/%C\n    IdentityFile none\n    IdentitiesOnly no\n";
    let checks = "    UserKnownHostsFile /dev/null\n    StrictHostKeyChecking yes\n    VerifyHostKeyDNS no\n";
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
    assert!(aliases.contains("\nMatch host *.ec2,!mi-?????????????????.*\n    IdentityAgent "), "{aliases}");
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
        section(Path::new("/ssh_ec2"), &files(), &ProxyOptions::default(), Some("ubuntu"), &suffix(name))
    };
    assert!(section("ec2").contains("\nHost *.ec2\n    User ubuntu\n    ProxyCommand /ssh_ec2 proxy "));
    let block = block(Path::new("/ssh_ec2"), &files(), &ProxyOptions::default());
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
    let settings = settings(Path::new("/opt/my tools/ssh_ec2"), &files(), &options, Keys::Pushed);
    assert!(
        settings[0].1.starts_with(r"'/opt/my tools/ssh_ec2' proxy --profile 'my prod'\''s 100%%' --sockets"),
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
        let settings = settings(Path::new("/ssh_ec2"), &files(), options, Keys::Own);
        assert!(!settings[0].1.contains("--sockets"), "{}", settings[0].1);
        settings.into_iter().skip(6).map(|(keyword, _)| keyword).collect::<Vec<_>>()
    };
    assert_eq!(keywords(&ProxyOptions::default()), Vec::<&str>::new());
    let chosen = ProxyOptions { identity: Some("/key".into()), ..ProxyOptions::default() };
    assert_eq!(keywords(&chosen), ["IdentityAgent", "IdentityFile", "IdentitiesOnly"]);
}
