//! Ends a command when a signal says so, and first what it has open at AWS, or has started here.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use crate::commands::signals::{Signal, Signals};
use crate::error::{ExitCode, Failure};
use crate::road::probe::Interrupt;

/// Runs `work`, which asks its questions with `interrupt`, to its end or to a signal.
///
/// # Errors
/// Those of the work.
pub async fn guard(
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
    // A session that is being started can be ended only once it has started. A second signal skips the wait.
    tokio::select! {
        () = ended => {}
        signal = signals.insisted() => tracing::info!("ending at once: {signal}"),
    }
    Ok(ExitCode::Interrupted)
}

/// Runs `work`, which has nothing open at AWS, to its end or to a signal. The signal drops it, which ends a
/// `credential_process` that it waits for.
///
/// SIGINT is left alone: at the terminal such a program gets it as we do, and a shell that runs us in a loop
/// ends the loop only if the signal ended us.
///
/// # Errors
/// Those of the work; [`Failure::Interrupted`].
pub async fn unless_ended<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let handle = |source| Failure::System { action: "handle signals", source };
    let mut signals = Signals::without(&[Signal::Interrupt]).map_err(handle)?;
    tokio::select! {
        biased;
        result = work => result,
        _ = signals.next() => Err(Failure::Interrupted),
    }
}
