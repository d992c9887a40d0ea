//! The program as a process of its own.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, ChildStderr, Command, Stdio};

use super::{FakeResolver, NAME, pki};

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_dns-tool");

/// The program in front of a resolver, until it is told to end or dropped.
pub(crate) struct Process {
    child: Child,
    log: BufReader<ChildStderr>,
    pub(crate) address: SocketAddr,
}

impl Process {
    pub(crate) fn before(resolver: &FakeResolver, more: &[&str]) -> Self {
        let mut child = Command::new(PROGRAM)
            .args([
                "--port",
                "0",
                "--address",
                "127.0.0.1",
                "--resolver-fqdn",
                NAME,
            ])
            .args(["--resolver-addr", &resolver.address().to_string()])
            .arg("--resolver-ca")
            .arg(pki().root_file())
            .args(more)
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let log = BufReader::new(child.stderr.take().expect("a pipe"));
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut process = Self {
            child,
            log,
            address: nowhere,
        };
        let line = process.read_until("event=listening");
        let address = line.trim().rsplit('=').next().expect("an address");
        process.address = address.parse().expect("an address");
        process
    }

    /// The next line of the log that holds `part`.
    pub(crate) fn read_until(&mut self, part: &str) -> String {
        let mut line = String::new();
        while !line.contains(part) {
            line.clear();
            assert!(
                self.log.read_line(&mut line).expect("a line") > 0,
                "it ended without {part}"
            );
        }
        line
    }

    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let killed = Command::new("sh")
            .args(["-c", &format!("kill -{name} {pid}")])
            .status();
        assert!(killed.expect("a shell").success());
    }

    /// How much memory it really holds, in octets.
    pub(crate) fn resident(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.expect("its state");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
        1024 * kilobytes.expect("a size").parse::<u64>().expect("a number")
    }

    /// Waits for its end; the exit code and the rest of the log.
    pub(crate) fn end(mut self) -> (Option<i32>, String) {
        let mut log = String::new();
        self.log
            .read_to_string(&mut log)
            .expect("the rest of the log");
        (self.child.wait().expect("it ends").code(), log)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
