//! dns-tool relays cleartext DNS, over TCP and UDP, to a resolver whose identity it has verified, over TLS; names of zones that the
//! operator chooses may go elsewhere.
//!
//! How a query travels:
//!
//! ```text
//! clients                                                                        resolver
//! TCP --> server: accept --> worker: read queries --.
//! UDP --> server: receive datagrams ----------------+--> forward: limits, checks, cache
//!                                                               |
//!         denied, rate-limited, a special-use name, or in the cache: answered at once
//!                                    in flight already: waits for the same answer
//!                                                               v
//!                                        upstream: pool --> session --> TLS record each
//!                                                                                      |
//! client: send replies <-- forward: complete <--- session thread: match the answer <---'
//! ```
//!
//! No thread waits for another connection's answer: a query that waits is an entry in the pool's table, and the thread that reads
//! its answer delivers it.
//!
//! Each folder answers one question, imports only folders below it in this list, and says at its head which files it has. The list
//! runs from the program to the operating system, not in the order in which a query travels:
//!
//! - [`command`]: what else can the program do?
//! - [`daemon`]: how is it put together, reloaded and stopped?
//! - [`config`]: what did the user ask for?
//! - [`server`]: where do queries come from?
//! - [`monitoring`]: what is shown to the outside?
//! - [`forward`]: what happens to a query?
//! - [`local`]: what is answered here, without a resolver?
//! - [`cache`]: is the answer known already?
//! - [`upstream`]: which resolver is asked?
//! - [`client`]: how does an answer leave?
//! - [`identity`]: is this the intended resolver?
//! - [`telemetry`]: what is counted and written?
//! - [`message`]: what do these octets say?
//! - [`system`]: what does the operating system give?
//!
//! The [`guide`] has a chapter for each task; [`guide::contributing`] and [`guide::recipes`] are for changes of the code.
//!
//! # Use as a library
//!
//! The library is there for the program `dns-tool` and for its tests. It has no stable interface: any version may change it. Within
//! that bound, a program can run the forwarder. A [`config::settings::Config`] comes from options only:
//!
//! ```no_run
//! use dns_tool::config::command_line::{self, Command};
//! use dns_tool::config::sources::OptionSources;
//! use dns_tool::daemon::start;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // The arguments without the program's name, and no environment.
//! let sources = OptionSources::new(["--port", "5353", "--timeout", "2"], []);
//! let Command::Serve(config) = command_line::read(&sources)? else {
//!     return Err("a subcommand, --help or --check-config".into());
//! };
//! let running = start::start(*config)?;
//! println!("{:?}", running.addresses());
//! // Reads the file of --config and the pins again, as on SIGHUP; and what SIGUSR1 does.
//! running.reload();
//! running.flush_cache();
//! // Answers the queries in flight, and returns when all is stopped.
//! running.stop();
//! # Ok(())
//! # }
//! ```
//!
//! [`daemon::start::start`] binds the sockets, becomes `--user` and checks that this user can read the files of `--pins` and
//! `--state-dir`. The program (`src/main.rs`) does the rest, and a program that uses the library has to do what it needs of it:
//!
//! - the log ([`telemetry::log::init`], and [`telemetry::log::LogWriter`] for its thread); or another logger of the crate `log`;
//! - signals;
//! - the sandbox: `bind`, [`daemon::start::BoundDaemon::enter_sandbox`] and `serve` in place of `start`, before the process has other
//!   threads;
//! - no core dumps ([`system::privileges::disable_core_dumps`]), one heap ([`system::allocator::limit_arenas`], which executes the
//!   program again);
//! - sockets and notices of systemd ([`server::sockets::Sockets::from_socket_activation`],
//!   [`daemon::running::RunningDaemon::report_to`]).
//!
//! Some state belongs to the process: the log, the counts of panics and of log lines, and the list of threads for `/health`.
#![forbid(unsafe_code)]

pub mod cache;
pub mod client;
pub mod command;
pub mod config;
pub mod daemon;
pub mod forward;
pub mod guide;
pub mod identity;
pub mod local;
pub mod message;
pub mod monitoring;
pub mod server;
pub mod system;
pub mod telemetry;
pub mod upstream;
