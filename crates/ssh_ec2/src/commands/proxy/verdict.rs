//! Turns what a tunnel reports into messages, and its end into ssh's exit status.

use std::time::Instant;

use ssm_channel::Closed;

use super::{Client, ExitCode, Failure, Job, Stop};
use crate::instances::default_user;
use crate::road::tunnel::{End, Notice, Outcome};
use crate::system::text::one_line;
use crate::ui;

pub(super) fn tell(options: &Job<'_>, notice: Notice, started: Instant, told: &mut bool) {
    let (instance, port) = (&options.instance, options.port);
    match notice {
        Notice::Ready { agent_version, customer_message } => {
            options.ready.set(true);
            let version = agent_version.map_or_else(|| "unknown".into(), |version| version.to_string());
            tracing::info!("channel open after {:.0?}; SSM agent {version}", started.elapsed());
            if !customer_message.is_empty() {
                ui::note(&ui::shorten(&customer_message, WORDS_WIDTH));
            }
        }
        Notice::FirstBytes(greeting) => {
            tracing::info!("first bytes from {instance} after {:.0?}", started.elapsed());
            options.system_user.set(greeting_line(&greeting).and_then(default_user::of_banner));
            // Lines of another kind may stand in front of it (RFC 4253, section 4.2), but there is one.
            if options.client == Client::Ssh && !greeting.windows(4).any(|bytes| bytes == b"SSH-") {
                let line = String::from_utf8_lossy(&greeting);
                let line = ui::shorten(&ui::sanitise(line.lines().next().unwrap_or_default()), 60);
                options.stranger.replace(Some(line));
            }
        }
        // Sessions to ports have none.
        Notice::ErrorOutput(_) => {}
        Notice::Lost => tracing::info!("the connection was lost; resuming"),
        Notice::StillLost => {
            *told = true;
            ui::note(&format!("the connection to {instance} is lost; resuming it, no byte is lost"));
        }
        Notice::Resumed => {
            tracing::info!("resumed");
            if std::mem::take(told) {
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
        Notice::NothingAnswers => {
            options.silence_told.set(true);
            ui::note(&format!(
                "{instance} does not answer on port {port} yet; is sshd running there? (waiting, Ctrl-C ends)"
            ));
        }
    }
}

/// The first line of sshd's greeting.
fn greeting_line(bytes: &[u8]) -> Option<&str> {
    let line = bytes.split(|byte| matches!(byte, b'\r' | b'\n')).next()?;
    std::str::from_utf8(line).ok().filter(|line| line.starts_with("SSH-"))
}

/// What the end means to ssh.
pub(super) fn judge(options: &Job<'_>, outcome: Outcome<Stop, Failure>) -> Result<ExitCode, Failure> {
    let instance = options.instance.clone();
    let words = |output: &str| ui::shorten(&ui::sanitise(&one_line(output)), WORDS_WIDTH);
    if let Some(greeting) = options.stranger.take()
        && outcome.received < KEY_EXCHANGE_LENGTH
    {
        let port = options.port;
        return Err(match default_user::is_turned_away(&greeting) {
            true => Failure::SshdBusy { instance, port, greeting },
            false => Failure::NotSsh { instance, port, greeting },
        });
    }
    match outcome.end {
        End::InputEnded | End::OutputBroken | End::Closed(Closed::Terminated { .. }) => Ok(ExitCode::Success),
        End::Stopped(Stop::Asked) => Ok(ExitCode::Interrupted),
        End::Stopped(Stop::Failed(error)) | End::Lost(error) => Err(error),
        End::InputBroken(error) => Err(Failure::Stdio(error)),
        // The SSM agent gave the session up before it tried the port.
        End::Closed(Closed::ByGateway { output }) if !options.ready.get() && !output.is_empty() => {
            Err(Failure::ChannelRefused { instance, output: words(&output) })
        }
        End::Closed(Closed::ByGateway { output }) if outcome.received == 0 => {
            let (port, told) = (options.port, options.silence_told.get());
            Err(Failure::NothingAnswered { instance, port, output: words(&output), told })
        }
        End::Closed(Closed::ByGateway { output }) if output.is_empty() => Ok(ExitCode::Success),
        End::Closed(Closed::ByGateway { output }) => {
            Err(Failure::SessionEnded { instance, output: words(&output) })
        }
        End::Closed(Closed::HandshakeTimeout) => Err(Failure::HandshakeTimeout { instance }),
        End::Closed(Closed::HandshakeFailed { output }) => {
            Err(Failure::ChannelRefused { instance, output: words(&output) })
        }
        End::Closed(Closed::NoProgress) => Err(Failure::NoProgress { instance }),
    }
}

/// Of what an administrator, the service or the SSM agent say; they mean to write a sentence.
const WORDS_WIDTH: usize = 1000;
/// Fewer bytes than any key exchange has.
const KEY_EXCHANGE_LENGTH: u64 = 512;
