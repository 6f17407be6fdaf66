//! Ends a command when a signal says so, and first what it has open at AWS.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use crate::commands::signals::Signals;
use crate::error::{ExitCode, Failure};
use crate::probe::Interrupt;

/// Runs `work`, which asks its questions with `interrupt`, to its end or to a signal.
///
/// # Errors
/// Those of the work.
pub async fn guard(
    work: impl Future<Output = Result<ExitCode, Failure>>,
    interrupt: &Interrupt,
) -> Result<ExitCode, Failure> {
    let mut signals = Signals::new().map_err(Failure::Stdio)?;
    let mut work = pin!(work);
    tokio::select! {
        result = work.as_mut() => return result,
        signal = signals.next() => tracing::info!("ending: {signal}"),
    }
    interrupt.ask();
    let ended = poll_fn(|cx| {
        let over = !interrupt.is_open() || work.as_mut().poll(cx).is_ready();
        if over { Poll::Ready(()) } else { Poll::Pending }
    });
    // A session that is being started can only be ended once it has. Who does not want to wait for that says so again.
    tokio::select! {
        () = ended => {}
        signal = signals.next() => tracing::info!("ending at once: {signal}"),
    }
    Ok(ExitCode::Interrupted)
}
