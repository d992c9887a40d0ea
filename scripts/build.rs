//! What cargo has to know before it compiles: when this is built, how a static binary is kept small, and the guide as rustdoc
//! links it.

use std::env;
use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

fn main() {
    // Seconds since 1970, for BUILT_AT: no clock that is right shows an earlier time. SOURCE_DATE_EPOCH makes it the
    // same for every build of the same source.
    let said = env::var("SOURCE_DATE_EPOCH")
        .ok()
        .and_then(|text| text.parse().ok());
    let now = || {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        since.map_or(0, |since| since.as_secs())
    };
    println!("cargo:rustc-env=BUILT_AT={}", said.unwrap_or_else(now));
    println!("cargo:rerun-if-env-changed=SOURCE_DATE_EPOCH");
    println!("cargo:rerun-if-changed=src");
    // A static binary relocates itself, wherever it is loaded: a list of bits in place of one of addresses tells it where.
    if is("CARGO_CFG_TARGET_FEATURE", "crt-static") && reads_bits() {
        println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
    // Functions that are the same octet for octet are kept once.
    if links_by_lld() {
        println!("cargo:rustc-link-arg-bins=-Wl,--icf=all");
    }
    write_guide().expect("the guide is written");
}

/// Writes the chapters of the guide for rustdoc. Where the files lie, a link to another chapter names its file; in the documentation
/// it has to name the page of its module.
fn write_guide() -> io::Result<()> {
    let written = Path::new(&env::var("OUT_DIR").expect("cargo sets it")).join("guide");
    fs::create_dir_all(&written)?;
    for entry in fs::read_dir("src/guide")? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "md") {
            let chapter = link_pages(&fs::read_to_string(&path)?);
            fs::write(written.join(path.file_name().expect("a file")), chapter)?;
        }
    }
    Ok(())
}

/// Links to other chapters name pages, and links to other files of the repository, which has no page for them, become text.
fn link_pages(chapter: &str) -> String {
    let mut parts = chapter.split("](");
    let mut linked = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (target, rest) = part.split_once(')').unwrap_or((part, ""));
        let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
        let anchor = if anchor.is_empty() {
            String::new()
        } else {
            format!("#{anchor}")
        };
        match file.strip_suffix(".md") {
            _ if file.is_empty() || file.contains("://") => linked += &format!("]({target})"),
            Some("../../README") => linked += "](../../index.html)",
            Some(name) if !name.contains('/') => {
                linked += &format!("](../{name}/index.html{anchor})")
            }
            _ => {
                let text = linked.rfind('[').expect("a link has a text");
                linked.remove(text);
            }
        }
        linked += rest;
    }
    linked
}

/// Whether the C library that is linked reads such lists: glibc does from 2.36 on.
fn reads_bits() -> bool {
    if !is("CARGO_CFG_TARGET_ENV", "gnu") || env::var("HOST") != env::var("TARGET") {
        return false;
    }
    let said = Command::new("getconf").arg("GNU_LIBC_VERSION").output();
    let said = said.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let minor = said.ok().and_then(|text| {
        let version = text.trim().strip_prefix("glibc 2.")?;
        version.split('.').next()?.parse::<u32>().ok()
    });
    minor.is_some_and(|minor| minor >= 36)
}

/// Whether the linker is the one that Rust brings along, as it does from 1.90 on for this target unless another is asked for.
fn links_by_lld() -> bool {
    const TARGET: &str = "x86_64-unknown-linux-gnu";
    let compiler = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let said = Command::new(compiler).arg("--version").output();
    let said = said.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let minor = said.ok().and_then(|text| {
        let version = text.strip_prefix("rustc 1.")?;
        version.split('.').next()?.parse::<u32>().ok()
    });
    let flags = env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    // Whoever says anything about linking is not interfered with.
    let asked_for = flags.contains("link") || env::var_os("RUSTC_LINKER").is_some();
    let native = [env::var("TARGET"), env::var("HOST")].map(|name| name.as_deref() == Ok(TARGET));
    minor.is_some_and(|minor| minor >= 90) && native == [true; 2] && !asked_for
}

/// Whether `value` is among the values of the variable.
fn is(name: &str, value: &str) -> bool {
    env::var(name).is_ok_and(|text| text.split(',').any(|part| part == value))
}
