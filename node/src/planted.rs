//! Bugs on purpose, each a known trap, so that what is to catch them can be seen to catch them.

kvorum_replication::planted_bugs! {
    ReleaseBeforeSync => "release-before-sync",
        "effects that wait for a record are released when it is in the log's memory, not when it is durable",
        "nothing that rests on a record leaves before the record is durable";
    CutBeforeCheckpointDurable => "cut-before-checkpoint-durable",
        "the log is cut before the checkpoint that replaces what is cut is durable",
        "the log is cut only at what is durable";
}
