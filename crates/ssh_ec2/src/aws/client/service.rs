//! The services that this program calls, and the protocol of each. (Pure.)

/// A service that this program calls or signs for.
#[derive(Debug)]
pub(crate) struct Service {
    /// The service id of the SDKs, from which the names in `AWS_ENDPOINT_URL_<ID>` and in a `services`
    /// section are made.
    pub(crate) id: &'static str,
    /// First label of the host, service name in a signature, and prefix of the IAM actions.
    pub(crate) prefix: &'static str,
    pub(crate) protocol: Protocol,
    pub(crate) gov_fips: GovFips,
}

/// How a service's requests and responses are written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Protocol {
    /// AWS JSON 1.1.
    Json {
        /// What stands before the operation's name in `X-Amz-Target`.
        target: &'static str,
    },
    /// AWS Query, and EC2's variant of it: the request is a form, the response is XML.
    Query {
        /// The `Version` parameter of every call.
        version: &'static str,
    },
}

/// The host for FIPS without dual-stack in GovCloud, where every endpoint is FIPS.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum GovFips {
    /// The usual host: there is no `-fips` host.
    SameHost,
    /// A `-fips` host, as in other partitions.
    OwnHost,
}

/// AWS Systems Manager, with Session Manager.
pub(crate) const SSM: Service =
    Service { id: "SSM", prefix: "ssm", protocol: json("AmazonSSM"), gov_fips: GovFips::SameHost };

pub(crate) const INSTANCE_CONNECT: Service = Service {
    id: "EC2 Instance Connect",
    prefix: "ec2-instance-connect",
    protocol: json("AWSEC2InstanceConnectService"),
    gov_fips: GovFips::OwnHost,
};

/// Session Manager's message gateway, which takes the websockets. It has no calls; the upgrades are signed
/// for it.
pub(crate) const SSM_MESSAGES: Service =
    Service { id: "ssmmessages", prefix: "ssmmessages", protocol: json(""), gov_fips: GovFips::SameHost };

pub(crate) const EC2: Service = Service {
    id: "EC2",
    prefix: "ec2",
    protocol: Protocol::Query { version: "2016-11-15" },
    gov_fips: GovFips::SameHost,
};

/// STS, in its regional form.
pub(crate) const STS: Service = Service {
    id: "STS",
    prefix: "sts",
    protocol: Protocol::Query { version: "2011-06-15" },
    gov_fips: GovFips::SameHost,
};

/// The portal of IAM Identity Center, which gives a role's credentials for a sign-in. Its calls are not
/// signed.
pub(crate) const SSO: Service =
    Service { id: "SSO", prefix: "portal.sso", protocol: json(""), gov_fips: GovFips::SameHost };

/// The sign-in of IAM Identity Center. Its calls are not signed.
pub(crate) const SSO_OIDC: Service =
    Service { id: "SSO OIDC", prefix: "oidc", protocol: json(""), gov_fips: GovFips::SameHost };

/// AWS Sign-In, which `aws login` uses. Its calls are not signed, and its host names have a form of their
/// own.
pub(crate) const SIGN_IN: Service =
    Service { id: "Signin", prefix: "signin", protocol: json(""), gov_fips: GovFips::OwnHost };

const fn json(target: &'static str) -> Protocol {
    Protocol::Json { target }
}
