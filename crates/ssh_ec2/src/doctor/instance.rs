//! The checks of the instance: resolving the target, its state in EC2, its SSM agent in Session Manager.

use std::ops::ControlFlow;
use std::time::{Instant, SystemTime};

use ssm_channel::SsmAgentVersion;

use super::{Finding, Subject, Walk, chain, denied};
use crate::aws::{Aws, Filter, Instance, InstanceState, Managed};
use crate::doctor::diagnosis;
use crate::doctor::report::Layer;
use crate::instances::default_user::DEFAULT_USER;
use crate::instances::resolve::{ResolveError, Resolved, Resolver};
use crate::system::age::Age;
use crate::system::text::foreign_text;
use crate::target::{InstanceId, Target};

impl Walk<'_> {
    /// Resolves the target to an instance and a user.
    pub(super) async fn find(&mut self, aws: &Aws, target: &Target) -> ControlFlow<(), Subject> {
        let since = Instant::now();
        let resolver = Resolver::new(aws, self.means.cache);
        if !matches!(target, Target::Id(_)) {
            // A stale cache entry may be the problem.
            resolver.forget(target, self.request.choice).await;
        }
        let found = match resolver.instance(target, self.request.choice).await {
            Ok(found) => found,
            // The next check reports its state.
            Err(ResolveError::NotRunning { instance, .. }) if self.request.all => {
                Resolved { id: instance, user: None, cached: false, described: false }
            }
            Err(error) => {
                let finding = Finding::of(&error);
                let action = match &error {
                    ResolveError::Aws(error) => denied(error),
                    _ => None,
                };
                let layer = if action.is_some() { Layer::Permissions } else { Layer::Instance };
                let finding = self.with_statement(finding, action, aws, None);
                let _ = self.note(layer, since, finding);
                return ControlFlow::Break(());
            }
        };
        let instance = found.id.clone();
        self.report.instance = Some(instance.to_string());
        let user = match &self.request.user {
            Some(user) => Some(user.clone()),
            None if instance.is_managed_node() => None,
            None => resolver.user(&found).await,
        };
        let Some(user) = user.or_else(|| DEFAULT_USER.parse().ok()) else { return ControlFlow::Break(()) };
        self.report.user = Some(user.to_string());
        let described = self.describe(aws, &instance, since).await?;
        ControlFlow::Continue(Subject { instance, user, described })
    }

    async fn describe(
        &mut self,
        aws: &Aws,
        instance: &InstanceId,
        since: Instant,
    ) -> ControlFlow<(), Option<Instance>> {
        if instance.is_managed_node() {
            self.note(Layer::Instance, since, Finding::skipped(format!("{instance} is a managed node")))?;
            return ControlFlow::Continue(None);
        }
        let filters = [Filter::new("instance-id", instance.as_str())];
        let described = match aws.describe_instances(&filters).await {
            Ok(found) if found.is_empty() => {
                let finding = match diagnosis::of_reach(aws, instance).await {
                    Some(cause) => cause.into(),
                    None => Finding::broken(format!("EC2 does not list {instance}")),
                };
                self.note(Layer::Instance, since, finding)?;
                return ControlFlow::Continue(None);
            }
            Ok(found) => found.into_iter().next(),
            Err(error) => {
                let fact = format!("cannot get the state of the instance: {}", chain(&error));
                self.note(Layer::Instance, since, Finding::warning(fact))?;
                return ControlFlow::Continue(None);
            }
        };
        let finding = match (diagnosis::of_instance(described.as_ref()), &described) {
            (Some(cause), _) => cause.into(),
            (None, Some(found)) => Finding::ok(summary(found)),
            (None, None) => Finding::skipped(instance.to_string()),
        };
        self.note(Layer::Instance, since, finding)?;
        ControlFlow::Continue(described)
    }

    /// Whether the SSM agent is online, its version, and the instance profile that lets it register.
    pub(super) async fn session_manager(&mut self, aws: &Aws, subject: &Subject) -> ControlFlow<()> {
        let since = Instant::now();
        let instance = &subject.instance;
        let described = subject.described.as_ref();
        let profile = described.and_then(|found| found.profile.as_deref());
        let managed = match aws.managed(instance).await {
            Ok(managed) => managed,
            Err(error) => {
                let finding = match aws.is_connected(instance).await {
                    Ok(true) => Finding::warning(format!(
                        "online; its SSM agent's version is not known: {}",
                        chain(&error)
                    )),
                    Ok(false) => Finding::broken(format!("{instance} is not connected to Session Manager"))
                        .hint(format!(
                            "start {instance} if it is stopped, and check that its SSM agent runs"
                        )),
                    Err(_) => {
                        Finding::warning(format!("cannot get the state of the SSM agent: {}", chain(&error)))
                    }
                };
                return self.note(Layer::SessionManager, since, finding);
            }
        };
        if let (Some(InstanceState::Other(state)), false) =
            (described.map(|found| &found.state), managed.as_ref().is_some_and(|managed| managed.online))
        {
            let state = foreign_text(state, 30);
            let fact = format!("{instance} is {state}, and not connected to Session Manager");
            return self.note(Layer::SessionManager, since, Finding::skipped(fact));
        }
        let cause = diagnosis::of_agent(described, managed.as_ref(), instance, aws.region(), aws.now());
        if let Some(cause) = cause {
            let layer = match &cause {
                diagnosis::Diagnosis::Unregistered { profile: false, .. } => Layer::InstanceProfile,
                _ => Layer::SessionManager,
            };
            return self.note(layer, since, cause.into());
        }
        let Some(managed) = managed else {
            let fact = format!("{instance} is not registered with Session Manager in {}", aws.region());
            let hint = "check the id, the region and the account, and that its SSM agent is registered";
            return self.note(Layer::SessionManager, since, Finding::broken(fact).hint(hint));
        };
        if let Some(profile) = profile {
            let name = profile.rsplit('/').next().unwrap_or(profile);
            self.note(Layer::InstanceProfile, since, Finding::ok(foreign_text(name, 130)))?;
        }
        self.note(Layer::SessionManager, since, online(&managed))
    }
}

/// An SSM agent that is online, with what its version lacks.
fn online(managed: &Managed) -> Finding {
    let last_ping =
        managed.last_ping.map(|ping| format!(", last ping {} ago", Age::between(ping, SystemTime::now())));
    let version = foreign_text(&managed.agent_version, 30);
    let fact = format!("online{}; SSM agent {version}", last_ping.unwrap_or_default());
    let lacks = SsmAgentVersion::parse(&managed.agent_version).map(shortcomings).unwrap_or_default();
    if lacks.is_empty() {
        Finding::ok(fact)
    } else {
        Finding::warning(format!("{fact}: {}", lacks.join("; "))).hint(diagnosis::UPDATE_HINT)
    }
}

/// The features of newer SSM agents that this version lacks and this program uses.
fn shortcomings(version: SsmAgentVersion) -> Vec<&'static str> {
    let lacks = [
        (
            !version.acknowledges_duplicates(),
            "it recovers slowly from a lost websocket (since 3.2.1041.0 fast)",
        ),
        (
            !version.knows_session_type("NonInteractiveCommands"),
            "it runs no commands in sessions, which can read host keys (since 3.0.1124.0)",
        ),
        (!version.takes_terminate_flag(), "it does not terminate sessions by itself (since 2.3.722.0)"),
    ];
    lacks.into_iter().filter(|(lacks, _)| *lacks).map(|(_, feature)| feature).collect()
}

fn summary(instance: &Instance) -> String {
    let name = instance.name().map(|name| format!(" ({})", foreign_text(name, 60))).unwrap_or_default();
    let age = instance.launched.map(|launched| format!(" for {}", Age::between(launched, SystemTime::now())));
    format!(
        "{}{name} is running{} in {}",
        instance.id,
        age.unwrap_or_default(),
        foreign_text(&instance.availability_zone, 30)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_agents_have_their_shortcomings() {
        let count = |version: &str| shortcomings(SsmAgentVersion::parse(version).unwrap()).len();
        assert_eq!(["3.3.987.0", "3.1.1188.0", "2.3.723.0", "2.3.700.0"].map(count), [0, 1, 2, 3]);
    }
}
