//! Memory that was freed goes back to the system.

#![allow(unsafe_code)] // malloc_trim has no safe form.

/// By itself, glibc keeps what lies between memory in use: over months, that is most of it.
pub(super) fn give_back() {
    // SAFETY: it takes an integer only, locks what it touches, and may be called from any thread at any time.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}
