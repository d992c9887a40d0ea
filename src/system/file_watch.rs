//! When does a file change?

use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

/// A change ends after this many milliseconds without an event, since files are written in pieces, and removed before they are
/// replaced. It also ends after this many rounds with events.
const DEBOUNCE_MS: u8 = 100;
const MAX_EVENTS: usize = 10;

/// Watches a file for changes by inotify: written, replaced, removed, or reached by another symbolic link (as in a Kubernetes
/// volume).
#[derive(Debug)]
pub struct FileWatcher {
    inotify: Inotify,
    path: PathBuf,
    stop: PipeReader,
}

impl FileWatcher {
    /// Watches the file at `path` and its directory, until the returned writer is dropped. Fails if inotify or a pipe cannot be had.
    pub fn new(path: &Path) -> io::Result<(Self, PipeWriter)> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        let (stop, writer) = io::pipe()?;
        let watcher = Self {
            inotify,
            path: path.to_owned(),
            stop,
        };
        watcher.add_watches()?;
        Ok((watcher, writer))
    }

    /// Adds watches for the current directory and file of the path, both of which may have been replaced.
    fn add_watches(&self) -> io::Result<()> {
        let changes = AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_ATTRIB;
        let directory = self
            .path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        self.inotify
            .add_watch(directory.unwrap_or(Path::new(".")), changes)?;
        // A file behind a symbolic link, or one that is mounted, changes without an event in the directory.
        self.inotify.add_watch(&self.path, changes)?;
        Ok(())
    }

    /// Waits for the end of the next change. Returns false once the writer is dropped.
    pub fn wait(&self) -> bool {
        // If file or directory is missing, the other one is still watched.
        let _ = self.add_watches();
        let mut timeout = PollTimeout::NONE;
        let mut events = 0;
        while events < MAX_EVENTS {
            let mut ready = [
                PollFd::new(self.inotify.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.stop.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut ready, timeout) {
                Ok(0) => return true,
                Ok(_) if ready[1].any().unwrap_or(true) => return false,
                Ok(_) => {
                    // The kind of event does not matter.
                    while self
                        .inotify
                        .read_events()
                        .is_ok_and(|events| !events.is_empty())
                    {}
                    timeout = PollTimeout::from(DEBOUNCE_MS);
                    events += 1;
                }
                Err(_) => {}
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_change_is_seen_whether_written_replaced_or_reached_by_another_link() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = |name: &str| directory.path().join(name);
        fs::write(path("one"), "1").expect("writes");
        symlink("one", path("pins")).expect("links");
        let (watcher, end) = FileWatcher::new(&path("pins")).expect("a watch");
        let changes: [&dyn Fn(); 3] = [
            &|| fs::write(path("one"), "2").expect("writes"),
            &|| {
                fs::write(path("new"), "3").expect("writes");
                fs::rename(path("new"), path("one")).expect("renames");
            },
            &|| {
                symlink("other", path("link")).expect("links");
                fs::rename(path("link"), path("pins")).expect("renames");
            },
        ];
        for change in changes {
            change();
            assert!(watcher.wait());
        }
        drop(end);
        assert!(!watcher.wait());
    }
}
