//! Every message of the program, with its hints and its heading, as a text to read: `messages.txt`.
//!
//! A variant without an example here does not compile, and a type without examples fails a test.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tokio_rustls::rustls;
use tokio_rustls::rustls::pki_types::pem;

use super::{ChangedKey, Failure, PlainHost, PlainSsh};
use crate::aws::{AwsError, ConfigurationError, KeyLocation, ProcessError, Renewal, SignIn, SyntaxError};
use crate::doctor::diagnosis::{Cleared, Diagnosis, KeptBack, Offered, RefusedKey, kept_back};
use crate::instances::resolve::{Candidate, ResolveError};
use crate::key::agent::socket::SocketError;
use crate::key::file::{Flaw, KeyFileError};
use crate::key::one_time::KeyError;
use crate::net::network::NetworkError;
use crate::net::websocket::{DialError, HeadError, ProxyError};
use crate::road::error::RoadError;
use crate::road::probe::ProbeError;
use crate::snapshot::assert_snapshot;
use crate::ssh::client::{InvocationError, Version};
use crate::ssh::error::SshError;
use crate::ssh::host_key::{HostKey, Source};
use crate::ssh::known_hosts::StoreError;
use crate::ssh::options::SshOptions;
use crate::system::explain::{Anchor, Explain};
use crate::system::private_file::ReadError;
use crate::system::text::chain;
use crate::system::tty::AskError;
use crate::target::{InstanceId, OsUser, Port, SessionTarget, Target, TargetError};

const MESSAGES: &str = "src/error/messages.txt";

/// An error with the name of its type and variant.
type Examples = Vec<(String, Box<dyn Explain>)>;

#[test]
fn messages_are_those_of_the_text() {
    assert_snapshot(MESSAGES, &text(&examples()));
}

#[test]
fn every_heading_has_an_error() {
    let headings: BTreeSet<_> = Anchor::ALL.iter().map(|anchor| anchor.heading()).collect();
    let used: BTreeSet<_> =
        examples().iter().filter_map(|(_, error)| error.anchor()).map(Anchor::heading).collect();
    assert_eq!(headings, used, "a heading that no error leads to");
}

#[test]
fn every_type_of_errors_has_examples() {
    let mut explained = BTreeSet::new();
    let mut directories = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(directory) = directories.pop() {
        for entry in directory.read_dir().unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let source = std::fs::read_to_string(&path).unwrap();
                let types = source.lines().filter_map(|line| line.strip_prefix("impl Explain for "));
                explained.extend(types.map(|rest| rest.trim_end_matches(" {").to_owned()));
            }
        }
    }
    let shown: BTreeSet<_> =
        examples().iter().map(|(name, _)| name.split("::").next().unwrap().to_owned()).collect();
    assert!(explained.len() > 15, "the sources are read: {explained:?}");
    assert_eq!(explained, shown);
}

fn text(examples: &Examples) -> String {
    let mut text = String::new();
    for (name, error) in examples {
        text.push_str(&format!("{name}\n    {}\n", chain(error.as_ref())));
        for detail in error.details(now()) {
            text.push_str(&format!("    |{detail}\n"));
        }
        for hint in error.hints() {
            text.push_str(&format!("    hint: {hint}\n"));
        }
        if let Some(anchor) = error.anchor() {
            text.push_str(&format!("    more: {}\n", anchor.heading()));
        }
        text.push('\n');
    }
    text
}

/// Examples of each variant, in the order of the list: `Type { Variant { field: value }, { field: value };
/// … }`.
macro_rules! examples {
    ($examples:ident, $type:ident: $($variant:ident $($value:tt),+;)*) => {
        // A match without a wildcard: a variant that has no example is not compiled.
        let _complete = |error: &$type| match error { $($type::$variant { .. } => {})* };
        $($($examples.push((
            concat!(stringify!($type), "::", stringify!($variant)).to_owned(),
            Box::new($type::$variant $value) as Box<dyn Explain>,
        ));)+)*
    };
}

fn examples() -> Examples {
    let mut all = Vec::new();
    of_targets(&mut all);
    of_files(&mut all);
    of_the_network(&mut all);
    of_configuration(&mut all);
    of_aws(&mut all);
    of_instances(&mut all);
    of_diagnoses(&mut all);
    of_sessions(&mut all);
    of_commands(&mut all);
    of_plain_ssh(&mut all);
    all
}

fn of_targets(all: &mut Examples) {
    examples! { all, TargetError:
        InstanceId ("i-xyz".into());
        OsUser ("no user".into());
        NodeUser ("-x".into());
        Target ("a b/c".into());
        Port ("0".into());
    }
    examples! {
        all, SshError:
        NotRun { program: "ssh".into(), source: not_found() },
            { program: "rsync".into(), source: not_found() },
            { program: "ssh".into(), source: denied() };
        Old { found: Version { major: 8, minor: 4, is_distributed: false } };
    }
    examples! { all, InvocationError:
        MissingValue ('p');
        NoDestination {};
        Destination ("-oProxyCommand=x".into());
        UnknownOption ("-z".into());
    }
}

fn of_files(all: &mut Examples) {
    examples! { all, ReadError:
        Io { path: path(), source: denied() };
        Kind { path: path() };
        Owner { path: path(), owner: 1001 };
        Writable { path: path() };
    }
    examples! { all, StoreError:
        Busy { path: path() };
        Read (ReadError::Writable { path: path() });
        Write { path: path(), source: denied() };
    }
    examples! { all, KeyError:
        Random (getrandom::Error::UNSUPPORTED);
        Rsa {};
    }
    examples! { all, SocketError:
        Io { path: path(), source: denied() };
        Exposed { path: "/gone/agent".into() };
        TooLong { path: path() };
    }
    let flaw = |flaw| KeyFileError::Flaw { path: "/home/me/.ssh/id_rsa".into(), flaw };
    examples! { all, KeyFileError:
        Missing { path: "/home/me/key".into() };
        Directory { path: "/home/me/.ssh".into() };
        Read { path: path(), source: denied() };
        Flaw { path: "/home/me/.ssh/id_rsa".into(), flaw: Flaw::Certificate };
    }
    for value in [
        Flaw::Damaged("ssh-rsa".into()),
        Flaw::Empty,
        Flaw::Kind("an ECDSA key".into()),
        Flaw::Long(5000),
        Flaw::Prefix("no-pty".into()),
        Flaw::Private,
        Flaw::Putty,
        Flaw::OtherFormat("PKCS8"),
        Flaw::Several(2),
        Flaw::Short(1024),
        Flaw::Utf16,
        Flaw::Unknown,
    ] {
        all.push(("KeyFileError::Flaw".into(), Box::new(flaw(value))));
    }
}

fn of_the_network(all: &mut Examples) {
    examples! { all, NetworkError:
        CaBundleEmpty { path: "/etc/ca.pem".into() };
        CaBundleMalformed { path: "/etc/ca.pem".into(), source: pem::Error::NoItemsFound };
        CaBundleUnreadable { path: "/etc/ca.pem".into(), source: denied() };
        NoRoots {};
        Proxy {};
        Tls (rustls::Error::General("no cipher suites".into()));
    }
    examples! { all, ProxyError:
        Refused { proxy: proxy(), status: 403, has_password: false },
            { proxy: proxy(), status: 407, has_password: false },
            { proxy: proxy(), status: 407, has_password: true };
        Through { proxy: proxy(), source: lost().into() };
        Unreachable { proxy: proxy(), source: refused().into() },
            { proxy: proxy(), source: distrusted().into() },
            { proxy: proxy(), source: rustls::Error::DecryptError.into() };
        Unusable { proxy: proxy(), source: HeadError::Malformed };
    }
    examples! { all, DialError:
        Connect { host: host(), address: "192.0.2.7:443".parse().unwrap(), source: refused() };
        Denied { host: host(), message: "User: arn:aws:iam::1:user/a is not authorized".into(), request_id: None };
        Lost { host: host(), source: HeadError::Malformed };
        Misanswered { host: host(), fault: "it accepts another key" };
        Network (NetworkError::NoRoots);
        Proxy (ProxyError::Unusable { proxy: proxy(), source: HeadError::Malformed });
        Refused { host: host(), status: 403, body: String::new(), request_id: None },
            { host: host(), status: 500, body: "try again".into(), request_id: None };
        Resolve { host: host(), source: io::Error::other("no such host") };
        Timeout { host: host(), after: Duration::from_secs(30) };
        Tls { host: host(), source: io::Error::other(distrusted()) },
            { host: host(), source: lost() };
    }
}

fn of_configuration(all: &mut Examples) {
    let profile = || "dev".to_owned();
    let source_profile = || "base".to_owned();
    examples! { all, ConfigurationError:
        BadExpiration { time: "soon".into() };
        BadRegion { region: "a.b".into() };
        BothSources { profile: profile() };
        EmptyProfile {};
        EmptySource { profile: profile(), credential_source: "Environment".into() };
        Loop { profile: profile(), source_profile: source_profile() };
        MetadataMode { mode: "IPv5".into() };
        MissingServices { profile: profile(), services: "local".into() };
        MissingSourceProfile { profile: profile(), source_profile: source_profile() };
        MissingSsoSession { profile: profile(), session: "corp".into() };
        NoSource { profile: profile() };
        NotText { profile: profile(), option: "region" };
        OtherHome { path: "~root/config".into() };
        PartialKey { location: KeyLocation::Environment, missing: "AWS_SECRET_ACCESS_KEY" },
            { location: KeyLocation::Profile("dev".into()), missing: "aws_secret_access_key" },
            { location: KeyLocation::File("/home/me/.boto".into()), missing: "aws_secret_access_key" };
        SourceWithoutCredentials { profile: profile(), source_profile: source_profile() };
        SsoConflict { profile: profile(), session: "corp".into(), options: vec!["sso_region".into()] };
        SsoIncomplete { profile: profile(), missing: vec!["sso_role_name", "sso_account_id"] };
        Syntax { path: "/home/me/.aws/config".into(), source: SYNTAX };
        TwoProfiles { profile: profile(), default_profile: source_profile() };
        UnknownCredentialSource { profile: profile(), credential_source: "environment".into() };
        UnknownProfile { profile: profile(), section_of: None },
            { profile: profile(), section_of: Some("/home/me/.aws/config".into()) };
        Unreadable { path: "/home/me/.aws/config".into(), source: denied() };
        WebIdentityWithoutRole { profile: None },
            { profile: Some("dev".into()) };
    }
    let program = || "get-keys".to_owned();
    examples! { all, ProcessError:
        Backslash {};
        Empty {};
        Expired { program: program(), time: "2026-01-01T00:00:00Z".into() };
        Failed { program: program(), status: "exit status 1".into(), said: "no card".into() };
        Malformed { program: program(), what: "no JSON".into() };
        NotFound { program: program() };
        Quotation {};
        Run { program: program(), source: denied() };
        Silent { program: program() };
    }
}

fn of_aws(all: &mut Examples) {
    for action in ["ssm:StartSession", "ec2-instance-connect:SendSSHPublicKey", "ec2:DescribeInstances"] {
        let error = AwsError::AccessDenied {
            action: action.into(),
            subject: "i-0a1b2c3d".into(),
            principal: None,
            message: "no identity-based policy allows it".into(),
            request_id: None,
        };
        all.push(("AwsError::AccessDenied".into(), Box::new(error)));
    }
    let (instance, region) = (|| "i-0a1b2c3d".to_owned(), || "eu-west-1".to_owned());
    let (action, message) = (|| "ssm:StartSession".to_owned(), || "words of AWS".to_owned());
    let serial = || "arn:aws:iam::123456789012:mfa/me".to_owned();
    let profile = |renewal| SignIn::Profile { name: Some("dev".into()), renewal };
    let source = || io::Error::other("details").into();
    examples! { all, AwsError:
        AccessDenied { action: "ssm:TerminateSession".into(), subject: "me-0a1b".into(), principal: None, message: message(), request_id: None };
        BadEndpoint { service: "ssm" };
        BadRegion { region: "a.b".into() };
        Configuration (ConfigurationError::EmptyProfile);
        Credentials { sign_in: profile(Renewal::Unknown), source: source() };
        ExpiredToken { sign_in: SignIn::Environment },
            { sign_in: profile(Renewal::Sso) },
            { sign_in: profile(Renewal::AwsLogin) },
            { sign_in: profile(Renewal::Process) };
        InstanceNotFound { instance: instance(), region: region() };
        InstanceNotRunning { instance: instance() };
        InvalidDocument { document: "SSM-Own".into() };
        InvalidSignature { action: action(), message: message() };
        Malformed { action: action(), source: source() };
        MfaNeeded { serial: serial(), sign_in: profile(Renewal::Unknown), source: AskError::Nobody },
            { serial: serial(), sign_in: SignIn::Profile { name: None, renewal: Renewal::Unknown }, source: AskError::Declined };
        MfaRefused { serial: serial(), message: message() };
        MfaSecurityKey { serial: serial(), sign_in: profile(Renewal::Unknown) };
        MfaTypo { serial: serial() };
        Network (NetworkError::NoRoots);
        NoCredentials { sign_in: SignIn::Profile { name: None, renewal: Renewal::Absent } };
        NoConnection { host: host(), source: refused().into() };
        NoRole { role: "Admin".into(), account: "123456789012".into(), sign_in: profile(Renewal::Sso) };
        NoRegion {};
        Process { sign_in: profile(Renewal::Process), source: ProcessError::Empty };
        RejectedCredentials { sign_in: profile(Renewal::Unknown) };
        Service { action: action(), code: "InternalServerError".into(), message: message(), request_id: None };
        Signing { source: source() };
        TargetNotConnected { instance: instance(), region: region() };
        SignedOut { sign_in: profile(Renewal::Sso), why: "has expired".into() };
        SsoLogin { source: source() },
            { source: AwsError::NoRegion.into() };
        Throttled { action: action() };
        Unsupported { action: action(), message: message() };
        UnencryptedEndpoint { service: "ssm", host: "example.com".into() };
        Unreachable { host: host(), source: lost().into() },
            { host: host(), source: distrusted().into() },
            { host: host(), source: DialError::Proxy(ProxyError::Unusable { proxy: proxy(), source: HeadError::Malformed }).into() };
        WebIdentityToken { path: "/var/run/token".into(), source: denied() };
        UntrustedStreamUrl { host: "example.com".into() };
    }
}

fn of_instances(all: &mut Examples) {
    let candidate = |id: &str, name: &str, hours: u64| Candidate {
        id: id.parse().unwrap(),
        name: name.into(),
        availability_zone: "eu-west-1a".into(),
        launched: Some(now() - Duration::from_secs(hours * 3600)),
    };
    let target = |text: &str| -> Target { text.parse().unwrap() };
    let region = || "eu-west-1".to_owned();
    let (elsewhere, nowhere) = (vec![("us-east-1".to_owned(), instance())], Vec::new);
    examples! { all, ResolveError:
        Aws (AwsError::NoRegion);
        NotFound { target: target("web"), region: region(), elsewhere: nowhere() },
            { target: target("web*"), region: region(), elsewhere: nowhere() },
            { target: target("web.us-east-1"), region: region(), elsewhere: nowhere() },
            { target: target("tag:Team=web"), region: region(), elsewhere: nowhere() },
            { target: target("10.1.2.3"), region: region(), elsewhere: nowhere() },
            { target: target("asg:web"), region: region(), elsewhere };
        NotRunning { target: target("web"), instance: instance(), state: "stopped".into() };
        Several { target: target("web"), candidates: vec![candidate("i-0a1b2c3d4e5f60718", "web", 5), candidate("i-0a1b2c3d", "web", 50)] };
    }
}

fn of_diagnoses(all: &mut Examples) {
    let region = || "eu-west-1".to_owned();
    examples! { all, Diagnosis:
        Algorithm { instance: instance(), algorithm: "ssh-ed25519".into(), reason: "it is in FIPS mode".into() },
            { instance: instance(), algorithm: "ssh-rsa".into(), reason: "its crypto policy leaves them out".into() };
        Clock { instance: instance(), off: Duration::from_secs(150) };
        KeysCommand { instance: instance() };
        KeysUser { instance: instance(), user: "ec2-instance-connect".into() };
        KeptBack { instance: instance(), options: options_in_the_way("identitiesonly yes"), is_own: false },
            { instance: instance(), options: options_in_the_way("pubkeyauthentication no\nidentitiesonly yes"), is_own: false },
            { instance: instance(), options: options_in_the_way("pubkeyacceptedalgorithms rsa-sha2-512"), is_own: true };
        KeptOut { instance: instance(), user: user(), option: "AllowUsers".into() };
        NoLogin { instance: instance(), file: "/run/nologin".into() };
        NoPublicKey { instance: instance(), option: "PubkeyAuthentication no".into() };
        NotFound { instance: instance(), region: region(), elsewhere: None },
            { instance: instance(), region: region(), elsewhere: Some("us-east-1".into()) };
        NotInstalled { instance: instance() };
        NotRunning { instance: instance(), state: "stopped".into() },
            { instance: instance(), state: "pending".into() },
            { instance: instance(), state: "terminated".into() };
        Offline { instance: instance(), silent: Some(Duration::from_secs(3 * 86_400).into()), runs: true, region: region() },
            { instance: instance(), silent: None, runs: false, region: region() };
        OldAgent { instance: instance(), version: "2.3.50.0".into() };
        Shell { instance: instance(), user: user(), shell: "/bin/fish".into() };
        Starting { instance: instance(), since: Duration::from_secs(120).into(), profile: true },
            { instance: instance(), since: Duration::from_secs(120).into(), profile: false };
        Unregistered { instance: instance(), profile: true, region: region() },
            { instance: instance(), profile: false, region: region() };
        User { instance: instance(), user: user() };
    }
    let refused = |cleared, is_enforcing, is_own| RefusedKey {
        instance: instance(),
        user: user(),
        is_own,
        algorithm: if is_own { "ssh-rsa" } else { "ssh-ed25519" }.into(),
        system_user: (!is_own).then_some("ubuntu"),
        cleared,
        is_enforcing,
    };
    let of_user = Cleared { user: true, package: false };
    for value in [
        refused(Cleared::default(), false, false),
        refused(of_user, false, true),
        refused(Cleared { user: true, package: true }, true, false),
    ] {
        all.push(("RefusedKey".into(), Box::new(value)));
    }
}

fn of_sessions(all: &mut Examples) {
    let target = || SessionTarget::from(instance());
    let reason = || "text of the SSM agent".to_owned();
    examples! {
        all, RoadError:
        Aws (AwsError::NoRegion);
        ChannelRefused { target: target(), reason: reason() };
        Dial (DialError::Network(NetworkError::NoRoots));
        HandshakeTimeout { target: target() };
        Lost { target: target(), minutes: 20, source: Box::new(RoadError::Aws(AwsError::NoConnection { host: host(), source: refused().into() })) };
        NoProgress { target: target() };
        NotSsh { target: target(), port: Port::SSH, greeting: "HTTP/1.1 400 Bad Request".into() };
        NothingAnswered { target: target(), port: Port::SSH, reason: String::new(), is_noted: false },
            { target: target(), port: Port::SSH, reason: reason(), is_noted: true };
        Random (getrandom::Error::UNSUPPORTED);
        SessionEnded { target: target(), reason: "Session idle timed out".into() };
        SessionExpired { target: target() };
        SshdBusy { target: target(), port: Port::SSH, greeting: "Exceeded MaxStartups".into() };
        WebsocketLost { target: target() };
    }
    examples! {
        all, ProbeError:
        Interrupted {};
        Late { instance: instance() };
        NotRun { instance: instance(), words: "Unable to start command".into() };
        Road (RoadError::WebsocketLost { target: target() });
    }
}

fn of_commands(all: &mut Examples) {
    examples! { all, Failure:
        AgentSocket (SocketError::TooLong { path: path() });
        Aws (AwsError::NoRegion);
        Diagnosed (Diagnosis::NotInstalled { instance: instance() });
        File { action: "create", path: path(), source: denied() },
            { action: "write", path: path(), source: denied() };
        HostKeyChanged (Box::new(changed_key(None, false)));
        HostKeyUnknown { instance: instance() };
        KnownHosts (StoreError::Busy { path: path() });
        Interrupted {};
        Invocation (InvocationError::NoDestination);
        Key (KeyError::Rsa);
        KeyFile (KeyFileError::Missing { path: path() });
        KeyRefused (Box::new(RefusedKey { instance: instance(), user: user(), is_own: true, algorithm: "ssh-rsa".into(), system_user: None, cleared: Cleared::default(), is_enforcing: false }));
        HostKeyUnchecked { instance: instance(), why: "cannot reach ec2.eu-west-1.amazonaws.com".into(), hints: vec!["check the region and the network".into()] };
        ProxySilent { target: "web".into(), fault: "does not answer" };
        Moved { target: "web".into(), old: instance(), new: "i-0a1b2c3e".parse().unwrap() };
        ManagedNode { instance: "mi-0a1b2c3d4e5f60718".parse().unwrap() };
        PlainSsh (Box::new(plain(AwsError::NoRegion.into())));
        Network (NetworkError::NoRoots);
        NoHome {};
        NoKey { directory: "/home/me/.ssh".into() };
        Command { program: "make".into(), source: not_found() };
        Road (RoadError::SessionExpired { target: instance().into() });
        Resolve (ResolveError::Aws(AwsError::NoRegion));
        Sandbox (denied());
        OtherWay { option: "-J".into(), program: "ssh" };
        Ssh (SshError::NotRun { program: "ssh".into(), source: not_found() });
        Stdio (denied());
        Output (denied()),
            (io::ErrorKind::StorageFull.into());
        System { action: "open a terminal", source: denied() };
        Target (TargetError::Port("0".into()));
        Usage ("what is wrong with the command line".into());
        UserConfig { path: path(), hint: "what to do".into(), source: denied() };
    }
    for (confirmed, other_kind) in [(Some(Source::Console), false), (None, true), (None, false)] {
        all.push(("ChangedKey".into(), Box::new(changed_key(confirmed, other_kind))));
    }
}

/// Errors that have other hints where the user runs plain ssh.
fn of_plain_ssh(all: &mut Examples) {
    let target = |text: &str| -> Target { text.parse().unwrap() };
    let region = || "eu-west-1".to_owned();
    let rows: Vec<Failure> = vec![
        AwsError::NoRegion.into(),
        AwsError::Configuration(ConfigurationError::EmptyProfile).into(),
        AwsError::NoCredentials { sign_in: SignIn::Profile { name: None, renewal: Renewal::Absent } }.into(),
        ResolveError::NotFound { target: target("web"), region: region(), elsewhere: Vec::new() }.into(),
        ResolveError::NotFound { target: target("web.us-east-1"), region: region(), elsewhere: Vec::new() }
            .into(),
        ResolveError::NotFound {
            target: target("web"),
            region: region(),
            elsewhere: vec![("us-east-1".to_owned(), instance())],
        }
        .into(),
        Diagnosis::NotInstalled { instance: instance() }.into(),
        Diagnosis::NotFound { instance: instance(), region: region(), elsewhere: Some("us-east-1".into()) }
            .into(),
        Diagnosis::Algorithm {
            instance: instance(),
            algorithm: "ssh-ed25519".into(),
            reason: "it is in FIPS mode".into(),
        }
        .into(),
        Diagnosis::Algorithm {
            instance: instance(),
            algorithm: "ssh-rsa".into(),
            reason: "its crypto policy leaves them out".into(),
        }
        .into(),
    ];
    all.extend(rows.into_iter().map(|error| ("PlainSsh".to_owned(), Box::new(plain(error)) as _)));
}

fn plain(error: Failure) -> PlainSsh {
    let host = PlainHost { name: "web".into(), region: None, suffix: "ec2".into() };
    let Failure::PlainSsh(plain) = error.in_plain_ssh(&host) else { unreachable!() };
    *plain
}

fn changed_key(confirmed: Option<Source>, other_kind: bool) -> ChangedKey {
    let new = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ1yIq8JQTmR8cYqk0kWkKqk9m0nNQ0yqGq5mJm1oGxk";
    ChangedKey {
        host: "[i-0a1b2c3d]:2222".into(),
        old: "ED25519 SHA256:abc".into(),
        learned_from: Source::FirstUse,
        since: if other_kind { String::new() } else { "2026-01-01T00:00:00Z".into() },
        new: HostKey::parse(new).unwrap(),
        confirmed,
        other_kind,
    }
}

/// The options of ssh that keep a one-time key back, from what `ssh -G` prints.
fn options_in_the_way(lines: &str) -> Vec<KeptBack> {
    let socket = Path::new("/home/me/.ssh/ssh_ec2/agent/07b142fd8bb80309016a1d712e44338199c5e3c5");
    let options = SshOptions::parse(&format!("{lines}\nidentityagent {}\n", socket.display()));
    let key = Offered {
        line: "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAA= ssh_ec2",
        socket: Some(socket),
        was_listed: false,
    };
    kept_back(&options, None, key)
}

const SYNTAX: SyntaxError = SyntaxError::Line { line: 7 };

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn instance() -> InstanceId {
    "i-0a1b2c3d".parse().unwrap()
}

fn user() -> OsUser {
    "sam".parse().unwrap()
}

fn path() -> PathBuf {
    "/home/me/.ssh/ssh_ec2/file".into()
}

fn proxy() -> String {
    "http://proxy.corp:3128".into()
}

fn host() -> String {
    "ssmmessages.eu-west-1.amazonaws.com".into()
}

fn denied() -> io::Error {
    io::ErrorKind::PermissionDenied.into()
}

fn refused() -> io::Error {
    io::ErrorKind::ConnectionRefused.into()
}

fn lost() -> io::Error {
    io::ErrorKind::UnexpectedEof.into()
}

fn not_found() -> io::Error {
    io::ErrorKind::NotFound.into()
}

fn distrusted() -> rustls::Error {
    rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer)
}
