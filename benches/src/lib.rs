//! Benchmarks of Kvorum.
