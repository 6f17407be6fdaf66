//! The files of an instance: a directory that stands for its root, in which a session's commands find what
//! they would find on a real one.
//!
//! Nothing is isolated. A command runs on this machine and sees its files; only the few that differ
//! between instances are the instance's own, and so are some programs.

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
    /// The directory of `instance` below `parent`, with its files if it is new.
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

    /// Where whoever logs in is at home.
    pub(super) fn home(&self) -> PathBuf {
        self.0.join("home")
    }

    /// Where the files are that a real sshd is started with.
    pub(super) fn sshd(&self) -> PathBuf {
        self.0.join("sshd")
    }

    /// Has a word of a command name the instance's own files where it names those that instances have for
    /// themselves. The text is replaced wherever it stands, in a script for `sh -c` too: what the region is
    /// asked to run has no other use for these names.
    pub(super) fn rewrite(&self, word: &str) -> String {
        OWN_PATHS
            .iter()
            .fold(word.to_owned(), |word, path| word.replace(path, &format!("{}{path}", self.0.display())))
    }
}

/// The programs of instances that are not this machine's. They are written before any command runs: as long
/// as a process that is being started still holds such a file open for writing, it cannot be run.
pub(super) fn write_programs(directory: &Path) -> io::Result<()> {
    for (name, script) in PROGRAMS {
        let file = directory.join(name);
        fs::create_dir_all(file.parent().unwrap_or(directory))?;
        write_program(&file, script)?;
    }
    Ok(())
}

/// Where an instance looks for programs, given where [`write_programs`] has put them.
pub(super) fn program_path(directory: &Path, instance: &Instance) -> String {
    let usual = format!("{}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", directory.display());
    let own = match instance.condition {
        Condition::ClockAhead => "ahead",
        Condition::SeLinux => "selinux",
        _ => return usual,
    };
    format!("{}:{usual}", directory.join(own).display())
}

/// What is set of sshd's options, as far as keys are concerned.
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
    // The umask may have taken something away.
    file.set_permissions(fs::Permissions::from_mode(0o755))
}

/// The last two would show that this machine is a container.
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

/// Who may log in is asked of the region, and not of this.
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
    // This machine may have one.
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
