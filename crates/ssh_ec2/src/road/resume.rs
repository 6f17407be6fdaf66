//! Gets another websocket for a session: ResumeSession for a fresh token, then the dial, again and again.
//!
//! The service ends websockets about every hour with a clean close, laptops sleep, addresses change: any loss is
//! worth minutes of trying. Credentials are asked for anew each time. What cannot change by trying ends it.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::Job;
use crate::aws::{Aws, Resumption, SessionId, SessionTicket, Token};
use crate::error::Failure;
use crate::net::network::Network;
use crate::net::websocket::{Prepared, StreamUrl, dial};
use crate::road::tunnel::Attachment;
use crate::system::jitter;

pub(super) struct Resumer<'a> {
    options: &'a Job<'a>,
    aws: &'a Aws,
    network: &'a Network,
    session_id: SessionId,
    /// Where the session's websocket was last; ResumeSession may name another place.
    stream_url: RefCell<StreamUrl>,
}

impl<'a> Resumer<'a> {
    pub(super) fn new(
        options: &'a Job<'a>,
        aws: &'a Aws,
        network: &'a Network,
        ticket: &SessionTicket,
    ) -> Self {
        let (session_id, stream_url) = (ticket.session_id.clone(), ticket.stream_url.clone());
        Self { options, aws, network, session_id, stream_url: RefCell::new(stream_url) }
    }

    pub(super) fn session_id(&self) -> &SessionId {
        &self.session_id
    }

    /// The first websocket: with the token of StartSession, and if that was spent in vain, with others.
    pub(super) async fn attach(
        &self,
        ticket: SessionTicket,
        prepared: Option<Prepared>,
    ) -> Result<Attachment<Token>, Failure> {
        match self.open(ticket.token, prepared).await {
            Err(Failure::Dial(error)) if !error.is_permanent() => {
                tracing::info!("the websocket could not be opened: {error}");
                match self.resume(FIRST_LIMIT).await {
                    // What kept the first attempt from succeeding says more than the last one's.
                    Err(Failure::Lost { .. }) => Err(error.into()),
                    result => result,
                }
            }
            result => result,
        }
    }

    /// Tries until `limit` has passed.
    pub(super) async fn resume(&self, limit: Duration) -> Result<Attachment<Token>, Failure> {
        let started = Instant::now();
        let mut refusals = 0;
        let mut delay = FIRST_DELAY;
        loop {
            let error = match self.try_resume().await {
                Ok(attachment) => return Ok(attachment),
                Err(error) => error,
            };
            if let Failure::Dial(dial) = &error
                && dial.is_permanent()
            {
                refusals += 1;
            }
            if refusals == REFUSAL_LIMIT || is_final(&error) {
                return Err(error);
            }
            tracing::info!("not resumed yet: {error}");
            if started.elapsed() + delay > limit {
                return Err(Failure::Lost {
                    instance: self.options.instance.clone(),
                    minutes: limit.as_secs() / 60,
                    source: Box::new(error),
                });
            }
            // Half to whole, so that clients which lost the same gateway do not come back in step.
            sleep(delay / 2 + jitter::up_to(delay / 2)).await;
            delay = (delay * 2).min(MAX_DELAY);
        }
    }

    async fn try_resume(&self) -> Result<Attachment<Token>, Failure> {
        let url = self.stream_url.borrow().clone();
        match self.aws.resume_session(&self.session_id, &url).await {
            Ok(Resumption::Ticket(ticket)) => {
                self.stream_url.replace(ticket.stream_url);
                self.open(ticket.token, None).await
            }
            Ok(Resumption::Expired) => {
                Err(Failure::SessionExpired { instance: self.options.instance.clone() })
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn open(&self, token: Token, prepared: Option<Prepared>) -> Result<Attachment<Token>, Failure> {
        let url = self.stream_url.borrow().clone();
        let started = Instant::now();
        let headers = self.aws.sign_upgrade(&url).await?;
        let socket = dial(&url, headers, self.network, prepared).await?;
        tracing::info!("websocket open after {:.0?}", started.elapsed());
        Ok(Attachment { socket, token })
    }
}

/// What trying again cannot mend.
fn is_final(error: &Failure) -> bool {
    match error {
        Failure::SessionExpired { .. } => true,
        Failure::Aws(error) => error.is_permanent(),
        _ => false,
    }
}

/// Sessions idle for 20 minutes are ended by the service, by default.
pub(super) const LIMIT: Duration = Duration::from_secs(20 * 60);
/// Before there is a connection, a user waits.
const FIRST_LIMIT: Duration = Duration::from_secs(10);
const FIRST_DELAY: Duration = Duration::from_millis(100);
const MAX_DELAY: Duration = Duration::from_secs(5);
/// A refused upgrade is never tried again with the same token; with fresh ones, this often.
const REFUSAL_LIMIT: u32 = 3;
