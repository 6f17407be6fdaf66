//! Pages of a list. A token says where the next page begins; to a client it is opaque.

use base64::{Engine, engine::general_purpose::STANDARD};

/// The token was not made by [`page`] for a list of this kind.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct InvalidToken;

/// The size of the first page of a list.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Reach {
    /// No item, as from AWS when no filter has matched yet.
    Empty,
    /// A few items.
    Short,
    /// As many items as requested.
    Whole,
}

impl Reach {
    /// For a list with this many filters.
    pub(super) fn of(filters: usize) -> Self {
        if filters == 0 { Self::Short } else { Self::Empty }
    }

    fn limit(self) -> usize {
        match self {
            Self::Empty => 0,
            Self::Short => SHORT,
            Self::Whole => usize::MAX,
        }
    }
}

/// At most `size` of `items` from the position in `token`, and the token of the next page.
///
/// AWS promises no more: a page may have fewer items than requested, or none, and only a missing token marks
/// the last page. Here each list begins with such a page, to detect a client that takes it for the whole
/// list.
///
/// <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/Query-Requests.html#api-pagination>
pub(super) fn page<T>(
    mut items: Vec<T>,
    size: usize,
    reach: Reach,
    token: Option<&str>,
) -> Result<(Vec<T>, Option<String>), InvalidToken> {
    let (start, size) = match token {
        None => (0, size.min(reach.limit())),
        Some(token) => (read(token)?, size),
    };
    if start > items.len() {
        return Err(InvalidToken);
    }
    let mut rest = items.split_off(start);
    // An empty first page always has a next page: only that shows whether the filters match anything.
    let more = rest.len() > size || size == 0;
    let next = more.then(|| write(start + size));
    rest.truncate(size);
    Ok((rest, next))
}

fn write(start: usize) -> String {
    STANDARD.encode(format!("{PREFIX}{start}"))
}

fn read(token: &str) -> Result<usize, InvalidToken> {
    let bytes = STANDARD.decode(token).map_err(|_| InvalidToken)?;
    let text = str::from_utf8(&bytes).ok().and_then(|text| text.strip_prefix(PREFIX));
    text.and_then(|start| start.parse().ok()).ok_or(InvalidToken)
}

/// Long enough that the token has `=`, `+` and `/` to be encoded on its way back.
const PREFIX: &str = "\u{3fb}\u{fbf}\u{3ff}next:";
/// Fewer than a client may request: the least `MaxResults` is 5.
const SHORT: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    /// The lengths of the pages of so many items. Checks that the pages hold each item once, in order.
    fn lengths(reach: Reach, items: usize) -> Vec<usize> {
        let (mut seen, mut lengths, mut token) = (Vec::new(), Vec::new(), None);
        loop {
            let (page, next) = page((0..items).collect(), 5, reach, token.as_deref()).unwrap();
            lengths.push(page.len());
            seen.extend(page);
            token = next;
            if token.is_none() {
                break;
            }
        }
        assert_eq!(seen, (0..items).collect::<Vec<_>>());
        lengths
    }

    #[test]
    fn pages_hold_every_item_once() {
        assert_eq!(lengths(Reach::Whole, 12), [5, 5, 2]);
        assert_eq!(lengths(Reach::Whole, 0), [0]);
    }

    #[test]
    fn a_first_page_may_be_short_or_empty() {
        assert_eq!(lengths(Reach::of(0), 12), [4, 5, 3]);
        assert_eq!(lengths(Reach::of(0), 4), [4]);
        assert_eq!(lengths(Reach::of(0), 0), [0]);
        assert_eq!(lengths(Reach::of(1), 12), [0, 5, 5, 2]);
        assert_eq!(lengths(Reach::of(2), 0), [0, 0]);
    }

    #[test]
    fn a_foreign_token_is_refused() {
        for token in ["", "5", "AAAA", &write(13)] {
            let page = page((0..12).collect::<Vec<_>>(), 5, Reach::Whole, Some(token));
            assert_eq!(page, Err(InvalidToken), "{token}");
        }
    }
}
