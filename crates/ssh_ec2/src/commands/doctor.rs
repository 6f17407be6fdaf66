//! Finds out what stands between a user and an instance, and prints the report.

use crate::commands::config::file::make_own_directory;
use crate::commands::tell_distrust;
use crate::doctor::{Means, Request, examine};
use crate::error::{ExitCode, Failure};
use crate::ui;

/// How the report is wanted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Form {
    /// For programs.
    Json,
    /// For people.
    Text,
}

/// Examines, and prints. Whether all is well is the exit status.
///
/// # Errors
/// When our directory cannot be made, or standard output does not take the report.
pub async fn run(request: &Request, means: &Means<'_>, form: Form) -> Result<ExitCode, Failure> {
    make_own_directory(means.places)?;
    let report = examine(request, means).await;
    let text = match form {
        Form::Json => ui::escape_json(&report.json()),
        // Facts quote what others say.
        Form::Text => report.text().lines().map(|line| ui::sanitise(line) + "\n").collect(),
    };
    ui::print(&text).map_err(Failure::Output)?;
    tell_distrust(None, means.cache);
    Ok(if report.healthy { ExitCode::Success } else { ExitCode::Failure })
}
