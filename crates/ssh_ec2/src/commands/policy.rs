//! `ssh_ec2 policy`: prints the smallest IAM policy for what a user needs to do, without a call to AWS.

use crate::cli::{Common, Extra, Policy as Options};
use crate::commands::refuse_unused;
use crate::error::{ExitCode, Failure};
use crate::policy::{Feature, Policy, PolicyError, Wanted};
use crate::ui;

pub(super) fn start(mut options: Options, before: Common) -> Result<ExitCode, Failure> {
    refuse_unused("policy", &before, &["--region", "--batch", "--verbose"])?;
    options.region = options.region.or(before.region);
    let policy = Policy::least(&wanted(&options)?);
    let text = if options.terraform {
        policy.terraform()
    } else {
        policy.json().map_err(|error| Failure::System { action: "write JSON", source: error.into() })?
    };
    ui::print(&text).map_err(Failure::Output)?;
    Ok(ExitCode::Success)
}

fn wanted(options: &Options) -> Result<Wanted, Failure> {
    let usage = |error: PolicyError| Failure::Usage(error.to_string());
    Ok(Wanted {
        features: options.with.iter().map(|extra| feature(*extra)).collect(),
        tags: options.tag.iter().map(|tag| tag.parse()).collect::<Result<_, _>>().map_err(usage)?,
        users: options.user.iter().map(|user| user.parse()).collect::<Result<_, _>>()?,
        region: options.region.as_deref().map(str::parse).transpose().map_err(usage)?,
        account: options.account.as_deref().map(str::parse).transpose().map_err(usage)?,
    })
}

fn feature(extra: Extra) -> Feature {
    match extra {
        Extra::Commands => Feature::Commands,
        Extra::Doctor => Feature::Doctor,
        Extra::Forwarding => Feature::Forwarding,
        Extra::HostKeys => Feature::HostKeys,
        Extra::ManagedNodes => Feature::ManagedNodes,
        Extra::Names => Feature::Names,
    }
}
