//! What every test needs: certificates, a resolver that does what it is told, a forwarder in front of it, clients, and
//! the log.
//!
//! ```text
//! Client --UDP/TCP--> dns-tool (in this process, port 0) --TLS--> FakeResolver (its script decides)
//! ```

pub(crate) mod cleartext;
pub(crate) mod client;
pub(crate) mod log;
pub(crate) mod message;
pub(crate) mod pki;
pub(crate) mod process;
pub(crate) mod resolver;
pub(crate) mod seed;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dns_tool::config::command_line::{self, Command};
use dns_tool::config::settings::Config;
use dns_tool::daemon::running::RunningDaemon;

pub(crate) use cleartext::CleartextServer;
pub(crate) use client::{TcpClient, UdpClient};
pub(crate) use message::{Ask, Heard};
pub(crate) use pki::{Chain, pki};
pub(crate) use resolver::{Act, FakeResolver, Gate, Greeting};

/// The name that every honest resolver of the tests bears.
pub(crate) const NAME: &str = "resolver.test";
/// Has the resolver asked for the names of the tests, which are below `test.`
pub(crate) const RELAY: [&str; 2] = ["--special-names", "relay"];
/// Long enough that no machine is so slow; a test that waits so long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// Panics that tests of this process bring about on purpose. A thread of the program that panics otherwise fails a test.
pub(crate) static PANICS_MEANT: AtomicU64 = AtomicU64::new(0);

/// A forwarder that serves until it is dropped.
pub(crate) struct Forwarder {
    running: Option<RunningDaemon>,
}

/// The options that have the resolver at `address` asked.
fn asking(address: &str) -> [&str; 4] {
    ["--resolver-addr", address, "--resolver-fqdn", NAME]
}

impl Forwarder {
    /// In front of `resolver`, with `more` options.
    pub(crate) fn before(resolver: &FakeResolver, more: &[&str]) -> Self {
        let address = resolver.address().to_string();
        Self::with(&[&asking(&address)[..], more].concat())
    }

    /// With these options, the tests' trust anchor, and 127.0.0.1 unless `--address` is among them.
    pub(crate) fn with(options: &[&str]) -> Self {
        Self::started(config(options))
    }

    fn started(config: Config) -> Self {
        let running = dns_tool::daemon::start::start(config).expect("the forwarder starts");
        Self {
            running: Some(running),
        }
    }

    /// In front of `resolver`, which is asked nothing a second time because the machine is slow: it can be counted.
    pub(crate) fn patient(resolver: &FakeResolver, more: &[&str]) -> Self {
        let address = resolver.address().to_string();
        Self::patient_with(&[&asking(&address)[..], more].concat())
    }

    /// The same with these options.
    pub(crate) fn patient_with(options: &[&str]) -> Self {
        let timeout: &[&str] = match options.contains(&"--timeout") {
            true => &[],
            false => &["--timeout", "20"],
        };
        let mut config = config(&[timeout, options].concat());
        config.upstream.min_silence_timeout = PATIENCE;
        Self::started(config)
    }

    pub(crate) fn running(&self) -> &RunningDaemon {
        self.running.as_ref().expect("it runs until it is dropped")
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.running().addresses()[0]
    }

    pub(crate) fn udp(&self) -> UdpClient {
        UdpClient::to(self.address())
    }

    pub(crate) fn tcp(&self) -> TcpClient {
        TcpClient::to(self.address())
    }

    /// Takes it away from the test, which is to stop it.
    pub(crate) fn into_running(mut self) -> RunningDaemon {
        self.running.take().expect("it runs until it is dropped")
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop();
        }
        if !std::thread::panicking() {
            assert!(
                dns_tool::system::thread::panics() <= PANICS_MEANT.load(Ordering::SeqCst),
                "a thread of the program panicked, in this test or in one beside it"
            );
        }
    }
}

/// The settings that these options mean: no cache, and no answers of our own to special-use names, of which most names of the tests
/// are, unless they are what the options are about.
pub(crate) fn config(options: &[&str]) -> Config {
    log::capture();
    let anchors = pki().root_file();
    let mut arguments = vec!["--port", "0"];
    if !options.contains(&"--address") {
        arguments.extend(["--address", "127.0.0.1"]);
    }
    if !options.contains(&"--cache-size") {
        arguments.extend(["--cache-size", "0"]);
    }
    if !options.contains(&"--special-names") {
        arguments.extend(RELAY);
    }
    if !options.contains(&"--resolver-ca") {
        arguments.extend(["--resolver-ca", anchors.to_str().expect("a path in UTF-8")]);
    }
    arguments.extend(options);
    seed::keep("settings", &[arguments.join("\n").as_bytes()]);
    match command_line::parse(arguments) {
        Ok(Command::Serve(config)) => *config,
        other => panic!("{options:?}: {other:?}"),
    }
}

/// Waits until `condition` holds.
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < until, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A file for this test run alone.
pub(crate) fn temporary_file(name: &str, content: &[u8]) -> PathBuf {
    let path =
        PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{name}", std::process::id()));
    std::fs::write(&path, content).expect("the folder for temporary files is writable");
    path
}

/// How much of something a test does: `short` of it, or `long` where the environment asks for the long form.
pub(crate) fn scaled<T>(short: T, long: T) -> T {
    if std::env::var_os("DNS_TOOL_LONG").is_some() {
        long
    } else {
        short
    }
}
