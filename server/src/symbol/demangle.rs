//! Names as the linker sees them -> names as a person wrote them. Pure.

/// The readable form of `symbol`, or `None` if it is readable already or its form is not known.
///
/// The collector does the same, so that a function has one name wherever it was named.
pub(super) fn demangle(symbol: &str) -> Option<String> {
    if !symbol.starts_with("_R") && !symbol.starts_with("_Z") {
        return None;
    }
    // Rust's older names are valid C++ ones too, with a hash as last part; its own demangler leaves the hash out.
    if let Ok(name) = rustc_demangle::try_demangle(symbol) {
        return Some(format!("{name:#}"));
    }
    let name = cpp_demangle::Symbol::new(symbol).ok()?.demangle().ok()?;
    Some(name).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mangling_is_read() {
        for (symbol, expected) in [
            (
                "_ZN4core3fmt5write17h0123456789abcdefE",
                Some("core::fmt::write"),
            ),
            ("_RNvC6_123foo3bar", Some("123foo::bar")),
            (
                "_ZNSt6vectorIiSaIiEE9push_backERKi",
                Some("std::vector<int, std::allocator<int> >::push_back(int const&)"),
            ),
            ("main", None),
            ("_Znot a symbol", None),
            ("", None),
        ] {
            assert_eq!(demangle(symbol).as_deref(), expected, "{symbol}");
        }
    }
}
