//! Prints the ssh_config block, installs it, takes it out again.
//!
//! A user's file is replaced in one step or not at all, keeps its mode and every other byte, and a link to it
//! stays a link.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::cli::{Common, Config};
use crate::commands::connect::{Surroundings, proxy_options};
use crate::error::{ExitCode, Failure};
use crate::openssh::Version;
use crate::ssh_config::{
    DEFAULT_SUFFIX, ProxyOptions, Suffix, block, exclude, include, installed_block, is_suffix, section,
    sections, without_section,
};
use crate::target::OsUser;
use crate::ui;

/// Prints, installs or removes.
///
/// # Errors
/// When a file cannot be read or written; then none was changed half-way.
pub fn run(config: &Config, surroundings: &Surroundings, ssh_directory: &Path) -> Result<ExitCode, Failure> {
    let files = Files { user: ssh_directory.join("config"), block: surroundings.places.config() };
    let installed = read(&files.block)?.unwrap_or_default();
    let installed = String::from_utf8_lossy(&installed);
    let mut kept = sections(&installed);
    if let Some(suffix) = &config.suffix {
        check_suffix(suffix)?;
        kept.retain(|(kept, _)| kept.suffix != *suffix);
    }
    if config.uninstall {
        return match &config.suffix {
            None => uninstall(&files),
            Some(suffix) if !installed.is_empty() && sections(&installed).len() > kept.len() => {
                replace(&files.block, without_section(&installed, suffix).as_bytes())
            }
            Some(suffix) => Err(Failure::Usage(format!("no suffix `{suffix}` is installed"))),
        }
        .map(|()| ExitCode::Success);
    }
    let options = proxy_options(&config.common, 0)?;
    let ids = |options: &ProxyOptions| block(&surroundings.program, &surroundings.places, options);
    let block = match &config.suffix {
        None => ids(&options),
        Some(suffix) => {
            let user = config.user.as_deref().map(str::parse::<OsUser>).transpose()?;
            let Common { profile, region, .. } = config.common.clone();
            let suffix = Suffix { suffix: suffix.clone(), profile, region };
            let user = user.as_ref().map(OsUser::as_str);
            let section = section(&surroundings.program, &surroundings.places, &options, user, &suffix);
            kept.push((suffix, section));
            // The block for ids stays as it was installed.
            installed_block(&installed).unwrap_or_else(|| ids(&ProxyOptions::default()))
        }
    };
    let sections: String = sections(&kept.into_iter().map(|(_, text)| text).collect::<String>())
        .into_iter()
        .map(|(_, text)| text)
        .collect();
    let block = sections + &block;
    if config.install {
        // An ssh that is not there, or is no OpenSSH, may still be what the user means to put there.
        if let Ok(Some(found)) = Version::of_ssh()
            && found < Version::NEEDED
        {
            return Err(Failure::OldSsh { found });
        }
        make_private_directory(ssh_directory)?;
        make_private_directory(surroundings.places.directory())?;
        install(&files, &block)?;
        ui::note(&format!(
            "{} includes {} now: try `ssh USER@NAME.{}`",
            files.user.display(),
            files.block.display(),
            config.suffix.as_deref().unwrap_or(DEFAULT_SUFFIX),
        ));
    } else {
        ui::print(&block).map_err(Failure::Output)?;
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

struct Files {
    user: PathBuf,
    block: PathBuf,
}

fn install(files: &Files, block: &str) -> Result<(), Failure> {
    let text = read(&files.user)?;
    let ours =
        text.is_none() || read(&files.block)?.is_some_and(|block| block.starts_with(MADE_BOTH.as_bytes()));
    let block = if ours { format!("{MADE_BOTH}{block}") } else { block.to_owned() };
    // The included file first: the other order would leave an Include of nothing if it ended here.
    replace(&files.block, block.as_bytes())?;
    let text = text.unwrap_or_default();
    let changed = include(&text, &files.block);
    if changed != text { replace(&files.user, &changed) } else { Ok(()) }
}

fn uninstall(files: &Files) -> Result<(), Failure> {
    let block = read(&files.block)?;
    if let Some(text) = read(&files.user)? {
        let changed = exclude(&text, &files.block);
        let made = block.is_some_and(|block| block.starts_with(MADE_BOTH.as_bytes()));
        if made && changed.is_empty() {
            remove(&files.user)?;
        } else if changed != text {
            replace(&files.user, &changed)?;
        }
    }
    remove(&files.block)?;
    // Host keys stay, and keep the directory; without any it is empty, and goes.
    if let Some(directory) = files.block.parent() {
        let _ = fs::remove_dir(directory.join("agent"));
        let _ = fs::remove_dir(directory);
    }
    Ok(())
}

/// The file's bytes; none when there is no file.
///
/// # Errors
/// When there is one that cannot be read.
pub fn read(path: &Path) -> Result<Option<Vec<u8>>, Failure> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(source) => Err(Failure::File { action: "read", path: path.to_owned(), source }),
    }
}

/// Writes a file beside `path` and renames it over. Through a link, the file that it leads to is replaced.
fn replace(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let path = &fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let mut staged = path.as_os_str().to_owned();
    staged.push(format!(".ssh_ec2.{}", std::process::id()));
    let staged = PathBuf::from(staged);
    let write = || -> io::Result<()> {
        let mode = fs::metadata(path).map_or(0o600, |metadata| metadata.permissions().mode() & 0o7777);
        let mut file: File = OpenOptions::new().write(true).create_new(true).mode(mode).open(&staged)?;
        // The mask may have taken bits from the mode.
        file.set_permissions(PermissionsExt::from_mode(mode))?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&staged, path)
    };
    write().map_err(|source| {
        // Whatever was written so far is of no use to anybody.
        let _ = fs::remove_file(&staged);
        Failure::File { action: "write", path: path.clone(), source }
    })
}

fn remove(path: &Path) -> Result<(), Failure> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Failure::File { action: "remove", path: path.to_owned(), source: error })
        }
        _ => Ok(()),
    }
}

/// Makes a directory that only its owner can enter, unless it is there.
///
/// # Errors
/// When it cannot be made.
pub fn make_private_directory(path: &Path) -> Result<(), Failure> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| Failure::File { action: "make", path: path.to_owned(), source })
}

/// The block's first line when there was no file of the user's: taking the block out then removes that file too.
const MADE_BOTH: &str = "# ~/.ssh/config was made to include this file.\n";
