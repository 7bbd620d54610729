//! Names as the linker sees them -> names as a person wrote them. Pure.

/// The readable form of `symbol`, or `None` if it is readable already or its
/// form is not known.
pub(super) fn demangle(symbol: &str) -> Option<String> {
    if !is_mangled(symbol) {
        return None;
    }
    // Rust's older names are valid C++ ones too, with a hash as last part; its
    // own demangler leaves the hash out.
    if let Ok(name) = rustc_demangle::try_demangle(symbol) {
        return Some(format!("{name:#}"));
    }
    cpp_demangle::Symbol::new(symbol)
        .ok()?
        .demangle()
        .ok()
        .filter(|name| !name.is_empty())
}

/// Whether `symbol` looks as if it had a readable form.
pub(super) fn is_mangled(symbol: &str) -> bool {
    symbol.starts_with("_R") || symbol.starts_with("_Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check both manglings of Rust, C++'s, and names that are not mangled.
    #[test]
    fn each_mangling_is_read() {
        let check = |symbol: &str, expected: Option<&str>| {
            assert_eq!(demangle(symbol).as_deref(), expected, "{symbol}");
        };
        check(
            "_ZN4core3fmt5write17h0123456789abcdefE",
            Some("core::fmt::write"),
        );
        check("_RNvC6_123foo3bar", Some("123foo::bar"));
        check(
            "_ZNSt6vectorIiSaIiEE9push_backERKi",
            Some("std::vector<int, std::allocator<int> >::push_back(int const&)"),
        );
        check("main", None);
        check("_start", None);
        check("_Znot a symbol", None);
        check("", None);
    }
}
