//! The Cap'n Proto schema of Kvorum and the Rust code generated from it.
