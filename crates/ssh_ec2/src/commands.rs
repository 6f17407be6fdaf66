//! One story for each command. Here the floors meet; nothing below knows the whole of it.

pub mod complete;
pub mod config;
pub mod connect;
pub mod copy;
pub mod doctor;
mod explanations;
pub mod first_process;
mod forwarding;
pub mod interrupt;
pub mod known_hosts;
pub mod list;
pub mod options;
pub mod pick;
pub mod policy;
pub mod proxy;
#[cfg(feature = "sandbox")]
pub mod sandbox;
pub mod send_key;
pub mod signals;

use crate::aws::Aws;
use crate::instances::cache::Cache;
use crate::ui;

/// Says what was not believed, for whoever waits. It was asked for anew, so that it is no reason to fail.
fn tell_distrust(aws: Option<&Aws>, cache: &Cache) {
    if let Some(fault) = aws.and_then(Aws::fault) {
        ui::note(&format!("the role is assumed anew, without what was kept of it: {fault}"));
    }
    if let Some(fault) = cache.fault() {
        ui::note(&format!("names are looked up anew, without what was kept of them: {fault}"));
    }
}
