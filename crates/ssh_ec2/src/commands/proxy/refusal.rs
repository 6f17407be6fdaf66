//! Why a connection failed, looked up before it is reported.

use std::pin::pin;
use std::time::Duration;

use tokio::time::timeout;

use super::{Failure, Job};
use crate::aws::{Aws, AwsError};
use crate::diagnosis::{self, Refusal};
use crate::network::Network;
use crate::probe::{Interrupt, Prober};
use crate::stdio;
use crate::target::InstanceId;

/// Turns a bare refusal into its cause, if that is found in a moment.
pub(super) async fn explain(error: Failure, aws: &Aws, instance: &InstanceId) -> Failure {
    let silent = matches!(
        error,
        Failure::ChannelRefused { .. } | Failure::HandshakeTimeout { .. } | Failure::NothingAnswered { .. }
    );
    if !silent && !leads_nowhere(&error) {
        return error;
    }
    match timeout(DIAGNOSIS_TIMEOUT, diagnosis::of_reach(aws, instance)).await {
        Ok(Some(cause)) => cause.into(),
        _ => error,
    }
}

/// Whether the instance is not, or no longer, one that can be connected to.
pub(super) fn leads_nowhere(error: &Failure) -> bool {
    use AwsError::{InstanceNotFound, InstanceNotRunning, TargetNotConnected};
    let Failure::Aws(error) = error else { return false };
    matches!(error, InstanceNotFound { .. } | InstanceNotRunning { .. } | TargetNotConnected { .. })
}

/// Says why sshd did not want the key, as far as that can be told in a moment. What was asked for that is ended in good
/// order, which may take longer.
pub(super) async fn tell_refusal(options: &Job<'_>, aws: &Aws, network: &Network) {
    let (instance, user) = (&options.instance, &options.user);
    let interrupt = Interrupt::default();
    let prober = Prober { aws, network, instance, reason: "", interrupt: &interrupt };
    let mut asked = pin!(async {
        match options.report {
            // Whoever reads that looks longer.
            Some(_) => Refusal::default(),
            None => diagnosis::of_refusal(prober, user, DIAGNOSIS_TIMEOUT).await,
        }
    });
    let looked = timeout(DIAGNOSIS_TIMEOUT, asked.as_mut()).await;
    let is_late = looked.is_err();
    let Refusal { cause, is_enforcing } = looked.unwrap_or_default();
    options.complain(&match cause {
        Some(cause) => cause.into(),
        None => Failure::KeyRefused {
            instance: instance.clone(),
            user: user.clone(),
            system_user: options.system_user.get(),
            is_enforcing,
        },
    });
    if is_late {
        // What is being started can only be ended once it has. Nobody who reads to our end shall wait for that.
        interrupt.ask();
        let _ = stdio::leave();
        asked.await;
    }
}

/// For finding out why, while somebody waits.
const DIAGNOSIS_TIMEOUT: Duration = Duration::from_secs(2);
