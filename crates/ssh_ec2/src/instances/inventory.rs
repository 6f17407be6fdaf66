//! Every instance of several accounts and regions, asked for side by side.
//!
//! EC2 knows the instances, Systems Manager whether their agents are heard. Both come in pages; whoever shows them
//! gets each page as it comes. A place that cannot be asked says so, and spoils nothing for the others.

use std::collections::HashMap;
use std::time::SystemTime;

use futures_util::future::join_all;

use crate::aws::{Aws, AwsError, Filter, Instance, InstanceState, Managed, Settings};
use crate::instances::cache::{Cache, Entry, Key};
use crate::instances::resolve::{scope, user_of};
use crate::net::network::Network;
use crate::system::age::Age;
use crate::target::{InstanceId, Target};

/// An account's region.
#[derive(Debug)]
pub struct Place {
    /// The profile, if one was named.
    pub profile: Option<String>,
    aws: Aws,
}

/// Something that was found.
#[derive(Debug)]
pub enum Update {
    /// Instances of the place with this index.
    Instances(usize, Vec<Instance>),
    /// What Systems Manager says of instances there.
    Managed(usize, Vec<Managed>),
    /// EC2 could not be asked there.
    Failed(usize, AwsError),
    /// Systems Manager could not be asked there.
    Unmanaged(usize, AwsError),
}

impl Place {
    /// The region's name.
    pub fn region(&self) -> &str {
        self.aws.region()
    }

    /// Who asks there.
    pub fn aws(&self) -> &Aws {
        &self.aws
    }
}

impl Managed {
    /// Whether Session Manager reaches it, and since when not.
    pub fn describe(&self, now: SystemTime) -> String {
        match self.last_ping {
            _ if self.online => "online".into(),
            Some(ping) => format!("lost {} ago", Age::between(ping, now)),
            None => "lost".into(),
        }
    }
}

/// The places that options name: one for each profile, or one for each of its regions.
///
/// # Errors
/// When a profile cannot be used, or its regions are to be listed and cannot.
pub async fn places(
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
    // One after the other, since each may have to ask a person something.
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

/// Asks all places at once, and tells of each page as it comes.
pub async fn search(places: &[Place], filters: &[Filter], tell: impl Fn(Update)) {
    let tell = &tell;
    let asked = (0..).zip(places).map(async |(index, place)| {
        tokio::join!(instances(index, &place.aws, filters, tell), managed(index, &place.aws, tell));
    });
    join_all(asked).await;
}

async fn instances(index: usize, aws: &Aws, filters: &[Filter], tell: &impl Fn(Update)) {
    let mut token = None;
    for _ in 0..PAGES {
        match aws.describe_page(filters, token.as_deref()).await {
            Err(error) => return tell(Update::Failed(index, error)),
            Ok((page, next)) => {
                tell(Update::Instances(index, page));
                token = next;
            }
        }
        if token.is_none() {
            return;
        }
    }
}

async fn managed(index: usize, aws: &Aws, tell: &impl Fn(Update)) {
    let mut token = None;
    for _ in 0..PAGES {
        match aws.describe_managed(token.as_deref()).await {
            Err(error) => return tell(Update::Unmanaged(index, error)),
            Ok((page, next)) => {
                tell(Update::Managed(index, page));
                token = next;
            }
        }
        if token.is_none() {
            return;
        }
    }
}

/// Keeps the names that mean one instance of a place, for the connections and completions that follow, and drops all
/// others. All of the place's running instances must be among `instances`.
pub async fn remember<'a>(place: &Place, instances: impl Iterator<Item = &'a Instance>, cache: &Cache) {
    let mut names: HashMap<&str, Vec<&Instance>> = HashMap::new();
    for instance in instances.filter(|instance| instance.state == InstanceState::Running) {
        if let Some(name) = instance.name().filter(|name| name.len() <= NAME_SIZE) {
            names.entry(name).or_default().push(instance);
        }
    }
    let unique = names.into_iter().filter_map(|(name, instances)| match instances[..] {
        // A name that looks like an address, say, is asked for as one.
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

/// More than an account's instances fill, whatever comes back.
const PAGES: usize = 1000;
/// In bytes: EC2 gives names no more than 256 characters. Completions show what is kept.
const NAME_SIZE: usize = 1024;
