//! `ssh_ec2 config`: prints the ssh_config blocks, installs them, removes them.
//!
//! A file of the user is replaced in one step or not at all, keeps its mode and every other byte, and a
//! symbolic link to it stays a link.

pub(super) mod file;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use self::file::{Staged, make_own_directory, make_private_directory, read, remove};
use crate::cli::{Common, Config};
use crate::commands::options::proxy_options;
use crate::environment::{Environment, installed_program};
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

pub(super) fn start(mut config: Config, before: Common) -> Result<ExitCode, Failure> {
    config.common = config.common.over(before);
    let environment = Environment::read()?;
    let installation = Installation {
        program: installed_program(&environment.program),
        places: environment.places,
        user_config: environment.user_config,
    };
    if let Some(suffix) = config.suffix.as_deref().filter(|suffix| !is_suffix(suffix)) {
        return Err(Failure::Usage(format!(
            "{suffix:?} cannot end a host name; write lower-case labels, like `prod.ec2`"
        )));
    }
    match (&config.suffix, config.install, config.uninstall) {
        (None, _, true) => installation.uninstall()?,
        (Some(suffix), _, true) => installation.uninstall_suffix(suffix)?,
        (_, true, false) => installation.install(&config)?,
        (_, false, false) => ui::print(&installation.blocks(&config)?).map_err(Failure::Output)?,
    }
    Ok(ExitCode::Success)
}

/// What the blocks name, and the files that they are written to.
struct Installation {
    /// This program.
    program: PathBuf,
    /// The paths of our own files.
    places: OwnFiles,
    /// The user's file, which includes ours. None without a home directory.
    user_config: Option<PathBuf>,
}

impl Installation {
    /// The installed blocks, with the one that the options describe.
    fn blocks(&self, config: &Config) -> Result<String, Failure> {
        let installed = self.installed()?;
        let options = proxy_options(&config.common, 0)?;
        let block_of_ids = |options: &ProxyOptions| block(&self.program, &self.places, options);
        let mut kept = sections(&installed);
        let block = match &config.suffix {
            None => block_of_ids(&options),
            Some(suffix) => {
                let user = config.user.as_deref().map(str::parse::<OsUser>).transpose()?;
                let Common { profile, region, .. } = config.common.clone();
                let suffix = Suffix { suffix: suffix.clone(), profile, region };
                let user = user.as_ref().map(OsUser::as_str);
                let section = section(&self.program, &self.places, &options, user, &suffix);
                kept.retain(|(kept, _)| kept.suffix != suffix.suffix);
                kept.push((suffix, section));
                // The block for ids stays as it was installed.
                installed_block(&installed).unwrap_or_else(|| block_of_ids(&ProxyOptions::default()))
            }
        };
        let kept: String = kept.into_iter().map(|(_, text)| text).collect();
        let sorted: String = sections(&kept).into_iter().map(|(_, text)| text).collect();
        Ok(sorted + &block)
    }

    /// The text of our file; empty if it is missing.
    fn installed(&self) -> Result<String, Failure> {
        let file = read(&self.places.config())?.unwrap_or_default();
        Ok(String::from_utf8_lossy(&file).into_owned())
    }

    fn user_config(&self) -> Result<&Path, Failure> {
        self.user_config.as_deref().ok_or(Failure::NoHome)
    }

    /// Makes the user's file include the blocks, and says how to try them.
    fn install(&self, config: &Config) -> Result<(), Failure> {
        let blocks = self.blocks(config)?;
        // A missing ssh is no error, nor is another program of that name: the user may install OpenSSH later.
        let ssh = Version::of_ssh().ok().flatten();
        if let Some(found) = ssh
            && found < Version::NEEDED
        {
            return Err(SshError::Old { found }.into());
        }
        let user_config = self.user_config()?;
        make_own_directory(&self.places)?;
        self.write(user_config, &blocks).inspect_err(|_| {
            // Removes the directory only if it is empty: then this call has made it.
            let _ = fs::remove_dir(self.places.directory());
        })?;
        ui::note(&format!(
            "{} includes {} now: try `ssh USER@NAME.{}`",
            user_config.display(),
            self.places.config().display(),
            config.suffix.as_deref().unwrap_or(DEFAULT_SUFFIX),
        ));
        if let Some(danger) = ssh.and_then(Version::danger) {
            ui::note(&danger);
        }
        Ok(())
    }

    /// Writes all files. Every file is staged before the first one replaces another.
    fn write(&self, path: &Path, blocks: &str) -> Result<(), Failure> {
        let config = self.places.config();
        let unchanged = |source| Failure::UserConfig {
            path: path.to_owned(),
            hint: format!(
                "if another program writes that file, have it put the line `{}` at the top; then install again",
                include_line(&config).trim_end()
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
        let staged = [stage(&config, &blocks)?, stage(&self.places.alias(), &for_aliases(&blocks))?];
        // The user's file first, since it may be one that cannot be replaced; ssh ignores an Include of a
        // file that is missing.
        user.map_or(Ok(()), Staged::replace).map_err(unchanged)?;
        for staged in staged {
            staged.replace().map_err(|source| failed("write", &config, source))?;
        }
        Ok(())
    }

    fn uninstall(&self) -> Result<(), Failure> {
        let config = self.places.config();
        let made_both = read(&config)?.is_some_and(|file| file.starts_with(MADE_BOTH.as_bytes()));
        self.exclude_from_user_config(made_both)?;
        remove(&config)?;
        remove(&self.places.alias())?;
        // The host keys stay, and so does their directory; without any it is empty, and is removed.
        let _ = fs::remove_dir(self.places.directory().join("agent"));
        let _ = fs::remove_dir(self.places.directory());
        Ok(())
    }

    /// Takes our line out of the user's file, and removes the file if it was made for that line alone.
    fn exclude_from_user_config(&self, made_both: bool) -> Result<(), Failure> {
        let (path, config) = (self.user_config()?, self.places.config());
        let Some(text) = read(path)? else { return Ok(()) };
        let changed = exclude(&text, &config);
        if made_both && changed.is_empty() {
            return remove(path);
        }
        if changed == text {
            return Ok(());
        }
        let replaced = Staged::write(path, &changed).and_then(Staged::replace);
        replaced.map_err(|source| Failure::UserConfig {
            path: path.to_owned(),
            hint: format!(
                "if another program writes that file, have it leave out the line `{}`; then uninstall again",
                include_line(&config).trim_end()
            ),
            source,
        })
    }

    fn uninstall_suffix(&self, suffix: &str) -> Result<(), Failure> {
        let installed = self.installed()?;
        let rest = without_section(&installed, suffix);
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

/// Stages the new contents of the user's file, whose directory may be missing.
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

/// The first line of our file if there was no file of the user: uninstalling then removes that file too.
const MADE_BOTH: &str = "# ~/.ssh/config was made to include this file.\n";
