//! Shape of a cluster.

use std::fmt;

/// Size of a cluster, and what its programs are like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    /// Seed of the random numbers.
    pub seed: u64,
    /// Nodes.
    pub nodes: usize,
    /// Pods of each node.
    pub pods: usize,
    /// Windows of each node that a measurement makes.
    pub windows: usize,
    /// Addresses in each function from which it calls others.
    pub addresses: u32,
    /// Files of a service: its own, and libraries that it shares with others.
    pub files: u32,
    /// Percentage of functions without a name.
    pub unnamed: u32,
    /// Percentage of functions whose code is made at run time: each pod has them at other addresses.
    pub jit: u32,
    /// Threads of a pod, by name; 0 for samples without tags.
    pub threads: u32,
    /// Percentage of rows with a stack that no other row has: some of its frames are at addresses of their own.
    pub new_stacks: u32,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            seed: 7,
            nodes: 20,
            pods: 30,
            windows: 90,
            addresses: 1,
            files: 1,
            unnamed: 0,
            jit: 0,
            threads: 0,
            new_stacks: 0,
        }
    }
}

impl Shape {
    /// The default with other numbers, each as `NAME=NUMBER`; the names are those of the fields, with `-` for `_`.
    ///
    /// # Errors
    /// There is no such name, or the number is not one.
    pub fn parse(options: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let mut shape = Self::default();
        for option in options {
            shape.set(&option)?;
        }
        Ok(shape)
    }

    fn set(&mut self, option: &str) -> Result<(), String> {
        let (name, number) = option
            .split_once('=')
            .ok_or_else(|| format!("`{option}` is not NAME=NUMBER"))?;
        let number: u32 = number.parse().map_err(|err| format!("`{option}`: {err}"))?;
        let percentage = match number {
            0..=100 => Ok(number),
            _ => Err(format!("`{option}` is more than 100 percent")),
        };
        match name {
            "seed" => self.seed = number.into(),
            "nodes" => self.nodes = number as usize,
            "pods" => self.pods = number as usize,
            "windows" => self.windows = number as usize,
            "addresses" => self.addresses = number.max(1),
            "files" => self.files = number.max(1),
            "threads" => self.threads = number,
            "unnamed" => self.unnamed = percentage?,
            "jit" => self.jit = percentage?,
            "new-stacks" => self.new_stacks = percentage?,
            _ => return Err(format!("there is no option `{name}`")),
        }
        Ok(())
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            seed,
            nodes,
            pods,
            windows,
            addresses,
            files,
            unnamed,
            jit,
            threads,
            new_stacks,
        } = self;
        write!(
            f,
            "seed={seed} nodes={nodes} pods={pods} windows={windows} addresses={addresses} files={files} unnamed={unnamed} jit={jit} \
             threads={threads} new-stacks={new_stacks}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_parsed() {
        let parse = |options: &str| Shape::parse(options.split_whitespace().map(str::to_owned));
        let shape = parse(
            "seed=1 nodes=2 pods=3 windows=10 addresses=4 files=5 unnamed=6 jit=7 threads=8 new-stacks=9",
        );
        let shape = shape.unwrap();
        assert_eq!(parse(&shape.to_string()), Ok(shape));
        assert_eq!((shape.nodes, shape.new_stacks), (2, 9));
        assert_eq!(parse(""), Ok(Shape::default()));
        assert_eq!(parse("nodes"), Err("`nodes` is not NAME=NUMBER".to_owned()));
        assert_eq!(parse("node=1"), Err("there is no option `node`".to_owned()));
        assert_eq!(
            parse("jit=101"),
            Err("`jit=101` is more than 100 percent".to_owned())
        );
        assert!(parse("jit=many").unwrap_err().starts_with("`jit=many`: "));
    }
}
