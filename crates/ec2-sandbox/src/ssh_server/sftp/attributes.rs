//! File attributes, from the system to the protocol and back.

use std::fs::{self, File, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, fchown};
use std::path::Path;

use russh_sftp::protocol::FileAttributes;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, Timespec, Timestamps, futimens, open, utimensat};

/// Describes a file.
pub(super) fn describe(metadata: &Metadata) -> FileAttributes {
    FileAttributes {
        size: Some(metadata.size()),
        uid: Some(metadata.uid()),
        user: None,
        gid: Some(metadata.gid()),
        group: None,
        permissions: Some(metadata.mode()),
        atime: Some(seconds(metadata.atime())),
        mtime: Some(seconds(metadata.mtime())),
    }
}

/// Changes the attributes that are given. The times come last, since a new size changes them.
pub(super) fn apply_to_path(path: &Path, wanted: &FileAttributes) -> io::Result<()> {
    if let Some(size) = wanted.size {
        // Without the last flag a pipe would wait for its other end.
        let flags = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        File::from(open(path, flags, Mode::empty())?).set_len(size)?;
    }
    if let Some(permissions) = permissions(wanted) {
        fs::set_permissions(path, permissions)?;
    }
    if wanted.uid.is_some() || wanted.gid.is_some() {
        chown(path, wanted.uid, wanted.gid)?;
    }
    if let Some(times) = times(wanted) {
        utimensat(CWD, path, &times, AtFlags::empty())?;
    }
    Ok(())
}

/// Like [`apply_to_path`], for an open file.
pub(super) fn apply_to_file(file: &File, wanted: &FileAttributes) -> io::Result<()> {
    if let Some(size) = wanted.size {
        file.set_len(size)?;
    }
    if let Some(permissions) = permissions(wanted) {
        file.set_permissions(permissions)?;
    }
    if wanted.uid.is_some() || wanted.gid.is_some() {
        fchown(file, wanted.uid, wanted.gid)?;
    }
    if let Some(times) = times(wanted) {
        futimens(file, &times)?;
    }
    Ok(())
}

fn permissions(wanted: &FileAttributes) -> Option<Permissions> {
    wanted.permissions.map(|mode| Permissions::from_mode(mode & MODE_BITS))
}

fn times(wanted: &FileAttributes) -> Option<Timestamps> {
    let at = |seconds: u32| Timespec { tv_sec: seconds.into(), tv_nsec: 0 };
    Some(Timestamps { last_access: at(wanted.atime?), last_modification: at(wanted.mtime?) })
}

/// Version 3 of the protocol counts seconds in 32 bits.
fn seconds(time: i64) -> u32 {
    u32::try_from(time.max(0)).unwrap_or(u32::MAX)
}

/// The permission bits of a mode, with set-user-id and its like.
const MODE_BITS: u32 = 0o7777;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_applied_is_described() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let wanted = FileAttributes {
            size: Some(3),
            permissions: Some(0o640),
            atime: Some(1_000_000_000),
            mtime: Some(1_100_000_000),
            ..FileAttributes::empty()
        };
        apply_to_path(file.path(), &wanted).unwrap();
        let described = describe(&file.as_file().metadata().unwrap());
        assert_eq!((described.size, described.permissions), (Some(3), Some(0o100_640)));
        assert_eq!((described.atime, described.mtime), (wanted.atime, wanted.mtime));
    }

    #[test]
    fn times_outside_the_protocol_are_clamped() {
        assert_eq!(seconds(-1), 0);
        assert_eq!(seconds(i64::MAX), u32::MAX);
    }
}
