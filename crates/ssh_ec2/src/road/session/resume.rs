//! Gets another websocket for a session: ResumeSession for a fresh token, then the dial, repeatedly.
//!
//! The service ends websockets about every hour with a clean close, laptops sleep, addresses change: so
//! attempts continue for minutes after any loss. Each attempt gets the credentials again. An error that will
//! not go away ends the attempts.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::{Persistence, Session};
use crate::aws::{Resumption, Token};
use crate::net::websocket::{Prepared, dial};
use crate::road::error::RoadError;
use crate::road::tunnel::Attachment;
use crate::system::jitter;

impl Session<'_> {
    /// The first websocket: with the token of StartSession, and if that fails, with tokens of ResumeSession.
    pub(super) async fn attach(
        &self,
        persistence: Persistence,
        prepared: Option<Prepared>,
    ) -> Result<Attachment<Token>, RoadError> {
        let Some(token) = self.token.take() else { return self.resume(persistence).await };
        match self.open(token, prepared).await {
            Err(RoadError::Dial(error)) if persistence == Persistence::Resume && !error.is_permanent() => {
                tracing::info!("the websocket could not be opened: {error}");
                match self.resume_within(FIRST_LIMIT).await {
                    // The first attempt's error is more useful than the last one's.
                    Err(RoadError::Lost { .. }) => Err(error.into()),
                    result => result,
                }
            }
            result => result,
        }
    }

    /// Another websocket, after the last one was lost.
    pub(super) async fn resume(&self, persistence: Persistence) -> Result<Attachment<Token>, RoadError> {
        match persistence {
            Persistence::Once => Err(RoadError::WebsocketLost { target: self.target.clone() }),
            Persistence::Resume => self.resume_within(LIMIT).await,
        }
    }

    async fn resume_within(&self, limit: Duration) -> Result<Attachment<Token>, RoadError> {
        let started = Instant::now();
        let mut refusals = 0;
        let mut delay = FIRST_DELAY;
        loop {
            let error = match self.try_resume().await {
                Ok(attachment) => return Ok(attachment),
                Err(error) => error,
            };
            if let RoadError::Dial(dial) = &error
                && dial.is_permanent()
            {
                refusals += 1;
            }
            if refusals == REFUSAL_LIMIT || is_final(&error) {
                return Err(error);
            }
            tracing::info!("not resumed yet: {error}");
            if started.elapsed() + delay > limit {
                return Err(RoadError::Lost {
                    target: self.target.clone(),
                    minutes: limit.as_secs() / 60,
                    source: Box::new(error),
                });
            }
            // Half of the delay to all of it, at random, so that clients which lost the same gateway do not
            // return at the same time.
            sleep(delay / 2 + jitter::up_to(delay / 2)).await;
            delay = (delay * 2).min(MAX_DELAY);
        }
    }

    async fn try_resume(&self) -> Result<Attachment<Token>, RoadError> {
        let url = self.stream_url();
        match self.aws.resume_session(&self.id, &url).await {
            Ok(Resumption::Ticket(ticket)) => {
                self.stream_url.replace(ticket.stream_url);
                self.open(ticket.token, None).await
            }
            Ok(Resumption::Expired) => Err(RoadError::SessionExpired { target: self.target.clone() }),
            Err(error) => Err(error.into()),
        }
    }

    async fn open(&self, token: Token, prepared: Option<Prepared>) -> Result<Attachment<Token>, RoadError> {
        let url = self.stream_url();
        let started = Instant::now();
        let headers = self.aws.sign_upgrade(&url).await?;
        let socket = dial(&url, headers, self.network, prepared).await?;
        tracing::info!("websocket open after {:.0?}", started.elapsed());
        Ok(Attachment { socket, token })
    }
}

/// Whether further attempts would fail for the same reason.
fn is_final(error: &RoadError) -> bool {
    match error {
        RoadError::SessionExpired { .. } => true,
        RoadError::Aws(error) => error.is_permanent(),
        _ => false,
    }
}

/// How long to try. By default the service ends sessions that are idle for 20 minutes.
const LIMIT: Duration = Duration::from_secs(20 * 60);
/// How long to try before the first connection, for which the user waits.
const FIRST_LIMIT: Duration = Duration::from_secs(10);
const FIRST_DELAY: Duration = Duration::from_millis(100);
const MAX_DELAY: Duration = Duration::from_secs(5);
/// How often a refused upgrade is tried again, each time with a fresh token.
const REFUSAL_LIMIT: u32 = 3;
