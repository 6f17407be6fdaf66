//! A client with its own signing code: with the region's code both could have the same mistake.

use ec2_sandbox::{Faults, Options, Region};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) access_key_id: String,
    pub(crate) secret_access_key: String,
    pub(crate) session_token: Option<String>,
    pub(crate) region: String,
    pub(crate) host: String,
}

/// A region without the quota of StartSession, for tests that start many sessions.
pub(crate) async fn without_quota() -> (Region, Client) {
    with_faults(&[WITHOUT_QUOTA]).await
}

pub(crate) async fn with_faults(words: &[&str]) -> (Region, Client) {
    let mut faults = Faults::default();
    for word in words {
        faults.add(word).unwrap();
    }
    let region = Region::start(Options { faults, ..Options::default() }).await.unwrap();
    let client = Client::new(&region);
    (region, client)
}

pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) body: String,
    head: String,
}

impl Client {
    pub(crate) fn new(region: &Region) -> Self {
        let environment = region.environment();
        let variable =
            |name: &str| environment.iter().find(|(n, _)| n == name).map(|(_, value)| value.clone());
        Self {
            access_key_id: variable("AWS_ACCESS_KEY_ID").unwrap(),
            secret_access_key: variable("AWS_SECRET_ACCESS_KEY").unwrap(),
            session_token: variable("AWS_SESSION_TOKEN"),
            region: variable("AWS_REGION").unwrap(),
            host: region.endpoint().strip_prefix("http://").unwrap().to_owned(),
        }
    }

    /// The same client in another region.
    pub(crate) fn in_region(&self, region: &str) -> Self {
        Self { region: region.to_owned(), ..self.clone() }
    }

    pub(crate) async fn ssm(&self, operation: &str, input: &Value) -> Reply {
        self.post("ssm", Some(&format!("AmazonSSM.{operation}")), &input.to_string()).await
    }

    pub(crate) async fn instance_connect(&self, operation: &str, input: &Value) -> Reply {
        let target = format!("AWSEC2InstanceConnectService.{operation}");
        self.post("ec2-instance-connect", Some(&target), &input.to_string()).await
    }

    pub(crate) async fn ec2<N: AsRef<str>>(&self, input: &[(N, N)]) -> Reply {
        self.post("ec2", None, &versioned(input, "2016-11-15")).await
    }

    pub(crate) async fn sts(&self, input: &[(&str, &str)]) -> Reply {
        self.post("sts", None, &versioned(input, "2011-06-15")).await
    }

    pub(crate) async fn iam(&self, input: &[(&str, &str)]) -> Reply {
        self.post("iam", None, &versioned(input, "2010-05-08")).await
    }

    /// The ids on every page of DescribeInstances.
    pub(crate) async fn instance_pages(&self, input: &[(&str, &str)]) -> Vec<Vec<String>> {
        let mut pages = Vec::new();
        let mut token = None::<String>;
        loop {
            let mut input = [&[("Action", "DescribeInstances")], input].concat();
            input.extend(token.as_deref().map(|token| ("NextToken", token)));
            let reply = self.ec2(&input).await;
            assert_eq!(reply.status, 200, "{}", reply.body);
            pages.push(reply.elements("instanceId"));
            token = reply.elements("nextToken").pop();
            if token.is_none() {
                return pages;
            }
        }
    }

    /// DescribeInstanceInformation with `filters`, all pages.
    pub(crate) async fn agents(&self, filters: &Value) -> Vec<Value> {
        let mut agents = Vec::new();
        let mut token = Value::Null;
        loop {
            let input = json!({"Filters": filters, "NextToken": token});
            let page = self.ssm("DescribeInstanceInformation", &input).await.json();
            agents.extend(page["InstanceInformationList"].as_array().unwrap().iter().cloned());
            token = page["NextToken"].clone();
            if token.is_null() {
                return agents;
            }
        }
    }

    /// The same client with the credentials in a response of STS.
    pub(crate) fn with_credentials(&self, reply: &Reply) -> Self {
        let element = |name| reply.elements(name).pop().unwrap_or_else(|| panic!("{}", reply.body));
        Self {
            access_key_id: element("AccessKeyId"),
            secret_access_key: element("SecretAccessKey"),
            session_token: Some(element("SessionToken")),
            ..self.clone()
        }
    }

    /// A signed call with the content type of its protocol.
    pub(crate) async fn post(&self, service: &str, target: Option<&str>, body: &str) -> Reply {
        let kind = if target.is_some() { JSON } else { "application/x-www-form-urlencoded; charset=utf-8" };
        let target = target.map(|target| ("x-amz-target", target));
        let extra: Vec<_> = [("content-type", kind)].into_iter().chain(target).collect();
        self.post_with(service, &extra, body).await
    }

    /// A signed call with these headers, which are signed too.
    pub(crate) async fn post_with(&self, service: &str, extra: &[(&str, &str)], body: &str) -> Reply {
        let headers = self.sign("POST", "/", service, extra, body);
        let headers = headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let headers: Vec<_> = headers.chain(extra.iter().copied()).collect();
        self.send("POST", "/", &headers, body).await
    }

    /// The headers that sign a request, for a path without anything to encode. `extra` headers are signed
    /// too.
    pub(crate) fn sign(
        &self,
        method: &str,
        path: &str,
        service: &str,
        extra: &[(&str, &str)],
        body: &str,
    ) -> Vec<(String, String)> {
        let date = now();
        let mut headers = vec![("host", self.host.as_str()), ("x-amz-date", &date)];
        headers.extend(self.session_token.as_deref().map(|token| ("x-amz-security-token", token)));
        headers.extend(extra);
        let names = headers.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let mut pairs: Vec<_> = query.split('&').filter(|pair| !pair.is_empty()).collect();
        pairs.sort_unstable();
        let encode = |pair: &&str| {
            let (name, value) = pair.split_once('=').unwrap();
            format!("{name}={}", value.replace('+', "%20").replace('/', "%2F").replace('=', "%3D"))
        };
        let lines: String = headers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
        let query = pairs.iter().map(encode).collect::<Vec<_>>().join("&");
        let canonical = format!("{method}\n{path}\n{query}\n{lines}\n{names}\n{}", sha256(body));
        let scope = format!("{}/{}/{service}/aws4_request", &date[..8], self.region);
        let text = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", sha256(&canonical));
        let secret = format!("AWS4{}", self.secret_access_key).into_bytes();
        let signature =
            hex(&scope.split('/').chain([text.as_str()]).fold(secret, |key, part| mac(&key, part)));
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={names}, Signature={signature}",
            self.access_key_id
        );
        let token = self.session_token.iter().map(|token| ("x-amz-security-token", token.as_str()));
        let made = [("x-amz-date", date.as_str()), ("authorization", &authorization)];
        made.into_iter().chain(token).map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    /// Any request, over a connection of its own.
    pub(crate) async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Reply {
        let mut stream = TcpStream::connect(&self.host).await.unwrap();
        let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let length = body.len();
        let host = &self.host;
        let head =
            format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\ncontent-length: {length}\r\n{headers}\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        // The server may answer a body that is too large without reading all of it.
        let _ = stream.write_all(body.as_bytes()).await;
        read_reply(stream).await
    }
}

async fn read_reply(mut stream: TcpStream) -> Reply {
    let mut text = Vec::new();
    let head = loop {
        if let Some(at) = text.windows(4).position(|window| window == b"\r\n\r\n") {
            break text.drain(..at + 4).collect::<Vec<u8>>();
        }
        assert!(stream.read_buf(&mut text).await.unwrap() > 0, "the reply ends in its head");
    };
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    let mut reply = Reply { status: head[9..12].parse().unwrap(), body: String::new(), head };
    let length = reply.header("content-length").map_or(0, |length| length.parse().unwrap());
    while text.len() < length {
        assert!(stream.read_buf(&mut text).await.unwrap() > 0, "the reply ends in its body");
    }
    reply.body = String::from_utf8(text[..length].to_vec()).unwrap();
    reply
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    pub(crate) fn text(&self, member: &str) -> String {
        self.json()[member].as_str().unwrap_or_else(|| panic!("no {member} in {}", self.body)).to_owned()
    }

    /// The type of a JSON error as it came.
    pub(crate) fn raw_code(&self) -> String {
        self.text("__type")
    }

    /// The type of a JSON error without its namespace.
    pub(crate) fn code(&self) -> String {
        let code = self.raw_code();
        code.split_once('#').map_or(code.clone(), |(_, bare)| bare.to_owned())
    }

    /// The text of every XML element of this name that has no attributes.
    pub(crate) fn elements(&self, name: &str) -> Vec<String> {
        let (open, close) = (format!("<{name}>"), format!("</{name}>"));
        let parts = self.body.split(&open).skip(1);
        parts.map(|part| part.split(&close).next().unwrap().to_owned()).collect()
    }
}

/// Form data of the query protocols.
pub(crate) fn query<N: AsRef<str>>(pairs: &[(N, N)]) -> String {
    let encode = |text: &str| {
        let bytes = text.bytes().map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        });
        bytes.collect::<String>()
    };
    let pairs =
        pairs.iter().map(|(name, value)| format!("{}={}", encode(name.as_ref()), encode(value.as_ref())));
    pairs.collect::<Vec<_>>().join("&")
}

/// The same with the version of the API, unless the input names one.
fn versioned<N: AsRef<str>>(pairs: &[(N, N)], version: &str) -> String {
    let body = query(pairs);
    if pairs.iter().any(|(name, _)| name.as_ref() == "Version") {
        return body;
    }
    format!("{body}&Version={version}")
}

/// The current time from `date`, so that no code of the region formats it.
fn now() -> String {
    let output = std::process::Command::new("date").args(["-u", "+%Y%m%dT%H%M%SZ"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

pub(crate) fn sha256(text: &str) -> String {
    hex(&Sha256::digest(text))
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Lifts the quota of StartSession.
pub(crate) const WITHOUT_QUOTA: &str = "throttle=StartSession:1000/1000";

/// The type of AWS's JSON protocol 1.1.
pub(crate) const JSON: &str = "application/x-amz-json-1.1";
