//! Which options are there, and where may their values stand?
//!
//! On the command line, in the environment as `DNS_TOOL_X_Y` for `--x-y`, and in the file of `--config` as lines `x-y
//! VALUE`. The first of these that gives an option is taken for it whole, else its default holds; each value keeps where it
//! stood, so that an error can name the place. What a value means is not known here.

use std::ffi::{OsStr, OsString};
use std::fmt::{self, Write};
use std::path::Path;
use std::sync::Arc;

use pico_args::Arguments;

use crate::identity::pin_file::{PinFileError, read_text};

/// What variables of the environment begin with that are meant for us.
const PREFIX: &str = "DNS_TOOL_";
/// The words behind the program's name that ask for something else than to serve.
const SUBCOMMANDS: [&str; 3] = ["query", "pin", "check"];
/// The groups of options that go with such a word alone; they bear its name.
const OWN_GROUPS: [&str; 2] = ["Pin and check", "Query"];
/// Options whose default is more than its values: whoever gives these asks for something else.
const MORE_THAN_VALUES: [&str; 3] = ["--address", "--rate-limit", "--max-clients-per-address"];
/// Who may ask unless `--allow` says otherwise: this host, private networks (RFC 1918, RFC 4193), shared address space (RFC
/// 6598) and the link (RFC 3927, RFC 4291 section 2.5.6).
const ALLOW: [&str; 9] = [
    "127.0.0.0/8",
    "::1/128",
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "100.64.0.0/10",
    "169.254.0.0/16",
    "fc00::/7",
    "fe80::/10",
];
/// Where the default resolver is.
const RESOLVER: [&str; 4] = [
    "1.1.1.1:853",
    "1.0.0.1:853",
    "[2606:4700:4700::1111]:853",
    "[2606:4700:4700::1001]:853",
];

/// An option of the command line.
#[derive(Debug)]
struct Entry {
    /// Its name.
    name: &'static str,
    /// What its value is called in the help; empty where it has none.
    value: &'static str,
    /// It may be given more than once.
    repeatable: bool,
    /// What it is for.
    meaning: &'static str,
    /// What holds without it, in words.
    default: &'static str,
    /// What holds without it, as values; none where that cannot be said in values.
    values: &'static [&'static str],
}

/// The options, in the groups of the help.
const OPTIONS: [(&str, &[Entry]); 10] = [
    (
        "Listening",
        &[
            Entry {
                name: "--address",
                value: "IP",
                repeatable: true,
                meaning: "address to listen on, TCP and UDP",
                default: "127.0.0.1 and ::1",
                values: &["127.0.0.1", "::1"],
            },
            Entry {
                name: "--port",
                value: "N",
                repeatable: false,
                meaning: "port to listen on; 0 lets the system choose",
                default: "53",
                values: &["53"],
            },
            Entry {
                name: "--reuse-port",
                value: "",
                repeatable: false,
                meaning: "share the port with others of the same user that say so too; each has some of the clients",
                default: "alone",
                values: &[],
            },
        ],
    ),
    (
        "Clients",
        &[
            Entry {
                name: "--allow",
                value: "PREFIX",
                repeatable: true,
                meaning: "who may ask, such as 192.0.2.0/24; others get REFUSED",
                default: "loopback, private, shared (100.64.0.0/10) and link-local addresses",
                values: &ALLOW,
            },
            Entry {
                name: "--rate-limit",
                value: "QPS[/BURST]",
                repeatable: false,
                meaning: "queries a second of each client (IPv4 address or IPv6 /56), and at once after a rest, by \
                          default twice as many; 0 for no limit. Who asks from a loopback address has none unless one is \
                          given",
                default: "500/1000",
                values: &["500/1000"],
            },
        ],
    ),
    (
        "Resolver",
        &[
            Entry {
                name: "--resolver-addr",
                value: "IP[:PORT]",
                repeatable: true,
                meaning: "address of the trusted resolver; port 853 unless given",
                default: "Cloudflare's four",
                values: &RESOLVER,
            },
            Entry {
                name: "--resolver-fqdn",
                value: "NAME",
                repeatable: false,
                meaning: "the name its certificate must bear",
                default: "cloudflare-dns.com",
                values: &["cloudflare-dns.com"],
            },
            Entry {
                name: "--resolver-pin",
                value: "PIN",
                repeatable: true,
                meaning: "SPKI pin of its key or of an issuer's: BASE64, sha256/BASE64, sha256//BASE64 or \
                          pin-sha256=\"BASE64\"; NAME=PIN pins another --resolver. One of its pins must match, \
                          besides chain and name",
                default: "none",
                values: &[],
            },
            Entry {
                name: "--pins",
                value: "FILE",
                repeatable: false,
                meaning: "more pins, in lines NAME PIN [not-before=DATE] [not-after=DATE] [# comment]; read again \
                          when it changes and on SIGHUP",
                default: "none",
                values: &[],
            },
            Entry {
                name: "--pin-mode",
                value: "MODE",
                repeatable: false,
                meaning: "strict refuses a resolver none of whose keys is pinned; report serves all the same, on \
                          chain and name alone, and logs each such session: for trying pins out",
                default: "strict",
                values: &["strict"],
            },
            Entry {
                name: "--pin-rollover",
                value: "DAYS",
                repeatable: false,
                meaning: "accept a new key of a pinned resolver without a pin when its old certificate is due, the \
                          same issuer gave it, so many days have passed since it was first seen, and every address \
                          shows it and no other new one; needs --state-dir",
                default: "never",
                values: &[],
            },
            Entry {
                name: "--state-dir",
                value: "DIR",
                repeatable: false,
                meaning: "folder where it remembers, from one start to the next, the keys that it learnt and the last \
                          time at which the clock was right",
                default: "nothing is remembered",
                values: &[],
            },
            Entry {
                name: "--resolver",
                value: "IP[:PORT]#NAME",
                repeatable: true,
                meaning: "a further resolver, asked when those before it cannot be had",
                default: "none",
                values: &[],
            },
            Entry {
                name: "--resolver-ca",
                value: "FILE",
                repeatable: false,
                meaning: "PEM file of trust anchors, in place of the built-in Mozilla roots",
                default: "built in",
                values: &[],
            },
            Entry {
                name: "--timeout",
                value: "SECONDS",
                repeatable: false,
                meaning: "the one deadline of a query, whole or decimal, 0.05 to 60",
                default: "3",
                values: &["3"],
            },
        ],
    ),
    (
        "Cache",
        &[
            Entry {
                name: "--cache-size",
                value: "BYTES",
                repeatable: false,
                meaning: "memory for answers, from 65536; 0 keeps none",
                default: "8388608",
                values: &["8388608"],
            },
            Entry {
                name: "--serve-stale",
                value: "SECONDS",
                repeatable: false,
                meaning: "how long an expired answer is served while the resolver fails or is slow, at most 604800; 0 \
                          never does",
                default: "86400",
                values: &["86400"],
            },
        ],
    ),
    (
        "Limits",
        &[
            Entry {
                name: "--max-memory",
                value: "BYTES",
                repeatable: false,
                meaning: "memory for queries and replies beside the cache, what the kernel holds for TCP clients included, from \
                          4194304; one TCP client for each 128 KiB of it",
                default: "33554432, and 69632 more for each of --max-clients beyond 256",
                values: &[],
            },
            Entry {
                name: "--max-clients",
                value: "N",
                repeatable: false,
                meaning: "TCP connections at a time, 1 to 65536; when there are so many, a newcomer gets the place of the longest \
                          idle, or busy for the longest time, of the client that has the most",
                default: "256",
                values: &["256"],
            },
            Entry {
                name: "--max-clients-per-address",
                value: "N",
                repeatable: false,
                meaning: "of them from one IPv4 address or IPv6 /56, 1 to 65536. Loopback addresses have no such \
                          limit unless one is given",
                default: "16",
                values: &["16"],
            },
            Entry {
                name: "--sessions",
                value: "N",
                repeatable: false,
                meaning: "sessions to one address of a resolver, 1 to 16; a second is opened only when the first is busy",
                default: "2",
                values: &["2"],
            },
            Entry {
                name: "--max-pending",
                value: "N",
                repeatable: false,
                meaning: "queries of one client without an answer at a time, 1 to 1000000, and four times as many of all, as far \
                          as --max-memory has room for them; more get SERVFAIL at once",
                default: "8192",
                values: &["8192"],
            },
            Entry {
                name: "--upstream-rate-limit",
                value: "QPS",
                repeatable: false,
                meaning: "queries a second that are sent to the resolver, those asked again or on a second session included; more fail at once; 0 for no limit",
                default: "0",
                values: &["0"],
            },
        ],
    ),
    (
        "Monitoring",
        &[
            Entry {
                name: "--monitor",
                value: "ADDR:PORT",
                repeatable: false,
                meaning: "serve metrics, health and a status page there over HTTP, to whoever can reach it",
                default: "not served",
                values: &[],
            },
            Entry {
                name: "--slo-latency",
                value: "SECONDS",
                repeatable: false,
                meaning: "how long an answer may take to be counted as a good one, whole or decimal, 0.001 to 60",
                default: "0.1",
                values: &["0.1"],
            },
        ],
    ),
    (
        "Process",
        &[
            Entry {
                name: "--config",
                value: "FILE",
                repeatable: false,
                meaning: "file of options, in lines NAME VALUE without dashes, and # before comments; an option given here \
                          or in the environment wins over the file. Read again on SIGHUP",
                default: "none",
                values: &[],
            },
            Entry {
                name: "--check-config",
                value: "",
                repeatable: false,
                meaning: "print the settings that hold, as such a file, and where each comes from",
                default: "serve",
                values: &[],
            },
            Entry {
                name: "--user",
                value: "NAME",
                repeatable: false,
                meaning: "user to run as once the ports are bound, by name or number, with no other groups than its own",
                default: "whoever starts it",
                values: &[],
            },
        ],
    ),
    (
        "Log",
        &[
            Entry {
                name: "--log-level",
                value: "LEVEL",
                repeatable: false,
                meaning: "error, warn, info, debug or trace; from debug on, lines hold query names and client addresses",
                default: "info",
                values: &["info"],
            },
            Entry {
                name: "--query-log",
                value: "",
                repeatable: false,
                meaning: "a line for each query: when, from which network (IPv4 /24, IPv6 /48), what, how it ended and \
                          how long that took",
                default: "none",
                values: &[],
            },
            Entry {
                name: "--query-log-clients",
                value: "",
                repeatable: false,
                meaning: "such lines with the client's address and port",
                default: "none",
                values: &[],
            },
        ],
    ),
    (
        "Pin and check",
        &[Entry {
            name: "--json",
            value: "",
            repeatable: false,
            meaning: "report for a program, as JSON",
            default: "in lines for people",
            values: &[],
        }],
    ),
    (
        "Query",
        &[
            Entry {
                name: "--direct",
                value: "",
                repeatable: false,
                meaning: "ask the resolver itself, over a session that has to prove its identity as the daemon's have",
                default: "ask dns-tool on the first --address and --port",
                values: &[],
            },
            Entry {
                name: "--tcp",
                value: "",
                repeatable: false,
                meaning: "ask by TCP at once",
                default: "by UDP, and by TCP where the answer does not fit",
                values: &[],
            },
        ],
    ),
];

/// What is wrong with what the user asks for, in one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageError(pub String);

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}

/// What options are read from. The file is named in it, and read whenever they are.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    arguments: Arc<[OsString]>,
    environment: Arc<[(OsString, OsString)]>,
}

impl Sources {
    /// The command line without the program's name, and the variables of the environment.
    pub fn new(
        arguments: impl IntoIterator<Item = impl Into<OsString>>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Self {
        let is_ours = |name: &OsStr| name.as_encoded_bytes().starts_with(PREFIX.as_bytes());
        let environment = environment.into_iter();
        Self {
            arguments: arguments.into_iter().map(Into::into).collect(),
            environment: environment.filter(|(name, _)| is_ours(name)).collect(),
        }
    }

    /// Reads them.
    pub fn read(&self) -> Result<Wanted, UsageError> {
        let mut arguments = normalize(&self.arguments);
        let subcommand = SUBCOMMANDS
            .into_iter()
            .find(|word| arguments.first().is_some_and(|first| first == word));
        if subcommand.is_some() {
            arguments.remove(0);
        }
        let mut arguments = Arguments::from_vec(arguments);
        if arguments.contains(["-h", "--help"]) {
            return Ok(Wanted::Help);
        }
        if arguments.contains(["-V", "--version"]) {
            return Ok(Wanted::Version);
        }
        let mut given = Given {
            sources: self.clone(),
            subcommand,
            words: Vec::new(),
            values: Vec::new(),
            left_alone: Vec::new(),
            file: String::new(),
        };
        given.read_arguments(arguments)?;
        given.read_environment()?;
        given.read_file()?;
        given.add_defaults();
        Ok(Wanted::Options(given))
    }
}

/// What the command line is about.
#[derive(Debug)]
pub enum Wanted {
    /// The help.
    Help,
    /// The version.
    Version,
    /// To do something, as these options say.
    Options(Given),
}

/// Where a value stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Argument,
    Variable,
    /// The line of the file with this number, from 1.
    Line(usize),
    /// Nowhere: it is what holds where none is given.
    Default,
}

#[derive(Debug, Clone)]
struct Value {
    name: &'static str,
    text: String,
    place: Place,
}

/// The values of all options.
#[derive(Debug, Clone)]
pub struct Given {
    sources: Sources,
    subcommand: Option<&'static str>,
    words: Vec<String>,
    values: Vec<Value>,
    /// Variables that look like ours and are none, and why.
    left_alone: Vec<(String, &'static str)>,
    /// The name of the file, as it is shown; empty where there is none.
    file: String,
}

impl Given {
    /// Has `read` take every value of an option, or its defaults, in their order. Fails with the first that it does not
    /// take, where that stands, and what was expected.
    pub fn each(
        &self,
        name: &str,
        read: &mut dyn FnMut(&str) -> Result<(), String>,
    ) -> Result<(), UsageError> {
        self.of(name).try_for_each(|value| {
            read(&value.text).map_err(|cause| self.fault(name, &value.text, &cause))
        })
    }

    /// The error of an option's value, as [`Given::each`] says it.
    pub fn fault(&self, name: &str, text: &str, cause: &str) -> UsageError {
        let mut own = self.of(name);
        let place = own.find(|value| value.text == text);
        let place = place.map_or(Place::Default, |value| value.place);
        UsageError(format!("{} {text:?}: {cause}", self.site(name, place)))
    }

    /// Whether somebody gave it.
    pub fn has(&self, name: &str) -> bool {
        self.of(name).any(|value| value.place != Place::Default)
    }

    /// Whether an option without a value was given, or given as `yes`.
    pub fn flag(&self, name: &str) -> Result<bool, UsageError> {
        let mut found = false;
        self.each(name, &mut |text| {
            found = match text {
                "yes" => true,
                "no" => false,
                _ => return Err("expected yes or no".to_owned()),
            };
            Ok(())
        })?;
        Ok(found)
    }

    /// Has these options be as if nobody had given them.
    pub fn leave_out(&mut self, names: &[&str]) {
        self.values.retain(|value| !names.contains(&value.name));
    }

    /// The word that asks for something else than to serve.
    pub fn subcommand(&self) -> Option<&'static str> {
        self.subcommand
    }

    /// The words behind it that are neither options nor their values.
    pub fn words(&self) -> &[String] {
        &self.words
    }

    /// What these were read from.
    pub fn sources(&self) -> &Sources {
        &self.sources
    }

    /// The file of `--config`, as it is shown.
    pub fn file(&self) -> Option<&str> {
        Some(&*self.file).filter(|file| !file.is_empty())
    }

    /// The variables that look like ours and are none.
    pub fn left_alone(&self) -> impl Iterator<Item = &str> {
        self.left_alone.iter().map(|(name, _)| name.as_str())
    }

    /// The options that say something else than they did `before`.
    pub fn changed(&self, before: &Self) -> Vec<&'static str> {
        let differs = |name: &&str| {
            let (mine, theirs) = (self.of(name), before.of(name));
            !mine
                .map(|value| &value.text)
                .eq(theirs.map(|value| &value.text))
                || MORE_THAN_VALUES.contains(name) && self.has(name) != before.has(name)
        };
        let entries = daemon_entries().into_iter();
        entries.map(|entry| entry.name).filter(differs).collect()
    }

    /// All settings as a file of `--config`, with comments that say where each comes from.
    pub fn describe(&self) -> String {
        let mut out = String::new();
        for entry in daemon_entries() {
            let word = bare(entry.name);
            if !self.has(entry.name)
                && (entry.values.is_empty() || MORE_THAN_VALUES.contains(&entry.name))
            {
                let _ = writeln!(out, "# {word} {} # default", entry.default);
            }
            for Value { text, place, .. } in self.of(entry.name) {
                let place = match place {
                    Place::Line(line) => format!("{}:{line}", self.file),
                    Place::Default if MORE_THAN_VALUES.contains(&entry.name) => continue,
                    Place::Default => "default".to_owned(),
                    place => self.site(entry.name, *place),
                };
                // What would be read as something else there is shown, but not said.
                let line = format!("{word} {text}");
                let _ = match read_lines(&line).as_deref() {
                    Ok([read]) if read.text == *text => writeln!(out, "{line} # {place}"),
                    _ => writeln!(out, "# {word} {text:?} # {place}, not in a file"),
                };
            }
        }
        for (name, why) in &self.left_alone {
            let _ = writeln!(out, "# {name}: {why}, left alone");
        }
        out
    }

    fn of(&self, name: &str) -> impl Iterator<Item = &Value> {
        self.values.iter().filter(move |value| value.name == name)
    }

    /// A place as errors name it.
    fn site(&self, name: &str, place: Place) -> String {
        let word = bare(name);
        match place {
            Place::Argument => name.to_owned(),
            Place::Variable => variable(name),
            Place::Line(line) => format!("{}:{line}: {word}", self.file),
            Place::Default => word.to_owned(),
        }
    }

    /// Takes a value, unless one too many is given in the same place.
    fn add(&mut self, entry: &Entry, text: String, place: Place) -> Result<(), UsageError> {
        let name = entry.name;
        if !entry.repeatable && self.of(name).next().is_some() {
            let site = self.site(name, place);
            return Err(UsageError(format!(
                "{site}: given more than once; expected once"
            )));
        }
        self.values.push(Value { name, text, place });
        Ok(())
    }

    fn read_arguments(&mut self, mut arguments: Arguments) -> Result<(), UsageError> {
        for entry in entries() {
            let name = entry.name;
            if entry.value.is_empty() {
                let mut found = false;
                while arguments.contains(name) {
                    found = true;
                }
                if found {
                    self.add(entry, "yes".to_owned(), Place::Argument)?;
                }
                continue;
            }
            loop {
                match arguments.opt_value_from_str(name) {
                    Ok(None) => break,
                    Ok(Some(text)) => self.add(entry, text, Place::Argument)?,
                    Err(pico_args::Error::OptionWithoutAValue(_)) => {
                        return Err(UsageError(format!("{name}: expected a value after it")));
                    }
                    Err(error) => return Err(UsageError(format!("{name}: {error}"))),
                }
            }
        }
        for (group, entries) in OPTIONS {
            let goes_with = |word: &str| group.to_lowercase().contains(word);
            if OWN_GROUPS.contains(&group)
                && !self.subcommand.is_some_and(goes_with)
                && let Some(left) = entries.iter().find(|entry| self.has(entry.name))
            {
                return Err(UsageError(format!(
                    "{:?}: expected behind dns-tool {} alone",
                    left.name,
                    group.to_lowercase()
                )));
            }
        }
        for word in arguments.finish() {
            let word = word.to_string_lossy().into_owned();
            if word.starts_with('-') || self.subcommand.is_none_or(|command| command == "check") {
                return Err(UsageError(format!(
                    "{word:?}: expected an option; --help lists them"
                )));
            }
            self.words.push(word);
        }
        Ok(())
    }

    fn read_environment(&mut self) -> Result<(), UsageError> {
        let environment = Arc::clone(&self.sources.environment);
        for (key, text) in environment.iter() {
            let mut entries = daemon_entries().into_iter();
            let known = entries.find(|entry| *variable(entry.name) == **key);
            let service = |text: &str| text.starts_with("tcp://") || text.starts_with("udp://");
            let shown = || key.to_string_lossy().escape_debug().to_string();
            match (known, text.to_str()) {
                (None, _) => self.left_alone.push((shown(), "unknown")),
                (Some(entry), Some(text)) if entry.name == "--port" && service(text) => {
                    // Kubernetes gives every container DNS_TOOL_PORT=tcp://… for a Service that is called dns-tool.
                    self.left_alone.push((shown(), "of a Kubernetes Service"));
                }
                (Some(_), None) => {
                    return Err(UsageError(format!("{}: expected UTF-8", shown())));
                }
                (Some(_), Some(text)) if text.trim().is_empty() => {
                    let message = format!("{} {text:?}: expected a value, or no variable", shown());
                    return Err(UsageError(message));
                }
                // An option of the command line is not looked for any further.
                (Some(entry), Some(_)) if self.has(entry.name) => {}
                (Some(entry), Some(text)) if entry.repeatable => {
                    for text in text.split_whitespace() {
                        self.add(entry, text.to_owned(), Place::Variable)?;
                    }
                }
                (Some(entry), Some(text)) => self.add(entry, text.to_owned(), Place::Variable)?,
            }
        }
        Ok(())
    }

    fn read_file(&mut self) -> Result<(), UsageError> {
        let Some(Value { text, place, .. }) = self.of("--config").next() else {
            return Ok(());
        };
        let (path, place) = (text.clone(), *place);
        self.file = path.escape_debug().to_string();
        let read = read_text(Path::new(&path)).and_then(|text| {
            read_lines(&text).map_err(|(line, cause)| PinFileError::Line(line, cause))
        });
        let lines = read.map_err(|error| match error {
            PinFileError::Line(line, cause) => UsageError(format!("{}:{line}: {cause}", self.file)),
            error => {
                let site = self.site("--config", place);
                UsageError(format!("{site} {path:?}: {error}"))
            }
        })?;
        let mut decided = daemon_entries();
        decided.retain(|entry| self.has(entry.name));
        for Line {
            number,
            entry,
            text,
        } in lines
        {
            if !decided.iter().any(|known| known.name == entry.name) {
                self.add(entry, text, Place::Line(number))?;
            }
        }
        Ok(())
    }

    fn add_defaults(&mut self) {
        for entry in entries() {
            let values = if self.has(entry.name) {
                &[]
            } else {
                entry.values
            };
            for text in values {
                self.values.push(Value {
                    name: entry.name,
                    text: (*text).to_owned(),
                    place: Place::Default,
                });
            }
        }
    }
}

/// A line of the file that gives an option.
#[derive(Debug)]
struct Line {
    number: usize,
    entry: &'static Entry,
    text: String,
}

/// Reads lines `NAME VALUE`. Fails with the number of a line and what is wrong with it.
fn read_lines(text: &str) -> Result<Vec<Line>, (usize, String)> {
    let mut lines = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let number = index + 1;
        let line = without_comment(line).trim();
        if line.is_empty() {
            continue;
        }
        let (name, value) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let fail = |cause: &str| Err((number, format!("{name:?}: {cause}")));
        let Some(entry) = find(name) else {
            return match name.starts_with('-') {
                true => fail("expected the name of an option without dashes"),
                false => fail("expected the name of an option; dns-tool --help lists them"),
            };
        };
        if entry.name == "--config" || !is_daemons(entry) {
            return fail("expected on the command line, not in a file");
        }
        let text = match value.trim() {
            "" if entry.value.is_empty() => "yes",
            "" => return fail("expected a value behind it"),
            text => text,
        };
        lines.push(Line {
            number,
            entry,
            text: text.to_owned(),
        });
    }
    Ok(lines)
}

/// What is before a `#` that begins the line or follows white space.
fn without_comment(line: &str) -> &str {
    let begins = |(at, _): &(usize, &str)| at == &0 || line[..*at].ends_with(char::is_whitespace);
    let comment = line.match_indices('#').find(begins);
    comment.map_or(line, |(at, _)| &line[..at])
}

/// Every known option as two dashes and its name, with its value in the argument after it.
fn normalize(arguments: &[OsString]) -> Vec<OsString> {
    let mut normal = Vec::new();
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let known = argument.to_str().and_then(|text| {
            let (option, value) = text
                .split_once('=')
                .map_or((text, None), |(option, value)| (option, Some(value)));
            let word = option
                .strip_prefix("--")
                .or_else(|| option.strip_prefix('-'))?;
            let entry = find(word)?;
            // One that has no value takes none.
            let takes_value = !entry.value.is_empty();
            (takes_value || value.is_none()).then(|| (entry, value.map(OsString::from)))
        });
        match known {
            Some((entry, value)) => {
                normal.push(entry.name.into());
                // Whatever follows is its value, even if it looks like an option.
                if !entry.value.is_empty() {
                    normal.extend(value.or_else(|| arguments.next().cloned()));
                }
            }
            None => match argument.to_str() {
                Some("-help") => normal.push("--help".into()),
                Some("-version") => normal.push("--version".into()),
                _ => normal.push(argument.clone()),
            },
        }
    }
    normal
}

/// The options that say how the daemon is set, wherever their values stand.
fn daemon_entries() -> Vec<&'static Entry> {
    let mut entries = entries();
    entries.retain(|entry| is_daemons(entry));
    entries
}

fn is_daemons(entry: &Entry) -> bool {
    let here = |entries: &[Entry]| entries.iter().any(|known| known.name == entry.name);
    let mut groups = OPTIONS.iter();
    let group = groups.find(|(_, entries)| here(entries));
    group.is_some_and(|(group, _)| !OWN_GROUPS.contains(group)) && entry.name != "--check-config"
}

/// The variable that stands for an option.
fn variable(name: &str) -> String {
    let mut variable = PREFIX.to_owned();
    for letter in bare(name).chars() {
        variable.push(match letter {
            '-' => '_',
            letter => letter.to_ascii_uppercase(),
        });
    }
    variable
}

/// The name of an option without its dashes.
fn bare(name: &str) -> &str {
    name.strip_prefix("--").unwrap_or(name)
}

fn entries() -> Vec<&'static Entry> {
    let mut all = Vec::new();
    for (_, entries) in &OPTIONS {
        all.extend(*entries);
    }
    all
}

/// The option with this name, which is said without dashes.
fn find(word: &str) -> Option<&'static Entry> {
    let mut entries = entries().into_iter();
    entries.find(|entry| bare(entry.name) == word)
}

/// The help, grouped.
pub fn help() -> String {
    let mut help = format!(
        "dns-tool {}: relays cleartext DNS to one authenticated DNS-over-TLS resolver\n\n\
         Usage: dns-tool [OPTIONS]\n       \
                dns-tool query NAME [TYPE] [OPTIONS]\n       \
                dns-tool pin [IP[:PORT][#NAME]...] [OPTIONS]\n       \
                dns-tool check [OPTIONS]\n\n\
         dns-tool query asks for the records of a name, addresses unless a TYPE is\n\
         given, and says what it hears. dns-tool pin shows the keys of resolvers as\n\
         --pins takes them. dns-tool check says whether all is as it should be. All\n\
         options mean what they mean without these words.\n\n\
         Options take one dash or two, and their value after a space or an equals sign.\n\
         Those of the daemon may also stand in the environment, --port as DNS_TOOL_PORT,\n\
         and in a file (--config), as port; the first of these three that has one counts.\n",
        env!("CARGO_PKG_VERSION")
    );
    for (group, entries) in OPTIONS {
        let _ = writeln!(help, "\n{group}:");
        for Entry {
            name,
            value,
            repeatable,
            meaning,
            default,
            ..
        } in entries
        {
            let repeatable = if *repeatable { "; may be repeated" } else { "" };
            let _ = writeln!(
                help,
                "{}",
                format_args!("  {name} {value}").to_string().trim_end()
            );
            write_wrapped(
                &mut help,
                &format!("{meaning} [default: {default}{repeatable}]"),
            );
        }
    }
    help.push_str(
        "\nOther:\n  -h, --help\n        print this help\n  -V, --version\n        print the version\n\n\
         Exit codes: 0 ok, 1 could not run, 2 usage or configuration. Those of query: 0\n\
         for NOERROR and NXDOMAIN, 1 for another answer or none in time, 2 for usage.\n\
         Of pin: 0 verified, 2 shown but not verified, 1 nothing reached. Of check: 0 OK,\n\
         1 WARNING, 2 CRITICAL, 3 could not be checked.\n",
    );
    help
}

/// Writes words in lines of at most 80 characters, indented.
fn write_wrapped(out: &mut String, text: &str) {
    const INDENT: &str = "       ";
    let mut column = 0;
    for word in text.split(' ') {
        if column == 0 || column + 1 + word.len() > 80 {
            if column > 0 {
                out.push('\n');
            }
            out.push_str(INDENT);
            column = INDENT.len();
        }
        out.push(' ');
        out.push_str(word);
        column += 1 + word.len();
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_names_every_option_in_lines_that_fit() {
        let help = help();
        for Entry { name, value, .. } in entries() {
            let line = format!("  {name} {value}");
            assert!(help.contains(&format!("{}\n", line.trim_end())), "{name}");
        }
        assert!(help.lines().all(|line| line.len() <= 80), "{help}");
    }

    #[test]
    fn a_default_that_is_one_value_is_said_as_it_is() {
        for entry in entries().iter().filter(|entry| entry.values.len() == 1) {
            assert_eq!(entry.values, [entry.default], "{}", entry.name);
        }
        let gone = MORE_THAN_VALUES
            .iter()
            .find(|name| find(&name[2..]).is_none());
        assert_eq!(gone, None);
    }

    #[test]
    fn a_file_gives_an_option_a_line_and_says_why_in_comments() {
        let text = "# ours\n\nport 5353 # not 53\r\n\tresolver\t192.0.2.1#dns.example \t# by name\n\
                    state-dir /var/lib/my dns#1\n  # port 1\nquery-log\nquery-lag";
        let lines = read_lines(text);
        assert_eq!(
            lines.expect_err("an unknown name"),
            (
                8,
                "\"query-lag\": expected the name of an option; dns-tool --help lists them"
                    .to_owned()
            )
        );
        let lines = read_lines(text.trim_end_matches("query-lag")).expect("a sound file");
        let found: Vec<_> = lines
            .iter()
            .map(|line| (line.number, line.entry.name, line.text.as_str()))
            .collect();
        assert_eq!(
            found,
            [
                (3, "--port", "5353"),
                (4, "--resolver", "192.0.2.1#dns.example"),
                (5, "--state-dir", "/var/lib/my dns#1"),
                (7, "--query-log", "yes"),
            ]
        );
    }

    #[test]
    fn what_a_line_cannot_say_is_refused_with_its_number() {
        for (line, part) in [
            ("--port 53", "without dashes"),
            ("prot 53", "expected the name of an option"),
            ("port", "expected a value"),
            ("port # 53", "expected a value"),
            ("port=53", "expected the name of an option"),
            ("config /etc/other", "not in a file"),
            ("check-config", "not in a file"),
            ("json", "not in a file"),
            ("tcp yes", "not in a file"),
            ("\u{0}", "expected the name of an option"),
        ] {
            let (number, cause) = read_lines(&format!("\n{line}\n")).expect_err(line);
            assert_eq!(number, 2, "{line}");
            assert!(cause.contains(part), "{line}: {cause}");
            assert_eq!(cause.lines().count(), 1, "{cause}");
        }
    }

    #[test]
    fn an_option_without_a_value_is_yes_or_no_elsewhere() {
        let given = |text: &str| {
            let value = Value {
                name: "--json",
                text: text.to_owned(),
                place: Place::Line(7),
            };
            let Ok(Wanted::Options(given)) = Sources::default().read() else {
                panic!("nothing is a command line");
            };
            Given {
                values: vec![value],
                file: "/etc/x".to_owned(),
                ..given
            }
        };
        assert_eq!(given("yes").flag("--json"), Ok(true));
        assert_eq!(given("no").flag("--json"), Ok(false));
        let error = given("maybe").flag("--json").expect_err("neither");
        assert_eq!(
            error.to_string(),
            "/etc/x:7: json \"maybe\": expected yes or no"
        );
    }
}
