//! How does the C library's allocator divide memory among threads?
//!
//! glibc's makes a heap for each few threads, up to eight for each processor. What was freed in one is not used by the others, so
//! that each of them may come to hold as much as all messages together may, one after the other. How many there are is said in
//! the environment, where it is read once, before a program begins (mallopt(3)). So this one begins again with that said.

use std::env;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// What glibc reads, and how many heaps it is to make: one. Each thread has some memory at hand besides, and a query needs little
/// of it, so that on two processors none costs more than with sixteen heaps.
const ARENA_MAX: (&str, &str) = ("MALLOC_ARENA_MAX", "1");
/// Says that it was begun again. Where the program has more rights than who started it, glibc takes its own variable away.
const RESTARTED: &str = "_DNS_TOOL_BEGUN_AGAIN";

/// Has the allocator make one heap, by beginning the program again in this process, unless it was told how many to make. To be
/// called before anything else is done. Where the system refuses, memory is as it would have been.
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
    // It returns only when it failed.
    let _ = command.exec();
}
