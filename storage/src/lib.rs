//! A durable log-structured key-value engine: checked log, sorted segments, compaction.
