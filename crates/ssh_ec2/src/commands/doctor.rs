//! `ssh_ec2 doctor`: checks the way to an instance, and prints the report.

use crate::commands::config::file::make_own_directory;
use crate::commands::tell_distrust;
use crate::doctor::{Means, Request, examine};
use crate::error::{ExitCode, Failure};
use crate::ui;

/// The report's format.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Form {
    /// JSON, for programs.
    Json,
    /// Text, for people.
    Text,
}

/// Runs the checks and prints the report. The exit status is 1 if a layer is broken.
///
/// # Errors
///
/// When the directory of our files cannot be made, or standard output cannot be written.
pub(crate) async fn run(request: &Request, means: &Means<'_>, form: Form) -> Result<ExitCode, Failure> {
    make_own_directory(means.places)?;
    let report = examine(request, means).await;
    let text = match form {
        Form::Json => ui::escape_json(&report.json()),
        // Facts quote text of AWS, ssh and the instance.
        Form::Text => report.text().lines().map(|line| ui::sanitise(line) + "\n").collect(),
    };
    ui::print(&text).map_err(Failure::Output)?;
    tell_distrust(None, means.cache);
    Ok(if report.healthy { ExitCode::Success } else { ExitCode::Failure })
}
