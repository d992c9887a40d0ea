//! What the tests say, kept for the fuzzers of tests/fuzz to begin with.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::path::PathBuf;
use std::{env, fs};

/// Keeps an input for `target`, made of these parts, in the folder that the environment names, if it does.
pub(crate) fn keep(target: &str, parts: &[&[u8]]) {
    let Some(folder) = env::var_os("DNS_TOOL_SEEDS") else {
        return;
    };
    let input = parts.concat();
    // Long ones say no more, and slow the fuzzers down.
    if input.len() > 4096 {
        return;
    }
    let mut name = DefaultHasher::new();
    input.hash(&mut name);
    let folder = PathBuf::from(folder).join(target);
    fs::create_dir_all(&folder).expect("the folder for seeds is writable");
    fs::write(folder.join(format!("{:016x}", name.finish())), input).expect("room for a seed");
}

/// Keeps a client's message.
pub(crate) fn keep_query(message: &[u8]) {
    keep("query", &[message]);
    let length = (message.len() as u16).to_be_bytes();
    // Cut into pieces of 1, 7, 30 and 255 octets.
    keep(
        "frames",
        &[&[4, 1, 7, 30, 255], &length, message, &length, message],
    );
}

/// Keeps a resolver's message and what it answers.
pub(crate) fn keep_answer(query: &[u8], answer: &[u8]) {
    keep("answer", &[&[0, 1], answer]);
    keep(
        "rewrite",
        &[&(query.len() as u16).to_be_bytes(), query, answer],
    );
}
