//! Do all files of this folder together make the settings that are asked for?

use std::ffi::OsString;
use std::time::Duration;

use crate::config::command_line::{Command, parse, read};
use crate::config::settings::Config;
use crate::config::sources::{OptionSources, UsageError};
use crate::identity::key_exchange::KeyExchange;

const PIN: &str = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";

fn serve(arguments: &[&str]) -> Config {
    match parse(arguments.iter().copied()) {
        Ok(Command::Serve(config)) => *config,
        other => panic!("{arguments:?}: {other:?}"),
    }
}

fn refuse(arguments: &[&str]) -> String {
    parse(arguments.iter().copied())
        .expect_err(&format!("{arguments:?}"))
        .to_string()
}

/// A configuration file, which is deleted when it is dropped.
fn file(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().expect("a folder for temporary files");
    std::fs::write(file.path(), text).expect("it is writable");
    file
}

fn path(file: &tempfile::NamedTempFile) -> String {
    file.path().to_str().expect("a path in UTF-8").to_owned()
}

fn with_environment(
    arguments: &[&str],
    environment: &[(&str, &str)],
) -> Result<Command, UsageError> {
    let environment = environment.iter();
    read(&OptionSources::new(
        arguments.iter().copied(),
        environment.map(|(name, text)| (OsString::from(name), OsString::from(text))),
    ))
}

fn serve_with(arguments: &[&str], environment: &[(&str, &str)]) -> Config {
    match with_environment(arguments, environment) {
        Ok(Command::Serve(config)) => *config,
        other => panic!("{arguments:?} {environment:?}: {other:?}"),
    }
}

fn allowed(config: &Config) -> Vec<String> {
    let allow = config.forwarder.limit.allow.iter();
    allow.map(ToString::to_string).collect()
}

#[test]
fn an_option_takes_one_dash_or_two_and_a_space_or_an_equals_sign() {
    for arguments in [
        &["--port", "5353", "--timeout", "2.5"][..],
        &["-port", "5353", "-timeout", "2.5"],
        &["--port=5353", "--timeout=2.5"],
        &["-port=5353", "-timeout=2.5"],
    ] {
        let config = serve(arguments);
        assert_eq!(config.server.port, 5353);
        assert_eq!(config.upstream.timeout, Duration::from_millis(2500));
    }
}

/// Wrong arguments, and parts of the error that they cause.
const WRONG: [(&[&str], &[&str]); 55] = [
    (&["--port", "x"], &["--port", "\"x\"", "0 to 65535"]),
    (&["--port", "65536"], &["--port", "65536", "0 to 65535"]),
    (&["--port"], &["--port", "expected a value"]),
    (&["--port="], &["--port", "\"\"", "0 to 65535"]),
    (
        &["--port", "1", "--port", "2"],
        &["--port", "more than once", "expected once"],
    ),
    (
        &["--address", "localhost"],
        &["--address", "localhost", "IPv4 or IPv6"],
    ),
    (
        &["--address", "127.0.0.1", "--address", "0.0.0.0"],
        &["--address \"127.0.0.1\"", "beside 0.0.0.0"],
    ),
    (
        &["--address=::", "--address=0.0.0.0", "--address=fe80::1%lo"],
        &["--address \"fe80::1%lo\"", "beside ::, "],
    ),
    (
        &["check", "--address=::1", "--address=::"],
        &["--address \"::1\"", "beside ::, "],
    ),
    (
        &["--monitor", "127.0.0.1:53"],
        &["--monitor \"127.0.0.1:53\"", "another port"],
    ),
    (
        &["--monitor", "[::]:5353", "--port", "5353"],
        &["--monitor \"[::]:5353\"", "another port"],
    ),
    (&["--timeout", "0"], &["--timeout", "\"0\"", "seconds from"]),
    (
        &["--timeout", "-1"],
        &["--timeout", "\"-1\"", "seconds from"],
    ),
    (&["--timeout", "nan"], &["--timeout", "nan", "seconds from"]),
    (&["--timeout", "3s"], &["--timeout", "3s", "seconds from"]),
    (
        &["--resolver-addr", "one.one.one.one"],
        &["--resolver-addr", "one.one", "192.0.2.1:853"],
    ),
    (
        &["--resolver-addr", "1.1.1.1", "--resolver-addr", "192.0.2.1"],
        &["--resolver-addr \"192.0.2.1\"", "a --resolver-fqdn"],
    ),
    (
        &["--resolver-addr", "1.1.1.1:8853"],
        &["--resolver-addr \"1.1.1.1:8853\"", "a --resolver-fqdn"],
    ),
    (
        &["query", "a.example", "--resolver-addr", "192.0.2.1"],
        &["--resolver-addr", "a --resolver-fqdn"],
    ),
    (
        &["pin", "--resolver-addr", "192.0.2.1"],
        &["--resolver-addr", "a --resolver-fqdn"],
    ),
    (
        &["--resolver-addr", "1.1.1.1:53"],
        &["--resolver-addr", "1.1.1.1:53", "another port"],
    ),
    (
        &["--resolver-addr", "1.1.1.1:0"],
        &["--resolver-addr", "1.1.1.1:0", "1 to 65535"],
    ),
    (
        &["--resolver-addr", "0.0.0.0"],
        &["--resolver-addr", "0.0.0.0", "address of one host"],
    ),
    (
        &["--resolver", "[ff02::1]:853#dns.example"],
        &["--resolver", "ff02::1", "address of one host"],
    ),
    (
        &["--resolver", "[ff02::1%lo]:853#dns.example"],
        &["--resolver", "ff02::1%lo", "address of one host"],
    ),
    (
        &["--resolver-addr", "fe80::1"],
        &[
            "--resolver-addr",
            "\"fe80::1\"",
            "the interface",
            "fe80::1%eth0",
        ],
    ),
    (
        &["--resolver", "[fe80::1]:853#dns.example"],
        &["--resolver", "[fe80::1]:853#dns.example", "the interface"],
    ),
    (
        &["--address", "fe80::1"],
        &["--address", "\"fe80::1\"", "the interface"],
    ),
    (
        &["--monitor", "[fe80::1]:9853"],
        &["--monitor", "\"[fe80::1]:9853\"", "the interface"],
    ),
    (
        &["--resolver-addr", "[2001:db8::1%eth0]:853"],
        &["--resolver-addr", "2001:db8::1%eth0", "only a link-local"],
    ),
    (
        &["--resolver-addr", "fe80::1%eth0:853"],
        &["--resolver-addr", "fe80::1%eth0:853", "[fe80::1%eth0]:853"],
    ),
    (
        &["--address", "fe80::1%a%b"],
        &["--address", "fe80::1%a%b", "the name of an interface"],
    ),
    (
        &["--resolver-addr", "[fe80::1%eth0]:53"],
        &["--resolver-addr", "[fe80::1%eth0]:53", "another port"],
    ),
    (
        &["--resolver", "fe80::1%eth0#fe80::1%eth0"],
        &["--resolver", "fe80::1%eth0#fe80::1%eth0", "host name"],
    ),
    (
        &["--resolver-addr", "255.255.255.255"],
        &["--resolver-addr", "255.255.255.255", "address of one host"],
    ),
    (
        &["--resolver-fqdn", "a b"],
        &["--resolver-fqdn", "a b", "host name"],
    ),
    (
        &["--resolver-fqdn", "dns.example"],
        &["--resolver-fqdn", "dns.example", "--resolver-addr"],
    ),
    (
        &["--resolver", "1.1.1.1"],
        &["--resolver", "1.1.1.1", "IP#NAME"],
    ),
    (
        &["--resolver-pin", "AAAA"],
        &["--resolver-pin", "AAAA", "32 bytes", "got 3 bytes"],
    ),
    (
        &["--resolver-pin", "sha256/!"],
        &["--resolver-pin", "sha256/!", "not base64"],
    ),
    (
        &["--resolver-pin", "AA=="],
        &["--resolver-pin", "AA==", "got 1 bytes"],
    ),
    (
        &["--resolver-pin", "x.example=AAAA"],
        &["--resolver-pin", "x.example=AAAA", "got 3 bytes"],
    ),
    (
        &["--resolver-ca", "/no/such/file"],
        &["--resolver-ca", "/no/such/file", "No such file", "PEM file"],
    ),
    (
        &["--resolver-ca", "/dev/zero"],
        &["--resolver-ca", "/dev/zero", "expected a file", "PEM file"],
    ),
    (
        &["--allow", "192.0.2.0/33"],
        &["--allow", "192.0.2.0/33", "192.0.2.0/24"],
    ),
    (
        &["--rate-limit", "10/0"],
        &["--rate-limit", "10/0", "500/1000"],
    ),
    (
        &["--rate-limit", "fast"],
        &["--rate-limit", "fast", "500/1000"],
    ),
    (
        &["--upstream-rate-limit", "-1"],
        &["--upstream-rate-limit", "-1", "0 to 1000000"],
    ),
    (
        &["--cache-size", "8"],
        &["--cache-size", "\"8\"", "0, or", "from 65536"],
    ),
    (
        &["--serve-stale", "604801"],
        &["--serve-stale", "604801", "0 to 604800"],
    ),
    (
        &["--user", "nobody at all"],
        &["--user", "nobody at all", "name or number"],
    ),
    (&["--user", "0"], &["--user", "\"0\"", "not root"]),
    (
        &["--log-level", "loud"],
        &["--log-level", "loud", "error, warn"],
    ),
    (&["--prot", "1"], &["--prot", "--help"]),
    (&["serve"], &["serve", "--help"]),
];

#[test]
fn errors_name_the_option_the_value_and_what_was_expected() {
    let empty = file("");
    let empty = &path(&empty)[..];
    let empty = (
        &["--resolver-ca", empty][..],
        &["--resolver-ca", empty, "no certificate", "PEM file"][..],
    );
    for (arguments, parts) in WRONG.into_iter().chain([empty]) {
        let message = refuse(arguments);
        assert!(
            parts.iter().all(|part| message.contains(part)),
            "{arguments:?}: {message}"
        );
        assert_eq!(message.lines().count(), 1, "{message}");
    }
    let stranger = format!("x.example={PIN}");
    assert!(refuse(&["--resolver-pin", &stranger]).contains("expected the name of a --resolver"));
}

#[test]
fn the_command_line_wins_over_the_environment_and_that_over_the_file() {
    let file = file("port 1\ntimeout 10\nsessions 3\nallow 10.1.0.0/16\nallow 10.2.0.0/16\n");
    let path = path(&file);
    let config = serve_with(&["--config", &path], &[]);
    assert_eq!(config.server.port, 1);
    assert_eq!(allowed(&config), ["10.1.0.0/16", "10.2.0.0/16"]);
    assert_eq!(
        config.forwarder.max_pending, 8192,
        "a default where nobody says anything"
    );
    let environment = [
        ("DNS_TOOL_CONFIG", &*path),
        ("DNS_TOOL_PORT", "2"),
        ("DNS_TOOL_TIMEOUT", "20"),
        ("DNS_TOOL_ALLOW", " 10.3.0.0/16\n10.4.0.0/16 "),
    ];
    let config = serve_with(&[], &environment);
    assert_eq!(config.server.port, 2);
    assert_eq!(allowed(&config), ["10.3.0.0/16", "10.4.0.0/16"]);
    let arguments = ["--port", "3", "--allow", "10.5.0.0/16"];
    let config = serve_with(&arguments, &environment);
    assert_eq!(config.server.port, 3);
    assert_eq!(config.upstream.timeout, Duration::from_secs(20));
    assert_eq!(config.upstream.sessions, 3);
    assert_eq!(allowed(&config), ["10.5.0.0/16"], "taken whole");
    let nowhere = ("DNS_TOOL_CONFIG", "/no/such/file");
    let config = serve_with(&["--config", &path], &[nowhere]);
    assert_eq!(config.server.port, 1, "the file, too");
}

#[test]
fn subcommands_take_what_the_daemon_takes_from_everywhere() {
    let file = file("port 5353\n");
    let path = path(&file);
    let environment = [
        ("DNS_TOOL_CONFIG", &*path),
        ("DNS_TOOL_RESOLVER_ADDR", "192.0.2.1"),
        ("DNS_TOOL_RESOLVER_FQDN", "dns.example"),
    ];
    match with_environment(&["query", "a.test"], &environment) {
        Ok(Command::Query(query)) => assert_eq!(query.config.server.port, 5353),
        other => panic!("{other:?}"),
    }
    match with_environment(&["pin"], &environment) {
        Ok(Command::Pin(request)) => {
            assert_eq!(request.resolvers[0].0.name().to_str(), "dns.example");
        }
        other => panic!("{other:?}"),
    }
    match with_environment(&["check", "--json"], &environment) {
        Ok(Command::Check(request)) => assert_eq!(request.config.server.port, 5353),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_link_local_address_is_read_from_everywhere() {
    let file = file("resolver [fe80::2%br-lan]:8853#b.example # ours\naddress fe80::3%4\n");
    let path = path(&file);
    let environment = [
        ("DNS_TOOL_CONFIG", &*path),
        ("DNS_TOOL_RESOLVER_ADDR", "fe80::1%eth0"),
        ("DNS_TOOL_RESOLVER_FQDN", "a.example"),
    ];
    let config = serve_with(&[], &environment);
    let resolvers = config.upstream.resolvers.iter();
    let found: Vec<_> = resolvers
        .flat_map(|resolver| &resolver.addresses)
        .map(ToString::to_string)
        .collect();
    assert_eq!(found, ["[fe80::1%eth0]:853", "[fe80::2%br-lan]:8853"]);
    assert_eq!(config.server.addresses[0].to_string(), "fe80::3%4");
    let words = ["pin", "fe80::9%eth0", "[fe80::2%br-lan]:8853"];
    let Ok(Command::Pin(request)) = with_environment(&words, &environment) else {
        panic!("{words:?}")
    };
    let found: Vec<_> = request
        .resolvers
        .iter()
        .map(|(identity, addresses)| {
            (
                addresses[0].to_string(),
                identity.name().to_str().into_owned(),
            )
        })
        .collect();
    // No certificate has a zone in its names.
    let expected = [
        ("[fe80::9%eth0]:853", "fe80::9"),
        ("[fe80::2%br-lan]:8853", "b.example"),
    ];
    let expected = expected.map(|(address, name)| (address.to_owned(), name.to_owned()));
    assert_eq!(found, expected);
}

#[test]
fn an_error_names_the_place_of_the_value() {
    let refuse = |arguments: &[&str], environment: &[(&str, &str)]| {
        let error = with_environment(arguments, environment);
        let error = error.expect_err(&format!("{arguments:?}")).to_string();
        assert_eq!(error.lines().count(), 1, "{error}");
        error
    };
    let expected = "\"x\": expected a whole number from 0 to 65535";
    assert_eq!(refuse(&["--port", "x"], &[]), format!("--port {expected}"));
    assert_eq!(
        refuse(&[], &[("DNS_TOOL_PORT", "x")]),
        format!("DNS_TOOL_PORT {expected}")
    );
    let fails = |text: &str, cause: &str| {
        let file = file(text);
        let path = path(&file);
        let error = refuse(&["--config", &path], &[]);
        assert!(
            error.starts_with(&format!("{path}:{cause}")),
            "{text:?}: {error}"
        );
    };
    fails("# one\n\nport x\n", &format!("3: port {expected}"));
    fails("port 1\nport 2\n", "2: port: given more than once");
    fails(
        "allow 10.0.0.0/8\nallow 10.0.0.0/8 10.1.0.0/16\n",
        "2: allow \"10.0.0.0/8 10.1.0.0/16\": expected",
    );
    fails(
        "resolver-fqdn DNS.example.\n",
        "1: resolver-fqdn \"DNS.example.\": expected a --resolver-addr",
    );
    fails(
        "pins /no/such/file\n",
        "1: pins \"/no/such/file\": it cannot be read",
    );
    fails(
        "pin-rollover 7\n",
        "1: pin-rollover \"7\": expected a --state-dir",
    );
    fails("port 1\n--port 2\n", "2: \"--port\": expected the name");
    fails("tcp\n", "1: \"tcp\": expected on the command line");
    assert!(
        refuse(&["query", "a.test"], &[("DNS_TOOL_PORT", "0")])
            .starts_with("DNS_TOOL_PORT \"0\": expected the port")
    );
    for text in ["", "  "] {
        assert_eq!(
            refuse(&[], &[("DNS_TOOL_RESOLVER_PIN", text)]),
            format!("DNS_TOOL_RESOLVER_PIN {text:?}: expected a value, or no variable")
        );
        assert_eq!(
            refuse(&["--timeout", "1"], &[("DNS_TOOL_TIMEOUT", text)]),
            format!("DNS_TOOL_TIMEOUT {text:?}: expected a value, or no variable")
        );
    }
}

#[test]
fn an_unreadable_file_is_reported_with_its_name() {
    let long = file(&"#".repeat(1024 * 1024 + 1));
    let latin = tempfile::NamedTempFile::new().expect("a folder for temporary files");
    std::fs::write(latin.path(), b"port 1\n# \xe9\n").expect("it is writable");
    let (long, latin) = (path(&long), path(&latin));
    for (name, cause) in [
        ("/no/such/file", "it cannot be read: No such file"),
        ("/", "expected a file"),
        ("/dev/null", "expected a file"),
        (&long, "at most 1048576 octets"),
    ] {
        for (place, error) in [
            ("--config", parse(["--config", name])),
            (
                "DNS_TOOL_CONFIG",
                with_environment(&[], &[("DNS_TOOL_CONFIG", name)]),
            ),
        ] {
            let error = error.expect_err(name).to_string();
            assert!(
                error.starts_with(&format!("{place} {name:?}: ")) && error.contains(cause),
                "{error}"
            );
        }
    }
    let error = parse(["--config", &latin]).expect_err("no UTF-8");
    assert_eq!(error.to_string(), format!("{latin}:2: expected UTF-8"));
}

#[test]
fn variables_that_set_no_option_are_ignored_and_shown() {
    let environment = [
        ("DNS_TOOL_POTR", "1"),
        ("DNS_TOOL_PORT", "tcp://10.0.0.1:53"),
        ("DNS_TOOL_SERVICE_HOST", "10.0.0.1"),
        ("DNS_TOOL_JSON", "yes"),
        ("DNS_TOOL", "x"),
        ("PATH", "/bin"),
    ];
    let config = serve_with(&["--timeout", "2"], &environment);
    assert_eq!(config.server.port, 53);
    let ignored_variables: Vec<_> = config.options.ignored_variables().collect();
    let expected = [
        "DNS_TOOL_POTR",
        "DNS_TOOL_PORT",
        "DNS_TOOL_SERVICE_HOST",
        "DNS_TOOL_JSON",
    ];
    assert_eq!(ignored_variables, expected);
    let said = config.options.describe();
    for line in [
        "# DNS_TOOL_POTR: unknown, left alone",
        "# DNS_TOOL_PORT: of a Kubernetes Service, left alone",
    ] {
        assert!(said.lines().any(|said| said == line), "{said}");
    }
    let udp = ("DNS_TOOL_PORT", "udp://10.0.0.1:53");
    assert_eq!(serve_with(&["--port", "7"], &[udp]).server.port, 7);
    assert!(with_environment(&[], &[("DNS_TOOL_PORT", "tcp:53")]).is_err());
    assert!(
        with_environment(&[], &[("DNS_TOOL_RESOLVER_ADDR", "tcp://10.0.0.1:53")]).is_err(),
        "of the port alone"
    );
}

/// A configuration file.
const OWN: &str = "timeout 2.5\nallow 10.0.0.0/8 # ours\nallow ::1\nresolver 192.0.2.1#dns.example\n\
         resolver-pin dns.example=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n";

/// The output of `--check-config`.
fn describe(arguments: &[&str], environment: &[(&str, &str)]) -> String {
    match with_environment(&[arguments, &["--check-config"]].concat(), environment) {
        Ok(Command::PrintConfig(text)) => text,
        other => panic!("{other:?}"),
    }
}

/// The settings of a configuration as a text, to compare two of them.
fn settings(config: &Config) -> String {
    let Config {
        server,
        forwarder,
        trust,
        user,
        log_level,
        ..
    } = config;
    let upstream: Vec<_> = config
        .upstream
        .resolvers
        .iter()
        .map(|resolver| {
            (
                resolver.addresses.clone(),
                resolver.security.identity().expect("TLS").name().clone(),
                resolver
                    .security
                    .identity()
                    .expect("TLS")
                    .policy()
                    .pins
                    .clone(),
                resolver.security.identity().expect("TLS").policy().pin_mode,
            )
        })
        .collect();
    let numbers = (
        config.upstream.timeout,
        config.upstream.sessions,
        config.upstream.max_pending,
    );
    format!("{server:?} {forwarder:?} {trust:?} {user:?} {log_level:?} {upstream:?} {numbers:?}")
}

#[test]
fn check_config_shows_the_source_of_each_setting() {
    let own = file(OWN);
    let path = path(&own);
    let arguments = ["--config", &path, "--port", "5353"];
    let environment = [("DNS_TOOL_SESSIONS", "4")];
    let said = describe(&arguments, &environment);
    for line in [
        format!("# config {path:?} # --config, not in a file"),
        "port 5353 # --port".to_owned(),
        "sessions 4 # DNS_TOOL_SESSIONS".to_owned(),
        format!("timeout 2.5 # {path}:1"),
        format!("allow 10.0.0.0/8 # {path}:2"),
        format!("allow ::1 # {path}:3"),
        "max-pending 8192 # default".to_owned(),
        "resolver-addr 1.1.1.1:853 # default".to_owned(),
        "# address 127.0.0.1 and ::1 # default".to_owned(),
        "# rate-limit 500/1000 # default".to_owned(),
        "# resolver-ca none # default".to_owned(),
    ] {
        assert!(said.lines().any(|said| said == line), "{line}: {said}");
    }
    assert!(!said.contains("json") && !said.contains("check-config"));
}

#[test]
fn check_config_prints_a_file_with_the_same_meaning() {
    let own = file(OWN);
    let path = path(&own);
    let arguments = ["--config", &path, "--port", "5353"];
    let environment = [("DNS_TOOL_SESSIONS", "4")];
    for (arguments, environment) in [
        (&arguments[..], &environment[..]),
        (&[][..], &[]),
        (
            &[
                "--rate-limit",
                "0",
                "--address",
                "::1",
                "--max-clients-per-address",
                "16",
            ],
            &[("DNS_TOOL_LOG_LEVEL", "debug")],
        ),
    ] {
        let again = file(&describe(arguments, environment));
        let again = serve_with(&["--config", &self::path(&again)], &[]);
        let first = serve_with(arguments, environment);
        assert_eq!(settings(&again), settings(&first));
        let changed = again.options.changed_since(&first.options);
        assert!(
            changed.iter().all(|name| *name == "--config"),
            "{changed:?}"
        );
    }
}

#[test]
fn a_value_that_a_file_cannot_express_is_shown_as_a_comment() {
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    let odd = folder.path().join("a #b");
    std::fs::create_dir(&odd).expect("it is writable");
    let odd = odd.to_str().expect("a path in UTF-8");
    let Ok(Command::PrintConfig(said)) = parse(["--check-config", "--state-dir", odd]) else {
        panic!("a folder is fine")
    };
    let line = format!("# state-dir {odd:?} # --state-dir, not in a file");
    assert!(said.lines().any(|said| said == line), "{said}");
}

#[test]
fn changed_options_are_known_by_name() {
    let before = serve(&["--port", "1", "--allow", "::1"]);
    let after = serve(&["--port", "2", "--allow", "::1", "--rate-limit", "500/1000"]);
    assert_eq!(
        after.options.changed_since(&before.options),
        ["--port", "--rate-limit"],
        "a limit that is given holds for this host, too"
    );
    let same = serve(&["--port", "1", "--allow", "::1", "--timeout", "3"]);
    assert!(same.options.changed_since(&before.options).is_empty());
}

/// What is said of values that are no zones but look like what is meant.
const NO_ZONE: &str = ", without * since it has all names below, one in each value; 192.168.0.0/16 is 168.192.in-addr.arpa";

#[test]
fn zones_of_rebind_allow_are_names_below_the_root_and_at_most_256() {
    let zones: Vec<_> = (0..257)
        .map(|number| format!("--rebind-allow=z{number}.example"))
        .collect();
    let arguments: Vec<_> = ["--rebind-protection"]
        .into_iter()
        .chain(zones.iter().map(String::as_str))
        .collect();
    let config = serve(&arguments[..257]);
    let protection = config.forwarder.rebind_protection.expect("it is on");
    assert!(!protection.applies_to(b"\x03www\x04Z255\x07example\0\0\x01\0\x01"));
    assert!(protection.applies_to(b"\x03www\x04z256\x07example\0\0\x01\0\x01"));
    let error = refuse(&arguments);
    assert!(error.contains("z256.example"), "{error}");
    assert!(error.ends_with("expected at most 256 zones"), "{error}");
    let long = "x".repeat(64);
    for (zone, found) in [
        (".", ""),
        ("ZONE", ""),
        ("", "; found an empty label"),
        ("a..b", "; found an empty label"),
        ("*.plex.direct", NO_ZONE),
        ("plex.direct,lan", NO_ZONE),
        ("192.168.0.0/16", NO_ZONE),
        (&*long, "; found a label of more than 63 octets"),
        (
            "bücher.example",
            "; found 'ü', which a name has only as \\DDD",
        ),
    ] {
        // Also where the protection is off.
        let error = refuse(&["--rebind-allow", zone]);
        let expected = format!(
            "--rebind-allow {zone:?}: expected a zone below the root such as corp.example{found}"
        );
        assert_eq!(error, expected);
    }
    let off = serve(&["--rebind-allow", "plex.direct"]);
    assert!(off.forwarder.rebind_protection.is_none());
}

#[test]
fn the_key_exchange_is_one_of_three() {
    let key_exchange = |arguments: &[&str]| {
        let config = serve(arguments);
        let security = &config.upstream.resolvers[0].security;
        security.identity().expect("TLS").policy().key_exchange
    };
    assert_eq!(key_exchange(&[]), KeyExchange::Prefer);
    for (value, expected) in [
        ("prefer", KeyExchange::Prefer),
        ("require", KeyExchange::Require),
        ("classical", KeyExchange::Classical),
    ] {
        assert_eq!(key_exchange(&["--key-exchange", value]), expected);
    }
    let message = refuse(&["--key-exchange", "hybrid"]);
    let expected = "--key-exchange \"hybrid\": expected prefer, require or classical";
    assert_eq!(message, expected);
}
