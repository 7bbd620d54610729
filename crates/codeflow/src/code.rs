//! The caller's side: bytes of code, and what is known of them.

/// Code that can be read.
pub trait Code {
    /// The bytes from `address` on, up to the end of the readable range; empty where nothing is
    /// readable.
    ///
    /// Jump tables are read too: they are in read-only data, or in the code.
    fn bytes(&self, address: u64) -> &[u8];

    /// The name of the function whose address the dynamic linker writes to the word at `slot`.
    fn import(&self, _slot: u64) -> Option<&str> {
        None
    }

    /// The start of the function that contains `address`, if it is known otherwise than by reading
    /// instructions.
    fn function_start(&self, _address: u64) -> Option<u64> {
        None
    }
}

/// Functions of libraries that do not return, of glibc, musl, libstdc++, libgcc, GLib and perl,
/// sorted.
const NEVER_RETURN: &[&str] = &[
    "Perl_croak",
    "Perl_croak_memory_wrap",
    "Perl_croak_no_modify",
    "Perl_croak_nocontext",
    "Perl_croak_xs_usage",
    "_Exit",
    "_Unwind_Resume",
    "_ZSt10unexpectedv",
    "_ZSt17__throw_bad_allocv",
    "_ZSt17rethrow_exceptionNSt15__exception_ptr13exception_ptrE",
    "_ZSt9terminatev",
    "__assert",
    "__assert_fail",
    "__assert_perror_fail",
    "__assert_rtn",
    "__chk_fail",
    "__cxa_bad_cast",
    "__cxa_bad_typeid",
    "__cxa_call_terminate",
    "__cxa_call_unexpected",
    "__cxa_deleted_virtual",
    "__cxa_pure_virtual",
    "__cxa_rethrow",
    "__cxa_throw",
    "__cxa_throw_bad_array_new_length",
    "__fortify_fail",
    "__libc_fatal",
    "__libc_start_main",
    "__longjmp_chk",
    "__pthread_unwind_next",
    "__rust_start_panic",
    "__stack_chk_fail",
    "_exit",
    "_longjmp",
    "abort",
    "err",
    "errx",
    "exit",
    "g_abort",
    "g_assertion_message",
    "g_assertion_message_cmpnum",
    "g_assertion_message_cmpstr",
    "g_assertion_message_error",
    "g_assertion_message_expr",
    "longjmp",
    "pthread_exit",
    "quick_exit",
    "siglongjmp",
    "thrd_exit",
    "verr",
    "verrx",
];

/// Prefixes of such functions: `std::__throw_length_error` and the like.
const NEVER_RETURN_PREFIXES: &[&str] = &[
    "_ZSt16__throw_",
    "_ZSt18__throw_",
    "_ZSt19__throw_",
    "_ZSt20__throw_",
    "_ZSt21__throw_",
    "_ZSt22__throw_",
    "_ZSt24__throw_",
    "_ZSt25__throw_",
    "_ZSt28__throw_",
];

/// Whether the imported function of this name never returns.
pub(crate) fn never_returns(name: &str) -> bool {
    NEVER_RETURN.binary_search(&name).is_ok()
        || NEVER_RETURN_PREFIXES
            .iter()
            .any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that names are found: the list is sorted, and prefixes hold.
    #[test]
    fn names() {
        assert!(NEVER_RETURN.is_sorted());
        assert!(NEVER_RETURN.iter().all(|name| never_returns(name)));
        assert!(never_returns("_ZSt20__throw_length_errorPKc"));
        assert!(!never_returns("printf"));
    }
}
