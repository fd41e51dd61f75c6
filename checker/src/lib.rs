//! Judges histories of a key-value store: linearizability, atomicity, convergence.
