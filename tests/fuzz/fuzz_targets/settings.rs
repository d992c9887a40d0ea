//! A command line, an environment, and a file of pins: each is understood or refused in one line, and a pin that is understood is spelled
//! again as it is read.
#![no_main]

use dns_tool::config::command_line::{self, Command};
use dns_tool::config::sources::OptionSources;
use dns_tool::identity::pin::Pin;
use dns_tool::identity::pin_file;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(pin) = text.parse::<Pin>() {
        assert_eq!(pin.to_string().parse::<Pin>().ok(), Some(pin));
    }
    match pin_file::read_lines(text) {
        Ok(listed) => {
            let again: String = listed
                .iter()
                .map(|(name, dated)| format!("{} {}\n", name.to_str(), dated.pin))
                .collect();
            let pins = |listed: &[pin_file::NamedPin]| -> Vec<_> {
                listed
                    .iter()
                    .map(|(name, dated)| (name.clone(), dated.pin))
                    .collect()
            };
            let read =
                pin_file::read_lines(&again).expect("what was understood is understood again");
            assert_eq!(pins(&read), pins(&listed));
        }
        Err(error) => assert_eq!(error.to_string().lines().count(), 1, "{error}"),
    }
    // No files: what the disk holds is no input of this.
    let lower = text.to_ascii_lowercase();
    if ["ca", "config", "dir", "file", "hosts", "pins"]
        .iter()
        .any(|word| lower.contains(word))
    {
        return;
    }
    // As a command line, and as an environment.
    let variables = text.split('\n').filter_map(|line| line.split_once('='));
    let variables = variables.map(|(name, value)| (name.into(), value.into()));
    for sources in [
        OptionSources::new(text.split('\n'), []),
        OptionSources::new([""; 0], variables),
    ] {
        match command_line::read(&sources) {
            Ok(Command::Serve(config)) => {
                assert!(!config.upstream.resolvers.is_empty());
                let _ = config.options.describe();
            }
            Ok(_) => {}
            Err(error) => assert_eq!(error.to_string().lines().count(), 1, "{error}"),
        }
    }
});
