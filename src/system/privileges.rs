//! With what rights does it run?
//!
//! Root is needed to bind port 53 and for nothing after that. The code that parses messages from strangers runs as an
//! unprivileged user, and its memory, which holds query names, is never dumped to disk. Files that decide whom to trust are read
//! only if nobody but their owner may write them.

use std::fmt;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::OnceLock;

use nix::errno::Errno;
use nix::sys::prctl::set_dumpable;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};
use nix::unistd::{Gid, Uid, getegid, geteuid, getgroups, setgid, setgroups, setuid};

use crate::system::thread::STACK_SIZE;

/// The list of users. It is read here because the C library of a static binary cannot look users up.
const PASSWD: &str = "/etc/passwd";
/// Maximum length in octets of a trusted file: some thousand pins, or the state of some hundred resolvers.
pub const MAX_FILE_LEN: u64 = 1024 * 1024;

/// A user of this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct User {
    uid: Uid,
    gid: Gid,
}

/// Why the process could not become the user.
#[derive(Debug)]
pub struct PrivilegeError {
    user: User,
    cause: String,
}

impl fmt::Display for PrivilegeError {
    /// One line that names the option, the value and what was expected.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { user, cause } = self;
        write!(
            f,
            "--user {}: {cause}; expected to be started as root, or as that user with no other groups than its own",
            user.uid
        )
    }
}

impl std::error::Error for PrivilegeError {}

impl User {
    /// Finds a user by name or number. A number that is not in the list is a user without a name, whose group has the same
    /// number.
    pub fn find(text: &str) -> Option<Self> {
        Self::find_in(passwd(), text)
    }

    fn find_in(users: &str, text: &str) -> Option<Self> {
        let listed = users.lines().find_map(|line| {
            let mut fields = line.split(':');
            let (name, uid) = (fields.next()?, fields.nth(1)?);
            let gid = fields.next()?;
            (name == text || uid == text).then(|| Self::from_ids(uid, gid))?
        });
        listed.or_else(|| Self::from_ids(text, text))
    }

    fn from_ids(uid: &str, gid: &str) -> Option<Self> {
        Some(Self {
            uid: Uid::from_raw(uid.parse().ok()?),
            gid: Gid::from_raw(gid.parse().ok()?),
        })
    }

    /// Whether this is root (user 0).
    pub fn is_root(&self) -> bool {
        self.uid.is_root()
    }

    /// Becomes this user for good, with no groups but the user's own, and disables core dumps. Fails if any earlier right
    /// remains.
    pub fn drop_privileges(self) -> Result<(), PrivilegeError> {
        let failed = |cause: String| PrivilegeError { user: self, cause };
        if geteuid() != self.uid || getegid() != self.gid {
            let change = || -> Result<(), Errno> {
                setgroups(&[])?;
                setgid(self.gid)?;
                setuid(self.uid)
            };
            change().map_err(|error| failed(error.desc().to_owned()))?;
        }
        let can_return = !self.is_root() && setuid(Uid::from_raw(0)).is_ok();
        if geteuid() != self.uid || getegid() != self.gid || can_return {
            return Err(failed("rights are left".to_owned()));
        }
        let groups = getgroups().unwrap_or_default().into_iter();
        let foreign = groups.filter(|group| *group != self.gid);
        let foreign: Vec<_> = foreign.map(Gid::as_raw).collect();
        if !foreign.is_empty() {
            return Err(failed(format!("groups {foreign:?} are left")));
        }
        // A change of user resets this to the system's default.
        disable_core_dumps();
        Ok(())
    }
}

/// The contents of `/etc/passwd` at the first call. Later the sandbox or a changed root may hide the file.
pub fn passwd() -> &'static str {
    static CONTENTS: OnceLock<String> = OnceLock::new();
    CONTENTS.get_or_init(|| fs::read_to_string(PASSWD).unwrap_or_default())
}

/// Why a trusted file was refused.
#[derive(Debug)]
pub enum FileError {
    /// The file cannot be read.
    Unreadable(io::Error),
    /// The path is not of the expected kind, such as a file or a directory.
    WrongKind(&'static str),
    /// Others than the owner may write the file, which has this mode.
    WritableByOthers(u32),
    /// The file is longer than [`MAX_FILE_LEN`].
    TooLong,
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(error) => write!(f, "it cannot be read: {error}"),
            Self::WrongKind(kind) => write!(f, "expected {kind}"),
            Self::WritableByOthers(mode) => write!(
                f,
                "others may write it (mode {mode:04o}); expected that its owner alone may (chmod go-w)"
            ),
            Self::TooLong => write!(f, "expected a file of at most {MAX_FILE_LEN} octets"),
        }
    }
}

impl std::error::Error for FileError {}

impl FileError {
    /// Whether the system lacked file descriptors or memory, so that the same file may be read later.
    pub fn is_for_want_of_resources(&self) -> bool {
        let Self::Unreadable(error) = self else {
            return false;
        };
        let errno = error.raw_os_error().map(Errno::from_raw);
        matches!(
            errno,
            Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM | Errno::ENOBUFS)
        )
    }
}

/// Reads a file that decides whom to trust. Fails if others than its owner may write it, or if it is longer than
/// [`MAX_FILE_LEN`].
pub fn read_trusted_file(path: &Path) -> Result<Vec<u8>, FileError> {
    // Checked before opening, since opening a pipe would wait for its other end.
    let metadata = fs::metadata(path).map_err(FileError::Unreadable)?;
    if !metadata.is_file() {
        return Err(FileError::WrongKind("a file"));
    }
    let file = File::open(path).map_err(FileError::Unreadable)?;
    // Checks the file that was opened, which may no longer be the one that the path names.
    let metadata = file.metadata().map_err(FileError::Unreadable)?;
    check_owner_only(&metadata)?;
    let mut octets = Vec::new();
    let read = file.take(MAX_FILE_LEN + 1).read_to_end(&mut octets);
    if read.map_err(FileError::Unreadable)? as u64 > MAX_FILE_LEN {
        return Err(FileError::TooLong);
    }
    Ok(octets)
}

/// Decodes a file as UTF-8. Fails with the number, from 1, of the first line that is not, and what was expected.
pub fn decode_utf8(octets: Vec<u8>) -> Result<String, (usize, String)> {
    String::from_utf8(octets).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + valid.iter().filter(|octet| **octet == b'\n').count();
        (line, "expected UTF-8".to_owned())
    })
}

/// Fails if others than the owner may write the file. A group with the owner's number counts as the owner's own, as is usual
/// where files are made writable for their group.
pub fn check_owner_only(metadata: &Metadata) -> Result<(), FileError> {
    const GROUP: u32 = 0o020;
    const OTHERS: u32 = 0o002;
    let mode = metadata.mode();
    match mode & OTHERS != 0 || mode & GROUP != 0 && metadata.gid() != metadata.uid() {
        true => Err(FileError::WritableByOthers(mode & 0o7777)),
        false => Ok(()),
    }
}

/// The maximum number of open file descriptors (RLIMIT_NOFILE), or 0 if the system does not tell.
pub fn fd_limit() -> u64 {
    getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft)
}

/// Raises RLIMIT_NOFILE to `wanted`, as far as the system allows. Returns the limit that holds now.
pub fn raise_fd_limit(wanted: u64) -> u64 {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return wanted;
    };
    let raised = soft.max(wanted.min(hard));
    if raised > soft && setrlimit(Resource::RLIMIT_NOFILE, raised, hard).is_err() {
        return soft;
    }
    raised
}

/// The maximum number of memory mappings of a process. Read only for more threads than [`default_max_threads`], since a service
/// manager may hide the file.
pub const MAX_MAP_COUNT: &str = "/proc/sys/vm/max_map_count";

/// The number of worker threads that the kernel's default of mappings allows.
pub fn default_max_threads() -> usize {
    max_threads_with(65_530)
}

/// The number of worker threads that this system allows.
pub fn max_threads() -> usize {
    let read = fs::read_to_string(MAX_MAP_COUNT).ok();
    let mappings = read.and_then(|text| text.trim().parse().ok());
    mappings.map_or_else(default_max_threads, max_threads_with)
}

/// The C library maps a stack and a signal stack per thread, each with a guard page. A process that cannot map the signal stack
/// ends.
fn max_threads_with(mappings: usize) -> usize {
    const MAPPINGS_PER_THREAD: usize = 4;
    const OTHER_MAPPINGS: usize = 2048;
    mappings.saturating_sub(OTHER_MAPPINGS) / MAPPINGS_PER_THREAD
}

/// The number of worker threads for which RLIMIT_AS has room; [`usize::MAX`] without that limit.
pub fn max_threads_in_address_space() -> usize {
    match getrlimit(Resource::RLIMIT_AS) {
        Ok((limit, _)) if limit != RLIM_INFINITY => {
            threads_in_address_space(usize::try_from(limit).unwrap_or(usize::MAX))
        }
        _ => usize::MAX,
    }
}

/// Threads may take half of what the program itself leaves of `limit` octets; messages and the cache have the rest. A process that
/// finds no address space for either ends.
fn threads_in_address_space(limit: usize) -> usize {
    const PROGRAM: usize = 16 * 1024 * 1024;
    // The signal stack has up to 32 KiB, and each stack a guard page.
    const PER_THREAD: usize = STACK_SIZE + 64 * 1024;
    limit.saturating_sub(PROGRAM) / 2 / PER_THREAD
}

/// Prevents core dumps, and keeps other processes of the same user from reading this one's memory (PR_SET_DUMPABLE).
pub fn disable_core_dumps() {
    // On failure the process is as protected as any other program.
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    let _ = set_dumpable(false);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_take_half_of_a_limited_address_space() {
        const MIB: usize = 1024 * 1024;
        assert_eq!(threads_in_address_space(0), 0);
        assert_eq!(threads_in_address_space(16 * MIB), 0);
        assert_eq!(threads_in_address_space(64 * MIB), 24 * MIB / (320 * 1024));
        assert!(threads_in_address_space(256 * MIB) > 256);
    }

    #[test]
    fn a_user_is_found_by_name_or_number() {
        let users =
            "root:x:0:0:root:/root:/bin/sh\nbroken\ndns:x:110:65534::/nonexistent:/bin/false\n";
        let find = |text| User::find_in(users, text);
        let user = |uid, gid| {
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
            Some(User { uid, gid })
        };
        assert_eq!(find("dns"), user(110, 65534));
        assert_eq!(find("110"), user(110, 65534));
        assert_eq!(find("54321"), user(54321, 54321), "in no list");
        assert_eq!(find("root"), user(0, 0));
        assert!(find("root").is_some_and(|user| user.is_root()));
        for nobody in ["", "nobody-at-all", "-1", "x", "broken"] {
            assert_eq!(find(nobody), None, "{nobody}");
        }
    }
}
