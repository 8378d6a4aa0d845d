//! Process boundary.
fn main() {}
