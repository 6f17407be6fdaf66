//! Prints the ssh_config blocks, installs them, takes them out again.
//!
//! A user's file is replaced in one step or not at all, keeps its mode and every other byte, and a link to it
//! stays a link.

pub(super) mod file;

use std::fs;
use std::io;
use std::path::Path;

use self::file::{Staged, make_private_directory, remove};
use self::file::{make_own_directory, read};
use crate::cli::{Common, Config};
use crate::commands::options::proxy_options;
use crate::error::{ExitCode, Failure};
use crate::ssh::client::Version;
use crate::ssh::config::{
    DEFAULT_SUFFIX, ProxyOptions, Suffix, block, exclude, for_aliases, include, include_line,
    installed_block, is_suffix, section, sections, without_section,
};
use crate::ssh::error::SshError;
use crate::ssh::own_files::OwnFiles;
use crate::target::OsUser;
use crate::ui;

/// What the blocks name, and the files that they are written to.
#[derive(Clone, Copy, Debug)]
pub struct Installation<'a> {
    /// This program.
    pub program: &'a Path,
    /// Our files.
    pub places: &'a OwnFiles,
    /// The user's file, which includes ours.
    pub user_config: Option<&'a Path>,
}

/// Prints, installs or removes.
///
/// # Errors
/// When a file cannot be read or written; then none was changed half-way.
pub fn run(config: &Config, installation: &Installation<'_>) -> Result<ExitCode, Failure> {
    let installed = read(&installation.places.config())?.unwrap_or_default();
    let installed = String::from_utf8_lossy(&installed);
    if let Some(suffix) = &config.suffix {
        check_suffix(suffix)?;
    }
    if config.uninstall {
        match &config.suffix {
            None => installation.uninstall()?,
            Some(suffix) => installation.uninstall_suffix(&installed, suffix)?,
        }
        return Ok(ExitCode::Success);
    }
    let blocks = installation.blocks(config, &installed)?;
    if !config.install {
        ui::print(&blocks).map_err(Failure::Output)?;
        return Ok(ExitCode::Success);
    }
    // An ssh that is not there, or is no OpenSSH, may still be what the user means to put there.
    let ssh = Version::of_ssh().ok().flatten();
    if let Some(found) = ssh
        && found < Version::NEEDED
    {
        return Err(SshError::Old { found }.into());
    }
    let user_config = installation.install(&blocks)?;
    ui::note(&format!(
        "{} includes {} now: try `ssh USER@NAME.{}`",
        user_config.display(),
        installation.places.config().display(),
        config.suffix.as_deref().unwrap_or(DEFAULT_SUFFIX),
    ));
    if let Some(danger) = ssh.and_then(Version::danger) {
        ui::note(&danger);
    }
    Ok(ExitCode::Success)
}

fn check_suffix(suffix: &str) -> Result<(), Failure> {
    if is_suffix(suffix) {
        return Ok(());
    }
    Err(Failure::Usage(format!(
        "{suffix:?} cannot end a host name; write lower-case labels, like `prod.ec2`"
    )))
}

impl<'a> Installation<'a> {
    /// The installed blocks, with the one that the options describe.
    fn blocks(&self, config: &Config, installed: &str) -> Result<String, Failure> {
        let options = proxy_options(&config.common, 0)?;
        let ids = |options: &ProxyOptions| block(self.program, self.places, options);
        let mut kept = sections(installed);
        let block = match &config.suffix {
            None => ids(&options),
            Some(suffix) => {
                let user = config.user.as_deref().map(str::parse::<OsUser>).transpose()?;
                let Common { profile, region, .. } = config.common.clone();
                let suffix = Suffix { suffix: suffix.clone(), profile, region };
                let user = user.as_ref().map(OsUser::as_str);
                let section = section(self.program, self.places, &options, user, &suffix);
                kept.retain(|(kept, _)| kept.suffix != suffix.suffix);
                kept.push((suffix, section));
                // The block for ids stays as it was installed.
                installed_block(installed).unwrap_or_else(|| ids(&ProxyOptions::default()))
            }
        };
        let kept: String = kept.into_iter().map(|(_, text)| text).collect();
        let sorted: String = sections(&kept).into_iter().map(|(_, text)| text).collect();
        Ok(sorted + &block)
    }

    fn user_config(&self) -> Result<&'a Path, Failure> {
        self.user_config.ok_or(Failure::NoHome)
    }

    /// Makes the user's file include `blocks`, and returns its path.
    fn install(&self, blocks: &str) -> Result<&'a Path, Failure> {
        let path = self.user_config()?;
        make_own_directory(self.places)?;
        self.write(path, blocks).inspect_err(|_| {
            // Removes only an empty one, which this call has made.
            let _ = fs::remove_dir(self.places.directory());
        })?;
        Ok(path)
    }

    fn write(&self, path: &Path, blocks: &str) -> Result<(), Failure> {
        let config = self.places.config();
        let line = include_line(&config);
        let unchanged = |source| Failure::UserConfig {
            path: path.to_owned(),
            hint: format!(
                "if another program writes that file, have it put the line `{}` at the top; then install again",
                line.trim_end()
            ),
            source,
        };
        let text = read(path)?;
        let made_both =
            text.is_none() || read(&config)?.is_some_and(|file| file.starts_with(MADE_BOTH.as_bytes()));
        let blocks = if made_both { format!("{MADE_BOTH}{blocks}") } else { blocks.to_owned() };
        let text = text.unwrap_or_default();
        let changed = include(&text, &config, path.parent().unwrap_or(Path::new(".")));
        let user = match changed == text {
            true => None,
            false => Some(stage_in_directory(path, &changed).map_err(unchanged)?),
        };
        // All are written before the first replaces another. The user's file goes first, since it may be one
        // that cannot be replaced; ssh ignores an Include of a file that is missing.
        let alias = self.places.alias();
        let staged = [stage(&config, &blocks)?, stage(&alias, &for_aliases(&blocks))?];
        user.map_or(Ok(()), Staged::replace).map_err(unchanged)?;
        for staged in staged {
            staged.replace().map_err(|source| failed("write", &config, source))?;
        }
        Ok(())
    }

    fn uninstall(&self) -> Result<(), Failure> {
        let config = self.places.config();
        let installed = read(&config)?;
        let path = self.user_config()?;
        if let Some(text) = read(path)? {
            let changed = exclude(&text, &config);
            let made = installed.is_some_and(|file| file.starts_with(MADE_BOTH.as_bytes()));
            if made && changed.is_empty() {
                remove(path)?;
            } else if changed != text {
                let replaced = Staged::write(path, &changed).and_then(Staged::replace);
                replaced.map_err(|source| Failure::UserConfig {
                    path: path.to_owned(),
                    hint: format!(
                        "if another program writes that file, have it leave out the line `{}`; then uninstall again",
                        include_line(&config).trim_end()
                    ),
                    source,
                })?;
            }
        }
        remove(&config)?;
        remove(&self.places.alias())?;
        // Host keys stay, and keep the directory; without any it is empty, and goes.
        let _ = fs::remove_dir(self.places.directory().join("agent"));
        let _ = fs::remove_dir(self.places.directory());
        Ok(())
    }

    fn uninstall_suffix(&self, installed: &str, suffix: &str) -> Result<(), Failure> {
        let rest = without_section(installed, suffix);
        if rest == installed {
            return Err(Failure::Usage(format!("no suffix `{suffix}` is installed")));
        }
        for (path, text) in [(self.places.config(), &rest), (self.places.alias(), &for_aliases(&rest))] {
            stage(&path, text)?.replace().map_err(|source| failed("write", &path, source))?;
        }
        Ok(())
    }
}

fn stage(path: &Path, text: &str) -> Result<Staged, Failure> {
    Staged::write(path, text.as_bytes()).map_err(|source| failed("write", path, source))
}

/// Writes the new contents of the user's file, whose directory may not be there yet.
fn stage_in_directory(path: &Path, bytes: &[u8]) -> io::Result<Staged> {
    let made = path.parent().map_or(Ok(()), make_private_directory);
    match made {
        Err(Failure::File { source, .. }) => Err(source),
        _ => Staged::write(path, bytes),
    }
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> Failure {
    Failure::File { action, path: path.to_owned(), source }
}

/// The block's first line when there was no file of the user's: taking the block out then removes that file too.
const MADE_BOTH: &str = "# ~/.ssh/config was made to include this file.\n";
