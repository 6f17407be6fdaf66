//! Asks AWS for host keys in the proxy of the same ssh or, without one, in this process.

use std::os::unix::process::parent_id;
use std::time::{Duration, SystemTime};

use tokio::time::timeout;

use super::inquiry::{FRAME_LIMIT, Inquiry, Matter, Reply, socket};
use super::sources::{Listing, Reason, Sources};
use super::{Means, Request};
use crate::aws::{Aws, Settings};
use crate::error::Failure;
use crate::instances::cache::{Entry, Key};
use crate::instances::resolve::{Resolver, scope};
use crate::ssh::host_key::{HostKey, Source};
use crate::system::private_socket::{UnixStream, connect, is_sibling, read_frame, write_frame};
use crate::target::{InstanceId, Target};

/// The process that asks AWS: the proxy or this one.
pub(super) struct Way<'a> {
    request: &'a Request,
    means: Means<'a>,
    aws: Option<Aws>,
    has_proxy: Option<bool>,
}

impl<'a> Way<'a> {
    pub(super) fn new(request: &'a Request, means: Means<'a>) -> Self {
        // In a run by the user, the parent is a shell.
        let has_proxy = request.host.is_none().then_some(false);
        Self { request, means, aws: None, has_proxy }
    }

    /// This process's AWS client, if it was needed.
    pub(super) fn loaded(&self) -> Option<&Aws> {
        self.aws.as_ref()
    }

    /// The instance. A name must be resolved, which the proxy has done.
    pub(super) async fn instance(&mut self) -> Result<InstanceId, Failure> {
        if let Target::Id(id) = &self.request.target {
            return Ok(id.clone());
        }
        if let Some(reply) = self.proxy(Matter::Instance).await? {
            let Reply::Instance(id) = reply else { return Err(self.misanswered()) };
            return id.parse().map_err(|_| self.misanswered());
        }
        let (cache, target, choice) = (self.means.cache, &self.request.target, self.request.choice);
        let aws = self.aws().await?;
        Ok(Resolver::new(aws, cache).instance(target, choice).await?.id)
    }

    /// What AWS lists of the instance's keys.
    pub(super) async fn ask(&mut self, instance: &InstanceId) -> Result<Listing, Failure> {
        if let Some(reply) = self.proxy(Matter::Keys).await? {
            return reply.listing().ok_or_else(|| self.misanswered());
        }
        let (cache, network, interrupt) = (self.means.cache, self.means.network, self.means.interrupt);
        let noted = noted(instance);
        let scope = match self.aws().await {
            Ok(aws) => scope(aws),
            Err(Failure::Aws(error)) => return Ok(Listing::Unknown(error.into())),
            Err(error) => return Err(error),
        };
        // ssh runs this twice within a second, and AWS should be asked once.
        if cache.was_kept_within(&scope, &noted, SystemTime::now(), MOMENT) {
            return Ok(Listing::Nothing);
        }
        let listing = match self.sign_in().await? {
            Ok(aws) => Sources::new(aws, network, instance, interrupt).ask().await?,
            Err(reason) => Listing::Unknown(reason),
        };
        if listing == Listing::Nothing {
            let entry = Entry { id: instance.clone(), user: None };
            cache.keep(&scope, &[(noted, entry)], SystemTime::now()).await;
        }
        Ok(listing)
    }

    /// Which source lists this key.
    pub(super) async fn source_of(&mut self, instance: &InstanceId, key: &HostKey) -> Option<Source> {
        match self.proxy(Matter::WhoLists(key.to_string())).await {
            Ok(Some(Reply::ListedBy(word))) => return Some(Source::of_word(&word?)),
            Ok(None) => {}
            Ok(Some(_)) | Err(_) => return None,
        }
        let (network, interrupt) = (self.means.network, self.means.interrupt);
        let aws = self.sign_in().await.ok()?.ok()?;
        Sources::new(aws, network, instance, interrupt).source_of(key).await
    }

    async fn aws(&mut self) -> Result<&Aws, Failure> {
        let aws = match self.aws.take() {
            Some(aws) => aws,
            None => {
                let settings = Settings { batch: true, ..self.request.settings.clone() };
                Aws::load(&settings, self.means.network).await?
            }
        };
        Ok(self.aws.insert(aws))
    }

    /// The AWS client with its credentials loaded, which may take as long as the user needs to touch a
    /// hardware key.
    async fn sign_in(&mut self) -> Result<Result<&Aws, Reason>, Failure> {
        let aws = self.aws().await?;
        Ok(match timeout(CREDENTIALS_TIMEOUT, aws.sign_in()).await {
            Ok(Ok(())) => Ok(aws),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => {
                let minutes = CREDENTIALS_TIMEOUT.as_secs() / 60;
                Err(Reason::new(format!("the AWS credentials were not available within {minutes} minutes")))
            }
        })
    }

    /// The answer of the proxy of the same ssh. None if there is no such proxy. If a proxy does not answer,
    /// or its answer cannot be read, that is an error.
    async fn proxy(&mut self, matter: Matter) -> Result<Option<Reply>, Failure> {
        if self.has_proxy == Some(false) {
            return Ok(None);
        }
        let Some(mut stream) = self.find_proxy().await else {
            self.has_proxy = Some(false);
            return Ok(None);
        };
        let inquiry = Inquiry::new(self.request, matter);
        let asked = serde_json::to_vec(&inquiry).map_err(|_| self.misanswered())?;
        let answer = async {
            write_frame(&mut stream, &asked).await.ok()?;
            read_frame(&mut stream, FRAME_LIMIT).await.ok().flatten()
        };
        let failed = |fault| Failure::ProxySilent { target: self.request.target.to_string(), fault };
        let answer = timeout(ANSWER_TIMEOUT, answer).await.map_err(|_| failed("does not answer"))?;
        match serde_json::from_slice(&answer.ok_or_else(|| failed("ended before it answered"))?) {
            Ok(Reply::Elsewhere) => {
                tracing::info!("the proxy of this ssh has another target");
                self.has_proxy = Some(false);
                Ok(None)
            }
            Ok(Reply::Ending) => Err(failed("is ending")),
            Ok(reply) => Ok(Some(reply)),
            Err(_) => Err(self.misanswered()),
        }
    }

    async fn find_proxy(&self) -> Option<UnixStream> {
        let path = socket(self.means.sockets, parent_id())?;
        match connect(&path).await {
            Ok(Some(stream)) if is_sibling(&stream) => Some(stream),
            Ok(_) => {
                tracing::info!("ssh runs no proxy of this program; this process asks AWS");
                None
            }
            Err(error) => {
                tracing::info!("{} is not used: {error}", path.display());
                None
            }
        }
    }

    fn misanswered(&self) -> Failure {
        Failure::ProxySilent {
            target: self.request.target.to_string(),
            fault: "sent an answer that cannot be read",
        }
    }
}

fn noted(instance: &InstanceId) -> Key {
    Key::of(&["nothing tells its host keys", instance.as_str()])
}

/// Longer than the time between the two runs of one connection.
const MOMENT: Duration = Duration::from_secs(15);
/// How long to wait for credentials: the user may have to touch a hardware key or type a code.
const CREDENTIALS_TIMEOUT: Duration = Duration::from_secs(5 * 60);
/// Longer than the proxy's own time limits: 12 seconds for EC2, and for a session on the instance 30 seconds
/// to start, 8 to read and 2 to end.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(75);

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::instances::cache::Cache;
    use crate::instances::resolve::Choice;
    use crate::net::network::{Network, NetworkEnvironment};
    use crate::road::probe::Interrupt;
    use crate::ssh::known_hosts::Store;
    use crate::system::private_socket::{PrivateSocket, make_directory};
    use crate::target::Port;

    fn request(target: &str) -> Request {
        Request {
            target: target.parse().unwrap(),
            choice: Choice::Unique,
            settings: Settings::default(),
            port: Port::SSH,
            host: Some("host".into()),
            typed: None,
            presented: None,
        }
    }

    /// A directory for the socket of the proxy of this process's parent, and the socket's path.
    fn sockets() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let sockets = directory.path().join("s");
        make_directory(&sockets).unwrap();
        let path = socket(&sockets, parent_id()).unwrap();
        (directory, sockets, path)
    }

    /// The answer about web-1 from a proxy in that directory. This process counts as its own sibling, so it
    /// can be both.
    async fn ask(sockets: &Path, proxy: impl Future<Output = ()>) -> Result<Option<Reply>, Failure> {
        let store = Store::new(sockets.join("known_hosts"), 0);
        let (network, cache) =
            (Network::new(&NetworkEnvironment::default()).unwrap(), Cache::new(sockets.into(), 0));
        let interrupt = Interrupt::default();
        let means = Means { store: &store, network: &network, cache: &cache, interrupt: &interrupt, sockets };
        let request = request("web-1");
        let mut way = Way::new(&request, means);
        tokio::select! {
            biased;
            reply = way.proxy(Matter::Instance) => reply,
            () = proxy => panic!("there is no reply"),
        }
    }

    /// Answers one request with these bytes.
    async fn answer(socket: &PrivateSocket, reply: &[u8]) {
        let mut stream = socket.accept().await;
        read_frame(&mut stream, FRAME_LIMIT).await.unwrap().unwrap();
        if !reply.is_empty() {
            write_frame(&mut stream, reply).await.unwrap();
        }
        drop(stream);
        std::future::pending().await
    }

    #[tokio::test]
    async fn without_a_proxy_this_process_asks_aws() {
        let (_directory, sockets, path) = sockets();
        assert!(ask(&sockets, std::future::pending()).await.unwrap().is_none());
        drop(PrivateSocket::listen(&path).unwrap());
        assert!(ask(&sockets, std::future::pending()).await.unwrap().is_none(), "it was killed");
        let socket = PrivateSocket::listen(&path).unwrap();
        let elsewhere = ask(&sockets, answer(&socket, br#""Elsewhere""#)).await;
        assert!(elsewhere.unwrap().is_none(), "it has another target");
    }

    #[tokio::test]
    async fn an_answer_of_the_proxy_is_used() {
        let (_directory, sockets, path) = sockets();
        let socket = PrivateSocket::listen(&path).unwrap();
        let reply = ask(&sockets, answer(&socket, br#"{"Instance": "i-0a1b2c3d"}"#)).await;
        assert!(matches!(reply, Ok(Some(Reply::Instance(id))) if id == "i-0a1b2c3d"));
    }

    #[tokio::test]
    async fn a_proxy_that_fails_to_answer_is_no_reason_to_ask_elsewhere() {
        let (_directory, sockets, path) = sockets();
        let socket = PrivateSocket::listen(&path).unwrap();
        for reply in [&b""[..], b"{}", b"nonsense", br#"{"Instance": 1}"#, br#""Ending""#] {
            let error = ask(&sockets, answer(&socket, reply)).await.unwrap_err();
            assert!(matches!(error, Failure::ProxySilent { .. }), "{error:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_proxy_that_does_not_answer_times_out() {
        let (_directory, sockets, path) = sockets();
        let _socket = PrivateSocket::listen(&path).unwrap();
        let error = ask(&sockets, std::future::pending()).await.unwrap_err();
        let said =
            "the host key of web-1 cannot be checked: the ssh_ec2 proxy of this connection does not answer";
        assert_eq!(error.to_string(), said);
    }
}
