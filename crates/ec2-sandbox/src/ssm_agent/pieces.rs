//! Cuts a command's output into messages like the SSM agent: between characters, and with its mistakes.
//!
//! It decodes each piece that it reads as UTF-8 (`processStdoutData` in `agent/session/shell/shell.go`). An
//! incomplete character in the last three bytes is kept for the next piece, and dropped if there is none.
//! U+FFFD itself decodes like an error of three bytes, so only its first byte is sent. Other bytes that are
//! not UTF-8 pass unchanged.

/// The output of one command.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    held_back: Vec<u8>,
}

impl Pieces {
    /// The payload to send after reading `piece`; it may be empty.
    pub(super) fn cut(&mut self, piece: &[u8]) -> Vec<u8> {
        let mut rest = std::mem::take(&mut self.held_back);
        rest.extend_from_slice(piece);
        let mut payload = Vec::with_capacity(rest.len());
        let mut at = 0;
        while let Some(left) = rest.get(at..).filter(|left| !left.is_empty()) {
            match character(left) {
                Some(REPLACEMENT) | None if left.len() < LONGEST => break,
                Some(REPLACEMENT) => {
                    payload.extend(left.first());
                    at += REPLACEMENT.len_utf8();
                }
                Some(character) => {
                    payload.extend_from_slice(&left[..character.len_utf8()]);
                    at += character.len_utf8();
                }
                None => {
                    payload.extend(left.first());
                    at += 1;
                }
            }
        }
        self.held_back = rest.split_off(at);
        payload
    }
}

/// The character at the start of `bytes`, if there is one.
fn character(bytes: &[u8]) -> Option<char> {
    let start = bytes.get(..bytes.len().min(LONGEST))?;
    let valid = match std::str::from_utf8(start) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(&start[..error.valid_up_to()]).unwrap_or_default(),
    };
    valid.chars().next()
}

const REPLACEMENT: char = char::REPLACEMENT_CHARACTER;
/// Bytes of a character.
const LONGEST: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_passes() {
        let mut pieces = Pieces::default();
        assert_eq!(pieces.cut("naïve €🦀\n".as_bytes()), "naïve €🦀\n".as_bytes());
        assert_eq!(pieces.cut(b""), b"");
    }

    #[test]
    fn a_character_is_held_back_until_it_is_whole() {
        let mut pieces = Pieces::default();
        let crab = "🦀".as_bytes();
        assert_eq!(pieces.cut(&[b"x".as_slice(), &crab[..3]].concat()), b"x");
        assert_eq!(pieces.cut(&crab[3..]), crab);
    }

    #[test]
    fn what_is_no_text_passes_but_for_the_replacement_character_and_the_end() {
        let mut pieces = Pieces::default();
        let bytes = b"abc\xff\xfe\x80\xc3\xa9\xef\xbf\xbdend\xc3";
        assert_eq!(pieces.cut(bytes), b"abc\xff\xfe\x80\xc3\xa9\xefend");
    }
}
