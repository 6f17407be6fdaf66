//! A failure, told to whoever called the process: to a person in a line, to the doctor in a file of its own.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::Failure;
use crate::doctor::report::Told;
use crate::system::explain::Explain as _;
use crate::system::text::chain;

impl Failure {
    /// The message, and each cause behind it.
    pub fn chain(&self) -> String {
        chain(self)
    }

    /// Writes it down, unless another one is there already: what came first is the cause of what follows. A
    /// process that cannot write it has printed it on standard error all the same.
    pub fn write_down(&self, file: &Path) {
        let anchor = self.anchor().map(|anchor| anchor.heading().to_owned());
        let told = Told { message: self.chain(), hints: self.hints(), anchor };
        let written = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(file)
            .and_then(|mut file| file.write_all(told.json().as_bytes()));
        if let Err(error) = written {
            tracing::info!("the failure is not written down: {error}");
        }
    }
}
