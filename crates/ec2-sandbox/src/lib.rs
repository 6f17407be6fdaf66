//! A small AWS region on loopback, for trying and testing `ssh_ec2` without an account.
//!
//! ```text
//! aws, boto3, ssh_ec2 ─HTTP─▶ server ─▶ sigv4 ─▶ api ─▶ world ◀─ gateway ◀─websocket─ ssh_ec2
//! ```
//!
//! [`Region`] speaks real HTTP and real websockets on a port of its own and checks real signatures; for a
//! client it differs from AWS only by its URL. [`Workspace`] runs one command that uses it. The crate imports
//! nothing from `ssh_ec2`: a peer that shares its client's code would share its misunderstandings. It prints
//! nothing; texts for the user are returned.

pub use crate::{
    clock::Clock,
    faults::{Faults, UnknownFault, parse_time},
    region::{Options, Region},
    runner::Workspace,
    world::{ApiCall, Condition, InstanceState, InstanceSummary, SessionState, SessionSummary, Throttle},
};

mod api;
mod calendar;
mod clock;
mod faults;
mod form;
mod gateway;
mod hosts;
mod region;
mod runner;
mod server;
mod sigv4;
mod ssh_server;
mod ssm_agent;
mod tasks;
mod world;
