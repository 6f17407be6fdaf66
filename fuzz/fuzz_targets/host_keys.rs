//! For any text of a console or file, each key that is read from it is valid, and is the same after writing
//! and reading it again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ssh_ec2::ssh::host_key::{Evidence, HostKey};

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    let title = "SSH HOST KEY KEYS-----";
    let block = format!("-----BEGIN {title}\n{text}\n-----END {title}\n");
    for evidence in [Evidence::of_console(&text), Evidence::of_console(&block), Evidence::of_files(&text)] {
        evidence.keys.iter().for_each(check);
        for print in evidence.all_fingerprints() {
            assert!(print.starts_with("SHA256:") && print.len() == 50, "{print}");
        }
    }
    // Keys with one arbitrary part.
    for text in [&*text, &format!("ssh-ed25519 {text}"), &format!("{KEY} {text}"), &format!("{KEY}{text}")] {
        if let Some(key) = HostKey::parse(text) {
            check(&key);
        }
    }
    if let Some(key) = HostKey::of_certificate(&text) {
        check(&key);
    }
});

fn check(key: &HostKey) {
    let line = key.to_string();
    assert!(line.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{line:?}");
    assert_eq!(HostKey::parse(&line).as_ref(), Some(key));
    assert_eq!(line.split(' ').count(), 2);
}

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ1yIq8JQTmR8cYqk0kWkKqk9m0nNQ0yqGq5mJm1oGxk";
