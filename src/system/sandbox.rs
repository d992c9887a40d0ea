//! What may the process still do once it serves?
//!
//! Landlock, where the kernel has it: no file but what a reload reads and what is to be remembered, no TCP connection but to
//! the ports of resolvers, no port to listen on but those that are open. Who takes the process over by way of an octet that
//! was read wrongly finds itself there, and with it whatever it starts.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, LandlockStatus, NetPort, PathBeneath, PathFd,
    Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError, Scope,
};

/// The rules that are asked for; of an older kernel, those that it knows.
const LANDLOCK_ABI: ABI = ABI::V6;

/// What is needed while it serves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SandboxRules {
    /// Files and folders that are read. Of a file the folder is meant, with all in it: editors put another file in its place.
    pub readable: Vec<PathBuf>,
    /// A folder that is written in, too.
    pub writable_dir: Option<PathBuf>,
    /// TCP ports that are connected to.
    pub connect_ports: Vec<u16>,
}

/// Confines the thread that calls it, and those that it starts from then on, to `rules`. There is no way back.
///
/// Returns the kernel's version of Landlock, from 1; none where there is none. Before 4 it knows files alone, before 6 no
/// signals.
pub fn restrict_self(rules: &SandboxRules) -> Result<Option<i32>, RulesetError> {
    let ruleset = Ruleset::default()
        .handle_access(AccessFs::from_all(LANDLOCK_ABI))?
        .handle_access(AccessNet::from_all(LANDLOCK_ABI))?
        // Its supervisor's socket, which may be abstract, is connected to by now.
        .scope(Scope::from_all(LANDLOCK_ABI))?;
    let mut ruleset = ruleset.create()?;
    let read_access = AccessFs::ReadFile | AccessFs::ReadDir;
    for path in &rules.readable {
        ruleset = allow(ruleset, folder(path), read_access)?;
        // Where a link leads is another folder.
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

/// The folder that a file is in; of a folder, itself.
fn folder(path: &Path) -> &Path {
    if path.is_dir() {
        return path;
    }
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// With what is in `folder` allowed, if it is there.
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
