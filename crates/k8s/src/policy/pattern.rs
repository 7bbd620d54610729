//! Patterns of names and paths.

/// A text in which `*` stands for any characters, also for none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pattern(Box<str>);

impl Pattern {
    pub(super) fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// Whether it matches a whole text. Takes at most as many steps as the product of both lengths.
    pub(super) fn matches(&self, text: &str) -> bool {
        let mut parts = self.0.split('*');
        let first = parts.next().unwrap_or_default();
        let Some(mut rest) = text.strip_prefix(first) else {
            return false;
        };
        let Some(last) = parts.next_back() else {
            return rest.is_empty();
        };
        // The first place of each part leaves the most for those after it.
        for part in parts {
            match rest.find(part) {
                Some(position) => rest = &rest[position + part.len()..],
                None => return false,
            }
        }
        rest.ends_with(last)
    }

    /// Whether it matches a path or one above it: `/a` matches `/a` and `/a/b`, not `/ab`.
    pub(super) fn matches_path(&self, path: &str) -> bool {
        let ends = path.match_indices('/').map(|(position, _)| position);
        self.matches(path) || ends.skip(1).any(|end| self.matches(&path[..end]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check stars at each place.
    #[test]
    fn stars() {
        for (pattern, matching, other) in [
            ("shop", &["shop"][..], &["shops", "sho", ""][..]),
            ("shop*", &["shop", "shop-1"], &["sho", "a-shop"]),
            ("*shop", &["shop", "a-shop"], &["shops"]),
            ("a*b*c", &["abc", "a-b-b-c"], &["ab", "acb", "abca"]),
            ("*a*", &["a", "bab"], &["", "b"]),
            ("aba*aba", &["abaaba", "abaXaba"], &["aba", "ababa"]),
            ("*ab*ab", &["abab", "ab-ab"], &["ab", "aab"]),
            ("**", &["", "a"], &[]),
            ("*", &["", "é"], &[]),
        ] {
            let pattern = Pattern::new(pattern);
            for text in matching {
                assert!(pattern.matches(text), "{pattern:?} {text}");
            }
            for text in other {
                assert!(!pattern.matches(text), "{pattern:?} {text}");
            }
        }
    }

    /// Check that a pattern of a cgroup matches what is below it.
    #[test]
    fn paths() {
        let machines = Pattern::new("/machine.slice");
        assert!(machines.matches_path("/machine.slice"));
        assert!(machines.matches_path("/machine.slice/a.scope/b"));
        assert!(!machines.matches_path("/machine.slices/a"));
        assert!(!machines.matches_path("/user.slice/machine.slice"));
        let scopes = Pattern::new("/user.slice/*/app-*.scope");
        assert!(scopes.matches_path("/user.slice/user-1.slice/x/app-a.scope/below"));
        assert!(!scopes.matches_path("/user.slice/app-a.scope"));
        assert!(Pattern::new("/*").matches_path("/a"));
    }
}
