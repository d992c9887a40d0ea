//! Which option has this name, and where may it be set?

use crate::config::options::{OPTIONS, OptionSpec, SUBCOMMAND_GROUPS};

/// The options of the daemon, which the environment and the file may set as well.
pub(super) fn daemon_options() -> Vec<&'static OptionSpec> {
    let mut specs = all_options();
    specs.retain(|spec| is_daemon_option(spec));
    specs
}

/// Whether an option belongs to the daemon, and not to a subcommand or the command line alone.
pub(super) fn is_daemon_option(spec: &OptionSpec) -> bool {
    let here = |specs: &[OptionSpec]| specs.iter().any(|known| known.name == spec.name);
    let mut groups = OPTIONS.iter();
    let group = groups.find(|(_, specs)| here(specs));
    group.is_some_and(|(group, _)| !SUBCOMMAND_GROUPS.contains(group))
        && spec.name != "--check-config"
}

/// An option's name without its dashes.
pub(super) fn strip_dashes(name: &str) -> &str {
    name.strip_prefix("--").unwrap_or(name)
}

/// All options, in the order of the help.
pub(super) fn all_options() -> Vec<&'static OptionSpec> {
    let mut all = Vec::new();
    for (_, specs) in &OPTIONS {
        all.extend(*specs);
    }
    all
}

/// The option with this name, written without dashes.
pub(super) fn find_option(word: &str) -> Option<&'static OptionSpec> {
    let mut specs = all_options().into_iter();
    specs.find(|spec| strip_dashes(spec.name) == word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::options::IMPLICIT_DEFAULTS;

    #[test]
    fn a_default_of_one_value_is_shown_as_that_value() {
        for spec in all_options()
            .iter()
            .filter(|spec| spec.default_values.len() == 1)
        {
            assert_eq!(spec.default_values, [spec.default_text], "{}", spec.name);
        }
        let gone = IMPLICIT_DEFAULTS
            .iter()
            .find(|name| find_option(&name[2..]).is_none());
        assert_eq!(gone, None);
    }
}
