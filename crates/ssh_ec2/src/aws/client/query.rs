//! The protocol AWS Query of EC2 and STS: the request is a form, the response is XML. (Pure.)

use std::fmt::Write as _;

use roxmltree::{Document, Node};

use crate::aws::client::error_response::clean;

/// The body of a call.
pub(crate) fn form(operation: &str, version: &str, parameters: &[(String, String)]) -> String {
    let mut body = format!("Action={operation}&Version={version}");
    for (name, value) in parameters {
        body.push('&');
        encode(name, &mut body);
        body.push('=');
        encode(value, &mut body);
    }
    body
}

/// Appends a text to a URL or a form, percent-encoded.
pub(crate) fn encode(text: &str, form: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            form.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(form, "%{byte:02X}");
        }
    }
}

/// Code and message of an error response. EC2 and STS nest them differently. A response with another nesting
/// is from neither: S3, behind some proxy, denies access with the same code.
pub(crate) fn error_code(status: u16, body: &[u8]) -> (String, String) {
    let text = String::from_utf8_lossy(body);
    let document = Document::parse(&text).ok();
    let error = document.as_ref().map(Document::root_element).and_then(|root| match root.tag_name().name() {
        "Response" => child(child(root, "Errors")?, "Error"),
        "ErrorResponse" => child(root, "Error"),
        _ => None,
    });
    let part = |name| error.and_then(|error| child_text(error, name));
    clean(status, part("Code").unwrap_or_default(), part("Message"))
}

/// The first element `name` below `node`.
pub(crate) fn child<'a, 'input>(node: Node<'a, 'input>, name: &str) -> Option<Node<'a, 'input>> {
    node.children().find(|child| child.is_element() && child.tag_name().name() == name)
}

/// The text of the first element `name` below `node`. None as well if it is empty.
pub(crate) fn child_text<'a>(node: Node<'a, '_>, name: &str) -> Option<&'a str> {
    child(node, name)?.text().filter(|text| !text.is_empty())
}

/// The items of the list `name` below `node`.
pub(crate) fn items<'a, 'input>(node: Node<'a, 'input>, name: &str) -> Vec<Node<'a, 'input>> {
    let items = child(node, name).into_iter().flat_map(|list| list.children());
    items.filter(|item| item.is_element() && item.tag_name().name() == "item").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_encoded() {
        let parameters = [("Filter.1.Name".to_owned(), "tag:Größe & Co=+ ~".to_owned())];
        assert_eq!(
            form("DescribeInstances", "2016-11-15", &parameters),
            "Action=DescribeInstances&Version=2016-11-15&Filter.1.Name=tag%3AGr%C3%B6%C3%9Fe%20%26%20Co%3D%2B%20~"
        );
    }

    #[test]
    fn errors_of_ec2_and_of_sts_are_found() {
        let ec2 = "<?xml version=\"1.0\"?><Response><Errors><Error><Code>UnauthorizedOperation</Code>\
                   <Message>You are not authorized</Message></Error></Errors><RequestID>x</RequestID></Response>";
        let sts = "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error><Type>Sender</Type>\
                   <Code>AccessDenied</Code><Message>no\u{9b}2J</Message></Error></ErrorResponse>";
        let found = |text: &str| error_code(403, text.as_bytes());
        assert_eq!(found(ec2), ("UnauthorizedOperation".into(), "You are not authorized".into()));
        assert_eq!(found(sts), ("AccessDenied".into(), "no 2J".into()));
        let bucket = "<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>";
        let page = format!("<html><body>{bucket}</body></html>");
        for text in ["", bucket, &page, "<html>", "<!DOCTYPE a [<!ENTITY b \"c\">]><a>&b;</a>", "\u{0}"] {
            assert_eq!(found(text), ("status 403".into(), "it gave no reason".into()));
        }
    }
}
