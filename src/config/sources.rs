//! Which options were given, and where?
//!
//! On the command line, in the environment (`DNS_TOOL_X_Y` for `--x-y`), or in the file of `--config`. The first of these that
//! sets an option provides all of its values; otherwise the default applies. Each value keeps its source, so that an error can
//! name the place. What a value means is not known here.

use std::ffi::{OsStr, OsString};
use std::fmt::{self, Write};
use std::path::Path;
use std::sync::Arc;

use pico_args::Arguments;

use crate::config::file::{OptionLine, read_lines};
use crate::config::option_lookup::{all_options, daemon_options, find_option, strip_dashes};
use crate::config::options::{IMPLICIT_DEFAULTS, OPTIONS, OptionSpec, SUBCOMMAND_GROUPS};
use crate::identity::pin_file::{PinFileError, read_text};

/// The prefix of environment variables that set options.
const ENV_PREFIX: &str = "DNS_TOOL_";
/// The subcommands, which come right after the program's name.
const SUBCOMMANDS: [&str; 3] = ["query", "pin", "check"];

/// An error in what the user asked for, in one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageError(pub String);

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}

/// The arguments and the environment. They name the configuration file, which is read anew each time.
#[derive(Debug, Clone, Default)]
pub struct OptionSources {
    arguments: Arc<[OsString]>,
    environment: Arc<[(OsString, OsString)]>,
}

impl OptionSources {
    /// The arguments without the program's name, and the environment, of which only variables that begin with `DNS_TOOL_` are kept.
    pub fn new(
        arguments: impl IntoIterator<Item = impl Into<OsString>>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Self {
        let is_ours = |name: &OsStr| name.as_encoded_bytes().starts_with(ENV_PREFIX.as_bytes());
        let environment = environment.into_iter();
        Self {
            arguments: arguments.into_iter().map(Into::into).collect(),
            environment: environment.filter(|(name, _)| is_ours(name)).collect(),
        }
    }

    /// Reads all three sources.
    pub fn read(&self) -> Result<ParsedCommand, UsageError> {
        let mut arguments = normalize(&self.arguments);
        let subcommand = SUBCOMMANDS
            .into_iter()
            .find(|word| arguments.first().is_some_and(|first| first == word));
        if subcommand.is_some() {
            arguments.remove(0);
        }
        let mut arguments = Arguments::from_vec(arguments);
        if arguments.contains(["-h", "--help"]) {
            return Ok(ParsedCommand::Help { all: false });
        }
        if arguments.contains("--help-all") {
            return Ok(ParsedCommand::Help { all: true });
        }
        if arguments.contains(["-V", "--version"]) {
            return Ok(ParsedCommand::Version);
        }
        let mut options = OptionValues {
            sources: self.clone(),
            subcommand,
            positionals: Vec::new(),
            values: Vec::new(),
            ignored_variables: Vec::new(),
            file: String::new(),
        };
        options.read_arguments(arguments)?;
        options.read_environment()?;
        options.read_file()?;
        options.add_defaults();
        Ok(ParsedCommand::Options(options))
    }
}

/// What the arguments ask for.
#[derive(Debug)]
pub enum ParsedCommand {
    /// The help: the options that most people need, or all.
    Help {
        /// All options, and not only those that most people need.
        all: bool,
    },
    /// The version.
    Version,
    /// To serve or run a subcommand, with these options.
    Options(OptionValues),
}

/// Where a value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ValueSource {
    Argument,
    Variable,
    /// The line of the file with this number, from 1.
    Line(usize),
    /// The option is not set, and this is its default.
    Default,
}

#[derive(Debug, Clone)]
struct Value {
    name: &'static str,
    text: String,
    source: ValueSource,
}

/// The values of all options, and the subcommand with its arguments.
#[derive(Debug, Clone)]
pub struct OptionValues {
    sources: OptionSources,
    subcommand: Option<&'static str>,
    positionals: Vec<String>,
    values: Vec<Value>,
    /// Variables that have the prefix but set no option, and why they are ignored.
    ignored_variables: Vec<(String, &'static str)>,
    /// The file's name, escaped for display; empty without a file.
    file: String,
}

impl OptionValues {
    /// Calls `read` with every value of an option in order, or with its defaults. Fails with the first value that `read` refuses,
    /// its source, and what was expected.
    pub fn try_for_each_value(
        &self,
        name: &str,
        read: &mut dyn FnMut(&str) -> Result<(), String>,
    ) -> Result<(), UsageError> {
        self.values_of(name).try_for_each(|value| {
            read(&value.text).map_err(|cause| self.error_for(name, &value.text, &cause))
        })
    }

    /// The error for one value of an option, as [`OptionValues::try_for_each_value`] reports it.
    pub fn error_for(&self, name: &str, text: &str, cause: &str) -> UsageError {
        let mut values = self.values_of(name);
        let source = values.find(|value| value.text == text);
        let source = source.map_or(ValueSource::Default, |value| value.source);
        UsageError(format!(
            "{} {text:?}: {cause}",
            self.describe_source(name, source)
        ))
    }

    /// Whether an option is set, as opposed to having its default.
    pub fn is_set(&self, name: &str) -> bool {
        self.values_of(name)
            .any(|value| value.source != ValueSource::Default)
    }

    /// Whether a flag is set: given as an argument, or with the value `yes` elsewhere.
    pub fn flag(&self, name: &str) -> Result<bool, UsageError> {
        let mut found = false;
        self.try_for_each_value(name, &mut |text| {
            found = match text {
                "yes" => true,
                "no" => false,
                _ => return Err("expected yes or no".to_owned()),
            };
            Ok(())
        })?;
        Ok(found)
    }

    /// Removes all values of these options, so that they count as not set.
    pub fn remove(&mut self, names: &[&str]) {
        self.values.retain(|value| !names.contains(&value.name));
    }

    /// The subcommand, if there is one.
    pub fn subcommand(&self) -> Option<&'static str> {
        self.subcommand
    }

    /// The arguments after the subcommand that are neither options nor their values.
    pub fn positionals(&self) -> &[String] {
        &self.positionals
    }

    /// The sources that these values were read from.
    pub fn sources(&self) -> &OptionSources {
        &self.sources
    }

    /// The name of the configuration file, escaped for display.
    pub fn config_file(&self) -> Option<&str> {
        Some(&*self.file).filter(|file| !file.is_empty())
    }

    /// The variables that have the prefix but set no option.
    pub fn ignored_variables(&self) -> impl Iterator<Item = &str> {
        self.ignored_variables.iter().map(|(name, _)| name.as_str())
    }

    /// The names of the options whose values or defaults differ from those in `before`.
    pub fn changed_since(&self, before: &Self) -> Vec<&'static str> {
        let differs = |name: &&str| {
            let (mine, theirs) = (self.values_of(name), before.values_of(name));
            !mine
                .map(|value| &value.text)
                .eq(theirs.map(|value| &value.text))
                || IMPLICIT_DEFAULTS.contains(name) && self.is_set(name) != before.is_set(name)
        };
        let specs = daemon_options().into_iter();
        specs.map(|spec| spec.name).filter(differs).collect()
    }

    /// All settings in the format of the configuration file, with comments that name the source of each.
    pub fn describe(&self) -> String {
        let mut out = String::new();
        for spec in daemon_options() {
            let word = strip_dashes(spec.name);
            if !self.is_set(spec.name)
                && (spec.default_values.is_empty() || IMPLICIT_DEFAULTS.contains(&spec.name))
            {
                let _ = writeln!(out, "# {word} {} # default", spec.default_text);
            }
            for Value { text, source, .. } in self.values_of(spec.name) {
                let source = match source {
                    ValueSource::Line(line) => format!("{}:{line}", self.file),
                    ValueSource::Default if IMPLICIT_DEFAULTS.contains(&spec.name) => continue,
                    ValueSource::Default => "default".to_owned(),
                    source => self.describe_source(spec.name, *source),
                };
                // A value that the file format cannot express is shown as a comment.
                let line = format!("{word} {text}");
                let _ = match read_lines(&line).as_deref() {
                    Ok([read]) if read.text == *text => writeln!(out, "{line} # {source}"),
                    _ => writeln!(out, "# {word} {text:?} # {source}, not in a file"),
                };
            }
        }
        for (name, why) in &self.ignored_variables {
            let _ = writeln!(out, "# {name}: {why}, left alone");
        }
        out
    }

    fn values_of(&self, name: &str) -> impl Iterator<Item = &Value> {
        self.values.iter().filter(move |value| value.name == name)
    }

    /// The source of a value, as errors name it.
    fn describe_source(&self, name: &str, source: ValueSource) -> String {
        let word = strip_dashes(name);
        match source {
            ValueSource::Argument => name.to_owned(),
            ValueSource::Variable => variable_name(name),
            ValueSource::Line(line) => format!("{}:{line}: {word}", self.file),
            ValueSource::Default => word.to_owned(),
        }
    }

    /// Adds a value. Fails if an option that takes one value has one already.
    fn add(
        &mut self,
        spec: &OptionSpec,
        text: String,
        source: ValueSource,
    ) -> Result<(), UsageError> {
        let name = spec.name;
        if !spec.repeatable && self.values_of(name).next().is_some() {
            let place = self.describe_source(name, source);
            return Err(UsageError(format!(
                "{place}: given more than once; expected once"
            )));
        }
        self.values.push(Value { name, text, source });
        Ok(())
    }

    fn read_arguments(&mut self, mut arguments: Arguments) -> Result<(), UsageError> {
        for spec in all_options() {
            let name = spec.name;
            if spec.value_name.is_empty() {
                let mut found = false;
                while arguments.contains(name) {
                    found = true;
                }
                if found {
                    self.add(spec, "yes".to_owned(), ValueSource::Argument)?;
                }
                continue;
            }
            loop {
                match arguments.opt_value_from_str(name) {
                    Ok(None) => break,
                    Ok(Some(text)) => self.add(spec, text, ValueSource::Argument)?,
                    Err(pico_args::Error::OptionWithoutAValue(_)) => {
                        return Err(UsageError(format!("{name}: expected a value after it")));
                    }
                    Err(error) => return Err(UsageError(format!("{name}: {error}"))),
                }
            }
        }
        for (group, specs) in OPTIONS {
            let goes_with = |word: &str| group.to_lowercase().contains(word);
            if SUBCOMMAND_GROUPS.contains(&group)
                && !self.subcommand.is_some_and(goes_with)
                && let Some(misplaced) = specs.iter().find(|spec| self.is_set(spec.name))
            {
                return Err(UsageError(format!(
                    "{:?}: expected behind dns-tool {} alone",
                    misplaced.name,
                    group.to_lowercase()
                )));
            }
        }
        for word in arguments.finish() {
            let word = word.to_string_lossy().into_owned();
            if word.starts_with('-') || self.subcommand.is_none_or(|command| command == "check") {
                return Err(UsageError(format!(
                    "{word:?}: expected an option; --help-all lists them"
                )));
            }
            self.positionals.push(word);
        }
        Ok(())
    }

    fn read_environment(&mut self) -> Result<(), UsageError> {
        let environment = Arc::clone(&self.sources.environment);
        for (key, text) in environment.iter() {
            let mut specs = daemon_options().into_iter();
            let known = specs.find(|spec| *variable_name(spec.name) == **key);
            let service = |text: &str| text.starts_with("tcp://") || text.starts_with("udp://");
            let escaped_name = || key.to_string_lossy().escape_debug().to_string();
            match (known, text.to_str()) {
                (None, _) => self.ignored_variables.push((escaped_name(), "unknown")),
                (Some(spec), Some(text)) if spec.name == "--port" && service(text) => {
                    // Kubernetes sets DNS_TOOL_PORT=tcp://… in every container if a Service is called dns-tool.
                    self.ignored_variables
                        .push((escaped_name(), "of a Kubernetes Service"));
                }
                (Some(_), None) => {
                    return Err(UsageError(format!("{}: expected UTF-8", escaped_name())));
                }
                (Some(_), Some(text)) if text.trim().is_empty() => {
                    let message = format!(
                        "{} {text:?}: expected a value, or no variable",
                        escaped_name()
                    );
                    return Err(UsageError(message));
                }
                // An argument takes precedence.
                (Some(spec), Some(_)) if self.is_set(spec.name) => {}
                (Some(spec), Some(text)) if spec.repeatable => {
                    for text in text.split_whitespace() {
                        self.add(spec, text.to_owned(), ValueSource::Variable)?;
                    }
                }
                (Some(spec), Some(text)) => {
                    self.add(spec, text.to_owned(), ValueSource::Variable)?
                }
            }
        }
        Ok(())
    }

    fn read_file(&mut self) -> Result<(), UsageError> {
        let Some(Value { text, source, .. }) = self.values_of("--config").next() else {
            return Ok(());
        };
        let (path, source) = (text.clone(), *source);
        self.file = path.escape_debug().to_string();
        let read = read_text(Path::new(&path)).and_then(|text| {
            read_lines(&text).map_err(|(line, cause)| PinFileError::Line(line, cause))
        });
        let lines = read.map_err(|error| match error {
            PinFileError::Line(line, cause) => UsageError(format!("{}:{line}: {cause}", self.file)),
            error => {
                let place = self.describe_source("--config", source);
                UsageError(format!("{place} {path:?}: {error}"))
            }
        })?;
        let mut already_set = daemon_options();
        already_set.retain(|spec| self.is_set(spec.name));
        for OptionLine { number, spec, text } in lines {
            if !already_set.iter().any(|known| known.name == spec.name) {
                self.add(spec, text, ValueSource::Line(number))?;
            }
        }
        Ok(())
    }

    fn add_defaults(&mut self) {
        for spec in all_options() {
            let values = if self.is_set(spec.name) {
                &[]
            } else {
                spec.default_values
            };
            for text in values {
                self.values.push(Value {
                    name: spec.name,
                    text: (*text).to_owned(),
                    source: ValueSource::Default,
                });
            }
        }
    }
}

/// Rewrites every known option to two dashes and its name, with its value in the next argument.
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
            let spec = find_option(word)?;
            // An option without a value takes none after an equals sign either.
            let takes_value = !spec.value_name.is_empty();
            (takes_value || value.is_none()).then(|| (spec, value.map(OsString::from)))
        });
        match known {
            Some((spec, value)) => {
                normal.push(spec.name.into());
                // The next argument is the value even if it looks like an option.
                if !spec.value_name.is_empty() {
                    normal.extend(value.or_else(|| arguments.next().cloned()));
                }
            }
            None => match argument.to_str() {
                Some("-help") => normal.push("--help".into()),
                Some("-help-all") => normal.push("--help-all".into()),
                Some("-version") => normal.push("--version".into()),
                _ => normal.push(argument.clone()),
            },
        }
    }
    normal
}

/// The environment variable that sets an option.
fn variable_name(name: &str) -> String {
    let mut variable = ENV_PREFIX.to_owned();
    for letter in strip_dashes(name).chars() {
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
    fn a_flag_is_yes_or_no_outside_the_command_line() {
        let options = |text: &str| {
            let value = Value {
                name: "--json",
                text: text.to_owned(),
                source: ValueSource::Line(7),
            };
            let Ok(ParsedCommand::Options(options)) = OptionSources::default().read() else {
                panic!("nothing is a command line");
            };
            OptionValues {
                values: vec![value],
                file: "/etc/x".to_owned(),
                ..options
            }
        };
        assert_eq!(options("yes").flag("--json"), Ok(true));
        assert_eq!(options("no").flag("--json"), Ok(false));
        let error = options("maybe").flag("--json").expect_err("neither");
        assert_eq!(
            error.to_string(),
            "/etc/x:7: json \"maybe\": expected yes or no"
        );
    }
}
