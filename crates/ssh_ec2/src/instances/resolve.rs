//! Resolves a target, as the user typed it, to one instance and the user on it.
//!
//! One call with a filter, or none if the cache has the answer. An ambiguous target is an error, never a
//! guess. A target that is not found is searched in other regions, so that the error can name them.

mod error;

use std::cell::RefCell;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use futures_util::future::join_all;
use tokio::time::{sleep, timeout};

pub(crate) use self::error::{Candidate, ResolveError, not_running_hint};
use crate::aws::{Aws, AwsError, Filter, Instance, InstanceState};
use crate::instances::cache::{Cache, Entry, Key, Scope, Turn};
use crate::instances::default_user;
use crate::target::{InstanceId, OsUser, Target};

/// How to choose among several matching instances.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Choice {
    /// More than one match is an error.
    #[default]
    Unique,
    /// The instance that was started last.
    Newest,
    /// Any of them; which one is unspecified.
    Any,
}

/// The result for one target.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Resolved {
    /// The instance's id.
    pub id: InstanceId,
    /// The user from the instance's tag or its platform, if one is known.
    pub user: Option<OsUser>,
    /// Whether the cache has answered, whose entry may be stale.
    pub cached: bool,
    /// Whether EC2's description of the instance was read, now or when the entry was cached, so that it need
    /// not be read again to find the user.
    pub described: bool,
}

/// Resolves targets in one account and region.
pub(crate) struct Resolver<'a> {
    aws: &'a Aws,
    cache: &'a Cache,
    scope: Scope,
}

impl<'a> Resolver<'a> {
    /// Makes no call yet.
    pub(crate) fn new(aws: &'a Aws, cache: &'a Cache) -> Self {
        Self { aws, cache, scope: scope(aws) }
    }

    /// The instance of `target`. An id needs no call.
    ///
    /// # Errors
    ///
    /// [`ResolveError`].
    pub(crate) async fn instance(&self, target: &Target, choice: Choice) -> Result<Resolved, ResolveError> {
        if let Target::Id(id) = target {
            return Ok(Resolved { id: id.clone(), user: None, cached: false, described: false });
        }
        let key = key(target, choice);
        let _turn = match self.turn(&key).await {
            Ok(turn) => turn,
            Err(found) => return Ok(found),
        };
        let instance = self.search(target, choice).await?;
        tracing::info!("{target} is {} ({})", instance.id, instance.name().unwrap_or("without a name"));
        let user = user_of(&instance);
        self.keep(&key, &instance.id, user.clone()).await;
        Ok(Resolved { id: instance.id, user, cached: false, described: true })
    }

    /// The user to log in as if none was given: from the instance's tag, else the default user of its system.
    /// None if the caller has no permission for the calls, or they fail.
    pub(crate) async fn user(&self, resolved: &Resolved) -> Option<OsUser> {
        if resolved.user.is_some() {
            return resolved.user.clone();
        }
        let id = &resolved.id;
        let key = Key::of(&["id", id.as_str()]);
        if let Some(known) = self.cache.find(&self.scope, &key, SystemTime::now()) {
            return known.user;
        }
        let Ok(Ok(user)) = timeout(USER_TIMEOUT, self.ask_for_user(id, resolved)).await else { return None };
        // An unknown user is cached too, or each connection would repeat the calls.
        self.keep(&key, id, user.clone()).await;
        user
    }

    /// Removes a stale entry, so that EC2 is asked the next time.
    pub(crate) async fn forget(&self, target: &Target, choice: Choice) {
        self.cache.forget(&self.scope, &key(target, choice)).await;
    }

    async fn keep(&self, key: &Key, id: &InstanceId, user: Option<OsUser>) {
        let entry = Entry { id: id.clone(), user };
        self.cache.keep(&self.scope, &[(key.clone(), entry)], SystemTime::now()).await;
    }

    /// `Ok` is the turn to ask EC2. `Err` is no failure: it is the instance from the cache, for which EC2
    /// need not be asked. While another process has the turn, this waits for its result in the cache.
    async fn turn(&self, key: &Key) -> Result<Turn, Resolved> {
        let mut waited = Duration::ZERO;
        loop {
            if let Some(Entry { id, user }) = self.cache.find(&self.scope, key, SystemTime::now()) {
                tracing::info!("{id} is in the cache");
                return Err(Resolved { id, user, cached: true, described: true });
            }
            match self.cache.try_turn(&self.scope, key) {
                // Another process may have stored it since.
                Some(turn) if self.cache.find(&self.scope, key, SystemTime::now()).is_none() => {
                    return Ok(turn);
                }
                Some(_) => {}
                None if waited >= TURN_TIMEOUT => return Ok(Turn::without()),
                None => {
                    sleep(TURN_INTERVAL).await;
                    waited += TURN_INTERVAL;
                }
            }
        }
    }

    async fn search(&self, target: &Target, choice: Choice) -> Result<Instance, ResolveError> {
        let mut found = Vec::new();
        for (attempt, filter) in filters(target).into_iter().enumerate() {
            match self.aws.describe_instances(&[filter, running()]).await {
                Ok(these) => found = these,
                Err(error) if attempt == 0 => return Err(error.into()),
                // Not every endpoint supports the less common filters.
                Err(error) => tracing::info!("{error}"),
            }
            if !found.is_empty() {
                break;
            }
        }
        if let Target::Name(name) = target
            && has_wildcards(name)
            && found.iter().any(|instance| instance.name() == Some(name))
        {
            // The name itself has a wildcard character.
            found.retain(|instance| instance.name() == Some(name));
        }
        found.sort_by(|a, b| b.launched.cmp(&a.launched).then_with(|| a.id.as_str().cmp(b.id.as_str())));
        match (found.len(), choice) {
            (0, _) => Err(self.not_found(target).await),
            (1, _) | (_, Choice::Newest | Choice::Any) => Ok(found.swap_remove(0)),
            _ => {
                let candidates = found.iter().map(|instance| Candidate {
                    id: instance.id.clone(),
                    name: instance.name().unwrap_or_default().chars().take(NAME_LENGTH).collect(),
                    availability_zone: instance.availability_zone.clone(),
                    launched: instance.launched,
                });
                Err(ResolveError::Several { target: target.clone(), candidates: candidates.collect() })
            }
        }
    }

    /// Why no running instance matches: the match is stopped, or in another region.
    async fn not_found(&self, target: &Target) -> ResolveError {
        let stopped = async {
            for filter in filters(target) {
                if let Some(instance) = self.aws.describe_instances(&[filter]).await.ok()?.into_iter().next()
                {
                    return Some(instance);
                }
            }
            None
        };
        let elsewhere = RefCell::new(Vec::new());
        // After the time-out, the regions found so far are reported.
        let (stopped, _) = tokio::join!(
            timeout(NOT_FOUND_TIMEOUT, stopped),
            timeout(NOT_FOUND_TIMEOUT, self.elsewhere(target, &elsewhere)),
        );
        match stopped.ok().flatten() {
            Some(Instance { id, state: InstanceState::Other(state), .. }) => {
                ResolveError::NotRunning { target: target.clone(), instance: id, state }
            }
            _ => ResolveError::NotFound {
                target: target.clone(),
                region: self.aws.region().to_owned(),
                elsewhere: elsewhere.into_inner(),
            },
        }
    }

    /// Searches the other regions concurrently. A failed call is left out.
    async fn elsewhere(&self, target: &Target, elsewhere: &RefCell<Vec<(String, InstanceId)>>) {
        let Ok(regions) = self.aws.describe_regions().await else { return };
        let others = regions.into_iter().filter(|region| region != self.aws.region());
        let looks = others.map(async |region| {
            let Ok(there) = self.aws.in_region(&region) else { return };
            for filter in filters(target) {
                let Ok(found) = there.describe_instances(&[filter, running()]).await else { return };
                if let Some(instance) = found.into_iter().next() {
                    return elsewhere.borrow_mut().push((region, instance.id));
                }
            }
        });
        join_all(looks).await;
    }

    /// None if the user cannot be known; an error if the calls fail for another reason than permissions.
    async fn ask_for_user(&self, id: &InstanceId, resolved: &Resolved) -> Result<Option<OsUser>, AwsError> {
        if !resolved.described && !id.is_managed_node() {
            let filter = Filter::new("instance-id", id.as_str());
            let found = allowed(self.aws.describe_instances(&[filter]).await)?;
            let user = found.and_then(|found| found.first().and_then(user_of));
            if user.is_some() {
                return Ok(user);
            }
        }
        let managed = allowed(self.aws.managed(id).await)?;
        let Some(managed) = managed.flatten() else { return Ok(None) };
        tracing::info!("Session Manager says that {id} runs {}", managed.platform);
        Ok(default_user::of_system(&managed.platform).and_then(|user| user.parse().ok()))
    }
}

/// Another region that has the instance. A failed call is left out.
pub(crate) async fn region_of(aws: &Aws, instance: &InstanceId) -> Option<String> {
    let regions = aws.describe_regions().await.ok()?;
    let filters = [Filter::new("instance-id", instance.as_str())];
    let looks = regions.into_iter().filter(|region| region != aws.region()).map(async |region| {
        let there = aws.in_region(&region).ok()?;
        let found = there.describe_instances(&filters).await.ok()?;
        (!found.is_empty()).then_some(region)
    });
    join_all(looks).await.into_iter().flatten().next()
}

/// None if IAM denies the call, which will not change soon, so the result can be cached.
fn allowed<T>(result: Result<T, AwsError>) -> Result<Option<T>, AwsError> {
    match result {
        Err(AwsError::AccessDenied { .. }) => Ok(None),
        result => result.map(Some),
    }
}

/// The user from the instance's tag, else the default user of its platform.
pub(crate) fn user_of(instance: &Instance) -> Option<OsUser> {
    if let Some(tag) = instance.tag(default_user::USER_TAG) {
        match tag.parse() {
            Ok(user) => return Some(user),
            Err(_) => tracing::warn!("the tag {} of {} names no user", default_user::USER_TAG, instance.id),
        }
    }
    default_user::of_instance(&instance.platform_details, &instance.root_device)?.parse().ok()
}

/// The scope in which the cache keeps the names of this account and region.
pub(crate) fn scope(aws: &Aws) -> Scope {
    Scope { account: aws.account_name(), region: aws.region().to_owned(), endpoint: aws.instances_endpoint() }
}

fn key(target: &Target, choice: Choice) -> Key {
    let kind = match target {
        Target::Id(_) => "id",
        Target::Name(name) if choice == Choice::Unique => return Key::name(name),
        Target::Name(_) => "name",
        Target::Tag { .. } => "tag",
        Target::Address(_) => "address",
        Target::DnsName(_) => "dns",
        Target::AutoScalingGroup(_) => "group",
    };
    let choice = match choice {
        Choice::Unique => "",
        Choice::Newest => "newest",
        Choice::Any => "any",
    };
    Key::of(&[kind, &target.to_string(), choice])
}

/// The filters that find a target, to try in turn: EC2 cannot combine different filters with "or".
fn filters(target: &Target) -> Vec<Filter> {
    match target {
        Target::Id(id) => vec![Filter::new("instance-id", id.as_str())],
        Target::Name(name) => vec![Filter::new("tag:Name", name.replace('\\', r"\\"))],
        Target::Tag { key, value } => vec![Filter::new(format!("tag:{key}"), value)],
        Target::AutoScalingGroup(group) => vec![Filter::new("tag:aws:autoscaling:groupName", group)],
        Target::Address(address) => {
            let text = address.to_string();
            let names: &[&str] = match address {
                IpAddr::V4(address) if address.is_private() => &[PRIVATE_ADDRESS, ANY_ADDRESS, "ip-address"],
                IpAddr::V4(_) => &["ip-address", PRIVATE_ADDRESS, ANY_ADDRESS],
                IpAddr::V6(_) => &["network-interface.ipv6-addresses.ipv6-address"],
            };
            names.iter().map(|name| Filter::new(*name, &text)).collect()
        }
        Target::DnsName(name) if name.ends_with(".internal") => vec![Filter::new("private-dns-name", name)],
        Target::DnsName(name) => vec![Filter::new("dns-name", name)],
    }
}

fn running() -> Filter {
    Filter::new("instance-state-name", "running")
}

fn has_wildcards(name: &str) -> bool {
    name.contains(['*', '?'])
}

/// EC2's limit for tag values. Another endpoint may return a longer one, and the table of candidates has
/// columns as wide as the longest name: with a width above 65,535 `format!` panics.
const NAME_LENGTH: usize = 256;
const PRIVATE_ADDRESS: &str = "private-ip-address";
/// Includes secondary addresses.
const ANY_ADDRESS: &str = "network-interface.addresses.private-ip-address";
/// The time limit of the search for the causes of an unknown name.
const NOT_FOUND_TIMEOUT: Duration = Duration::from_secs(3);
/// After this the user is unknown, and a connection uses [`DEFAULT_USER`](default_user::DEFAULT_USER).
const USER_TIMEOUT: Duration = Duration::from_secs(5);
/// Longer than a call without retries takes. With retries it may take longer; then both processes call EC2.
const TURN_TIMEOUT: Duration = Duration::from_secs(10);
const TURN_INTERVAL: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_another_key_than_any_other_target() {
        let of = |target: &Target| key(target, Choice::Unique);
        for text in ["10.1.2.3", "tag:Team=web", "asg:x", "ip-10-0-0-1.ec2.internal", "i-0a1b2c3d"] {
            assert_ne!(of(&text.parse().unwrap()), of(&Target::Name(text.into())), "{text}");
        }
        let name = Target::Name("dup".into());
        assert_ne!(key(&name, Choice::Newest), of(&Target::Name("dup --newest".into())));
        assert_ne!(key(&name, Choice::Newest), key(&name, Choice::Any));
        assert_eq!(of(&name), Key::name("dup"), "lists store names under the same key");
    }

    #[test]
    fn addresses_are_searched_in_the_likeliest_place_first() {
        let names = |text: &str| {
            let filters = filters(&text.parse().unwrap());
            filters.into_iter().map(|filter| filter.name).collect::<Vec<_>>()
        };
        assert_eq!(names("10.1.2.3"), [PRIVATE_ADDRESS, ANY_ADDRESS, "ip-address"]);
        assert_eq!(names("203.0.113.9"), ["ip-address", PRIVATE_ADDRESS, ANY_ADDRESS]);
        assert_eq!(names("ip-10-0-0-1.ec2.internal"), ["private-dns-name"]);
        assert_eq!(names("ec2-203-0-113-9.compute-1.amazonaws.com"), ["dns-name"]);
    }
}
