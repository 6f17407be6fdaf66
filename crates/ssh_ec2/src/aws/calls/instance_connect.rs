//! EC2 Instance Connect: pushes a public key to an instance for 60 seconds.
//!
//! Success means that the service took the key, not that the instance reads it: without the package
//! `ec2-instance-connect` an instance ignores it silently.

use serde::{Deserialize, Serialize};

use crate::aws::client::request_id::RequestId;
use crate::aws::client::service::INSTANCE_CONNECT;
use crate::aws::error::AwsError;
use crate::aws::{Api, Aws};
use crate::target::{InstanceId, OsUser};

const SEND_SSH_PUBLIC_KEY: Api = Api { service: &INSTANCE_CONNECT, operation: "SendSSHPublicKey" };

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Input<'a> {
    instance_id: &'a str,
    #[serde(rename = "InstanceOSUser")]
    instance_os_user: &'a str,
    #[serde(rename = "SSHPublicKey")]
    ssh_public_key: &'a str,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Output {
    request_id: Option<String>,
    success: Option<bool>,
}

impl Aws {
    /// Pushes `public_key`, one OpenSSH public key line, to `instance` for `user`.
    ///
    /// # Errors
    ///
    /// [`AwsError`]; among others [`AwsError::InstanceNotFound`] and [`AwsError::InstanceNotRunning`].
    pub(crate) async fn push_key(
        &self,
        instance: &InstanceId,
        user: &OsUser,
        public_key: &str,
    ) -> Result<RequestId, AwsError> {
        let input = Input {
            instance_id: instance.as_str(),
            instance_os_user: user.as_str(),
            ssh_public_key: public_key.trim_end(),
        };
        let (output, request_id): (Output, _) =
            self.call(&SEND_SSH_PUBLIC_KEY, instance.as_str(), &input).await?;
        // The service's model has it. It was never seen to be false: the service then answers with an error
        // code.
        if output.success == Some(false) {
            return Err(
                SEND_SSH_PUBLIC_KEY.malformed("it says that the key was not pushed, without an error")
            );
        }
        // The header has the same id, but an emulator may leave it out.
        Ok(output.request_id.as_deref().map_or(request_id, RequestId::clean))
    }
}
