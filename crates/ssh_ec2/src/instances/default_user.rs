//! The default user of an image. (Pure.)
//!
//! Source: "Connect to your Linux instance", default user names, in the EC2 User Guide
//! (<https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/managing-users.html>), and the images' own pages for
//! those that are not in it (Kali, Oracle Linux).

/// The default user by the system's name in Session Manager or EC2: `Ubuntu`, `Amazon Linux`.
pub(crate) fn of_system(name: &str) -> Option<&'static str> {
    let name = name.to_ascii_lowercase();
    USERS.iter().find(|(word, _)| name.contains(word)).map(|(_, user)| *user)
}

/// The default user by EC2's description of the instance.
///
/// EC2 calls Amazon Linux, Ubuntu and Debian alike `Linux/UNIX`. Their images differ in the root volume's
/// name: `/dev/xvda` for Amazon Linux (and the less common Debian), `/dev/sda1` for all others.
pub(crate) fn of_instance(platform_details: &str, root_device: &str) -> Option<&'static str> {
    of_system(platform_details).or((root_device == "/dev/xvda").then_some(DEFAULT_USER))
}

/// The default user by sshd's greeting, which may name the system: `SSH-2.0-OpenSSH_9.6p1 Ubuntu-3ubuntu13`.
pub(crate) fn of_banner(line: &str) -> Option<&'static str> {
    let comment = line.split_once(' ')?.1;
    of_system(comment)
}

/// Whether sshd rejects the connection instead of sending its greeting: the texts of `MaxStartups` and
/// `PerSourcePenalties` (OpenSSH, `srclimit.c` and `sshd.c`).
pub(crate) fn is_turned_away(line: &str) -> bool {
    line.starts_with("Exceeded MaxStartups") || line.starts_with("Not allowed at this time")
}

/// The user of an unknown system.
pub(crate) const DEFAULT_USER: &str = "ec2-user";
/// The users to suggest when one is refused, the most common first.
pub(crate) const COMMON_USERS: [&str; 7] =
    ["ec2-user", "ubuntu", "admin", "rocky", "centos", "fedora", "bitnami"];
/// The tag that names an instance's user.
pub(crate) const USER_TAG: &str = "ssh_ec2:user";
/// Default users by a word of the system's name, in lower case. The first word that occurs counts.
const USERS: [(&str, &str); 17] = [
    ("bitnami", "bitnami"),
    ("ubuntu", "ubuntu"),
    ("debian", "admin"),
    ("rocky", "rocky"),
    ("centos", "centos"),
    ("fedora", "fedora"),
    ("kali", "kali"),
    ("freebsd", "ec2-user"),
    ("alma", "ec2-user"),
    ("amazon", "ec2-user"),
    ("bottlerocket", "ec2-user"),
    ("macos", "ec2-user"),
    ("mac os", "ec2-user"),
    ("oracle", "ec2-user"),
    ("red hat", "ec2-user"),
    ("rhel", "ec2-user"),
    ("suse", "ec2-user"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_sshd_that_turns_a_connection_away_is_recognized() {
        for line in ["Exceeded MaxStartups", "Not allowed at this time"] {
            assert!(is_turned_away(line), "{line}");
        }
        assert!(!is_turned_away("HTTP/1.1 400 Bad Request"));
    }

    #[test]
    fn systems_have_the_users_that_their_images_were_made_with() {
        for (system, user) in [
            ("Amazon Linux", Some("ec2-user")),
            ("Ubuntu", Some("ubuntu")),
            ("Ubuntu Pro", Some("ubuntu")),
            ("Debian GNU/Linux", Some("admin")),
            ("Rocky Linux", Some("rocky")),
            ("AlmaLinux", Some("ec2-user")),
            ("CentOS Stream", Some("centos")),
            ("Red Hat Enterprise Linux Server", Some("ec2-user")),
            ("SUSE Linux", Some("ec2-user")),
            ("Linux/UNIX", None),
            ("", None),
        ] {
            assert_eq!(of_system(system), user, "{system}");
        }
        assert_eq!(of_instance("Linux/UNIX", "/dev/xvda"), Some("ec2-user"));
        assert_eq!(of_instance("Linux/UNIX", "/dev/sda1"), None);
        assert_eq!(of_banner("SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3"), Some("admin"));
        assert_eq!(of_banner("SSH-2.0-OpenSSH_8.7"), None);
    }
}
