//! Standard input whose bytes a [`LoginWatch`] sees.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

use super::login_watch::LoginWatch;
use crate::road::stdio::Input;

/// The same input, which `watch` sees.
pub(super) fn watched(input: Input, watch: Rc<RefCell<LoginWatch>>) -> Input {
    Box::new(Watched { input, watch })
}

struct Watched {
    input: Input,
    watch: Rc<RefCell<LoginWatch>>,
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = room.filled().len();
        ready!(Pin::new(&mut self.input).poll_read(cx, room))?;
        self.watch.borrow_mut().sent(&room.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}
