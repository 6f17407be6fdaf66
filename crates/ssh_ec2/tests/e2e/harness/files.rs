//! Files with random content, and their comparison.

use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

/// Writes a file that compresses badly; another seed gives another content.
pub(crate) fn random_file(path: &Path, mebibytes: usize, seed: u64) -> PathBuf {
    let mut file = BufWriter::new(File::create(path).unwrap());
    let mut state = seed;
    for _ in 0..mebibytes * 1024 * 1024 / 8 {
        // SplitMix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        file.write_all(&(mixed ^ (mixed >> 31)).to_le_bytes()).unwrap();
    }
    file.flush().unwrap();
    path.to_owned()
}

/// Asserts that two files have the same bytes; otherwise reports the first difference.
#[track_caller]
pub(crate) fn assert_same(one: &Path, other: &Path) {
    let lengths = [one, other].map(|path| fs::metadata(path).unwrap().len());
    assert_eq!(lengths[0], lengths[1], "{} and {} differ in length", one.display(), other.display());
    let mut files = [one, other].map(|path| BufReader::new(File::open(path).unwrap()));
    let mut chunks = [vec![0; CHUNK], vec![0; CHUNK]];
    let mut at = 0;
    while at < lengths[0] {
        let length = usize::try_from((lengths[0] - at).min(CHUNK as u64)).unwrap();
        for (file, chunk) in files.iter_mut().zip(&mut chunks) {
            file.read_exact(&mut chunk[..length]).unwrap();
        }
        if chunks[0][..length] != chunks[1][..length] {
            let offset = chunks[0].iter().zip(&chunks[1]).position(|(a, b)| a != b).unwrap();
            panic!("{} and {} differ at byte {}", one.display(), other.display(), at + offset as u64);
        }
        at += length as u64;
    }
}

/// Every file, socket and link below a directory; nothing when there is no such directory.
pub(crate) fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let Ok(entries) = fs::read_dir(directory) else { return files };
    for entry in entries {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            files.extend(files_below(&entry.path()));
        } else {
            files.push(entry.path());
        }
    }
    files.sort();
    files
}

const CHUNK: usize = 1024 * 1024;
