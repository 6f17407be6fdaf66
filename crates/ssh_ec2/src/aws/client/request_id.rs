//! The id that AWS gives a request. (Pure.)

use std::fmt;

use crate::system::text::foreign_text;

/// AWS's id of a request, which CloudTrail and AWS Support find it by.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct RequestId(String);

impl RequestId {
    /// Makes a received text printable and bounds it; AWS's own ids are UUIDs.
    pub(crate) fn clean(text: &str) -> Self {
        Self(foreign_text(text, 64))
    }

    /// Stands for the id in a response that has none; AWS's own all have one.
    pub(crate) fn absent() -> Self {
        Self("(none)".into())
    }

    /// The id as AWS wrote it.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
