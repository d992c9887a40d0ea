//! The program as a process of its own.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, ChildStderr, Command, Stdio};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{FakeResolver, NAME, PATIENCE, RELAY, pki, wait_until};

const PROGRAM: &str = env!("CARGO_BIN_EXE_dns-tool");

/// The program, without what this environment says to it.
pub(crate) fn program() -> Command {
    let mut program = Command::new(PROGRAM);
    for (name, _) in env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"DNS_TOOL_") {
            program.env_remove(name);
        }
    }
    program
}

/// The program in front of a resolver, until it is told to end or dropped.
pub(crate) struct Process {
    child: Child,
    log: Option<BufReader<ChildStderr>>,
    /// The lines of the log that were read so far.
    heard: String,
    pub(crate) address: SocketAddr,
}

impl Process {
    /// With the right options for `resolver`, and `more`.
    pub(crate) fn before(resolver: &FakeResolver, more: &[&str]) -> Self {
        let address = resolver.address().to_string();
        let options = ["--resolver-fqdn", NAME, "--resolver-addr", &address];
        Self::with(&[&options[..], more].concat(), &[])
    }

    /// With these options and variables, on a port of 127.0.0.1, and with the tests' trust anchor.
    pub(crate) fn with(options: &[&str], environment: &[(&str, &str)]) -> Self {
        let anchors = pki().root_file();
        let anchors = anchors.to_str().expect("a path in UTF-8");
        let usual = [
            "--port",
            "0",
            "--address",
            "127.0.0.1",
            "--resolver-ca",
            anchors,
        ];
        let relay: &[&str] = match options.contains(&"--special-names") {
            true => &[],
            false => &RELAY,
        };
        Self::plain(&[&usual[..], relay, options].concat(), environment)
    }

    /// With these options and variables, and no others.
    pub(crate) fn plain(options: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut command = program();
        command.args(options).envs(environment.iter().copied());
        Self::run(&mut command)
    }

    /// On these sockets, passed as a service manager does, before `resolver`.
    pub(crate) fn on(
        sockets: (&TcpListener, &UdpSocket),
        resolver: &FakeResolver,
        more: &[&str],
    ) -> Self {
        let (tcp, udp) = sockets;
        let tcp: OwnedFd = tcp.try_clone().expect("a descriptor").into();
        let udp: OwnedFd = udp.try_clone().expect("a descriptor").into();
        let address = resolver.address().to_string();
        // The process that the sockets are for is the one that the shell becomes.
        let pass = "export LISTEN_FDS=2 LISTEN_PID=$$; exec \"$0\" \"$@\" 3<&0 4<&1 0</dev/null 1>/dev/null";
        let mut command = Command::new("sh");
        command
            .args([
                "-c",
                pass,
                PROGRAM,
                "--resolver-fqdn",
                NAME,
                "--resolver-addr",
                &address,
            ])
            .args(RELAY)
            .arg("--resolver-ca")
            .arg(pki().root_file())
            .args(more)
            .stdin(tcp)
            .stdout(udp);
        Self::run(&mut command)
    }

    /// This command, which runs the program.
    pub(crate) fn run(command: &mut Command) -> Self {
        let mut child = command
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let log = child.stderr.take().map(BufReader::new);
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut process = Self {
            child,
            log,
            heard: String::new(),
            address: nowhere,
        };
        let line = process.read_until("event=listening");
        let address = line.trim().rsplit('=').next().expect("an address");
        process.address = address.parse().expect("an address");
        process
    }

    /// Whether one of the lines of the log that were read so far holds `part`.
    pub(crate) fn has_said(&self, part: &str) -> bool {
        self.heard.contains(part)
    }

    /// The lines of the log that were read so far.
    pub(crate) fn heard(&self) -> &str {
        &self.heard
    }

    /// The next line of the log that holds `part`.
    pub(crate) fn read_until(&mut self, part: &str) -> String {
        let mut line = String::new();
        let log = self.log.as_mut().expect("an open log");
        while !line.contains(part) {
            line.clear();
            if log.buffer().is_empty() {
                let mut ready = [PollFd::new(log.get_ref().as_fd(), PollFlags::POLLIN)];
                let patience = PollTimeout::try_from(PATIENCE).expect("some seconds");
                let found = poll(&mut ready, patience).expect("a wait");
                assert!(found > 0, "in vain: {part}");
            }
            assert!(
                log.read_line(&mut line).expect("a line") > 0,
                "it ended without {part}"
            );
            self.heard.push_str(&line);
        }
        line
    }

    /// Nobody reads its log any more.
    pub(crate) fn close_log(&mut self) {
        self.log = None;
    }

    /// Waits for its end, without reading its log; the exit code.
    pub(crate) fn wait(mut self) -> Option<i32> {
        let mut code = None;
        wait_until("its end", || {
            let ended = self.child.try_wait().expect("a child of ours");
            code = ended.and_then(|status| status.code());
            ended.is_some()
        });
        code
    }

    /// Its process ID.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
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
        self.memory("VmRSS:")
    }

    /// The most memory that it ever held, in octets.
    pub(crate) fn peak(&self) -> u64 {
        self.memory("VmHWM:")
    }

    /// How many there are of what the system lists of it: `fd` for descriptors, `task` for threads.
    pub(crate) fn count_in(&self, folder: &str) -> usize {
        let list = fs::read_dir(format!("/proc/{}/{folder}", self.child.id()));
        list.expect("its state").count()
    }

    /// What the system says of each of its threads of this name.
    pub(crate) fn threads(&self, name: &str) -> Vec<String> {
        let folder = format!("/proc/{}/task", self.child.id());
        let tasks = fs::read_dir(folder).expect("its state");
        let status = tasks.filter_map(|task| {
            // Others may end meanwhile.
            let status = fs::read_to_string(task.ok()?.path().join("status")).ok()?;
            let own = status.lines().next()?.strip_prefix("Name:")?;
            (own.trim() == name).then_some(status)
        });
        status.collect()
    }

    /// How often its thread of this name has waited so far, for whatever.
    pub(crate) fn waits_of(&self, thread: &str) -> usize {
        let status = self.threads(thread).pop().expect("a thread of that name");
        let mut lines = status.lines();
        let waits = lines.find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        let waits = waits.expect("a count").trim();
        waits.parse().expect("a number")
    }

    fn memory(&self, word: &str) -> u64 {
        let kilobytes = self.status(word);
        let kilobytes = kilobytes.strip_suffix(" kB").expect("a size");
        1024 * kilobytes.parse::<u64>().expect("a number")
    }

    /// What the system says of it behind this word, with single blanks.
    pub(crate) fn status(&self, word: &str) -> String {
        self.system_says("status", word)
    }

    /// The largest core dumps that it may write, in octets: now, and if it asked for more.
    pub(crate) fn core_limit(&self) -> String {
        let limit = self.system_says("limits", "Max core file size");
        limit.trim_end_matches(" bytes").to_owned()
    }

    fn system_says(&self, file: &str, word: &str) -> String {
        let text = fs::read_to_string(format!("/proc/{}/{file}", self.child.id()));
        let text = text.expect("its state");
        let line = text.lines().find_map(|line| line.strip_prefix(word));
        let fields = line.expect("a line").split_whitespace();
        fields.collect::<Vec<_>>().join(" ")
    }

    /// Waits for its end; the exit code and the log from the first line on.
    pub(crate) fn end_with_whole_log(mut self) -> (Option<i32>, String) {
        let mut whole = std::mem::take(&mut self.heard);
        let (code, rest) = self.end();
        whole.push_str(&rest);
        (code, whole)
    }

    /// Waits for its end; the exit code and the rest of the log.
    pub(crate) fn end(mut self) -> (Option<i32>, String) {
        let mut log = String::new();
        let rest = self.log.as_mut().expect("an open log");
        rest.read_to_string(&mut log).expect("the rest of the log");
        (self.child.wait().expect("it ends").code(), log)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
