//! The command line: a set, and NAME=VALUE.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use fleet::Shape;

use crate::ask::Rounds;

/// Command of the user.
pub(crate) enum Command {
    Generated,
    Cluster,
    Month,
    Real(PathBuf),
    Record(SocketAddr, PathBuf),
}

/// Numbers that are not of the generator; testdata/bench/store-speed explains them.
const NUMBERS: [(&str, usize); 9] = [
    ("in-flight", 8),
    ("cold", 3),
    ("warm", 10),
    ("times", 4),
    ("seeds", 5),
    ("repeats", 4),
    ("days", 30),
    ("hourly", 3),
    ("hourly-of-one", 60),
];

pub(crate) struct Options {
    /// The generator's.
    pub(crate) shape: Shape,
    numbers: BTreeMap<&'static str, usize>,
    encoding: String,
}

impl Options {
    pub(crate) fn number(&self, name: &str) -> usize {
        self.numbers[name]
    }

    pub(crate) fn rounds(&self) -> Rounds {
        Rounds {
            cold: self.number("cold").max(1),
            warm: self.number("warm"),
            encoding: self.encoding.clone(),
        }
    }

    /// Takes an option that is not the generator's.
    fn set(&mut self, option: &str) -> Result<bool> {
        let Some((name, value)) = option.split_once('=') else {
            bail!("`{option}` is not NAME=VALUE");
        };
        if name == "encoding" {
            value.clone_into(&mut self.encoding);
            return Ok(true);
        }
        let Some(number) = self.numbers.get_mut(name) else {
            return Ok(false);
        };
        *number = value.parse().with_context(|| format!("`{option}`"))?;
        Ok(true)
    }
}

/// Reads the arguments: commands in their order, and options.
pub(crate) fn parse(arguments: impl Iterator<Item = String>) -> Result<(Vec<Command>, Options)> {
    let arguments = arguments.filter(|argument| argument != "--bench");
    let (values, words): (Vec<_>, Vec<_>) = arguments.partition(|argument| {
        let name = argument.split('=').next().unwrap_or_default();
        argument.contains('=') && !name.contains('/')
    });
    let mut options = Options {
        shape: Shape::default(),
        numbers: NUMBERS.into(),
        encoding: "zstd".to_owned(),
    };
    let mut of_shape = Vec::new();
    for value in values {
        if !options.set(&value)? {
            of_shape.push(value);
        }
    }
    options.shape = Shape::parse(of_shape).map_err(anyhow::Error::msg)?;
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let commands = match words[..] {
        [] => vec![Command::Generated, Command::Cluster, Command::Month],
        ["generated"] => vec![Command::Generated],
        ["cluster"] => vec![Command::Cluster],
        ["month"] => vec![Command::Month],
        ["real", path] => vec![Command::Real(path.into())],
        ["record", listen, path] => vec![Command::Record(listen.parse()?, path.into())],
        _ => bail!("no set `{}`", words.join(" ")),
    };
    Ok((commands, options))
}
