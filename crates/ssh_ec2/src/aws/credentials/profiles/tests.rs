use super::*;
use ini::{SyntaxError, parse};

/// The profiles of a config file and a credentials file.
fn profiles(config: &str, credentials: &str) -> Result<Profiles, ConfigurationError> {
    let variables = Variables::new([], Some("/home/me".into()));
    let text = |path: &Path| match path.to_str() {
        Some("/home/me/.aws/config") => Ok(Some(config.as_bytes().to_vec())),
        Some("/home/me/.aws/credentials") => Ok(Some(credentials.as_bytes().to_vec())),
        _ => Ok(None),
    };
    Profiles::read(&variables, &text)
}

fn names(config: &str, credentials: &str) -> Vec<String> {
    profiles(config, credentials).unwrap().names().map(str::to_owned).collect()
}

/// An option of the profile `p`.
fn option(config: &str, name: &'static str) -> Option<String> {
    profiles(config, "").unwrap().get("p").unwrap().owned(name).unwrap()
}

#[test]
fn indented_files_are_read() {
    let indented = "[profile p]\n  region = eu-west-1\n  output = json\n";
    assert_eq!(option(indented, "region").as_deref(), Some("eu-west-1"));
    assert_eq!(option(indented, "output").as_deref(), Some("json"));
    let all = "  [profile p]\n    region = eu-west-1\n  # note\n    output = json\n";
    assert_eq!(option(all, "region").as_deref(), Some("eu-west-1"));
}

#[test]
fn what_is_deeper_than_an_option_belongs_to_it() {
    let deeper = "[profile p]\nregion = a\n  [profile q]\n  output = json\n\n  end\n";
    assert_eq!(option(deeper, "region").as_deref(), Some("a\n[profile q]\noutput = json\n\nend"));
    assert_eq!(names(deeper, ""), ["p"]);
    // A comment in between is no part of the value.
    assert_eq!(option("[profile p]\nx = a\n  ; no\n  b\n", "x").as_deref(), Some("a\nb"));
}

#[test]
fn text_after_a_header_is_no_error() {
    assert_eq!(names("[profile p] /* note */\n[default] # x\n", "[c] y\n"), ["c", "default", "p"]);
    // The header ends at the last bracket.
    assert_eq!(names("[profile p] # not [q]\nregion = a\n", ""), Vec::<String>::new());
}

#[test]
fn names_may_have_spaces_quotes_and_any_letter() {
    let config =
        "[profile \"My Co\"]\n[profile 'Your Co']\n[profile münchen]\n[profile a\\ b]\n[profile a/@:b]\n";
    let expected = ["Foo Bar", "My Co", "Your Co", "a b", "a/@:b", "münchen"];
    assert_eq!(names(config, "[Foo Bar]\n"), expected);
    assert_eq!(
        names("[profile My Co]\n[profile]\n[profile 'x]\n[foo]\n[ default ]\n[Default]\n", ""),
        [""; 0]
    );
}

#[test]
fn a_section_in_two_spellings_counts_as_the_second() {
    let config = "[default]\nregion = a\noutput = b\n[profile default]\nregion = c\n";
    let profiles = profiles(config, "").unwrap();
    let default = profiles.get("default").unwrap();
    assert_eq!(default.text("region").unwrap(), Some("c"));
    assert!(!default.has("output"));
}

#[test]
fn the_credentials_file_wins_option_by_option() {
    let profiles = profiles("[profile p]\nregion = a\noutput = b\n", "[p]\nregion = c\n").unwrap();
    let p = profiles.get("p").unwrap();
    assert_eq!((p.text("region").unwrap(), p.text("output").unwrap()), (Some("c"), Some("b")));
    assert_eq!(profiles.in_config("p").unwrap().text("region").unwrap(), Some("a"));
}

#[test]
fn options_are_read_as_python_reads_them() {
    let config =
        "[profile p]\nREGION: eu-west-1 # no comment\nurl=https://a:b=c\nempty =\n\n\n[DEFAULT]\nall = 1\n";
    assert_eq!(option(config, "region").as_deref(), Some("eu-west-1 # no comment"));
    assert_eq!(option(config, "url").as_deref(), Some("https://a:b=c"));
    assert_eq!(option(config, "empty").as_deref(), Some(""));
    assert_eq!(option(config, "all").as_deref(), Some("1"));
    assert_eq!(option("[profile p]\r\nregion = a\r\n", "region").as_deref(), Some("a"));
    assert_eq!(option("[profile p]\rregion = a\r", "region").as_deref(), Some("a"));
}

#[test]
fn lines_below_an_option_are_nested() {
    let config =
        "[services s]\nec2 =\n  endpoint_url = http://a\n\n  Other= b =c\n[profile p]\nregion =\n  a = b\n";
    let found = profiles(config, "").unwrap();
    let nested = [("endpoint_url", "http://a"), ("Other", "b =c")];
    let nested = nested.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(found.services("s").unwrap()["ec2"], Value::Nested(nested.into()));
    let error = found.get("p").unwrap().text("region").unwrap_err();
    assert_eq!(
        error.to_string(),
        "`region` of profile p has indented lines below it instead of a value beside it"
    );
}

#[test]
fn what_makes_a_file_unreadable_is_told_with_its_line() {
    for (text, expected) in [
        ("[a]\n[a]\n", "line 2: the section [a] occurs a second time"),
        ("[a]\nx=1\nX=2\n", "line 3: `x` is set a second time in [a]"),
        ("region = a\n[a]\n", "line 1: there is no [section] above it"),
        ("\u{feff}[a]\n", "line 1: there is no [section] above it; the file begins with a byte order mark"),
        ("[a]\nfoo\n[b]\nbar\n", "line 2: there is neither a [section] nor `name = value`"),
        ("[a]\n= x\n", "line 2: there is neither a [section] nor `name = value`"),
        ("[]\n", "line 1: there is no [section] above it"),
        ("[a]\ns3 =\n  x\n", "in [a], a line below `s3` is not `name = value`"),
    ] {
        assert_eq!(parse(text.as_bytes()).unwrap_err().to_string(), expected, "{text}");
    }
    assert_eq!(parse(b"[a]\nx = \xff\n").unwrap_err(), SyntaxError::Encoding);
    assert!(parse("[DEFAULT]\na=1\n[DEFAULT]\nb=1\n# [x\n; y\n".as_bytes()).is_ok());
}

#[test]
fn a_header_without_the_word_profile_is_remembered() {
    let found = profiles("[foo]\nregion = a\n[profile bar]\n", "").unwrap();
    assert_eq!(found.bare_section("foo"), Some(Path::new("/home/me/.aws/config")));
    assert_eq!(found.bare_section("bar"), None);
}

/// The CLI treats it as an empty file, and would use another identity.
#[test]
fn a_file_that_must_not_be_read_is_an_error() {
    let variables = Variables::new([], Some("/home/me".into()));
    let denied = |_: &Path| Err(io::ErrorKind::PermissionDenied.into());
    let error = Profiles::read(&variables, &denied).unwrap_err();
    assert_eq!(error.to_string(), "cannot read the AWS configuration in /home/me/.aws/config");
}
