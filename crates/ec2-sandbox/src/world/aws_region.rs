//! The AWS regions behind the one endpoint, and the names that AWS derives from them.
//!
//! Their names are real, since clients look up the partition. All are older than the opt-in for regions.

use std::fmt;

/// One of the regions.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum AwsRegion {
    UsEast1,
    UsWest2,
    EuWest1,
    ApSoutheast2,
}

impl AwsRegion {
    /// The default region of the environment and of unsigned calls.
    pub(crate) const HOME: Self = Self::UsEast1;

    /// Every region, the home first.
    pub(crate) const ALL: [Self; 4] = [Self::UsEast1, Self::UsWest2, Self::EuWest1, Self::ApSoutheast2];

    /// The region with this name.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|region| region.name() == name)
    }

    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::UsEast1 => "us-east-1",
            Self::UsWest2 => "us-west-2",
            Self::EuWest1 => "eu-west-1",
            Self::ApSoutheast2 => "ap-southeast-2",
        }
    }

    /// The country, as DescribeRegions names it.
    pub(crate) fn geography(self) -> &'static str {
        match self {
            Self::UsEast1 | Self::UsWest2 => "United States of America",
            Self::EuWest1 => "Ireland",
            Self::ApSoutheast2 => "Australia",
        }
    }

    /// The domain of its instances' private DNS names.
    pub(crate) fn private_domain(self) -> String {
        match self {
            Self::UsEast1 => "ec2.internal".to_owned(),
            _ => format!("{self}.compute.internal"),
        }
    }

    /// The domain of its instances' public DNS names.
    pub(crate) fn public_domain(self) -> String {
        match self {
            Self::UsEast1 => "compute-1.amazonaws.com".to_owned(),
            _ => format!("{self}.compute.amazonaws.com"),
        }
    }

    /// The second number of its private addresses, so that no address is in two regions.
    pub(crate) fn network(self) -> u8 {
        match self {
            Self::UsEast1 => 0,
            Self::UsWest2 => 64,
            Self::EuWest1 => 128,
            Self::ApSoutheast2 => 192,
        }
    }
}

impl fmt::Display for AwsRegion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_is_known_by_its_name_alone() {
        for region in AwsRegion::ALL {
            assert_eq!(AwsRegion::parse(&region.to_string()), Some(region));
        }
        for name in ["", "US-EAST-1", "us-east-1a", "eu-central-1"] {
            assert_eq!(AwsRegion::parse(name), None, "{name}");
        }
    }
}
