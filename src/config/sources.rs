//! Which options were given, and where?
//!
//! On the command line, in the environment as `DNS_TOOL_X_Y` for `--x-y`, and in the file of `--config`. The first of these
//! that gives an option is taken for it whole, else its default holds; each value keeps where it stood, so that an error can
//! name the place. What a value means is not known here.

use std::ffi::{OsStr, OsString};
use std::fmt::{self, Write};
use std::path::Path;
use std::sync::Arc;

use pico_args::Arguments;

use crate::config::file::{Line, read_lines};
use crate::config::options::{
    Entry, MORE_THAN_VALUES, OPTIONS, OWN_GROUPS, bare, daemon_entries, entries, find,
};
use crate::identity::pin_file::{PinFileError, read_text};

/// What variables of the environment begin with that are meant for us.
const PREFIX: &str = "DNS_TOOL_";
/// The words behind the program's name that ask for something else than to serve.
const SUBCOMMANDS: [&str; 3] = ["query", "pin", "check"];

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

#[cfg(test)]
mod tests {
    use super::*;

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
