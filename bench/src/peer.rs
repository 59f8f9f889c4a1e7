//! A program of somebody else that is measured too.

use std::path::{Path, PathBuf};
use std::str::FromStr;

/// A program that somebody brought along.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// What it is called in the tables.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
}

impl FromStr for Peer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((name, path)) if !name.is_empty() && Path::new(path).is_file() => {
                Ok(Self { name: name.to_owned(), path: path.into() })
            }
            Some((_, path)) => Err(format!("there is no file {path:?}")),
            None => Err("expected NAME=PATH".to_owned()),
        }
    }
}
