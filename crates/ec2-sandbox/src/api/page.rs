//! Pages of a list. A token says where the next page begins; to a client it is opaque.

use base64::{Engine, engine::general_purpose::STANDARD};

/// The token was not made by [`page`] for a list of this kind.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct InvalidToken;

/// At most `size` of `items` from where `token` says, and the token of the page after.
pub(super) fn page<T>(
    mut items: Vec<T>,
    size: usize,
    token: Option<&str>,
) -> Result<(Vec<T>, Option<String>), InvalidToken> {
    let start = token.map_or(Ok(0), read)?;
    if start > items.len() {
        return Err(InvalidToken);
    }
    let mut rest = items.split_off(start);
    let next = (rest.len() > size).then(|| write(start + size));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_hold_every_item_once() {
        let (mut seen, mut token) = (Vec::new(), None);
        loop {
            let (items, next) = page((0..12).collect(), 5, token.as_deref()).unwrap();
            assert!((1..=5).contains(&items.len()));
            seen.extend(items);
            token = next;
            if token.is_none() {
                break;
            }
        }
        assert_eq!(seen, (0..12).collect::<Vec<_>>());
    }

    #[test]
    fn a_foreign_token_is_refused() {
        for token in ["", "5", "AAAA", &write(13)] {
            assert_eq!(page((0..12).collect::<Vec<_>>(), 5, Some(token)), Err(InvalidToken), "{token}");
        }
    }
}
