//! Lists all instances of several accounts and regions, concurrently.
//!
//! EC2 lists the instances, Systems Manager the state of their SSM agents. Both answer in pages, and each
//! page is reported as it arrives. An error in one region does not affect the others.

use std::collections::HashMap;
use std::time::SystemTime;

use futures_util::future::join_all;

use crate::aws::{Aws, AwsError, Filter, Instance, InstanceState, Managed, Settings};
use crate::instances::cache::{Cache, Entry, Key};
use crate::instances::resolve::{scope, user_of};
use crate::net::network::Network;
use crate::system::age::Age;
use crate::target::{InstanceId, Target};

/// A region of an account.
#[derive(Debug)]
pub(crate) struct Place {
    /// The profile, if the user named one.
    pub profile: Option<String>,
    aws: Aws,
}

/// A page of a list, or the error that ended it. The number is the index of the [`Place`].
#[derive(Debug)]
pub(crate) enum Update {
    /// Instances in EC2.
    Instances(usize, Vec<Instance>),
    /// SSM agents in Systems Manager.
    Managed(Vec<Managed>),
    /// A call to EC2 failed.
    Failed(usize, AwsError),
    /// A call to Systems Manager failed.
    Unmanaged(usize, AwsError),
}

impl Place {
    /// The name of the region.
    pub(crate) fn region(&self) -> &str {
        self.aws.region()
    }

    /// The client for calls in this region.
    pub(crate) fn aws(&self) -> &Aws {
        &self.aws
    }
}

impl Managed {
    /// The agent's state in a column: `online`, or since when it is not.
    pub(crate) fn describe(&self, now: SystemTime) -> String {
        match self.last_ping {
            _ if self.online => "online".into(),
            Some(ping) => format!("lost {} ago", Age::between(ping, now)),
            None => "lost".into(),
        }
    }
}

/// The places of the options: one for each profile, or one for each region of each profile.
///
/// # Errors
///
/// When a profile cannot be used, or its regions cannot be listed.
pub(crate) async fn places(
    profiles: &[String],
    common: &Settings,
    all_regions: bool,
    network: &Network,
) -> Result<Vec<Place>, AwsError> {
    let profiles: Vec<_> = match profiles {
        [] => vec![None],
        named => named.iter().cloned().map(Some).collect(),
    };
    let mut places = Vec::new();
    // One after the other, since each profile may ask the user for a code or a sign-in.
    for profile in profiles {
        let aws = Aws::load(&Settings { profile: profile.clone(), ..common.clone() }, network).await?;
        aws.sign_in().await?;
        if !all_regions {
            places.push(Place { profile, aws });
            continue;
        }
        let mut regions = aws.describe_regions().await?;
        regions.sort();
        for region in regions {
            places.push(Place { profile: profile.clone(), aws: aws.in_region(&region)? });
        }
    }
    Ok(places)
}

/// Lists all places concurrently, and reports each page as it arrives.
pub(crate) async fn search(places: &[Place], filters: &[Filter], report: impl Fn(Update)) {
    let report = &report;
    let lists = (0..).zip(places).map(async |(index, place)| {
        tokio::join!(instances(index, &place.aws, filters, report), managed(index, &place.aws, report));
    });
    join_all(lists).await;
}

async fn instances(index: usize, aws: &Aws, filters: &[Filter], report: &impl Fn(Update)) {
    let mut token = None;
    for _ in 0..PAGES {
        match aws.describe_page(filters, token.as_deref()).await {
            Err(error) => return report(Update::Failed(index, error)),
            Ok((page, next)) => {
                report(Update::Instances(index, page));
                token = next;
            }
        }
        if token.is_none() {
            return;
        }
    }
}

async fn managed(index: usize, aws: &Aws, report: &impl Fn(Update)) {
    let mut token = None;
    for _ in 0..PAGES {
        match aws.describe_managed(token.as_deref()).await {
            Err(error) => return report(Update::Unmanaged(index, error)),
            Ok((page, next)) => {
                report(Update::Managed(page));
                token = next;
            }
        }
        if token.is_none() {
            return;
        }
    }
}

/// Caches the names that exactly one running instance of an account and region has, for later connections and
/// completions, and drops all others. `instances` must have all running instances there.
pub(crate) async fn remember<'a>(
    place: &Place,
    instances: impl Iterator<Item = &'a Instance>,
    cache: &Cache,
) {
    let mut names: HashMap<&str, Vec<&Instance>> = HashMap::new();
    for instance in instances.filter(|instance| instance.state == InstanceState::Running) {
        if let Some(name) = instance.name().filter(|name| name.len() <= NAME_SIZE) {
            names.entry(name).or_default().push(instance);
        }
    }
    let unique = names.into_iter().filter_map(|(name, instances)| match instances[..] {
        // A name that looks like an address, say, is resolved as an address.
        [instance] if name.parse() == Ok(Target::Name(name.to_owned())) => {
            Some((Key::name(name), entry(instance)))
        }
        _ => None,
    });
    cache.keep_all_names(&scope(&place.aws), &unique.collect::<Vec<_>>(), SystemTime::now()).await;
}

fn entry(instance: &Instance) -> Entry {
    Entry { id: InstanceId::clone(&instance.id), user: user_of(instance) }
}

/// More pages than an account's instances fill; bounds a server that never ends a list.
const PAGES: usize = 1000;
/// The longest name that is cached, in bytes: EC2's limit is 256 characters.
const NAME_SIZE: usize = 1024;
