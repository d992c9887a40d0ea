//! With what rights does it run?
//!
//! Root is needed to bind port 53 and for nothing after that: what parses strangers' octets runs as somebody who may do
//! little, and leaves no copy of its memory, where names are, on a disk.

use std::fmt;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::sync::OnceLock;

use nix::errno::Errno;
use nix::sys::prctl::set_dumpable;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{Gid, Uid, getegid, geteuid, getgroups, setgid, setgroups, setuid};

/// Who is on this host. Read here and not by the C library, which a static binary cannot ask for users.
const USERS: &str = "/etc/passwd";

/// A user of this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct User {
    uid: Uid,
    gid: Gid,
}

/// Why the rights could not be given up.
#[derive(Debug)]
pub struct RightsError {
    user: User,
    cause: String,
}

impl fmt::Display for RightsError {
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

impl std::error::Error for RightsError {}

impl User {
    /// The user of this name or number. A number that no user has is a user without a name, of a group of its own number.
    pub fn find(text: &str) -> Option<Self> {
        Self::find_in(users(), text)
    }

    fn find_in(users: &str, text: &str) -> Option<Self> {
        let known = users.lines().find_map(|line| {
            let mut fields = line.split(':');
            let (name, uid) = (fields.next()?, fields.nth(1)?);
            let gid = fields.next()?;
            (name == text || uid == text).then(|| Self::of(uid, gid))?
        });
        known.or_else(|| Self::of(text, text))
    }

    fn of(uid: &str, gid: &str) -> Option<Self> {
        Some(Self {
            uid: Uid::from_raw(uid.parse().ok()?),
            gid: Gid::from_raw(gid.parse().ok()?),
        })
    }

    /// Whether it is the one that may do everything.
    pub fn is_root(&self) -> bool {
        self.uid.is_root()
    }

    /// Becomes this user for good, groups and all. Fails if any of the rights of before is left.
    pub fn become_it(self) -> Result<(), RightsError> {
        let failed = |cause: String| RightsError { user: self, cause };
        if geteuid() != self.uid || getegid() != self.gid {
            let change = || -> Result<(), Errno> {
                setgroups(&[])?;
                setgid(self.gid)?;
                setuid(self.uid)
            };
            change().map_err(|error| failed(error.desc().to_owned()))?;
        }
        let back = !self.is_root() && setuid(Uid::from_raw(0)).is_ok();
        if geteuid() != self.uid || getegid() != self.gid || back {
            return Err(failed("rights are left".to_owned()));
        }
        let groups = getgroups().unwrap_or_default().into_iter();
        let foreign = groups.filter(|group| *group != self.gid);
        let foreign: Vec<_> = foreign.map(Gid::as_raw).collect();
        if !foreign.is_empty() {
            return Err(failed(format!("groups {foreign:?} are left")));
        }
        // Another user's memory is what the system's default says.
        keep_memory_private();
        Ok(())
    }
}

/// The list of users, as it was at the first question for it: later it may be out of reach.
pub fn users() -> &'static str {
    static LIST: OnceLock<String> = OnceLock::new();
    LIST.get_or_init(|| fs::read_to_string(USERS).unwrap_or_default())
}

/// Whether others than its owner may write what these are the metadata of. A group that has the owner's number is the
/// owner's own, as is usual where files are made writable for their group.
pub fn others_may_write(metadata: &Metadata) -> bool {
    const GROUP: u32 = 0o020;
    const OTHERS: u32 = 0o002;
    let mode = metadata.mode();
    mode & OTHERS != 0 || mode & GROUP != 0 && metadata.gid() != metadata.uid()
}

/// How many descriptors may be open; 0 where the system does not say.
pub fn descriptors() -> u64 {
    getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft)
}

/// Sees to it that so many descriptors may be open, as far as the system allows. Returns how many may be.
pub fn allow_descriptors(wanted: u64) -> u64 {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return wanted;
    };
    let raised = soft.max(wanted.min(hard));
    if raised > soft && setrlimit(Resource::RLIMIT_NOFILE, raised, hard).is_err() {
        return soft;
    }
    raised
}

/// Sees to it that no copy of the memory is ever written, nor read by other processes of the same user.
pub fn keep_memory_private() {
    // Where it cannot be had, it is as it is for all programs.
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    let _ = set_dumpable(false);
}

#[cfg(test)]
mod tests {
    use super::*;

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
