//! Mangled names -> readable names. Pure.

/// The readable form of a name; `None` if it is not mangled, or its mangling is unknown.
pub fn demangle(symbol: &str) -> Option<String> {
    if !is_mangled(symbol) {
        return None;
    }
    // Rust's older names are also valid C++ names, with a hash as last part. Rust's demangler leaves the hash out.
    if let Ok(name) = rustc_demangle::try_demangle(symbol) {
        return Some(format!("{name:#}"));
    }
    let name = cpp_demangle::Symbol::new(symbol).ok()?.demangle().ok()?;
    (!name.is_empty()).then_some(name)
}

/// Whether a name looks mangled.
pub fn is_mangled(symbol: &str) -> bool {
    symbol.starts_with("_R") || symbol.starts_with("_Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check both manglings of Rust, that of C++, and names that are not mangled.
    #[test]
    fn each_mangling_is_read() {
        let check = |symbol: &str, expected: Option<&str>| {
            assert_eq!(demangle(symbol).as_deref(), expected, "{symbol}");
        };
        let write = "_ZN4core3fmt5write17h0123456789abcdefE";
        check(write, Some("core::fmt::write"));
        check("_RNvC6_123foo3bar", Some("123foo::bar"));
        check(
            "_ZNSt6vectorIiSaIiEE9push_backERKi",
            Some("std::vector<int, std::allocator<int> >::push_back(int const&)"),
        );
        for plain in ["main", "_start", "_Znot a symbol", ""] {
            check(plain, None);
        }
    }
}
