//! PromQL's selectors: `{namespace="shop", pod=~"cart-.*", comm!="bash", exe!~"/usr/.*"}`. Pure.

use std::iter::Peekable;
use std::str::CharIndices;

use model::LabelSet;
use regex_automata::meta::Regex;

/// A selector is typed by a person or made by the page; 8 KiB leave room for long lists in expressions.
const SELECTOR_BYTES_MAX: usize = 8 << 10;

/// Matchers a selector; a series has at most 128 labels.
const MATCHERS_MAX: usize = 128;

/// Bytes of a compiled expression: `.*a.{1000}` fits, `(.{1000}){1000}` does not.
const EXPRESSION_BYTES_MAX: usize = 1 << 20;

/// Characters of the selector that an error shows.
const NEAR_CHARS: usize = 16;

/// Conditions on the labels of series.
#[derive(Clone, Debug, Default)]
pub struct Selector {
    matchers: Vec<Matcher>,
}

#[derive(Clone, Debug)]
struct Matcher {
    name: String,
    test: Test,
}

#[derive(Clone, Debug)]
enum Test {
    Equal(String),
    NotEqual(String),
    Matches(Regex),
    NotMatches(Regex),
}

/// Why a text is not a selector, with the position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelectorError {
    /// The mistake.
    pub message: String,
    /// Position, in characters from the start.
    pub position: usize,
    /// The beginning of the text from there on.
    pub near: String,
    /// The correct text, if that is clear.
    pub hint: Option<String>,
}

impl Selector {
    /// Whether a series is selected. A missing label equals `""`.
    pub fn matches(&self, labels: &LabelSet) -> bool {
        self.matchers.iter().all(|matcher| {
            let value = labels.value(&matcher.name);
            match &matcher.test {
                Test::Equal(wanted) => value == wanted,
                Test::NotEqual(unwanted) => value != unwanted,
                Test::Matches(expression) => expression.is_match(value),
                Test::NotMatches(expression) => !expression.is_match(value),
            }
        })
    }

    /// Whether it selects all series.
    pub fn is_everything(&self) -> bool {
        self.matchers.is_empty()
    }

    /// The names of the labels that it looks at.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.matchers.iter().map(|matcher| matcher.name.as_str())
    }

    /// Labels that must have one value that is not empty: postings find them.
    pub fn equal(&self) -> Vec<(&str, &str)> {
        let certain = self
            .matchers
            .iter()
            .filter_map(|matcher| match &matcher.test {
                Test::Equal(value) if !value.is_empty() => {
                    Some((matcher.name.as_str(), value.as_str()))
                }
                _ => None,
            });
        certain.collect()
    }
}

/// Reads a selector; an empty text selects everything, as `{}` does.
///
/// # Errors
/// The first thing that is wrong, with its position.
pub fn parse_selector(text: &str) -> Result<Selector, SelectorError> {
    if text.len() > SELECTOR_BYTES_MAX {
        let message = format!("the selector is longer than {SELECTOR_BYTES_MAX} bytes");
        return Err(SelectorError {
            message,
            position: 0,
            near: near(text, 0),
            hint: None,
        });
    }
    if text.trim().is_empty() {
        return Ok(Selector::default());
    }
    Parser {
        text,
        rest: text.char_indices().peekable(),
    }
    .parse()
}

struct Parser<'a> {
    text: &'a str,
    rest: Peekable<CharIndices<'a>>,
}

impl<'a> Parser<'a> {
    fn parse(mut self) -> Result<Selector, SelectorError> {
        self.skip_spaces();
        if !self.take_char('{') {
            let hint = format!("put the matchers in braces: {{{}}}", self.text.trim());
            return Err(self.error("expected \"{\"", Some(hint)));
        }
        let mut matchers = Vec::new();
        loop {
            self.skip_spaces();
            if self.take_char('}') {
                break;
            }
            if matchers.len() == MATCHERS_MAX {
                return Err(self.error(&format!("more than {MATCHERS_MAX} matchers"), None));
            }
            matchers.push(self.parse_matcher()?);
            self.skip_spaces();
            if !self.take_char(',') && self.peek() != Some('}') {
                return Err(self.error("expected \",\" or \"}\"", None));
            }
        }
        self.skip_spaces();
        match self.peek() {
            None => Ok(Selector { matchers }),
            Some(_) => Err(self.error("expected nothing after \"}\"", None)),
        }
    }

    fn parse_matcher(&mut self) -> Result<Matcher, SelectorError> {
        let name = self.take_name();
        if name.is_empty() {
            return Err(self.error("expected a label's name", None));
        }
        self.skip_spaces();
        let Some(operator) = self.take_operator() else {
            return Err(self.error("expected one of =, !=, =~, !~", None));
        };
        self.skip_spaces();
        let start = self.position();
        let value = self.parse_value(name, operator)?;
        let expression = || compile(&value).map_err(|message| self.error_at(start, &message, None));
        let test = match operator {
            "=" => Test::Equal(value),
            "!=" => Test::NotEqual(value),
            "=~" => Test::Matches(expression()?),
            _ => Test::NotMatches(expression()?),
        };
        Ok(Matcher {
            name: name.to_owned(),
            test,
        })
    }

    fn take_name(&mut self) -> &'a str {
        let start = self.position();
        let is_part = |c: char, first: bool| {
            c == '_' || c.is_ascii_alphabetic() || !first && c.is_ascii_digit()
        };
        while self
            .rest
            .next_if(|&(at, c)| is_part(c, at == start))
            .is_some()
        {}
        &self.text[start..self.position()]
    }

    fn take_operator(&mut self) -> Option<&'static str> {
        let rest = &self.text[self.position()..];
        let operator = ["=~", "!~", "!=", "="]
            .into_iter()
            .find(|operator| rest.starts_with(operator))?;
        for _ in operator.chars() {
            self.rest.next();
        }
        Some(operator)
    }

    fn parse_value(&mut self, name: &str, operator: &str) -> Result<String, SelectorError> {
        let start = self.position();
        let Some(quote @ ('"' | '\'' | '`')) = self.peek() else {
            let bare: String = self.text[start..]
                .chars()
                .take_while(|c| !" ,{}".contains(*c))
                .collect();
            let hint = (!bare.is_empty()).then(|| format!("write {name}{operator}{bare:?}"));
            return Err(self.error("expected a quoted value", hint));
        };
        self.rest.next();
        let mut value = String::new();
        loop {
            let at = self.position();
            match self.rest.next() {
                None => return Err(self.error_at(start, "the quoted value has no end", None)),
                Some((_, c)) if c == quote => return Ok(value),
                Some((_, '\\')) if quote != '`' => value.push(self.parse_escape(at)?),
                Some((_, c)) => value.push(c),
            }
        }
    }

    /// Reads the rest of an escape sequence whose backslash is at `start`.
    fn parse_escape(&mut self, start: usize) -> Result<char, SelectorError> {
        let (_, c) = self.rest.next().unwrap_or((0, '\0'));
        let digits = match c {
            'n' => return Ok('\n'),
            't' => return Ok('\t'),
            'r' => return Ok('\r'),
            '\\' | '"' | '\'' => return Ok(c),
            'x' => 2,
            'u' => 4,
            _ => {
                let hint =
                    "write \\\\ for a backslash, also in regular expressions: pod=~\"a\\\\.b\"";
                return Err(self.error_at(
                    start,
                    "this is not an escape sequence",
                    Some(hint.into()),
                ));
            }
        };
        let mut code = 0;
        for _ in 0..digits {
            let digit = self.rest.next().and_then(|(_, c)| c.to_digit(16));
            let digit = digit
                .ok_or_else(|| self.error_at(start, "this is not an escape sequence", None))?;
            code = code * 16 + digit;
        }
        char::from_u32(code).ok_or_else(|| self.error_at(start, "this is not a character", None))
    }

    fn skip_spaces(&mut self) {
        while self.rest.next_if(|(_, c)| c.is_whitespace()).is_some() {}
    }

    fn take_char(&mut self, wanted: char) -> bool {
        self.rest.next_if(|(_, c)| *c == wanted).is_some()
    }

    fn peek(&mut self) -> Option<char> {
        self.rest.peek().map(|(_, c)| *c)
    }

    /// Byte position of the next character.
    fn position(&mut self) -> usize {
        self.rest.peek().map_or(self.text.len(), |(at, _)| *at)
    }

    fn error(&mut self, message: &str, hint: Option<String>) -> SelectorError {
        let position = self.position();
        self.error_at(position, message, hint)
    }

    fn error_at(&self, at: usize, message: &str, hint: Option<String>) -> SelectorError {
        let position = self.text[..at].chars().count();
        SelectorError {
            message: message.to_owned(),
            position,
            near: near(self.text, at),
            hint,
        }
    }
}

fn near(text: &str, at: usize) -> String {
    text[at..].chars().take(NEAR_CHARS).collect()
}

/// Compiles an anchored expression, as Prometheus does.
fn compile(pattern: &str) -> Result<Regex, String> {
    // Compiled by itself first: the group around it would make `a)|(b` valid.
    compile_whole(pattern)?;
    compile_whole(&format!("^(?s:{pattern})$"))
}

fn compile_whole(pattern: &str) -> Result<Regex, String> {
    let limit = Regex::config().nfa_size_limit(Some(EXPRESSION_BYTES_MAX));
    let built = Regex::builder().configure(limit).build(pattern);
    built.map_err(|err| match err.syntax_error() {
        // The last line has the reason; the lines before it draw the position in the pattern.
        Some(syntax) => {
            let text = syntax.to_string();
            let reason = text.lines().last().unwrap_or_default();
            format!(
                "not a regular expression: {}",
                reason.trim_start_matches("error: ")
            )
        }
        None => "the regular expression is too large".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_matches(selector: &str, labels: &[(&str, &str)], expected: bool) {
        let labels = LabelSet::from_sorted(labels.iter().copied()).unwrap();
        assert_eq!(
            parse_selector(selector).unwrap().matches(&labels),
            expected,
            "{selector} on {labels}"
        );
    }

    #[test]
    fn selectors_select() {
        let labels = [("comm", "rustc"), ("node", "a"), ("path", "a\"b\\c\nd")];
        for selector in [
            "",
            " ",
            "{}",
            "{ }",
            "{comm=\"rustc\"}",
            "{comm='rustc',}",
            "{comm=`rustc`, node=\"a\"}",
            " { comm = \"rustc\" , node = \"a\" } ",
            "{comm!=\"sort\"}",
            "{comm=~\"rust.\"}",
            "{comm=~\"sort|rustc\"}",
            "{comm!~\"ust\"}",
            "{pod=\"\"}",
            "{pod!=\"x\"}",
            "{pod=~\".*\"}",
            "{pod!~\".+\"}",
            "{comm=~\"r.*\",comm!=\"ruby\"}",
            r#"{path="a\"b\\c\nd"}"#,
            r#"{comm="\x72\u0075stc"}"#,
            "{path=~\"a.*d\"}",
        ] {
            check_matches(selector, &labels, true);
        }
        for selector in [
            "{comm=\"sort\"}",
            "{comm=~\"ust\"}",
            "{pod!=\"\"}",
            "{pod=~\".+\"}",
            "{comm!~\"r.*\"}",
            "{comm=\"rustc\",node=\"b\"}",
        ] {
            check_matches(selector, &labels, false);
        }
    }

    #[test]
    fn only_certain_values_are_looked_up() {
        let selector = parse_selector(r#"{a="1", b="", c!="2", d=~"3"}"#).unwrap();
        assert_eq!(selector.equal(), [("a", "1")]);
    }

    /// Check that a text is refused at this position with this message and hint.
    fn check_refused(text: &str, position: usize, message: &str, hint: Option<&str>) {
        let error = parse_selector(text).unwrap_err();
        assert_eq!(
            (error.position, error.message.as_str()),
            (position, message),
            "{text}"
        );
        assert_eq!(error.hint.as_deref(), hint, "{text}");
    }

    #[test]
    fn mistakes_are_named() {
        check_refused(
            "comm=\"a\"",
            0,
            "expected \"{\"",
            Some("put the matchers in braces: {comm=\"a\"}"),
        );
        check_refused("{", 1, "expected a label's name", None);
        check_refused("{comm", 5, "expected one of =, !=, =~, !~", None);
        check_refused(
            "{comm==\"a\"}",
            6,
            "expected a quoted value",
            Some("write comm=\"=\\\"a\\\"\""),
        );
        check_refused(
            "{pod=cart}",
            5,
            "expected a quoted value",
            Some("write pod=\"cart\""),
        );
        check_refused("{pod=}", 5, "expected a quoted value", None);
        check_refused("{pod=\"cart}", 5, "the quoted value has no end", None);
        check_refused("{pod=\"a\" node=\"b\"}", 9, "expected \",\" or \"}\"", None);
        check_refused("{pod=\"a\"", 8, "expected \",\" or \"}\"", None);
        check_refused("{pod=\"a\"} x", 10, "expected nothing after \"}\"", None);
        check_refused("{,}", 1, "expected a label's name", None);
        check_refused("{9=\"a\"}", 1, "expected a label's name", None);
        check_refused("{näme=\"a\"}", 2, "expected one of =, !=, =~, !~", None);
        check_refused(
            "{a=\"ä\", b=\"\\q\"}",
            11,
            "this is not an escape sequence",
            Some("write \\\\ for a backslash, also in regular expressions: pod=~\"a\\\\.b\""),
        );
        check_refused("{a=\"\\ud800\"}", 4, "this is not a character", None);
        check_refused(
            "{a=~\"(\"}",
            4,
            "not a regular expression: unclosed group",
            None,
        );
        check_refused(
            "{a=~\"x)|(y\"}",
            4,
            "not a regular expression: unopened group",
            None,
        );
        check_refused(
            "{a=~\"((a{100}){100}){100}\"}",
            4,
            "the regular expression is too large",
            None,
        );
        let long = format!("{{a=\"{}\"}}", "x".repeat(9000));
        check_refused(&long, 0, "the selector is longer than 8192 bytes", None);
    }

    #[test]
    fn no_text_panics() {
        let pieces = [
            "{", "}", "a", "=", "=~", "!", "~", "\"", "'", "`", "\\", "x", ",", " ", "ä", "(", "9",
        ];
        for seed in 0..20_000_u64 {
            let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            let text: String = (0..seed % 12)
                .map(|_| {
                    state = state
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1);
                    pieces[(state >> 33) as usize % pieces.len()]
                })
                .collect();
            let _ = parse_selector(&text);
        }
    }
}
