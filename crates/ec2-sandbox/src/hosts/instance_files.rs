//! The files of an instance: a directory in the place of `/`, with the files that a session's commands would
//! find on a real instance.
//!
//! Nothing is isolated. A command runs on this machine and sees its files. Only the few files and programs
//! that differ between instances are the instance's own.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use crate::world::{Condition, HostKeys, Instance};

/// The directory of an instance.
#[derive(Clone, Debug)]
pub(super) struct InstanceFiles(PathBuf);

impl InstanceFiles {
    /// The directory of `instance` in `parent`. Writes its files if it is new.
    pub(super) fn lay_out(parent: &Path, instance: &Instance, keys: &HostKeys) -> io::Result<Self> {
        let files = Self(parent.join(&instance.id));
        if files.0.exists() {
            return Ok(files);
        }
        let directories =
            ["home", "sshd", "etc/ssh", "opt/aws/bin", "proc/sys/crypto", "usr/share/ec2-instance-connect"];
        for directory in directories {
            fs::create_dir_all(files.0.join(directory))?;
        }
        let [ecdsa, ed25519] = keys.lines();
        let etc = files.0.join("etc/ssh");
        fs::write(etc.join("ssh_host_ecdsa_key.pub"), ecdsa + "\n")?;
        fs::write(etc.join("ssh_host_ed25519_key.pub"), ed25519 + "\n")?;
        fs::write(etc.join("sshd_config"), sshd_config(instance))?;
        let is_fips = u8::from(instance.condition == Condition::Fips);
        fs::write(files.0.join("proc/sys/crypto/fips_enabled"), format!("{is_fips}\n"))?;
        if instance.condition != Condition::InstanceConnectAbsent {
            write_program(&files.0.join("opt/aws/bin/eic_run_authorized_keys"), NO_KEYS)?;
        }
        Ok(files)
    }

    /// The home directory of every user who logs in.
    pub(super) fn home(&self) -> PathBuf {
        self.0.join("home")
    }

    /// The directory for sshd's configuration, host keys and authorized keys.
    pub(super) fn sshd(&self) -> PathBuf {
        self.0.join("sshd")
    }

    /// Replaces the paths of [`OWN_PATHS`] in a word of a command by paths in this directory. The text is
    /// replaced everywhere in the word, also in a script for `sh -c`: the commands that the region runs have
    /// no other use for these paths.
    pub(super) fn rewrite(&self, word: &str) -> String {
        OWN_PATHS
            .iter()
            .fold(word.to_owned(), |word, path| word.replace(path, &format!("{}{path}", self.0.display())))
    }
}

/// Writes the programs that instances have in the place of this machine's. This happens before any command
/// runs: a file that another process still holds open for writing cannot be executed (ETXTBSY), and a process
/// that is being started inherits such a descriptor.
pub(super) fn write_programs(directory: &Path) -> io::Result<()> {
    for (name, script) in PROGRAMS {
        let file = directory.join(name);
        fs::create_dir_all(file.parent().unwrap_or(directory))?;
        write_program(&file, script)?;
    }
    Ok(())
}

/// PATH on an instance, with the directory of [`write_programs`].
pub(super) fn program_path(directory: &Path, instance: &Instance) -> String {
    let usual = format!("{}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", directory.display());
    let own = match instance.condition {
        Condition::ClockAhead => "ahead",
        Condition::SeLinux => "selinux",
        _ => return usual,
    };
    format!("{}:{usual}", directory.join(own).display())
}

/// The options in the instance's `sshd_config` that concern keys. Commands read this file; the region's
/// servers do not.
fn sshd_config(instance: &Instance) -> String {
    let mut text = "AuthorizedKeysFile .ssh/authorized_keys\n".to_owned();
    if !matches!(instance.condition, Condition::InstanceConnectAbsent | Condition::KeysCommandAbsent) {
        text.push_str(
            "AuthorizedKeysCommand /opt/aws/bin/eic_run_authorized_keys %u %f\n\
             AuthorizedKeysCommandUser ec2-instance-connect\n",
        );
    }
    if instance.condition == Condition::PublicKeysOff {
        text.push_str("PubkeyAuthentication no\n");
    }
    text
}

fn write_program(file: &Path, script: &str) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o700).open(file)?;
    file.write_all(script.as_bytes())?;
    // The umask may have removed permissions.
    file.set_permissions(fs::Permissions::from_mode(0o755))
}

/// On an instance the last two do not exist; here they would if this machine is a container.
const OWN_PATHS: [&str; 9] = [
    "/etc/ssh/",
    "/etc/crypto-policies/",
    "/etc/nologin",
    "/run/nologin",
    "/opt/aws/",
    "/proc/sys/crypto/",
    "/usr/share/ec2-instance-connect/",
    "/.dockerenv",
    "/run/.containerenv",
];

/// Never run: the region's servers look up pushed keys themselves (`authorized_keys.rs`).
const NO_KEYS: &str = "#!/bin/sh\nexit 255\n";
const PROGRAMS: [(&str, &str); 4] = [
    (
        "id",
        "#!/bin/sh\n\
         for word do\n\
         \u{20}   [ \"$word\" != ghost ] || { echo 'id: ‘ghost’: no such user' >&2; exit 1; }\n\
         done\n\
         echo 1000\n",
    ),
    // Since this machine may have a getenforce.
    ("getenforce", "#!/bin/sh\necho 'getenforce: not found' >&2\nexit 127\n"),
    ("selinux/getenforce", "#!/bin/sh\necho Enforcing\n"),
    (
        "ahead/date",
        "#!/bin/sh\n\
         [ \"$*\" = +%s ] || exec /bin/date \"$@\"\n\
         echo $(($(/bin/date +%s) + 600))\n",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_instances_own_paths_are_replaced() {
        let files = InstanceFiles(PathBuf::from("/r"));
        let command =
            "cat /etc/ssh/sshd_config /etc/sshd /opt/aws/bin/x; ls '/usr/share/ec2-instance-connect/'";
        assert_eq!(
            files.rewrite(command),
            "cat /r/etc/ssh/sshd_config /etc/sshd /r/opt/aws/bin/x; ls '/r/usr/share/ec2-instance-connect/'"
        );
    }
}
