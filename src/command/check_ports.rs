//! May the daemon listen on its addresses?
//!
//! Binds each one as the daemon does. A port that is in use is sent a query: the daemon itself may have it.

use std::io::ErrorKind;
use std::time::Duration;

use crate::command::check_report::{Report, State};
use crate::command::check_resolver::root_ns_question;
use crate::command::stub::{StubQuery, connect_address};
use crate::server;
use crate::server::sockets::Sockets;
use crate::system::clock;
use crate::system::scoped_address::ScopedAddress;

/// How long a program that holds our port has to answer a query.
const PORT_PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// Whether it may listen on each address.
pub(super) fn check_ports(settings: &server::settings::Settings, report: &mut Report) {
    for address in &settings.addresses {
        let one_address = server::settings::Settings {
            addresses: vec![*address],
            // With SO_REUSEPORT the kernel would give this socket clients that nobody serves.
            reuse_port: false,
            ..settings.clone()
        };
        check_port(&one_address, report);
    }
}

fn check_port(settings: &server::settings::Settings, report: &mut Report) {
    let address = ScopedAddress::new(settings.addresses[0], settings.port);
    let subject = format!("listening on {address}");
    let Err(error) = Sockets::bind(settings) else {
        return report.add(subject, "free, TCP and UDP");
    };
    match error.kind() {
        ErrorKind::AddrNotAvailable if settings.addresses_optional => {
            report.add(subject, "left out: this host has no such address");
        }
        ErrorKind::AddrInUse => {
            let began = clock::now();
            let query = StubQuery::new(root_ns_question(), PORT_PROBE_TIMEOUT, began);
            let listener_address = connect_address(address.host(), address.port());
            match query.exchange_datagrams(listener_address) {
                Ok(_) => report.add(subject, "in use by who answers DNS"),
                Err(_) => report.add_fault(
                    State::Critical,
                    subject,
                    "in use by who does not answer DNS",
                    "end it, or choose another --port or --address",
                ),
            }
        }
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
