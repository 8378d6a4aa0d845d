//! The append-only file as bytes that pass by: the list of its files, and where each is whole or broken. Never reads a file.

mod commands;
mod error;
mod facts;
mod frame;
pub mod gate;
pub mod list;
mod scanner;

pub use self::{
    error::{Error, Fault},
    facts::FileFacts,
    scanner::{Scanned, Scanner},
};
