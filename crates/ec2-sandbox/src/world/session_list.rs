//! Every session since the start: how each is started, found, resumed and ended.

use std::{io, time::SystemTime};

use tokio::sync::{mpsc, watch};

use super::{
    AwsRegion, Caller, Opening, Session, SessionInfo, SessionRecord, State, StreamTicket, TokenError, World,
};

impl World {
    /// Starts a session and returns its first token.
    pub(crate) fn start_session(
        &self,
        opening: Opening,
        caller: &Caller,
        now: SystemTime,
    ) -> io::Result<StreamTicket> {
        let session = Session::start(opening, caller, now)?;
        let ticket = self.ticket(&session);
        let mut state = self.lock();
        if let Some(starts) = &state.starts {
            // It fails only when the region ends.
            let _ = starts.send(session.info());
        }
        state.sessions.push(session);
        self.count(&state);
        Ok(ticket)
    }

    /// Receives every session that is started from now on. Only the last caller does.
    pub(crate) fn watch_starts(&self) -> mpsc::UnboundedReceiver<SessionInfo> {
        let (sender, starts) = mpsc::unbounded_channel();
        self.lock().starts = Some(sender);
        starts
    }

    /// Whether a client has ever opened the data channel of a session.
    pub(crate) fn was_attached(&self, id: &str) -> bool {
        let state = self.lock();
        state.sessions.iter().any(|session| session.record.id == id && session.record.was_attached())
    }

    /// Returns a new token for a session; `None` if there is no such session.
    ///
    /// The token of an ended session is empty, as from AWS.
    pub(crate) fn resume_session(&self, id: &str, now: SystemTime) -> io::Result<Option<StreamTicket>> {
        let mut state = self.lock();
        let Some(session) = state.sessions.iter_mut().find(|session| session.record.id == id) else {
            return Ok(None);
        };
        session.renew_token(now)?;
        Ok(Some(self.ticket(session)))
    }

    /// Consumes the token of a session: the first client that presents it gets the data channel.
    pub(crate) fn take_token(
        &self,
        id: &str,
        token: &str,
        now: SystemTime,
    ) -> Result<SessionInfo, TokenError> {
        let mut state = self.lock();
        let session = state.sessions.iter_mut().find(|session| session.record.id == id);
        session.ok_or(TokenError::UnknownSession)?.take_token(token, self.token_life, now)
    }

    /// Ends a session and notifies its watchers; `false` if it is unknown or had ended already.
    pub(crate) fn terminate(&self, id: &str, now: SystemTime) -> bool {
        let mut state = self.lock();
        let ended = state.sessions.iter_mut().find(|session| session.record.id == id);
        let ended = ended.is_some_and(|session| session.terminate(now));
        self.count(&state);
        ended
    }

    /// Ends all sessions. Their clients get `output` as the reason.
    pub(crate) fn end_sessions(&self, output: &str, now: SystemTime) {
        let mut state = self.lock();
        for session in state.sessions.iter_mut().filter(|session| session.is_connected()) {
            output.clone_into(&mut session.record.output);
            session.terminate(now);
        }
        self.count(&state);
    }

    /// The reason that the client of a session gets at its end, often empty.
    pub(crate) fn output(&self, id: &str) -> String {
        let state = self.lock();
        let session = state.sessions.iter().find(|session| session.record.id == id);
        session.map(|session| session.record.output.clone()).unwrap_or_default()
    }

    /// Every session since the start, oldest first.
    pub(crate) fn sessions(&self) -> Vec<SessionRecord> {
        self.lock().sessions.iter().map(|session| session.record.clone()).collect()
    }

    /// The region that a session is in.
    pub(crate) fn session_region(&self, id: &str) -> Option<AwsRegion> {
        let state = self.lock();
        let session = state.sessions.iter().find(|session| session.record.id == id);
        session.map(|session| session.record.opening.region)
    }

    /// The number of connected sessions, as it changes.
    pub(crate) fn connected_sessions(&self) -> watch::Receiver<usize> {
        self.connected.subscribe()
    }

    fn ticket(&self, session: &Session) -> StreamTicket {
        StreamTicket {
            session_id: session.record.id.clone(),
            stream_url: format!(
                "{}/v1/data-channel/{}?{}",
                self.stream_url,
                session.record.id,
                Self::stream_query()
            ),
            token: session.token().unwrap_or_default().to_owned(),
        }
    }

    fn count(&self, state: &State) {
        let connected = state.sessions.iter().filter(|session| session.is_connected()).count();
        self.connected.send_if_modified(|count| std::mem::replace(count, connected) != connected);
    }
}
