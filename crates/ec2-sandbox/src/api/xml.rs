//! Writes the XML of the query protocols. All text is escaped; names come from this crate and are trusted.

use std::fmt::Display;

/// An XML document that is being written.
#[derive(Debug)]
pub(super) struct Xml(String);

impl Xml {
    /// Starts a document.
    pub(super) fn document() -> Self {
        Self("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n".to_owned())
    }

    /// Writes the root element with its namespace.
    pub(super) fn root(&mut self, name: &str, namespace: &str, content: impl FnOnce(&mut Self)) {
        self.0.push_str(&format!("<{name} xmlns=\"{namespace}\">"));
        content(self);
        self.0.push_str(&format!("</{name}>"));
    }

    /// Writes an element with elements in it.
    pub(super) fn element(&mut self, name: &str, content: impl FnOnce(&mut Self)) {
        self.0.push_str(&format!("<{name}>"));
        content(self);
        self.0.push_str(&format!("</{name}>"));
    }

    /// Writes an element with text in it.
    pub(super) fn text(&mut self, name: &str, text: impl Display) {
        self.element(name, |xml| xml.0.push_str(&escape(&text.to_string())));
    }

    /// Writes a list as EC2 does: an element with one `item` for each of `items`.
    pub(super) fn list<T>(
        &mut self,
        name: &str,
        items: impl IntoIterator<Item = T>,
        mut content: impl FnMut(&mut Self, T),
    ) {
        self.element(name, |xml| {
            for item in items {
                xml.element("item", |xml| content(xml, item));
            }
        });
    }

    /// The finished document.
    pub(super) fn finish(self) -> String {
        self.0
    }
}

fn escape(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut escaped, character| {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            // XML parsers read a literal carriage return as a line feed.
            '\r' => escaped.push_str("&#13;"),
            '\t' | '\n' => escaped.push(character),
            // XML 1.0 has no way to write the other control characters of ASCII, but those above it are text.
            '\0'..' ' => escaped.push('\u{fffd}'),
            _ if character.is_control() => escaped.push_str(&format!("&#{};", u32::from(character))),
            _ => escaped.push(character),
        }
        escaped
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped() {
        let mut xml = Xml::document();
        xml.list("names", ["a<b>&\"c\"", "d\re\u{1}\u{9b}"], |xml, name| xml.text("name", name));
        assert_eq!(
            xml.finish().lines().nth(1),
            Some(
                "<names><item><name>a&lt;b&gt;&amp;&quot;c&quot;</name></item>\
                 <item><name>d&#13;e\u{fffd}&#155;</name></item></names>"
            )
        );
    }
}
