//! How does the C library's allocator divide memory among threads?
//!
//! glibc creates an arena for every few threads, up to eight per processor. Memory freed in one arena is not reused by the
//! others, so each arena may grow to what all messages together may take. The number of arenas is read from the environment once,
//! before `main` (mallopt(3)). The program therefore executes itself again with that variable set.

use std::env;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// The variable that glibc reads, and the number of arenas: one. Each thread also has a small cache of its own, and a query needs
/// little memory, so on two processors one arena is as fast as sixteen.
const ARENA_MAX: (&str, &str) = ("MALLOC_ARENA_MAX", "1");
/// Marks a process that has already executed itself again. glibc removes its own variable in a program with raised privileges, so
/// that one cannot serve as the mark.
const RESTARTED: &str = "_DNS_TOOL_BEGUN_AGAIN";

/// Limits the allocator to one arena by executing the program again in this process, unless the environment already sets a
/// number. Call it before anything else. If the system refuses, the allocator keeps its default.
pub fn limit_arenas() {
    let (variable, arenas) = ARENA_MAX;
    if !cfg!(target_env = "gnu")
        || [variable, RESTARTED]
            .iter()
            .any(|name| env::var_os(name).is_some())
    {
        return;
    }
    let Ok(program) = env::current_exe() else {
        return;
    };
    let mut arguments = env::args_os();
    let mut command = Command::new(program);
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    command
        .args(arguments)
        .env(variable, arenas)
        .env(RESTARTED, "1");
    // `exec` returns only on failure.
    let _ = command.exec();
}
