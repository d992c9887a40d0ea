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
const RULES: ABI = ABI::V6;

/// What is needed while it serves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needs {
    /// Files and folders that are read. Of a file the folder is meant, with all in it: editors put another file in its place.
    pub read: Vec<PathBuf>,
    /// A folder that is written in, too.
    pub written: Option<PathBuf>,
    /// TCP ports that are connected to.
    pub ports: Vec<u16>,
}

/// Confines the thread that calls it, and those that it starts from then on, to `needs`. There is no way back.
///
/// Returns the kernel's version of Landlock, from 1; none where there is none. Before 4 it knows files alone, before 6 no
/// signals.
pub fn enter(needs: &Needs) -> Result<Option<i32>, RulesetError> {
    let rules = Ruleset::default()
        .handle_access(AccessFs::from_all(RULES))?
        .handle_access(AccessNet::from_all(RULES))?
        // Its supervisor's socket, which may be abstract, is connected to by now.
        .scope(Scope::from_all(RULES))?;
    let mut rules = rules.create()?;
    let reading = AccessFs::ReadFile | AccessFs::ReadDir;
    for path in &needs.read {
        rules = allow(rules, folder(path), reading)?;
        // Where a link leads is another folder.
        if !path.is_dir()
            && let Ok(target) = path.canonicalize()
        {
            rules = allow(rules, folder(&target), reading)?;
        }
    }
    if let Some(path) = &needs.written {
        let changing =
            AccessFs::WriteFile | AccessFs::Truncate | AccessFs::MakeReg | AccessFs::RemoveFile;
        rules = allow(rules, path, reading | changing)?;
    }
    for port in &needs.ports {
        rules = rules.add_rule(NetPort::new(*port, AccessNet::ConnectTcp))?;
    }
    match rules.restrict_self()?.landlock {
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
    rules: RulesetCreated,
    folder: &Path,
    kinds: BitFlags<AccessFs>,
) -> Result<RulesetCreated, RulesetError> {
    match PathFd::new(folder) {
        Ok(folder) => rules.add_rule(PathBeneath::new(folder, kinds)),
        Err(_) => Ok(rules),
    }
}
