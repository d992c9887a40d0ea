//! What does the process do? Parse, log, start, wait for signals, exit code.
#![forbid(unsafe_code)]

use std::env;
use std::io::{self, ErrorKind, Write};
use std::process::{ExitCode, exit};
use std::sync::Arc;
use std::thread::Builder;

use dns_tool::command;
use dns_tool::config::command_line::{self, Command, Query};
use dns_tool::config::help;
use dns_tool::config::settings::Config;
use dns_tool::config::sources::OptionSources;
use dns_tool::daemon::error::StartError;
use dns_tool::daemon::running::RunningDaemon;
use dns_tool::server::sockets::Sockets;
use dns_tool::system::allocator;
use dns_tool::system::privileges;
use dns_tool::system::service_manager::ServiceNotifier;
use dns_tool::system::signals::HeldSignals;
use dns_tool::telemetry::{self, journal};
use log::info;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;

/// The system refused something that is needed to run; of a query: no answer, or an error.
const EXIT_FAILURE: u8 = 1;
/// Wrong usage or configuration.
const EXIT_USAGE: u8 = 2;

/// The signals of the service, each with what `handle_signals` does.
const SIGNALS: [i32; 4] = [SIGTERM, SIGINT, SIGHUP, SIGUSR1];

fn main() -> ExitCode {
    // First of all: until there is a handler, each of these signals would end the process, also one that asks for a reload.
    let mut held = Some(HeldSignals::hold(&SIGNALS));
    let sources = OptionSources::new(env::args_os().skip(1), env::vars_os());
    let command = command_line::read(&sources);
    if !matches!(command, Ok(Command::Serve(_))) {
        // Other commands end by a signal.
        drop(held.take());
    }
    match command {
        Ok(Command::Serve(config)) => serve(*config, held),
        Ok(Command::Query(query)) => run_query(&query),
        Ok(Command::Pin(request)) => {
            let report = command::pin::run(&request);
            print(&report.to_string(), report.exit_code())
        }
        Ok(Command::Check(request)) => print_report(&command::check::run(&request)),
        Ok(Command::PrintConfig(settings)) => print(&settings, 0),
        Ok(Command::Help { all: false }) => print(&help::help(), 0),
        Ok(Command::Help { all: true }) => print(&help::help_all(), 0),
        Ok(Command::Version) => print(concat!("dns-tool ", env!("CARGO_PKG_VERSION"), "\n"), 0),
        Err(error) => {
            let has_argument = |word| env::args_os().any(|argument| argument == word);
            if env::args_os().nth(1).is_some_and(|word| word == "check") {
                let json = has_argument("--json") || has_argument("-json");
                return print_report(&command::check::report_usage_error(&error, json));
            }
            fail(EXIT_USAGE, &error)
        }
    }
}

fn print_report(report: &command::check_report::Report) -> ExitCode {
    // Whoever cannot read the report does not know the state.
    let unknown = command::check_report::State::Unknown.exit_code();
    print_or(&report.to_string(), report.state().exit_code(), unknown)
}

/// Serves until a signal asks it to stop. The signals of the service wait while `held` exists.
fn serve(config: Config, held: Option<HeldSignals>) -> ExitCode {
    allocator::limit_arenas();
    // From here on these signals are queued and read below, so that none ends the process in the middle of a reply.
    let mut signals = match Signals::new(SIGNALS) {
        Ok(signals) => signals,
        Err(error) => return fail(EXIT_FAILURE, &error),
    };
    drop(held);
    // Before any other thread exists, since this removes variables that are meant for this process alone from the environment.
    let passed = match Sockets::from_socket_activation() {
        Ok(passed) => passed,
        Err(error) => return fail(EXIT_FAILURE, &error),
    };
    let notifier = match ServiceNotifier::from_environment() {
        Ok(notifier) => Arc::new(notifier),
        Err(error) => {
            let error = format!("NOTIFY_SOCKET: {error}; expected the socket of a service manager");
            return fail(EXIT_FAILURE, &io::Error::other(error));
        }
    };
    privileges::disable_core_dumps();
    let mut log_writer = telemetry::log::init(config.log_level);
    let start = || {
        let mut bound = dns_tool::daemon::start::bind(passed, config)?;
        // Before any other thread exists, so that all are restricted.
        bound.enter_sandbox();
        log_writer.start_thread()?;
        let running = bound.serve()?;
        running.report_to(&notifier)?;
        Ok(running)
    };
    let running: Result<_, StartError> = start();
    let running = match running {
        Ok(running) => running,
        Err(error) => {
            log_writer.finish();
            return fail(EXIT_FAILURE, &error);
        }
    };
    handle_signals(&mut signals, &running, &notifier);
    // A second signal ends the process at once. If there is no thread for it, the process ends within seconds anyway.
    let _ = Builder::new().spawn(move || {
        if let Some(signal) = signals
            .forever()
            .find(|signal| [SIGTERM, SIGINT].contains(signal))
        {
            exit(128 + signal);
        }
    });
    running.stop();
    log_writer.finish();
    ExitCode::SUCCESS
}

/// Handles signals until one asks the process to stop, and returns then.
fn handle_signals(signals: &mut Signals, running: &RunningDaemon, notifier: &ServiceNotifier) {
    for signal in signals.forever() {
        let name = match signal {
            SIGHUP => {
                notifier.notify_reloading();
                running.reload();
                notifier.notify_ready(&running.status());
                continue;
            }
            SIGUSR1 => {
                running.flush_cache();
                continue;
            }
            SIGTERM => "SIGTERM",
            _ => "SIGINT",
        };
        info!("event=stopping signal={name}");
        notifier.notify_stopping();
        return;
    }
}

fn run_query(query: &Query) -> ExitCode {
    match command::query::run(query) {
        Ok(report) if report.is_success => print(&report.text, 0),
        Ok(report) => print(&report.text, EXIT_FAILURE),
        Err(error) => fail(EXIT_FAILURE, &error),
    }
}

/// Prints the output of a subcommand, and returns `code`, or a failure if the text cannot be written.
fn print(text: &str, code: u8) -> ExitCode {
    print_or(text, code, EXIT_FAILURE.max(code))
}

/// Prints the output of a subcommand, and returns `code`, or `failure` if the text cannot be written. A reader that has read enough is no
/// failure.
fn print_or(text: &str, code: u8, failure: u8) -> ExitCode {
    let mut stdout = io::stdout();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            let error = io::Error::new(error.kind(), format!("standard output: {error}"));
            fail(failure, &error)
        }
        _ => ExitCode::from(code),
    }
}

fn fail(code: u8, error: &dyn std::error::Error) -> ExitCode {
    let start = journal::message_start(log::Level::Error);
    let _ = writeln!(io::stderr(), "{start}dns-tool: {error}");
    ExitCode::from(code)
}
