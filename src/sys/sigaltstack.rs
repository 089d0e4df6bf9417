//! Threads without a second stack. The standard library gives each thread one, only so
//! that an overflow of the first can be told in words before the program ends by it. It
//! costs four system calls a thread, and a thread that is denied these pages ends the
//! whole program by a panic, at the very time when memory is short. The library leaves
//! them out where somebody else already sees to the signals of an overflow.

const SIGNALS: [libc::c_int; 2] = [libc::SIGSEGV, libc::SIGBUS];

// Tests keep the words.
#[cfg(not(test))]
#[used]
// SAFETY: the section holds pointers to functions, which are called one after the other
// before `main`; this one has the type that is called.
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = before_main;

/// Takes the signals, so that the library finds them taken. A fault that happens all the
/// same still ends the program: the kernel lets nobody ignore one.
#[cfg(not(test))]
extern "C" fn before_main() {
    for signal in SIGNALS {
        // SAFETY: an action of the system's own.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

/// Gives the signals back, for this program and those that it starts. Call it first of all.
pub fn settle() {
    for signal in SIGNALS {
        // SAFETY: an action of the system's own.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}
