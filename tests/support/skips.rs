//! The only way for a Rust test to be skipped: the reason is printed on standard error and
//! appended to the file `$CULVERT_TEST_SKIPS`, from which `make test` lists it at its end. Test
//! runners hide the output of a passed test. Scripts use `tests/skips.sh`.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::{env, thread};

/// Records that the running test is skipped. The test must return then.
pub fn skipped(reason: &str) {
    let thread = thread::current();
    record(env::var_os("CULVERT_TEST_SKIPS"), thread.name().unwrap_or("a test"), reason);
}

fn record(file: Option<OsString>, test: &str, reason: &str) {
    let reason = reason.trim().replace('\n', " ");
    eprintln!("SKIPPED: {test}: {reason}");
    let Some(file) = file else { return };
    let line = format!("{test}: {reason}\n");
    // One write, as other tests append to the same file.
    let written = OpenOptions::new().create(true).append(true).open(&file);
    written
        .and_then(|mut file| file.write_all(line.as_bytes()))
        .expect("the list of skipped tests");
}

/// Returns the path of an installed program. Without it, the running test is recorded as
/// skipped.
pub fn program(name: &str) -> Option<PathBuf> {
    let found = super::programs::find(name);
    if found.is_none() {
        skipped(&format!("{name} is not installed (sh tests/prepare.sh --for test)"));
    }
    found
}

#[test]
fn a_skipped_test_is_in_the_list() {
    let file = env::temp_dir().join(format!("culvert-skips-{}", std::process::id()));
    record(Some(file.clone().into()), "one", "a modem is\nmissing\n");
    record(Some(file.clone().into()), "two", "root is missing");
    let list = std::fs::read_to_string(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    assert_eq!(list, "one: a modem is missing\ntwo: root is missing\n");
}
