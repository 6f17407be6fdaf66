//! Standard input that reports its bytes to the [`Door`].

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

use super::door::Door;
use crate::road::stdio::Input;

/// Wraps `input` so that it reports its bytes to `door`.
pub(super) fn watched(input: Input, door: Rc<Door>) -> Input {
    Box::new(Watched { input, door })
}

struct Watched {
    input: Input,
    door: Rc<Door>,
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = room.filled().len();
        ready!(Pin::new(&mut self.input).poll_read(cx, room))?;
        self.door.sent(&room.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}
