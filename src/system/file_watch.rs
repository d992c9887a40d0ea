//! When do files change?

use std::io::{self, PipeReader, PipeWriter, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

/// A change ends after this many milliseconds without an event, since files are written in pieces, and removed before they are
/// replaced. It also ends after this many rounds with events.
const DEBOUNCE_MS: u8 = 100;
const MAX_EVENTS: usize = 10;

/// Watches files for changes by inotify: written, replaced, removed, or reached by another symbolic link (as in a Kubernetes
/// volume).
#[derive(Debug)]
pub struct FileWatcher {
    inotify: Inotify,
    paths: Vec<PathBuf>,
    stop: PipeReader,
}

impl FileWatcher {
    /// Watches the files at `paths` and their directories, until the returned writer is dropped. Fails if inotify or a pipe cannot be
    /// had, or if a directory or a file that is there cannot be watched.
    pub fn new(paths: &[PathBuf]) -> io::Result<(Self, PipeWriter)> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        let (stop, writer) = io::pipe()?;
        let watcher = Self {
            inotify,
            paths: paths.to_vec(),
            stop,
        };
        watcher.add_watches()?;
        Ok((watcher, writer))
    }

    /// Adds watches for the current directory and file of each path, all of which may have been replaced. Fails with the first error
    /// after it has tried all.
    fn add_watches(&self) -> io::Result<()> {
        let changes = AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_ATTRIB;
        let mut result = Ok(());
        for path in &self.paths {
            let directory = path.parent();
            let directory = directory.filter(|parent| !parent.as_os_str().is_empty());
            let directory = directory.unwrap_or(Path::new("."));
            let of_directory = self.inotify.add_watch(directory, changes);
            // A file behind a symbolic link, or one that is mounted, changes without an event in the directory.
            let of_file = match self.inotify.add_watch(path, changes) {
                // The directory tells when it comes.
                Err(Errno::ENOENT) => Ok(()),
                added => added.map(drop),
            };
            let added = of_directory.and(of_file);
            result = result.and(added.map_err(io::Error::from));
        }
        result
    }

    /// Waits for the end of the next change, for an octet that is written to the writer, or until `timeout` has passed. Returns false once
    /// the writer is dropped.
    pub fn wait(&self, timeout: Option<Duration>) -> bool {
        // What is missing now is watched again after the next change of another file or directory.
        let _ = self.add_watches();
        let in_poll = |timeout| PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
        let mut timeout = timeout.map_or(PollTimeout::NONE, in_poll);
        let mut events = 0;
        while events < MAX_EVENTS {
            let mut ready = [
                PollFd::new(self.inotify.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.stop.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut ready, timeout) {
                Ok(0) => return true,
                Ok(_) if ready[1].any().unwrap_or(true) => return self.is_woken(),
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

    /// Takes an octet from the pipe. Returns false if there is none and never will be.
    fn is_woken(&self) -> bool {
        (&self.stop).read(&mut [0; 1]).is_ok_and(|count| count > 0)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_change_is_seen_whether_written_replaced_or_reached_by_another_link() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = |name: &str| directory.path().join(name);
        fs::write(path("one"), "1").expect("writes");
        symlink("one", path("pins")).expect("links");
        let (watcher, end) = FileWatcher::new(&[path("pins")]).expect("a watch");
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
            assert!(watcher.wait(None));
        }
        drop(end);
        assert!(!watcher.wait(None));
    }

    #[test]
    fn a_wait_ends_without_a_change_when_it_is_over_or_when_told() {
        let directory = tempfile::tempdir().expect("a directory");
        let (watcher, mut end) = FileWatcher::new(&[directory.path().join("x")]).expect("a watch");
        assert!(watcher.wait(Some(Duration::from_millis(1))));
        end.write_all(&[1]).expect("writes");
        assert!(watcher.wait(None));
        end.write_all(&[1]).expect("writes");
        drop(end);
        assert!(watcher.wait(None));
        assert!(!watcher.wait(None));
    }

    #[test]
    fn a_missing_file_is_seen_when_it_comes_and_a_missing_directory_is_an_error() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("hosts");
        let (watcher, _end) = FileWatcher::new(std::slice::from_ref(&path)).expect("a watch");
        fs::write(&path, "1").expect("writes");
        assert!(watcher.wait(None));
        assert!(FileWatcher::new(&[directory.path().join("none/hosts")]).is_err());
    }

    #[test]
    fn each_of_several_files_is_watched_also_after_it_was_missing() {
        let directories = [(); 2].map(|()| tempfile::tempdir().expect("a directory"));
        let paths = directories
            .each_ref()
            .map(|directory| directory.path().join("hosts"));
        for path in &paths {
            fs::write(path, "1").expect("writes");
        }
        let (watcher, _end) = FileWatcher::new(&paths).expect("a watch");
        for path in &paths {
            fs::write(path, "2").expect("writes");
            assert!(watcher.wait(None));
            fs::remove_file(path).expect("removes");
            assert!(watcher.wait(None));
        }
        for path in &paths {
            fs::write(path, "3").expect("writes");
            assert!(watcher.wait(None));
        }
    }
}
