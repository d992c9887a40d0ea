use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use super::*;

const ONE: &str = "sha256/47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
const TWO: &str = "sha256/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

/// A part of the text, its replacement, and how the error about it begins.
const INVALID_LINES: [(&str, &str, &str); 14] = [
    ("state 1", "state 2", "line 1: it is of version 2"),
    (
        "state 1",
        "state 0",
        "line 1: expected \"dns-tool state 1\"",
    ),
    ("state 1", "state one", "line 1: expected"),
    ("dns-tool", "dnstool", "line 1: expected"),
    (
        "time 2026-03-24T12:00:00Z",
        "time 2026-03-24",
        "line 2: \"2026-03-24\": expected one time",
    ),
    (
        "accepted dns",
        "believed dns",
        "line 3: \"believed\": expected a line that begins with",
    ),
    ("issuer=sha256", "issued=sha256", "line 3: \"issued="),
    (
        "not-after=2026",
        "not-after=2025",
        "line 3: expected not-after= to be later",
    ),
    (
        " since=2026-03-20T00:00:00Z",
        "",
        "line 4: \"\": expected since=",
    ),
    (
        "192.0.2.1:853",
        "192.0.2.1",
        "line 6: \"192.0.2.1\": expected an address",
    ),
    (
        "[2001:db8::1]:853",
        "192.0.2.1:853",
        "line 7: expected one seen line",
    ),
    (
        "learnt dns.example.net",
        "candidate dns.example.org",
        "line 5: expected one candidate line",
    ),
    (
        "at=2026-03-24T12:00:00Z",
        "at=2026-03-24T12:00:00Z x",
        "line 6: \"x\": expected the line to end",
    ),
    (
        "candidate",
        "time 2026-03-24T12:00:00Z\n",
        "line 5: \"2026-03-24T12:00:00Z\": expected one time",
    ),
];

fn text() -> String {
    let dates = "not-before=2026-01-01T00:00:00Z not-after=2026-04-01T00:00:00Z";
    format!(
        "dns-tool state 1\n\
         time 2026-03-24T12:00:00Z\n\
         accepted dns.example.net {ONE} issuer={TWO} {dates}\n\
         learnt dns.example.net {TWO} issuer={TWO} {dates} since=2026-03-20T00:00:00Z\n\
         candidate dns.example.org {ONE} issuer={TWO} {dates} since=2026-03-20T00:00:00Z\n\
         seen dns.example.org 192.0.2.1:853 {ONE} at=2026-03-24T12:00:00Z\n\
         seen dns.example.org [2001:db8::1]:853 {ONE} at=2026-03-24T12:00:00Z\n"
    )
}

fn directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o700)).expect("its mode");
    directory
}

fn open_error(directory: &Path) -> String {
    let error = StateFile::open(directory).expect_err("a refusal");
    error.to_string()
}

#[test]
fn a_state_is_written_as_it_is_read() {
    let state = State::parse(&text()).expect("a state");
    assert_eq!(state.last_trusted_time, Some(1_774_353_600));
    assert_eq!(state.histories.len(), 2);
    assert_eq!(state.to_string(), text());
    let spaced = text().replace('\n', "\r\n\n# a comment\n  ");
    assert_eq!(State::parse(&spaced).expect("the same"), state);
}

#[test]
fn every_prefix_is_a_state_or_is_refused() {
    let text = text();
    let mut read = 0;
    for length in 0..=text.len() {
        read += usize::from(State::parse(&text[..length]).is_ok());
    }
    // None, and each line with and without its end; the time to the second.
    assert_eq!(read, 1 + 2 * text.lines().count());
}

#[test]
fn every_changed_octet_is_a_state_or_is_refused() {
    let text = text().into_bytes();
    for position in 0..text.len() {
        for octet in [0, b' ', b'\n', b'0', b'9', b'=', b'/', 0xff] {
            let mut text = text.clone();
            text[position] = octet;
            let text = String::from_utf8_lossy(&text);
            if let Ok(state) = State::parse(&text) {
                let again = State::parse(&state.to_string());
                assert_eq!(again.expect("what was written"), state, "{text}");
            }
        }
    }
}

#[test]
fn a_refused_line_is_named_with_what_was_expected() {
    for (from, to, expected) in INVALID_LINES {
        let changed = text().replacen(from, to, 1);
        let error = State::parse(&changed).expect_err(to).to_string();
        assert!(error.starts_with(expected), "{error}");
    }
    assert!(matches!(State::parse("#"), Err(StateError::MissingHeader)));
    for emptied in ["", " \n\n"] {
        let state = State::parse(emptied).expect("all its lines were deleted");
        assert_eq!(state, State::default());
    }
}

#[test]
fn saved_state_is_read_at_the_next_start() {
    let directory = directory();
    let (file, state) = StateFile::open(directory.path()).expect("an empty directory");
    assert_eq!(state, State::default());
    let state = State::parse(&text()).expect("a state");
    // A file that a process with the same ID left behind.
    let stale = directory.path().join(format!("state.{}", process::id()));
    fs::write(stale, "half").expect("a file");
    file.save(&State::default()).expect("a first save");
    file.save(&state).expect("a second one");
    // A file that somebody has edited is not replaced.
    let other = State::default();
    file.save_if_unchanged(&other, &other).expect("no save");
    assert_eq!(
        StateFile::open(directory.path()).expect("a sound one").1,
        state
    );
    file.save_if_unchanged(&state, &other).expect("a save");
    assert_eq!(
        StateFile::open(directory.path()).expect("a sound one").1,
        other
    );
    file.save_if_unchanged(&other, &state).expect("a save");
    let (_, read) = StateFile::open(directory.path()).expect("what was saved");
    assert_eq!(read, state);
    let mut files = fs::read_dir(directory.path()).expect("the directory");
    let file = files.next().expect("a file").expect("a file");
    assert_eq!(file.file_name(), FILE_NAME);
    let mode = file.metadata().expect("its metadata").mode();
    assert_eq!(mode & 0o7777, 0o600);
    assert!(files.next().is_none());
}

#[test]
fn a_save_that_fails_leaves_the_old_file() {
    let directory = directory();
    let (file, _) = StateFile::open(directory.path()).expect("an empty directory");
    let state = State::parse(&text()).expect("a state");
    file.save(&state).expect("a save");
    let no_name = State {
        last_trusted_time: Some(u64::MAX),
        ..State::default()
    };
    file.save(&no_name).expect_err("a time that cannot be read");
    let stale = directory.path().join(format!("state.{}", process::id()));
    fs::create_dir(&stale).expect("a directory in the way");
    file.save(&State::default()).expect_err("no room");
    fs::remove_dir(&stale).expect("it is there");
    assert_eq!(
        StateFile::open(directory.path()).expect("the first").1,
        state
    );
}

#[test]
fn a_file_that_others_can_write_is_refused() {
    let directory = directory();
    let file = directory.path().join(FILE_NAME);
    fs::write(&file, text()).expect("a file");
    for (path, mode, good) in [(&file, 0o602, 0o640), (&file, 0o606, 0o644)] {
        fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("a mode");
        let open_error = open_error(directory.path());
        assert!(
            open_error.contains(&format!("mode {mode:04o}")),
            "{open_error}"
        );
        fs::set_permissions(path, PermissionsExt::from_mode(good)).expect("a mode");
        StateFile::open(directory.path()).expect("its owner's file");
    }
    for mode in [0o702, 0o722, 0o1777] {
        let path = directory.path();
        fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("a mode");
        let open_error = open_error(path);
        assert!(
            open_error.contains(&format!("mode {mode:04o}")),
            "{open_error}"
        );
    }
}

#[test]
fn anything_but_a_file_of_bounded_length_is_refused() {
    let directory = directory();
    let missing = directory.path().join("missing");
    assert!(open_error(&missing).contains("cannot be read"));
    assert!(!missing.exists(), "it is not created");
    let file = directory.path().join(FILE_NAME);
    fs::create_dir(&file).expect("a directory");
    assert!(open_error(directory.path()).contains("expected a file"));
    fs::remove_dir(&file).expect("it is there");
    symlink("/dev/zero", &file).expect("a link");
    assert!(open_error(directory.path()).contains("expected a file"));
    fs::remove_file(&file).expect("it is there");
    fs::write(&file, "é".repeat(600_000)).expect("a file");
    assert!(open_error(directory.path()).contains("at most 1048576 octets"));
    fs::write(&file, b"dns-tool state 1\n\xff").expect("a file");
    assert_eq!(open_error(directory.path()), "line 2: expected UTF-8");
    assert!(open_error(&file).contains("expected a directory"));
}
