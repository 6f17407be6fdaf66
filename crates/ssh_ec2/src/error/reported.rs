//! An error as a line for the user, and as the file that `ssh_ec2 doctor` reads.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::Failure;
use crate::doctor::report::Reported;
use crate::system::explain::Explain as _;
use crate::system::text::chain;

impl Failure {
    /// The message, and each cause behind it.
    pub(crate) fn chain(&self) -> String {
        chain(self)
    }

    /// Writes the error to the file, unless the file has one already: the first error is the cause of the
    /// others. If that fails, the error is still on standard error.
    pub(crate) fn write_down(&self, file: &Path) {
        let anchor = self.anchor().map(|anchor| anchor.heading().to_owned());
        let reported = Reported { message: self.chain(), hints: self.hints(), anchor };
        let written = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(file)
            .and_then(|mut file| file.write_all(reported.json().as_bytes()));
        if let Err(error) = written {
            tracing::info!("cannot write the report for the doctor: {error}");
        }
    }
}
