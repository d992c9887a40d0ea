//! The guide can be read where it lies and in the documentation, and its links lead somewhere.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A README that is longer is not read, and a chapter not in one go.
const MAX_README_LINES: usize = 250;
const MAX_README_OCTETS: usize = 16 * 1024;
const MAX_CHAPTER_LINES: usize = 365;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// README and chapters, each with its path; the README first.
pub(crate) fn texts() -> Vec<(PathBuf, String)> {
    let chapters = fs::read_dir(root().join("src/guide")).expect("the guide");
    let mut paths: Vec<_> = chapters
        .map(|entry| entry.expect("a file").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .collect();
    paths.sort();
    paths.insert(0, root().join("README.md"));
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).expect("a text");
        (path, text)
    };
    paths.into_iter().map(read).collect()
}

/// A chapter of the guide.
pub(crate) fn chapter(name: &str) -> String {
    fs::read_to_string(root().join(format!("src/guide/{name}.md"))).expect("a chapter")
}

/// The names of the chapters.
fn chapters() -> BTreeSet<String> {
    let name = |path: &PathBuf| Some(path.file_stem()?.to_str()?.to_owned());
    texts()
        .iter()
        .skip(1)
        .filter_map(|(path, _)| name(path))
        .collect()
}

/// The targets of the links in a text.
fn links(text: &str) -> impl Iterator<Item = &str> {
    text.split("](")
        .skip(1)
        .filter_map(|part| part.split(')').next())
}

/// The anchors of a text's headings, as renderers make them.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let anchor = |heading: &str| {
        let kept = |c: &char| c.is_alphanumeric() || " -_".contains(*c);
        let words: String = heading
            .trim_start_matches('#')
            .trim()
            .chars()
            .filter(kept)
            .collect();
        words.to_lowercase().replace(' ', "-")
    };
    headings.map(anchor).collect()
}

#[test]
fn every_link_leads_to_a_file_and_to_a_heading_in_it() {
    let mut seen = 0;
    for (path, text) in texts() {
        for link in links(&text).filter(|link| !link.contains("://")) {
            seen += 1;
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = match file {
                "" => path.clone(),
                _ => path.parent().expect("a folder").join(file),
            };
            assert!(target.exists(), "{}: {link}", path.display());
            let is_known = |anchor| {
                let text = fs::read_to_string(&target).expect("a text");
                anchors(&text).contains(anchor)
            };
            assert!(
                anchor.is_empty() || is_known(anchor),
                "{}: {link}",
                path.display()
            );
        }
    }
    assert!(seen > 20);
}

#[test]
fn in_the_documentation_links_lead_to_pages() {
    let known = chapters();
    for name in &known {
        let path = format!("{}/guide/{name}.md", env!("OUT_DIR"));
        let text = fs::read_to_string(path).expect("a chapter");
        for link in links(&text).filter(|link| !link.contains("://") && !link.starts_with('#')) {
            let page = link
                .split('#')
                .next()
                .and_then(|page| page.strip_suffix("/index.html"));
            let chapter = page.and_then(|page| page.strip_prefix("../"));
            let is_known = chapter.is_some_and(|chapter| known.contains(chapter));
            assert!(is_known || link == "../../index.html", "{name}: {link}");
        }
    }
}

#[test]
fn every_chapter_is_in_the_documentation_and_in_the_readme() {
    let modules = fs::read_to_string(root().join("src/guide/mod.rs")).expect("the modules");
    let readme = &texts()[0].1;
    for chapter in chapters() {
        assert!(
            modules.contains(&format!("pub mod {chapter} {{}}")),
            "{chapter}"
        );
        assert!(
            readme.contains(&format!("(src/guide/{chapter}.md)")),
            "{chapter}"
        );
    }
}

#[test]
fn no_text_is_too_long_and_each_block_says_its_language() {
    for (number, (path, text)) in texts().iter().enumerate() {
        let lines = text.lines().count();
        let most = if number == 0 {
            MAX_README_LINES
        } else {
            MAX_CHAPTER_LINES
        };
        assert!(lines <= most, "{} has {lines} lines", path.display());
        assert!(
            number > 0 || text.len() <= MAX_README_OCTETS,
            "{} octets",
            text.len()
        );
        // A block without one is taken for Rust by rustdoc.
        let mut inside = false;
        for line in text
            .lines()
            .filter(|line| line.trim_start().starts_with("```"))
        {
            inside = !inside;
            assert!(
                !inside || line.trim() != "```",
                "{}: a block",
                path.display()
            );
        }
    }
}
