use super::*;
use crate::system::explain::Explain as _;

const LINE: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGPKSUTyz1HwHReFVvD5obVsALAgJRNarH4TRpNePnAS me";

fn rsa(bytes: usize) -> String {
    let mut blob = b"\0\0\0\x07ssh-rsa\0\0\0\x03\x01\0\x01".to_vec();
    blob.extend(u32::try_from(bytes + 1).unwrap().to_be_bytes());
    blob.push(0);
    blob.extend(vec![0xc5; bytes]);
    format!("ssh-rsa {} own", STANDARD.encode(blob))
}

#[test]
fn the_public_half_is_found_beside_the_private_one() {
    let directory = tempfile::tempdir().unwrap();
    let private = directory.path().join("id_ed25519");
    fs::write(&private, "-----BEGIN OPENSSH PRIVATE KEY-----\n").unwrap();
    let error = read_public_key(&private).unwrap_err();
    assert!(matches!(error, KeyFileError::Flaw { flaw: Flaw::Private, .. }), "{error}");
    fs::write(directory.path().join("id_ed25519.pub"), format!("{LINE}\n")).unwrap();
    assert_eq!(read_public_key(&private).unwrap(), LINE);
    assert_eq!(read_public_key(&directory.path().join("id_ed25519.pub")).unwrap(), LINE);
}

#[test]
fn keys_are_taken_as_editors_and_systems_leave_them() {
    for text in [
        format!("{LINE}\n"),
        format!("{LINE}\r\n"),
        format!("\u{feff}{LINE}\r\n"),
        format!("# mine\n\n  {LINE}  \n\n"),
        LINE.to_owned(),
    ] {
        assert_eq!(public_line(text.as_bytes()), Ok(LINE.to_owned()), "{text:?}");
    }
    assert_eq!(public_line(rsa(256).as_bytes()), Ok(rsa(256)));
    assert_eq!(public_line(rsa(1024).as_bytes()), Ok(rsa(1024)));
    let tabs = LINE.replace(' ', "\t");
    assert_eq!(public_line(tabs.as_bytes()), Ok(tabs.clone()));
}

#[test]
fn each_flaw_is_recognized() {
    let kind = |text: &str| Flaw::Kind(text.to_owned());
    let damaged = || Flaw::Damaged("ssh-ed25519".to_owned());
    let begins = |name: &str| format!("-----BEGIN {name}-----\nMIIB\n");
    for (text, flaw) in [
        (String::new(), Flaw::Empty),
        ("# nothing\n\n".into(), Flaw::Empty),
        ("no key\n".into(), Flaw::Unknown),
        ("ecdsa-sha2-nistp384 AAAA me\n".into(), kind("an ECDSA key")),
        ("sk-ssh-ed25519@openssh.com AAAA me\n".into(), kind("a key of a security key (FIDO)")),
        ("sk-ecdsa-sha2-nistp256@openssh.com AAAA me\n".into(), kind("a key of a security key (FIDO)")),
        ("ssh-dss AAAA me\n".into(), kind("a DSA key")),
        ("ssh-ed448 AAAA me\n".into(), kind("a key of the type ssh-ed448")),
        ("ssh-ed25519-cert-v01@openssh.com AAAA me\n".into(), Flaw::Certificate),
        (begins("CERTIFICATE"), Flaw::Certificate),
        (begins("RSA PRIVATE KEY"), Flaw::Private),
        (begins("ENCRYPTED PRIVATE KEY"), Flaw::Private),
        (begins("PRIVATE KEY").replace('\n', "\r\n"), Flaw::Private),
        (begins("PUBLIC KEY"), Flaw::OtherFormat("PKCS8")),
        (begins("RSA PUBLIC KEY"), Flaw::OtherFormat("PEM")),
        ("---- BEGIN SSH2 PUBLIC KEY ----\n".into(), Flaw::OtherFormat("RFC4716")),
        ("PuTTY-User-Key-File-3: ssh-ed25519\n".into(), Flaw::Putty),
        (format!("{LINE}\n{LINE}\n"), Flaw::Several(2)),
        (format!("{LINE}\n\n# and\necdsa-sha2-nistp256 AAAA\n"), Flaw::Several(2)),
        (format!("no-pty {LINE}"), Flaw::Prefix("no-pty".into())),
        (format!("example.com {LINE}"), Flaw::Prefix("example.com".into())),
        (rsa(128), Flaw::Short(1024)),
        (format!("{LINE}{}", "x".repeat(4096)), Flaw::Long(LINE.len() + 4096)),
        ("ssh-ed25519".into(), damaged()),
        ("ssh-ed25519 me".into(), damaged()),
        (LINE.replace("AAAAC3", "!AAAC3"), damaged()),
        (LINE.replace("IGPK", "IG"), damaged()),
        (rsa(256).replace("ssh-rsa ", "ssh-ed25519 "), damaged()),
    ] {
        assert_eq!(public_line(text.as_bytes()), Err(flaw), "{text:?}");
    }
    assert_eq!(public_line(b"\xff\xfes\0s\0h\0"), Err(Flaw::Utf16));
    assert_eq!(public_line(b"\xc3\x28"), Err(Flaw::Unknown));
}

#[test]
fn hints_are_commands_that_can_be_pasted() {
    let hint = |flaw: Flaw| flaw.hint(Path::new("my key.pem"));
    assert_eq!(
        hint(Flaw::Private),
        "make the public half: `ssh-keygen -y -f 'my key.pem' > 'my key.pem.pub'`"
    );
    assert_eq!(
        hint(Flaw::OtherFormat("PKCS8")),
        "convert it: `ssh-keygen -i -m PKCS8 -f 'my key.pem' > 'my key.pem.pub'`"
    );
}

#[test]
fn the_hint_for_a_missing_path_names_files_near_it() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let explained = |path: &Path| {
        let error = read_public_key(path).unwrap_err();
        (error.to_string(), error.hints().concat())
    };
    let path = at("key").display().to_string();
    let (said, hint) = explained(&at("key"));
    assert_eq!(said, format!("{path} does not exist"));
    assert!(hint.starts_with("check the path"), "{hint}");
    fs::write(at("key"), "").unwrap();
    assert_eq!(
        explained(&at("key.pub")).1,
        format!("make it from the private half: `ssh-keygen -y -f {path} > {path}.pub`")
    );
    fs::rename(at("key"), at("key.pub")).unwrap();
    assert_eq!(explained(&at("key")).1, format!("name {path}.pub, which exists"));
    assert_eq!(explained(&at("key.pub/x")).0, format!("{path}.pub/x does not exist"));
    assert!(explained(directory.path()).0.ends_with("is a directory, and not a key"));
    assert_eq!(
        explained(Path::new("~/nonexistent")),
        (
            "~/nonexistent does not exist".into(),
            "the shell replaces `~` only at the beginning of a word: `--key-file ~/nonexistent`".into()
        )
    );
}

#[test]
fn the_length_of_an_rsa_key_is_that_of_its_modulus() {
    assert_eq!(rsa_bits(&rsa(256)), Some(2048));
    assert_eq!(rsa_bits(LINE), None);
    assert_eq!(rsa_bits("ssh-rsa AAAA"), None);
    assert_eq!(rsa_bits("ssh-rsa ????"), None);
}
