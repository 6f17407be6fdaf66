//! Where the credentials come from, and how the user renews them. (Pure.)

use std::fmt;

/// Where credentials come from, in the detail that a hint to renew them needs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum SignIn {
    /// `AWS_ACCESS_KEY_ID` and its companions.
    Environment,
    /// A profile, or the source that is tried without one.
    Profile {
        /// The name. None if none was given: then it is the default profile.
        name: Option<String>,
        /// How the credentials are renewed.
        renewal: Renewal,
    },
}

/// How the credentials of a profile are renewed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Renewal {
    /// There is no such profile: only the instance profile of this machine could give credentials.
    Absent,
    /// `login_session`: by `aws login`.
    AwsLogin,
    /// `credential_process`: by a program.
    Process,
    /// An SSO session or start URL: by `aws sso login`.
    Sso,
    /// Keys in a file, the instance profile of this machine, or nothing at all.
    Unknown,
}

impl SignIn {
    /// Whether nothing can renew the credentials while this process runs.
    pub(crate) fn is_fixed(&self) -> bool {
        matches!(self, Self::Environment)
    }

    /// How to renew the credentials, an action a line.
    pub(crate) fn hints(&self) -> Vec<String> {
        let Self::Profile { name, renewal } = self else {
            return vec![
                "renew AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN together, AWS_CREDENTIAL_EXPIRATION too if it is set, or unset them to use a profile"
                    .into(),
            ];
        };
        let option = name.as_ref().map(|name| format!(" --profile {name}")).unwrap_or_default();
        let hint = match renewal {
            Renewal::Absent => {
                "sign in with `aws configure sso` or `aws login`, or name a profile with `--profile` or AWS_PROFILE".into()
            }
            Renewal::AwsLogin => format!("sign in again: `aws login{option}`"),
            Renewal::Process => {
                "run the `credential_process` of the profile by hand to see what it says".into()
            }
            Renewal::Sso => format!("sign in again: `aws sso login{option}`"),
            Renewal::Unknown => format!(
                "make `aws sts get-caller-identity{option}` work first, or name another profile with `--profile`"
            ),
        };
        vec![hint]
    }
}

impl fmt::Display for SignIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Environment => f.write_str("the environment"),
            Self::Profile { name: Some(name), .. } => write!(f, "profile {name}"),
            Self::Profile { name: None, .. } => f.write_str("the default profile"),
        }
    }
}
