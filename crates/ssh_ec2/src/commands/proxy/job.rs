//! One connection to one instance: its options, and what is known of it so far.

use std::cell::{OnceCell, RefCell};
use std::rc::Rc;

use super::login_watch::LoginWatch;
use super::{Client, Options, Request};
use crate::instances::default_user;
use crate::road::stdio::Meter;
use crate::ssh::options::SshOptions;
use crate::system::pace::Pace;
use crate::target::InstanceId;
use crate::ui;

pub(super) struct Job<'a> {
    pub(super) request: &'a Request,
    pub(super) options: &'a Options,
    pub(super) instance: InstanceId,
    /// The rate limit of pushes, shared by all processes.
    pub(super) pace: &'a Pace,
    /// The queue for StartSession after throttling, shared by all processes.
    pub(super) session_pace: &'a Pace,
    /// The first bytes from the port. They are kept here, not in the tunnel's result, since a failed login is
    /// explained while the tunnel still runs.
    greeting: OnceCell<Greeting>,
    /// The number of bytes from the instance.
    pub(super) received: Meter,
    /// Follows ssh's login.
    pub(super) login: Rc<RefCell<LoginWatch>>,
    /// The public half of the key that is pushed, as a line of `authorized_keys`.
    pub(super) pushed_key: RefCell<Option<String>>,
    ssh_options: tokio::sync::OnceCell<Option<SshOptions>>,
}

struct Greeting {
    /// The user of the system that sshd says it runs on.
    system_user: Option<&'static str>,
    /// The first line, if another server than sshd sent it.
    foreign: Option<String>,
}

impl<'a> Job<'a> {
    pub(super) fn new(
        request: &'a Request,
        instance: InstanceId,
        [pace, session_pace]: [&'a Pace; 2],
    ) -> Self {
        Self {
            request,
            options: &request.options,
            instance,
            pace,
            session_pace,
            greeting: OnceCell::new(),
            received: Meter::default(),
            login: Rc::default(),
            pushed_key: RefCell::default(),
            ssh_options: tokio::sync::OnceCell::new(),
        }
    }

    /// The options of ssh. `ssh -G` runs once; the first caller waits for it.
    pub(super) async fn ssh_options(&self) -> Option<&SshOptions> {
        self.ssh_options.get_or_init(|| SshOptions::of(&self.options.ssh)).await.as_ref()
    }

    /// Notes the first bytes from the port.
    pub(super) fn greeted(&self, bytes: &[u8]) {
        let system_user = greeting_line(bytes).and_then(default_user::of_banner);
        // Other lines may come before the identification line (RFC 4253, section 4.2), but it does come.
        let is_foreign =
            self.options.client == Client::Ssh && !bytes.windows(4).any(|bytes| bytes == b"SSH-");
        let foreign = is_foreign.then(|| {
            let text = String::from_utf8_lossy(bytes);
            ui::shorten(&ui::sanitise(text.lines().next().unwrap_or_default()), FOREIGN_WIDTH)
        });
        let _ = self.greeting.set(Greeting { system_user, foreign });
    }

    /// The user of the system that sshd says it runs on.
    pub(super) fn system_user(&self) -> Option<&'static str> {
        self.greeting.get()?.system_user
    }

    /// The first line from the port, printable, if another server than sshd sent it.
    pub(super) fn foreign_greeting(&self) -> Option<&str> {
        self.greeting.get()?.foreign.as_deref()
    }
}

/// The first line of sshd's greeting.
fn greeting_line(bytes: &[u8]) -> Option<&str> {
    let line = bytes.split(|byte| matches!(byte, b'\r' | b'\n')).next()?;
    std::str::from_utf8(line).ok().filter(|line| line.starts_with("SSH-"))
}

/// The most characters of a greeting that a message shows.
const FOREIGN_WIDTH: usize = 60;
