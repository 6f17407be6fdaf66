//! Answers SFTP requests on the real file system, as the invoking user.
//!
//! Everything here may block. Names are text: russh-sftp decodes them as UTF-8, so that a file with
//! another name is listed but cannot be reached.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File, ReadDir};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, symlink};
use std::path::{Path, PathBuf};

use bytes::{BufMut, Bytes, BytesMut};
use russh_sftp::extensions::{self, ExpandPathExtension, FsyncExtension, HardlinkExtension};
use russh_sftp::extensions::{LimitsExtension, Statvfs, StatvfsExtension};
use russh_sftp::protocol::{Attrs, ExtendedReply, FileAttributes, Handle, Name, OpenFlags, Packet, Read};
use russh_sftp::protocol::{Status, StatusCode, Version};
use russh_sftp::{de, protocol, ser};
use rustix::fs::{Mode, OFlags};

use super::{attributes, paths};

/// The open files of one SFTP session.
pub(super) struct Files {
    home: PathBuf,
    handles: HashMap<String, Open>,
    opened: u64,
}

enum Open {
    Directory(Listing),
    File(File),
}

/// A directory that is being listed.
struct Listing {
    path: PathBuf,
    /// The two entries that the system's listing leaves out.
    dots: std::vec::IntoIter<&'static str>,
    rest: ReadDir,
}

impl Files {
    pub(super) fn new(home: PathBuf) -> Self {
        Self { home, handles: HashMap::new(), opened: 0 }
    }

    /// Appends the reply to one request, framed.
    pub(super) fn answer(&mut self, request: Bytes, replies: &mut BytesMut) {
        // The type is followed by the request's number, in every message but the first.
        let id = request.get(1..5).and_then(|id| id.try_into().ok()).map_or(0, u32::from_be_bytes);
        let outcome = match Packet::try_from(&mut request.clone()) {
            Ok(Packet::Read(read)) => match self.read(&read, replies) {
                Ok(()) => return,
                Err(error) => Err(error),
            },
            Ok(packet) => self.perform(id, packet),
            Err(error) => {
                tracing::debug!(%error, "unreadable sftp request");
                Err(io::ErrorKind::Unsupported.into())
            }
        };
        let reply = outcome.unwrap_or_else(|error| refusal(id, &error));
        match Bytes::try_from(reply) {
            Ok(reply) => replies.extend_from_slice(&reply),
            Err(error) => tracing::debug!(%error, "unwritable sftp reply"),
        }
    }

    fn perform(&mut self, id: u32, request: Packet) -> io::Result<Packet> {
        match request {
            Packet::Init(_) => return Ok(Packet::Version(greeting())),
            Packet::Open(open) => return self.open(id, &open),
            Packet::OpenDir(open) => return self.open_directory(id, &open.path),
            Packet::ReadDir(read) => return self.list(id, &read.handle),
            Packet::Extended(extended) => return self.extended(id, &extended.request, extended.data),
            Packet::Stat(stat) => return described(id, fs::metadata(self.path(&stat.path))),
            Packet::Lstat(stat) => return described(id, fs::symlink_metadata(self.path(&stat.path))),
            Packet::Fstat(stat) => return described(id, self.file(&stat.handle)?.metadata()),
            Packet::RealPath(real) => return Ok(named(id, &paths::real(&self.home, &real.path)?)),
            Packet::ReadLink(link) => return Ok(named(id, &fs::read_link(self.path(&link.path))?)),

            Packet::Close(close) => drop(self.handles.remove(&close.handle).ok_or_else(unknown_handle)?),
            Packet::Write(write) => self.file(&write.handle)?.write_all_at(&write.data, write.offset)?,
            Packet::SetStat(set) => attributes::apply_to_path(&self.path(&set.path), &set.attrs)?,
            Packet::FSetStat(set) => attributes::apply_to_file(self.file(&set.handle)?, &set.attrs)?,
            Packet::Remove(remove) => fs::remove_file(self.path(&remove.filename))?,
            Packet::RmDir(remove) => fs::remove_dir(self.path(&remove.path))?,
            Packet::MkDir(make) => {
                let mode = make.attrs.permissions.unwrap_or(0o777) & 0o777;
                DirBuilder::new().mode(mode).create(self.path(&make.path))?;
            }
            Packet::Rename(rename) => {
                // Version 3 leaves an existing target alone; OpenSSH overwrites with posix-rename.
                let target = self.path(&rename.newpath);
                if target.symlink_metadata().is_ok() {
                    return Err(io::ErrorKind::AlreadyExists.into());
                }
                fs::rename(self.path(&rename.oldpath), target)?;
            }
            // OpenSSH sends the target first, unlike the draft, and all clients do the same (its PROTOCOL
            // file, section 4.1); russh-sftp names the fields as the draft does.
            Packet::Symlink(link) => symlink(link.linkpath, self.path(&link.targetpath))?,
            _ => return Err(io::ErrorKind::Unsupported.into()),
        }
        Ok(status(id, StatusCode::Ok, String::new()))
    }

    fn open(&mut self, id: u32, open: &protocol::Open) -> io::Result<Packet> {
        // Sixteen bits hold every permission and convert to every system's type of mode.
        let mode = u16::try_from(open.attrs.permissions.unwrap_or(0o666) & 0o7777).unwrap_or_default();
        let mode = Mode::from_raw_mode(mode.into());
        let file = rustix::fs::open(self.path(&open.filename), flags(open.pflags), mode)?;
        self.keep(id, Open::File(file.into()))
    }

    fn open_directory(&mut self, id: u32, path: &str) -> io::Result<Packet> {
        let path = self.path(path);
        let rest = fs::read_dir(&path)?;
        self.keep(id, Open::Directory(Listing { path, dots: vec![".", ".."].into_iter(), rest }))
    }

    fn keep(&mut self, id: u32, open: Open) -> io::Result<Packet> {
        if self.handles.len() >= MAXIMUM_HANDLES {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        self.opened += 1;
        let handle = self.opened.to_string();
        self.handles.insert(handle.clone(), open);
        Ok(Packet::Handle(Handle { id, handle }))
    }

    /// Reads straight into the replies: this is where a download's time goes.
    fn read(&mut self, read: &Read, replies: &mut BytesMut) -> io::Result<()> {
        let file = self.file(&read.handle)?;
        let start = replies.len();
        replies.put_u32(0);
        replies.put_u8(SSH_FXP_DATA);
        replies.put_u32(read.id);
        replies.put_u32(0);
        let data = replies.len();
        replies.resize(data + read.len.min(MAXIMUM_READ) as usize, 0);
        let length = match file.read_at(&mut replies[data..], read.offset) {
            Ok(length) if length > 0 => length,
            nothing => {
                replies.truncate(start);
                return Err(nothing.err().unwrap_or(io::ErrorKind::UnexpectedEof.into()));
            }
        };
        replies.truncate(data + length);
        let frame = u32::try_from(replies.len() - start - 4).map_err(io::Error::other)?;
        let length = u32::try_from(length).map_err(io::Error::other)?;
        replies[start..start + 4].copy_from_slice(&frame.to_be_bytes());
        replies[data - 4..data].copy_from_slice(&length.to_be_bytes());
        Ok(())
    }

    fn list(&mut self, id: u32, handle: &str) -> io::Result<Packet> {
        let Some(Open::Directory(listing)) = self.handles.get_mut(handle) else {
            return Err(unknown_handle());
        };
        let files: Vec<_> = listing.take(LISTED_AT_ONCE).collect();
        if files.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Packet::Name(Name { id, files }))
    }

    fn extended(&self, id: u32, request: &str, data: Vec<u8>) -> io::Result<Packet> {
        let mut data = Bytes::from(data);
        match request {
            extensions::LIMITS => return extended_reply(id, &limits()),
            extensions::STATVFS => {
                let request: StatvfsExtension = de::from_bytes(&mut data).map_err(malformed)?;
                return extended_reply(id, &file_system(&self.path(&request.path))?);
            }
            extensions::EXPAND_PATH => {
                let request: ExpandPathExtension = de::from_bytes(&mut data).map_err(malformed)?;
                let path = paths::expand(&request.path).ok_or(io::ErrorKind::NotFound)?;
                return Ok(named(id, &paths::real(&self.home, path)?));
            }
            POSIX_RENAME => {
                let names: HardlinkExtension = de::from_bytes(&mut data).map_err(malformed)?;
                fs::rename(self.path(&names.oldpath), self.path(&names.newpath))?;
            }
            extensions::HARDLINK => {
                let names: HardlinkExtension = de::from_bytes(&mut data).map_err(malformed)?;
                fs::hard_link(self.path(&names.oldpath), self.path(&names.newpath))?;
            }
            extensions::FSYNC => {
                let request: FsyncExtension = de::from_bytes(&mut data).map_err(malformed)?;
                self.file(&request.handle)?.sync_all()?;
            }
            _ => return Err(io::ErrorKind::Unsupported.into()),
        }
        Ok(status(id, StatusCode::Ok, String::new()))
    }

    fn path(&self, path: &str) -> PathBuf {
        paths::resolve(&self.home, path)
    }

    fn file(&self, handle: &str) -> io::Result<&File> {
        match self.handles.get(handle) {
            Some(Open::File(file)) => Ok(file),
            _ => Err(unknown_handle()),
        }
    }
}

impl Iterator for Listing {
    type Item = protocol::File;

    fn next(&mut self) -> Option<Self::Item> {
        let name = match self.dots.next() {
            Some(dots) => dots.into(),
            None => self.rest.by_ref().flatten().next()?.file_name(),
        };
        let metadata = self.path.join(&name).symlink_metadata();
        let is_link = metadata.as_ref().is_ok_and(fs::Metadata::is_symlink);
        // A file that has gone meanwhile is listed without attributes, as by OpenSSH's server.
        let attributes =
            metadata.map_or_else(|_| FileAttributes::empty(), |found| attributes::describe(&found));
        let mut file = protocol::File::new(name.to_string_lossy(), attributes);
        if is_link {
            file.longname.replace_range(..1, "l");
        }
        Some(file)
    }
}

fn greeting() -> Version {
    let offered = [
        (POSIX_RENAME, "1"),
        (extensions::EXPAND_PATH, "1"),
        (extensions::FSYNC, "1"),
        (extensions::HARDLINK, "1"),
        (extensions::LIMITS, "1"),
        (extensions::STATVFS, "2"),
    ];
    let mut version = Version::new();
    version.extensions = offered.map(|(name, revision)| (name.to_owned(), revision.to_owned())).into();
    version
}

fn limits() -> LimitsExtension {
    LimitsExtension {
        max_packet_len: super::MAXIMUM_REQUEST as u64,
        max_read_len: MAXIMUM_READ.into(),
        max_write_len: MAXIMUM_READ.into(),
        max_open_handles: MAXIMUM_HANDLES as u64,
    }
}

fn file_system(path: &Path) -> io::Result<Statvfs> {
    let found = rustix::fs::statvfs(path)?;
    Ok(Statvfs {
        block_size: found.f_bsize,
        fragment_size: found.f_frsize,
        blocks: found.f_blocks,
        blocks_free: found.f_bfree,
        blocks_avail: found.f_bavail,
        inodes: found.f_files,
        inodes_free: found.f_ffree,
        inodes_avail: found.f_favail,
        fs_id: found.f_fsid,
        flags: found.f_flag.bits(),
        name_max: found.f_namemax,
    })
}

fn flags(asked: OpenFlags) -> OFlags {
    // Opening a pipe must not wait for its other end; for a file the last flag means nothing.
    let mut flags = OFlags::CLOEXEC | OFlags::NONBLOCK;
    flags |= match (asked.contains(OpenFlags::READ), asked.contains(OpenFlags::WRITE)) {
        (true, true) => OFlags::RDWR,
        (false, true) => OFlags::WRONLY,
        _ => OFlags::RDONLY,
    };
    for (asked_for, flag) in [
        (OpenFlags::APPEND, OFlags::APPEND),
        (OpenFlags::CREATE, OFlags::CREATE),
        (OpenFlags::EXCLUDE, OFlags::EXCL),
        (OpenFlags::TRUNCATE, OFlags::TRUNC),
    ] {
        flags.set(flag, asked.contains(asked_for));
    }
    flags
}

fn described(id: u32, metadata: io::Result<fs::Metadata>) -> io::Result<Packet> {
    Ok(Packet::Attrs(Attrs { id, attrs: attributes::describe(&metadata?) }))
}

fn named(id: u32, path: &Path) -> Packet {
    Packet::Name(Name { id, files: vec![protocol::File::dummy(path.to_string_lossy())] })
}

fn extended_reply(id: u32, reply: &impl serde::Serialize) -> io::Result<Packet> {
    let data = ser::to_bytes(reply).map_err(malformed)?.to_vec();
    Ok(Packet::ExtendedReply(ExtendedReply { id, data }))
}

fn refusal(id: u32, error: &io::Error) -> Packet {
    let code = match error.kind() {
        io::ErrorKind::NotFound => StatusCode::NoSuchFile,
        io::ErrorKind::PermissionDenied => StatusCode::PermissionDenied,
        io::ErrorKind::UnexpectedEof => StatusCode::Eof,
        io::ErrorKind::InvalidData => StatusCode::BadMessage,
        io::ErrorKind::Unsupported => StatusCode::OpUnsupported,
        _ => StatusCode::Failure,
    };
    status(id, code, error.to_string())
}

fn status(id: u32, status_code: StatusCode, error_message: String) -> Packet {
    Packet::Status(Status { id, status_code, error_message, language_tag: String::new() })
}

fn unknown_handle() -> io::Error {
    io::Error::other("unknown handle")
}

fn malformed(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// The one extension of OpenSSH's that russh-sftp has no name for.
const POSIX_RENAME: &str = "posix-rename@openssh.com";

/// The type of the message that carries file content.
const SSH_FXP_DATA: u8 = 103;

/// The most that one request reads or writes: with its header it stays within the largest message.
const MAXIMUM_READ: u32 = 255 * 1024;

/// More than any client uses, less than the usual limit of a process.
const MAXIMUM_HANDLES: usize = 256;

/// The entries in one part of a listing.
const LISTED_AT_ONCE: usize = 100;
