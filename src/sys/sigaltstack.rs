//! Threads without a second stack. The standard library gives each thread one, only to report
//! an overflow of the first before the program ends. It costs four system calls a thread. A
//! thread without memory for it ends the whole program by a panic, just when memory is short.
//! The library omits these stacks if the signals of an overflow have handlers already.

const SIGNALS: [libc::c_int; 2] = [libc::SIGSEGV, libc::SIGBUS];

// Tests keep the report.
#[cfg(not(test))]
#[used]
// SAFETY: the section has pointers to functions, which are called in order before `main`; this
// one has the expected type.
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = before_main;

/// Ignores the signals, so that the library installs no handler. A real fault still ends the
/// program, because the kernel does not let a program ignore it.
#[cfg(not(test))]
extern "C" fn before_main() {
    for signal in SIGNALS {
        // SAFETY: SIG_IGN is an action of the system.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

/// Restores the signals, for this program and its children. Must be called first.
pub fn settle() {
    for signal in SIGNALS {
        // SAFETY: SIG_DFL is an action of the system.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}
