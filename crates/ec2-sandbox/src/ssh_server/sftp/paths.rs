//! The paths that SFTP clients send.
//!
//! Nothing confines a client to its home directory: a command could leave it just as well.

use std::io;
use std::path::{Component, Path, PathBuf};

/// Returns the file that a client means; relative paths start at home.
pub(super) fn resolve(home: &Path, path: &str) -> PathBuf {
    home.join(path)
}

/// Returns the absolute path without links or dots. The last part need not exist: clients ask this for
/// the files that they are going to write.
pub(super) fn real(home: &Path, path: &str) -> io::Result<PathBuf> {
    let path = resolve(home, path);
    match path.canonicalize() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let plain = without_dots(&path);
            match (plain.parent(), plain.file_name()) {
                (Some(parent), Some(name)) => Ok(parent.canonicalize()?.join(name)),
                _ => Err(error),
            }
        }
        done => done,
    }
}

/// Replaces a leading `~` or `~user` where the user is the one who is logged in: `None` for other users.
pub(super) fn expand(path: &str) -> Option<&str> {
    match path.strip_prefix('~') {
        None => Some(path),
        Some("" | "/") => Some("."),
        Some(rest) => rest.strip_prefix('/').map(|rest| rest.trim_start_matches('/')),
    }
}

/// Removes `.` and `..` by their letters alone.
fn without_dots(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                plain.pop();
            }
            part => plain.push(part),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_paths_start_at_home() {
        let home = Path::new("/home/me");
        assert_eq!(resolve(home, "a/b"), Path::new("/home/me/a/b"));
        assert_eq!(resolve(home, "/etc"), Path::new("/etc"));
        assert_eq!(resolve(home, ""), Path::new("/home/me"));
    }

    #[test]
    fn tilde_means_home() {
        assert_eq!(expand("~"), Some("."));
        assert_eq!(expand("~/"), Some("."));
        assert_eq!(expand("~//a/b"), Some("a/b"));
        assert_eq!(expand("a~"), Some("a~"));
        assert_eq!(expand("~other/a"), None);
    }

    #[test]
    fn dots_are_removed() {
        assert_eq!(without_dots(Path::new("/a/./b/../c")), Path::new("/a/c"));
        assert_eq!(without_dots(Path::new("/../a")), Path::new("/a"));
    }

    #[test]
    fn real_path_may_end_in_a_new_file() {
        let home = tempfile::tempdir().unwrap();
        let root = home.path().canonicalize().unwrap();
        std::fs::create_dir(root.join("d")).unwrap();
        std::os::unix::fs::symlink("d", root.join("link")).unwrap();
        assert_eq!(real(&root, ".").unwrap(), root);
        assert_eq!(real(&root, "link/new").unwrap(), root.join("d/new"));
        assert_eq!(real(&root, "d/../new").unwrap(), root.join("new"));
        assert_eq!(real(&root, "none/new").unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
