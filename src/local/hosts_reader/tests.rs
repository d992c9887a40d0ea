use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::message::presentation::Name;

/// Reads files with these contents.
fn read(contents: &[&[u8]]) -> (Vec<PathBuf>, Result<Hosts, HostsError>) {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |(number, content): (usize, &&[u8])| {
        let file = folder.path().join(number.to_string());
        fs::write(&file, content).expect("writes");
        file
    };
    let files: Vec<_> = contents.iter().enumerate().map(write).collect();
    (files.clone(), Hosts::read(files))
}

#[test]
fn the_names_of_all_files_are_one_table_and_a_file_may_be_empty() {
    let (files, hosts) = read(&[b"192.0.2.1 a.lan\n", b"", b"192.0.2.2 a.lan b.lan\n"]);
    let hosts = hosts.expect("sound files");
    assert_eq!(hosts.files, files);
    let name: Name = "a.lan".parse().expect("a name");
    let found = hosts.table.find(name.octets()).expect("it is listed");
    assert_eq!((found.addresses.len(), hosts.table.len()), (2, 2));
    assert_eq!(hosts.skipped, SkippedLines::default());
}

#[test]
fn the_first_skipped_lines_are_named_and_the_others_counted() {
    let (files, hosts) = read(&[b"x\n::1 a\ny\n", &b"z\n".repeat(7)]);
    let skipped = hosts.expect("readable files").skipped;
    let named: Vec<_> = skipped
        .first
        .iter()
        .map(|skipped| (&skipped.file, skipped.line))
        .collect();
    let [first, second] = &files[..] else {
        panic!("two files");
    };
    assert_eq!(
        named,
        [
            (first, 1),
            (first, 3),
            (second, 1),
            (second, 2),
            (second, 3)
        ]
    );
    assert_eq!((skipped.others, skipped.count()), (4, 9));
}

#[test]
fn a_file_that_cannot_be_used_is_named_in_one_line() {
    let most = privileges::MAX_FILE_LEN as usize;
    let (_, hosts) = read(&[&vec![b'#'; most]]);
    assert!(hosts.is_ok(), "as long as allowed");
    let names = "::1 a\n".repeat(40_000);
    for (contents, cause) in [
        (&[&b"::1 a\n::2 \xff\n"[..]][..], "line 2: expected UTF-8"),
        (
            &[&vec![b'#'; most + 1]],
            "expected a file of at most 1048576 octets",
        ),
        (
            &[names.as_bytes(), names.as_bytes()],
            "expected at most 65536 names",
        ),
    ] {
        let (files, hosts) = read(contents);
        let error = hosts.expect_err(cause).to_string();
        let last = files.last().expect("a file");
        assert!(error.starts_with(&format!("--hosts {last:?}: ")), "{error}");
        assert!(error.contains(cause), "{error}");
        assert_eq!(error.lines().count(), 1);
    }
    for (path, cause) in [
        ("/", "expected a file"),
        ("/no/such/file", "it cannot be read: "),
    ] {
        let error = Hosts::read(vec![path.into()]).expect_err(path).to_string();
        assert!(error.contains(cause), "{error}");
    }
    let file = tempfile::NamedTempFile::new().expect("a file");
    let permissions = fs::Permissions::from_mode(0o646);
    fs::set_permissions(file.path(), permissions).expect("its owner may");
    let hosts = Hosts::read(vec![file.path().to_owned()]);
    let error = hosts.expect_err("others may write it").to_string();
    assert!(error.contains("others may write it"), "{error}");
}
