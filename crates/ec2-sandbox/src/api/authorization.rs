//! Whether the caller's policy allows a call: on which resources each is checked, and with which condition
//! keys.
//!
//! By AWS's Service Authorization Reference, page `reference_policies_actions-resources-contextkeys`. An
//! action that is not listed here is checked on `*`, as all listing actions are. Unreadable input is left to
//! the operation, which refuses it.
//!
//! <https://docs.aws.amazon.com/service-authorization/latest/reference/>

use serde_json::Value;

use super::{Call, error::ApiError, query::Query, service::Service};
use crate::world::{ACCOUNT, AwsRegion, Caller, Context, Decision, Policy, Resource, World};

/// Refuses a call unless the policy of its caller allows it on every resource that it needs.
pub(super) fn check(
    call: &Call<'_>,
    service: Service,
    operation: &str,
    query: &Query,
    body: &[u8],
) -> Result<(), ApiError> {
    let is_open = matches!(service, Service::Sso | Service::SsoOidc);
    let Some(policy) = call.world.policy_of(&call.caller).filter(|_| !is_open) else { return Ok(()) };
    let action = format!("{}:{operation}", service.name());
    let needed = Check { call, policy, action: &action };
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let input = |name: &str| match service {
        Service::Ec2InstanceConnect | Service::Ssm => body[name].as_str(),
        _ => query.value(name),
    };
    for resource in needed.resources(input) {
        let decision = policy.decide(&action, &resource);
        if decision != Decision::Allowed {
            let message = refusal(&call.caller, &action, &resource, decision);
            return Err(service.in_its_form(ApiError::new("AccessDeniedException", message)));
        }
    }
    Ok(())
}

/// Checks whether the policy of `caller` allows it to open the data channel of a session; the error is the
/// body of the response.
///
/// It has the form in which the message gateway refuses SSM agents.
pub(crate) fn check_channel(
    world: &World,
    caller: &Caller,
    region: AwsRegion,
    session: &str,
) -> Result<(), String> {
    let Some(policy) = world.policy_of(caller) else { return Ok(()) };
    let resource = session_resource(world, caller, region, session);
    let decision = policy.decide(OPEN_CHANNEL, &resource);
    if decision == Decision::Allowed {
        return Ok(());
    }
    let message = refusal(caller, OPEN_CHANNEL, &resource, decision);
    Err(format!("<AccessDeniedException>\n  <Message>{message}</Message>\n</AccessDeniedException>"))
}

struct Check<'a> {
    call: &'a Call<'a>,
    policy: &'a Policy,
    action: &'a str,
}

impl Check<'_> {
    /// The resources that the action must be allowed on; none for an action that needs no permission.
    fn resources<'b>(&self, input: impl Fn(&str) -> Option<&'b str>) -> Vec<Resource> {
        match self.action {
            "ec2:GetConsoleOutput" => self.instance(input("InstanceId"), &["aws", "ec2"]),
            "ec2-instance-connect:SendSSHPublicKey" => {
                let mut resources = self.instance(input("InstanceId"), &["aws", "ec2"]);
                if let (Some(instance), Some(user)) = (resources.first_mut(), input("InstanceOSUser")) {
                    instance.context.add("ec2:osuser", user);
                }
                resources
            }
            "iam:SimulatePrincipalPolicy" => self.named(input("PolicySourceArn")),
            "ssm:ResumeSession" | "ssm:TerminateSession" => {
                let Call { world, caller, region, .. } = self.call;
                let session = input("SessionId");
                session.map(|id| session_resource(world, caller, *region, id)).into_iter().collect()
            }
            "ssm:StartSession" => self.start_session(input("Target"), input("DocumentName")),
            "sts:AssumeRole" => self.named(input("RoleArn")),
            "sts:GetCallerIdentity" | "sts:GetSessionToken" => Vec::new(),
            _ => self.named(Some("*")),
        }
    }

    /// The instance and the document. Without a document name the account's shell document is started, and it
    /// is checked only through a condition key.
    fn start_session(&self, target: Option<&str>, document: Option<&str>) -> Vec<Resource> {
        let mut resources = self.instance(target, &["aws", "ssm"]);
        let region = self.call.region;
        match document {
            Some(arn) if arn.starts_with("arn:") => resources.extend(self.named(Some(arn))),
            Some(name) => {
                let account = if name.starts_with("AWS-") { "" } else { ACCOUNT };
                let arn = format!("arn:aws:ssm:{region}:{account}:document/{name}");
                resources.extend(self.named(Some(&arn)));
            }
            None => {
                let arn = format!("arn:aws:ssm:{region}:{ACCOUNT}:document/SSM-SessionManagerRunShell");
                let shell = self.named(Some(&arn));
                let allowed =
                    shell.iter().all(|shell| self.policy.decide(self.action, shell) == Decision::Allowed);
                for resource in &mut resources {
                    resource.context.add("ssm:SessionDocumentAccessCheck", allowed.to_string());
                }
            }
        }
        resources
    }

    /// An instance or managed node, with its tags under the keys of these services.
    fn instance(&self, id: Option<&str>, services: &[&str]) -> Vec<Resource> {
        let Some(id) = id else { return Vec::new() };
        let Call { caller, region, .. } = self.call;
        let name = if id.starts_with("mi-") {
            format!("arn:aws:ssm:{region}:{ACCOUNT}:managed-instance/{id}")
        } else {
            self.call.instance_arn(id)
        };
        let mut context = context(caller, *region);
        for (key, value) in self.call.instance(id).into_iter().flat_map(|instance| &instance.tags) {
            for service in services {
                context.add(&format!("{service}:ResourceTag/{key}"), value);
            }
        }
        vec![Resource { name, context }]
    }

    /// The resource with this ARN, without tags.
    fn named(&self, name: Option<&str>) -> Vec<Resource> {
        let Call { caller, region, .. } = self.call;
        let resource = |name: &str| Resource { name: name.to_owned(), context: context(caller, *region) };
        name.map(resource).into_iter().collect()
    }
}

/// A session. Its id begins with the name of the role's session, so `session/${aws:userid}-*` of AWS's sample
/// policies never matches a role's sessions.
fn session_resource(world: &World, caller: &Caller, region: AwsRegion, id: &str) -> Resource {
    let mut context = context(caller, region);
    if let Some(session) = world.sessions().into_iter().find(|session| session.id == id) {
        context.add("ssm:resourceTag/aws:ssmmessages:target-id", session.opening.target);
        if session.owner == caller.arn {
            context.add("ssm:resourceTag/aws:ssmmessages:session-id", &caller.user_id);
        }
    }
    Resource { name: format!("arn:aws:ssm:{region}:{ACCOUNT}:session/{id}"), context }
}

/// The condition keys of every request. `aws:username` is missing, since every caller has a role.
fn context(caller: &Caller, region: AwsRegion) -> Context {
    let mut context = Context::default();
    context.add("aws:RequestedRegion", region.name());
    context.add("aws:userid", &caller.user_id);
    context
}

fn refusal(caller: &Caller, action: &str, resource: &Resource, decision: Decision) -> String {
    let reason = match decision {
        Decision::ExplicitDeny => "with an explicit deny in an identity-based policy".to_owned(),
        _ => format!("because no identity-based policy allows the {action} action"),
    };
    let (caller, resource) = (&caller.arn, &resource.name);
    format!("User: {caller} is not authorized to perform: {action} on resource: {resource} {reason}")
}

const OPEN_CHANNEL: &str = "ssmmessages:OpenDataChannel";
