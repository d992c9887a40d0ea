//! May the daemon listen on its addresses?
//!
//! Binds each one as the daemon does. A port that is in use may be that of the daemon itself: its process is looked for, or else what it
//! serves.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::command::check_report::{Report, State};
use crate::command::check_resolver::root_ns_question;
use crate::command::stub::{StubQuery, connect_address};
use crate::config::settings::Config;
use crate::server;
use crate::server::sockets::Sockets;
use crate::system::clock;
use crate::system::deadline::DeadlineStream;
use crate::system::port_owner::{PortOwner, port_owners};
use crate::system::scoped_address::ScopedAddress;

/// How much longer than a query takes at most (`--timeout`) the daemon's answer may need to come here.
const ANSWER_MARGIN: Duration = Duration::from_secs(1);
/// How long a monitoring port has to answer.
const MONITOR_TIMEOUT: Duration = Duration::from_secs(1);
/// What all metrics of dns-tool begin with, and the octets of an answer in which one has to come.
const METRIC_PREFIX: &[u8] = b"dns_tool_";
const MAX_METRICS_LEN: u64 = 64 * 1024;
/// Processes that are named for one port.
const MAX_NAMED: usize = 3;

/// Whether the daemon may listen on each address.
pub(super) fn check_ports(config: &Config, report: &mut Report) {
    for address in &config.server.addresses {
        let one_address = server::settings::Settings {
            addresses: vec![*address],
            // With SO_REUSEPORT the kernel would give this socket clients that nobody serves.
            reuse_port: false,
            ..config.server.clone()
        };
        check_port(&one_address, config, report);
    }
}

fn check_port(settings: &server::settings::Settings, config: &Config, report: &mut Report) {
    let address = ScopedAddress::new(settings.addresses[0], settings.port);
    let subject = format!("listening on {address}");
    let Err(error) = Sockets::bind(settings) else {
        return report.add(subject, "free, TCP and UDP");
    };
    match error.kind() {
        ErrorKind::AddrNotAvailable if settings.addresses_optional => {
            report.add(subject, "left out: this host has no such address");
        }
        ErrorKind::AddrInUse => report_use(&subject, &find_use(address, config), report),
        ErrorKind::PermissionDenied => report.add_fault(
            State::Critical,
            subject,
            "no right to listen there",
            "start it as root with --user, with the capability CAP_NET_BIND_SERVICE, or on a --port from 1024 on",
        ),
        ErrorKind::AddrNotAvailable => report.add_fault(
            State::Critical,
            subject,
            "this host has no such address",
            "choose an --address of this host",
        ),
        _ => report.add_fault(State::Unknown, subject, error, "see what the system says"),
    }
}

/// Who uses a port that is in use.
#[derive(Debug)]
enum Use {
    /// A process of dns-tool.
    Daemon(PortOwner),
    /// Probably dns-tool, as this is its monitoring port, and it answers.
    Monitored(ScopedAddress),
    /// Other processes, or unknown ones if there are none.
    Others {
        owners: Vec<PortOwner>,
        answers: bool,
    },
}

/// Who uses the port of `address`.
fn find_use(address: ScopedAddress, config: &Config) -> Use {
    let owners = find_owners(address);
    match owners {
        Ok(daemon) => return Use::Daemon(daemon),
        Err(owners) if owners.is_empty() => {
            if let Some(monitor) = config.monitor
                && is_monitor(monitor)
            {
                return Use::Monitored(monitor);
            }
        }
        Err(_) => {}
    }
    let timeout = config.upstream.timeout + ANSWER_MARGIN;
    let query = StubQuery::new(root_ns_question(), timeout, clock::now());
    let listener = connect_address(address.host(), address.port());
    let answers = query.exchange_datagrams(listener).is_ok();
    // With socket activation, the query has started the daemon.
    match find_owners(address) {
        Ok(daemon) => Use::Daemon(daemon),
        Err(owners) => Use::Others { owners, answers },
    }
}

/// The process of dns-tool that has the port, or else the other processes that have it, as far as they can be known.
fn find_owners(address: ScopedAddress) -> Result<PortOwner, Vec<PortOwner>> {
    let address = address.resolve().map_err(|_| Vec::new())?;
    let mut owners = port_owners(address);
    match owners.iter().position(|owner| owner.is_dns_tool) {
        Some(daemon) => Ok(owners.swap_remove(daemon)),
        None => Err(owners),
    }
}

/// Whether the monitoring port of a dns-tool answers there.
fn is_monitor(address: ScopedAddress) -> bool {
    let ask = || -> io::Result<Vec<u8>> {
        let address = connect_address(address.host(), address.port()).resolve()?;
        let deadline = clock::now() + MONITOR_TIMEOUT;
        let socket = TcpStream::connect_timeout(&address, MONITOR_TIMEOUT)?;
        let mut stream = DeadlineStream::new(&socket, deadline);
        stream
            .write_all(b"GET /metrics HTTP/1.1\r\nHost: dns-tool\r\nConnection: close\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.take(MAX_METRICS_LEN).read_to_end(&mut answer)?;
        Ok(answer)
    };
    let has_metric = |answer: Vec<u8>| {
        let mut parts = answer.windows(METRIC_PREFIX.len());
        parts.any(|part| part == METRIC_PREFIX)
    };
    ask().is_ok_and(has_metric)
}

fn report_use(subject: &str, found: &Use, report: &mut Report) {
    match found {
        Use::Daemon(PortOwner { pid, .. }) => report.add(
            subject,
            format_args!("in use by dns-tool itself (pid {pid}), which is fine"),
        ),
        Use::Monitored(monitor) => report.add(
            subject,
            format_args!(
                "in use, most likely by dns-tool itself, which answers at --monitor {monitor}"
            ),
        ),
        Use::Others { owners, answers } => match (&owners[..], answers) {
            ([], true) => report.add(subject, "in use by a program that answers DNS"),
            ([], false) => report.add_fault(
                State::Critical,
                subject,
                "in use by a program that does not answer DNS",
                "find it with ss -lntup as root, and end it; or choose another --port or --address",
            ),
            (owners, true) => report.add_fault(
                State::Warning,
                subject,
                format_args!("in use by {}, and DNS queries are answered", names(owners)),
                "nothing, if it passes queries on to dns-tool, as a proxy does; else end it before dns-tool starts",
            ),
            (owners, false) => report.add_fault(
                State::Critical,
                subject,
                format_args!("in use by {}, and no DNS query is answered", names(owners)),
                "end it, or choose another --port or --address",
            ),
        },
    }
}

/// The names of the first few processes.
fn names(owners: &[PortOwner]) -> String {
    let first = owners.iter().take(MAX_NAMED);
    let mut names: Vec<_> = first
        .map(|owner| format!("{} (pid {})", owner.name, owner.pid))
        .collect();
    if let more @ 1.. = owners.len().saturating_sub(MAX_NAMED) {
        names.push(format!("{more} more"));
    }
    names.join(", ")
}
