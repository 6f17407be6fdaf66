//! Ends a command on a signal, after the sessions that it has at AWS and the programs that it has started.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use crate::commands::signals::{Signal, Signals};
use crate::error::{ExitCode, Failure};
use crate::road::probe::Interrupt;

/// Runs `work` to its end or to a signal, which cancels the probes that `work` makes with `interrupt`.
///
/// # Errors
///
/// Those of the work.
pub(crate) async fn guard(
    work: impl Future<Output = Result<ExitCode, Failure>>,
    interrupt: &Interrupt,
) -> Result<ExitCode, Failure> {
    let mut signals =
        Signals::new().map_err(|source| Failure::System { action: "handle signals", source })?;
    let mut work = pin!(work);
    tokio::select! {
        result = work.as_mut() => return result,
        signal = signals.next() => tracing::info!("ending: {signal}"),
    }
    interrupt.cancel();
    let ended = poll_fn(|cx| {
        let over = !interrupt.is_open() || work.as_mut().poll(cx).is_ready();
        if over { Poll::Ready(()) } else { Poll::Pending }
    });
    // A session can be ended only once it has started, so that is waited for. A second signal ends the wait.
    tokio::select! {
        () = ended => {}
        signal = signals.insisted() => tracing::info!("ending at once: {signal}"),
    }
    Ok(ExitCode::Interrupted)
}

/// Runs `work`, which has no session at AWS, to its end or to a signal. The signal drops it, which ends a
/// `credential_process` that it waits for.
///
/// SIGINT is not caught: the terminal sends it to that program as well, and a shell ends the loop in which it
/// runs this program only if the signal ended this program.
///
/// # Errors
///
/// Those of the work; [`Failure::Interrupted`].
pub(crate) async fn unless_ended<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let handle = |source| Failure::System { action: "handle signals", source };
    let mut signals = Signals::without(&[Signal::Interrupt]).map_err(handle)?;
    tokio::select! {
        biased;
        result = work => result,
        _ = signals.next() => Err(Failure::Interrupted),
    }
}
