//! What may the process still do once it serves?
//!
//! Where the kernel has Landlock, the process may read only the files that a reload reads, write only its state directory,
//! connect only to the ports of resolvers, and listen only on the ports that are already open. An attacker who takes over the
//! process by a malformed message is confined as well, and so is everything the process starts.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, LandlockStatus, NetPort, PathBeneath, PathFd,
    Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError, Scope,
};

/// The rules that are requested. An older kernel enforces those that it knows.
const LANDLOCK_ABI: ABI = ABI::V6;

/// What the process needs while it serves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SandboxRules {
    /// Files and directories to read. A file stands for its whole directory, because editors replace a file by a new one.
    pub readable: Vec<PathBuf>,
    /// A directory to read and write.
    pub writable_dir: Option<PathBuf>,
    /// TCP ports to connect to.
    pub connect_ports: Vec<u16>,
}

/// Confines the calling thread, and all threads that it starts later, to `rules`. This cannot be undone.
///
/// Returns the kernel's Landlock version, from 1, or `None` if it has no Landlock. Versions before 4 restrict files only,
/// versions before 6 do not restrict signals.
pub fn restrict_self(rules: &SandboxRules) -> Result<Option<i32>, RulesetError> {
    let ruleset = Ruleset::default()
        .handle_access(AccessFs::from_all(LANDLOCK_ABI))?
        .handle_access(AccessNet::from_all(LANDLOCK_ABI))?
        // The supervisor's socket, which may be an abstract one, is already connected.
        .scope(Scope::from_all(LANDLOCK_ABI))?;
    let mut ruleset = ruleset.create()?;
    let read_access = AccessFs::ReadFile | AccessFs::ReadDir;
    for path in &rules.readable {
        ruleset = allow(ruleset, folder(path), read_access)?;
        // A symbolic link leads to another directory.
        if !path.is_dir()
            && let Ok(target) = path.canonicalize()
        {
            ruleset = allow(ruleset, folder(&target), read_access)?;
        }
    }
    if let Some(path) = &rules.writable_dir {
        let write_access =
            AccessFs::WriteFile | AccessFs::Truncate | AccessFs::MakeReg | AccessFs::RemoveFile;
        ruleset = allow(ruleset, path, read_access | write_access)?;
    }
    for port in &rules.connect_ports {
        ruleset = ruleset.add_rule(NetPort::new(*port, AccessNet::ConnectTcp))?;
    }
    match ruleset.restrict_self()?.landlock {
        LandlockStatus::Available { effective_abi, .. } => Ok(Some(effective_abi as i32)),
        _ => Ok(None),
    }
}

/// The directory of a file, or the directory itself.
fn folder(path: &Path) -> &Path {
    if path.is_dir() {
        return path;
    }
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Adds a rule for `folder`, if it exists.
fn allow(
    ruleset: RulesetCreated,
    folder: &Path,
    access: BitFlags<AccessFs>,
) -> Result<RulesetCreated, RulesetError> {
    match PathFd::new(folder) {
        Ok(folder) => ruleset.add_rule(PathBeneath::new(folder, access)),
        Err(_) => Ok(ruleset),
    }
}
