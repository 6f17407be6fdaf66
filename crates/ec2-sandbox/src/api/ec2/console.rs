//! GetConsoleOutput, and the console output of the instances.
//!
//! A console is a terminal: lines end in CR LF. cloud-init prints the host keys at the first boot, between
//! marks that scripts look for. Later boots do not print them, and the service keeps only 64 KiB of output.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use russh::keys::{HashAlg, PublicKey};

use super::NAMESPACE;
use crate::{
    api::{Call, error::ApiError, query::Query, xml::Xml},
    calendar,
    world::{Console, HostKeys, Instance, InstanceState, Platform},
};

pub(super) fn output(call: &Call<'_>, query: &Query) -> Result<String, ApiError> {
    let id = query.value("InstanceId").ok_or_else(|| {
        ApiError::new("MissingParameter", "The request must contain the parameter InstanceId")
    })?;
    super::check_ids(call, &[id])?;
    let Some(instance) = call.instance(id) else {
        // Not reached: `check_ids` has found the instance.
        return Err(ApiError::internal("InternalError"));
    };
    let latest = query.value("Latest") == Some("true");
    let keys = call.world.host_keys(instance).map_err(|_| ApiError::internal("InternalError"))?;
    // The service stores the console output some time after the boot.
    let noted = call.world.started() - instance.age + NOTED_AFTER;
    // The console output of an instance that is being launched is not stored yet.
    let text = (instance.state() != InstanceState::Pending).then(|| boot_log(instance, &keys, latest));
    let mut xml = Xml::document();
    xml.root("GetConsoleOutputResponse", NAMESPACE, |xml| {
        xml.text("requestId", call.request_id);
        xml.text("instanceId", id);
        xml.text("timestamp", calendar::extended(if latest { call.now } else { noted.min(call.now) }));
        if let Some(text) = text {
            xml.text("output", STANDARD.encode(text));
        }
    });
    Ok(xml.finish())
}

/// The console output: the last boot and, if it still fits, the first boot before it.
fn boot_log(instance: &Instance, keys: &HostKeys, latest: bool) -> String {
    let console = match (instance.console, latest) {
        (Console::KeysInLatest, true) => Console::Keys,
        (Console::KeysInLatest, false) => Console::NoKeys,
        (console, _) => console,
    };
    let host = instance.host_name();
    let mut lines = kernel(instance.platform);
    lines.extend([
        format!(
            "[    5.417702] cloud-init[1318]: Cloud-init v. 22.2.2 running 'init' at {host}. Up 5.40 seconds."
        ),
        "[    5.918323] cloud-init[1318]: ci-info: ++++++++++++++++++++Net device info+++++++++++++++++++++"
            .to_owned(),
        format!(
            "[    5.918991] cloud-init[1318]: ci-info: |  ens5  | True | {} | 255.255.255.0 |",
            instance.private_address
        ),
    ]);
    if matches!(console, Console::Keys) {
        lines.extend(GENERATION.map(str::to_owned));
    }
    if matches!(console, Console::Fingerprints | Console::Keys) {
        lines.extend(fingerprints(keys));
    }
    if matches!(console, Console::Keys) {
        lines.push("-----BEGIN SSH HOST KEY KEYS-----".to_owned());
        lines.extend(keys.lines());
        lines.push("-----END SSH HOST KEY KEYS-----".to_owned());
    }
    lines.extend([
        "[    8.127716] cloud-init[1502]: Cloud-init v. 22.2.2 finished. Datasource DataSourceEc2.  Up 8.11 seconds".to_owned(),
        String::new(),
        greeting(instance.platform).to_owned(),
        String::new(),
        format!("{host} login: "),
    ]);
    lines.join("\r\n")
}

fn kernel(platform: Platform) -> Vec<String> {
    let (version, root) = match platform {
        Platform::AmazonLinux => ("6.1.79-99.167.amzn2023.x86_64", "Amazon Linux 2023"),
        Platform::Ubuntu => ("6.5.0-1014-aws", "Ubuntu 22.04.4 LTS"),
    };
    vec![
        format!("[    0.000000] Linux version {version} (mockbuild@ip-10-0-40-2) #1 SMP PREEMPT_DYNAMIC"),
        "[    0.000000] Command line: root=UUID=c8a2b5d1 ro console=tty0 console=ttyS0,115200n8".to_owned(),
        "[    0.000000] Hypervisor detected: KVM".to_owned(),
        "[    0.218450] ACPI: bus type PCI registered".to_owned(),
        "[    1.640233] ena 0000:00:05.0: Elastic Network Adapter (ENA) found at mem febf4000".to_owned(),
        format!("Welcome to \u{1b}[0;33m{root}\u{1b}[0m!"),
        "[  \u{1b}[0;32mOK\u{1b}[0m  ] Started \u{1b}[0;1;39msshd-keygen.target\u{1b}[0m - OpenSSH Server Key Generation.".to_owned(),
    ]
}

/// The first block that cloud-init prints. The prefix comes from `logger`.
fn fingerprints(keys: &HostKeys) -> Vec<String> {
    let rule = "#".repeat(61);
    let line = |key: &PublicKey, size: u16, name: &str| {
        format!("{size} {} {} ({name})", key.fingerprint(HashAlg::Sha256), key.comment())
    };
    let lines = [
        String::new(),
        rule.clone(),
        "-----BEGIN SSH HOST KEY FINGERPRINTS-----".to_owned(),
        line(&keys.ecdsa, 256, "ECDSA"),
        line(&keys.ed25519, 256, "ED25519"),
        "-----END SSH HOST KEY FINGERPRINTS-----".to_owned(),
        rule,
    ];
    lines.map(|line| format!("ec2: {line}")).to_vec()
}

fn greeting(platform: Platform) -> &'static str {
    match platform {
        Platform::AmazonLinux => "Amazon Linux 2023\r\nKernel 6.1.79-99.167.amzn2023.x86_64 on an x86_64 (-)",
        Platform::Ubuntu => "Ubuntu 22.04.4 LTS ttyS0",
    }
}

const GENERATION: [&str; 4] = [
    "[    6.204810] cloud-init[1318]: Generating public/private ed25519 key pair.",
    "[    6.204817] cloud-init[1318]: Your public key has been saved in /etc/ssh/ssh_host_ed25519_key.pub",
    "[    6.239911] cloud-init[1318]: Generating public/private ecdsa key pair.",
    "[    6.239918] cloud-init[1318]: Your public key has been saved in /etc/ssh/ssh_host_ecdsa_key.pub",
];
const NOTED_AFTER: Duration = Duration::from_secs(4 * 60);
