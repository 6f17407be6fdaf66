//! `credential_process`: a program that prints credentials, run as the AWS CLI runs it.
//!
//! It may ask for a PIN or a touch. So it reads from the terminal or from nothing, never from ssh's pipe; its
//! standard error is shown at once; and its time limit is long. Its arguments and its output may be secrets,
//! and are in no message and no log.

mod running;
mod words;

use std::io::{self, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::pin::pin;
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use serde_json::Value;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Command;
use tokio::time::timeout;
use zeroize::Zeroizing;

use self::running::Running;
pub(crate) use self::words::split;
use crate::aws::credentials::expiry;
use crate::aws::timestamp;
use crate::system::explain::{Anchor, Explain};
use crate::system::text::foreign_text;
use crate::system::tty;

/// The program of a profile.
pub(crate) struct Process {
    line: String,
    may_ask: AtomicBool,
}

/// Why the program gave no credentials. Names the program, and never its arguments.
#[derive(Debug, Error)]
pub(crate) enum ProcessError {
    /// The line ends in a backslash, which escapes nothing.
    #[error("`credential_process` ends in a backslash")]
    Backslash,
    /// The line has no word.
    #[error("`credential_process` is empty")]
    Empty,
    /// The program printed expired credentials.
    #[error("{program} printed credentials that expired at {time}")]
    Expired {
        /// The first word of the line.
        program: String,
        /// When they expired, in RFC 3339.
        time: String,
    },
    /// The program failed.
    #[error("{program} ended with {status}{}", reason(.said))]
    Failed {
        /// The first word of the line.
        program: String,
        /// Its exit status, or the signal that ended it, in words.
        status: String,
        /// The last line of its standard error, printable. Empty if there is none.
        said: String,
    },
    /// The program printed something other than credentials.
    #[error("{program} printed {what}")]
    Malformed {
        /// The first word of the line.
        program: String,
        /// What it printed, as the end of a sentence.
        what: String,
    },
    /// There is no such file at the path, or in PATH.
    #[error("cannot find the program {program}")]
    NotFound {
        /// The first word of the line.
        program: String,
    },
    /// A quotation mark is not closed.
    #[error("`credential_process` has a quotation mark that is not closed")]
    Quotation,
    /// The program could not be started or waited for.
    #[error("cannot run {program}")]
    Run {
        /// The first word of the line.
        program: String,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The program did not end in time.
    #[error("{program} did not end within {} minutes", PATIENCE.as_secs() / 60)]
    Silent {
        /// The first word of the line.
        program: String,
    },
}

impl Explain for ProcessError {
    fn hints(&self) -> Vec<String> {
        let hint = match self {
            Self::Backslash | Self::Empty | Self::Quotation | Self::NotFound { .. } | Self::Run { .. } => {
                "correct `credential_process` in the profile: no shell runs it, so `~` and `$HOME` stay as they are"
            }
            Self::Expired { .. } | Self::Failed { .. } | Self::Malformed { .. } | Self::Silent { .. } => {
                "run the `credential_process` of the profile by hand to see what it says"
            }
        };
        vec![hint.into()]
    }

    fn anchor(&self) -> Option<Anchor> {
        Some(Anchor::CredentialProcess)
    }
}

fn reason(line: &str) -> String {
    if line.is_empty() { String::new() } else { format!(": {line}") }
}

impl Process {
    /// The program of a line. It may read from the terminal if `may_ask`.
    pub(crate) fn new(line: String, may_ask: bool) -> Self {
        Self { line, may_ask: AtomicBool::new(may_ask) }
    }

    /// Forbids prompts: from now on ssh uses the terminal.
    pub(crate) fn ask_no_more(&self) {
        self.may_ask.store(false, Ordering::Relaxed);
    }

    /// Runs the program. Dropping the future ends it.
    ///
    /// # Errors
    ///
    /// [`ProcessError`].
    pub(crate) async fn credentials(&self) -> Result<Credentials, ProcessError> {
        let words = split(&self.line)?;
        let (program, arguments) = words.split_first().ok_or(ProcessError::Empty)?;
        tracing::info!("running {program} for credentials");
        let mut command = Command::new(program);
        command.args(arguments).stdin(self.input()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let program = program.to_owned();
        let child = match command.spawn() {
            Ok(child) => child,
            // NotFound can also mean that the interpreter of a script is missing.
            Err(error) if error.kind() == io::ErrorKind::NotFound && !Path::new(&program).exists() => {
                return Err(ProcessError::NotFound { program });
            }
            Err(source) => return Err(ProcessError::Run { program, source }),
        };
        let run = timeout(PATIENCE, finish(Running::new(child)));
        let Ended { status, answer, last_line } = match run.await {
            Ok(Ok(ended)) => ended,
            Ok(Err(source)) => return Err(ProcessError::Run { program, source }),
            Err(_) => return Err(ProcessError::Silent { program }),
        };
        if !status.success() {
            return Err(ProcessError::Failed { program, status: outcome(status), said: last_line });
        }
        read(&program, &answer, SystemTime::now())
    }

    fn input(&self) -> Stdio {
        let terminal = self.may_ask.load(Ordering::Relaxed).then(tty::terminal).flatten();
        terminal.map_or_else(Stdio::null, Stdio::from)
    }
}

/// How a program ended, and what it printed.
struct Ended {
    status: ExitStatus,
    answer: Zeroizing<Vec<u8>>,
    last_line: String,
}

/// Waits for the end of a program, and reads what it prints meanwhile.
async fn finish(mut running: Running) -> io::Result<Ended> {
    let (output, errors) = running.outputs();
    let (mut answer, mut tail) = (Zeroizing::new(Vec::new()), Vec::new());
    let status = {
        let mut reading =
            pin!(async { tokio::join!(collect(output, &mut answer), relay(errors, &mut tail)) });
        let mut is_open = true;
        loop {
            tokio::select! {
                status = running.wait() => {
                    // Programs that it started may still run, and keep the pipes open.
                    if is_open {
                        let _ = timeout(GRACE, &mut reading).await;
                    }
                    break status?;
                }
                _ = &mut reading, if is_open => is_open = false,
            }
        }
    };
    let text = String::from_utf8_lossy(&tail);
    let last_line = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
    Ok(Ended { status, answer, last_line: foreign_text(last_line, SHOWN_LINE) })
}

/// Keeps the output, and discards what exceeds the limit, so that the program never blocks on a full pipe.
async fn collect(output: Option<impl AsyncRead + Unpin>, answer: &mut Vec<u8>) {
    let Some(mut output) = output else { return };
    let mut buffer = Zeroizing::new([0; 4096]);
    while let Ok(length @ 1..) = output.read(&mut *buffer).await {
        if answer.len() <= ANSWER_LIMIT {
            answer.extend_from_slice(&buffer[..length]);
        }
    }
}

/// Shows the standard error of the program, unchanged: the program is the user's own, and could write to the
/// terminal itself. Keeps its end.
async fn relay(errors: Option<impl AsyncRead + Unpin>, tail: &mut Vec<u8>) {
    let Some(mut errors) = errors else { return };
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = errors.read(&mut buffer).await {
        let _ = io::stderr().write_all(&buffer[..length]);
        tail.extend_from_slice(&buffer[..length]);
        tail.drain(..tail.len().saturating_sub(TAIL_LENGTH));
    }
}

fn outcome(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}

/// Reads the output. Upper and lower case in the names of its fields matter, as in the AWS CLI.
fn read(program: &str, answer: &[u8], now: SystemTime) -> Result<Credentials, ProcessError> {
    let malformed =
        |what: &str| ProcessError::Malformed { program: program.to_owned(), what: what.to_owned() };
    // The error of the parser could quote the output.
    let answer: Value = serde_json::from_slice(answer).map_err(|_| malformed("no JSON"))?;
    let fields = answer.as_object().ok_or_else(|| malformed("JSON that is not an object"))?;
    let text = |name: &str| fields.get(name)?.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    match fields.get("Version") {
        None => return Err(malformed("no Version; it must be 1")),
        Some(version) if version.as_f64() == Some(1.0) => {}
        Some(version) => {
            let version = foreign_text(&version.to_string(), SHOWN_VALUE);
            return Err(malformed(&format!("credentials of Version {version}; it must be 1")));
        }
    }
    let needed = |name: &str| text(name).ok_or_else(|| malformed(&format!("no {name}")));
    let (id, secret) = (needed("AccessKeyId")?, needed("SecretAccessKey")?);
    let expiration = match fields.get("Expiration") {
        None | Some(Value::Null) => None,
        Some(value) => {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let time = expiry::read(&value).ok_or_else(|| {
                malformed(&format!("an Expiration that is not a time: {}", foreign_text(&value, SHOWN_VALUE)))
            })?;
            Some(time)
        }
    };
    if let Some(time) = expiration.filter(|time| *time <= now) {
        return Err(ProcessError::Expired { program: program.to_owned(), time: timestamp(time) });
    }
    Ok(Credentials::new(id, secret, text("SessionToken"), expiration, "credential_process"))
}

/// The user may have to find a hardware key, or to sign in with a browser.
const PATIENCE: Duration = Duration::from_secs(10 * 60);
/// How long to read the output of a program that has ended: it is in the pipe already.
const GRACE: Duration = Duration::from_millis(100);
/// A hundred times the longest known session token.
const ANSWER_LIMIT: usize = 1024 * 1024;
const TAIL_LENGTH: usize = 2048;
const SHOWN_LINE: usize = 300;
const SHOWN_VALUE: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_as_the_cli_reads_it() {
        let now = expiry::read("2026-01-01T00:00:00Z").unwrap();
        let keys = r#""AccessKeyId":"A","SecretAccessKey":"S""#;
        for (rest, token, expires) in [
            (r#""Version":1"#, None, None),
            (r#""Version":1.0,"SessionToken":null,"Expiration":null"#, None, None),
            (r#""Version":1,"SessionToken":"T","Other":[]"#, Some("T"), None),
            (r#""Version":1,"Expiration":"2026-01-01T01:00:00+0000""#, None, Some("2026-01-01T01:00:00Z")),
        ] {
            let credentials = read("p", format!("{{{keys},{rest}}}").as_bytes(), now).unwrap();
            assert_eq!(
                (credentials.access_key_id(), credentials.secret_access_key(), credentials.session_token()),
                ("A", "S", token)
            );
            assert_eq!(credentials.expiry(), expires.and_then(expiry::read), "{rest}");
        }
        for rest in [r#""version":1"#, r#""Version":"1""#, r#""Version":true"#, r#""Version":null"#] {
            let error = read("p", format!("{{{keys},{rest}}}").as_bytes(), now).unwrap_err();
            assert!(error.to_string().ends_with("; it must be 1"), "{error}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_program_that_does_not_end_is_cancelled() {
        let process = Process::new("sleep 86398".into(), false);
        assert!(
            matches!(process.credentials().await, Err(ProcessError::Silent { program }) if program == "sleep")
        );
    }
}
