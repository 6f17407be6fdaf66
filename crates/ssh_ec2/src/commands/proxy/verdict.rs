//! Turns what a tunnel reports into messages, and its end into ssh's exit status.

use std::time::Instant;

use super::job::Job;
use super::{End, ExitCode, Failure, Outcome, Stop};
use crate::instances::default_user;
use crate::road::error::RoadError;
use crate::road::stdio;
use crate::road::tunnel::{Closed, Notice};
use crate::system::text::one_line;
use crate::target::SessionTarget;
use crate::ui;

/// Prints what a user may want to know while a connection is open.
pub(super) struct Notices<'a> {
    job: &'a Job<'a>,
    since: Instant,
    is_loss_noted: bool,
}

impl<'a> Notices<'a> {
    pub(super) fn new(job: &'a Job<'a>) -> Self {
        Self { job, since: Instant::now(), is_loss_noted: false }
    }

    pub(super) fn show(&mut self, notice: Notice) {
        let (instance, port) = (&self.job.instance, self.job.options.port);
        match notice {
            Notice::Ready { agent_version, customer_message } => {
                let version = agent_version.map_or_else(|| "unknown".into(), |version| version.to_string());
                tracing::info!("channel open after {:.0?}; SSM agent {version}", self.since.elapsed());
                if !customer_message.is_empty() {
                    ui::note(&ui::shorten(&customer_message, REASON_WIDTH));
                }
            }
            Notice::FirstBytes(greeting) => {
                tracing::info!("first bytes from {instance} after {:.0?}", self.since.elapsed());
                self.job.greeted(&greeting);
            }
            // Sessions to ports have no standard error.
            Notice::ErrorOutput(_) => {}
            Notice::Lost => tracing::info!("the connection was lost; resuming"),
            Notice::StillLost => {
                self.is_loss_noted = true;
                ui::note(&format!("the connection to {instance} is lost; resuming it, no byte is lost"));
            }
            Notice::Resumed => {
                tracing::info!("resumed");
                if std::mem::take(&mut self.is_loss_noted) {
                    ui::note(&format!("the connection to {instance} is back"));
                }
            }
            Notice::NothingComes => ui::note(&format!(
                "nothing comes from the SSM agent of {instance}; the worker process of this session may have died, or cannot \
                 reach ssmmessages on port 443 (waiting, Ctrl-C ends)"
            )),
            Notice::FallenSilent => ui::note(&format!(
                "nothing comes from {instance} any more; the network may be down, or the SSM agent's worker process of this \
                 session may have died (waiting, Ctrl-C ends)"
            )),
            Notice::NothingAnswers => ui::note(&format!(
                "{instance} does not answer on port {port} yet; is sshd running there? (waiting, Ctrl-C ends)"
            )),
        }
    }
}

/// This process's exit status for the end of the tunnel, or why there was no connection.
pub(super) fn judge(job: &Job<'_>, outcome: Outcome) -> Result<ExitCode, Failure> {
    let (target, port) = (SessionTarget::from(job.instance.clone()), job.options.port);
    let observed = outcome.observed;
    if let Some(greeting) = job.foreign_greeting()
        && observed.received < KEY_EXCHANGE_LENGTH
    {
        let greeting = greeting.to_owned();
        return Err(match default_user::is_turned_away(&greeting) {
            true => RoadError::SshdBusy { target, port, greeting }.into(),
            false => RoadError::NotSsh { target, port, greeting }.into(),
        });
    }
    let closed = match outcome.end {
        End::OutputBroken(error) if !stdio::reader_is_gone(&error) => return Err(Failure::Output(error)),
        End::InputEnded | End::OutputBroken(_) => return Ok(ExitCode::Success),
        End::Stopped(Stop::Asked) => return Ok(ExitCode::Interrupted),
        End::Stopped(Stop::Failed(error)) => return Err(error),
        End::Lost(error) => return Err(error.into()),
        End::InputBroken(error) => return Err(Failure::Stdio(error)),
        End::Closed(closed) => closed,
    };
    let printable = |reason: &str| ui::shorten(&ui::sanitise(&one_line(reason)), REASON_WIDTH);
    Err(match closed {
        Closed::Terminated => return Ok(ExitCode::Success),
        // The session ended before the SSM agent tried the port.
        Closed::ByPeer { reason } if observed.ready_at.is_none() && !reason.is_empty() => {
            RoadError::ChannelRefused { target, reason: printable(&reason) }
        }
        Closed::ByPeer { reason } if observed.received == 0 => {
            let is_noted = observed.is_silence_noted;
            RoadError::NothingAnswered { target, port, reason: printable(&reason), is_noted }
        }
        Closed::ByPeer { reason } if reason.is_empty() => return Ok(ExitCode::Success),
        Closed::ByPeer { reason } => RoadError::SessionEnded { target, reason: printable(&reason) },
        Closed::NeverReady => RoadError::HandshakeTimeout { target },
        Closed::Refused { reason } => RoadError::ChannelRefused { target, reason: printable(&reason) },
        Closed::NoProgress => RoadError::NoProgress { target },
    }
    .into())
}

/// The most characters that are shown of a text of an administrator, the service or the SSM agent.
const REASON_WIDTH: usize = 1000;
/// A session that received fewer bytes than this had no complete key exchange.
const KEY_EXCHANGE_LENGTH: u64 = 512;
