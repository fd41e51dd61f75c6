//! Bugs on purpose, as for two-phase commit with a coordinator process.

crate::planted_bugs! {
    AnswerBeforeDecisionDurable => "any-answer-before-decision-durable",
        "the client is told of a commit before its record is durable",
        "nothing that rests on a record leaves before the record is durable";
    TellBeforeDecisionDurable => "any-tell-before-decision-durable",
        "participants are told of a commit before its record is durable",
        "COMMIT is sent only after the decision is forced";
    ApplyBeforeDecisionDurable => "any-apply-before-decision-durable",
        "a coordinator shows a commit on its own copy before its record is durable",
        "a decision that a crash can take back is visible nowhere";
    VoteBeforePreparedDurable => "any-vote-before-prepared-durable",
        "a yes vote is sent before the prepared record is durable",
        "a vote of yes is sent only after the prepared record is forced";
    AcknowledgeBeforeDurable => "any-acknowledge-before-durable",
        "a participant acknowledges a commit before its record is durable, so that the coordinator forgets it",
        "a decision is kept until every participant has it durably";
    ForgetVoteAtRestart => "any-forget-vote-at-restart",
        "a replica that restarts drops what it had prepared and not heard the outcome of",
        "a vote of yes is never forgotten";
    ForgetLocksAtRestart => "any-forget-locks-at-restart",
        "a replica that restarts does not lock again what it has prepared",
        "locks are taken again for transactions in doubt";
    AbortOnTimeoutAfterYes => "any-abort-on-timeout-after-yes",
        "a participant in doubt gives the transaction up when nobody answers in time",
        "after a vote of yes only others decide";
    AbortWithoutPromise => "any-abort-without-promise",
        "a participant that has not voted answers one in doubt with abort, and may still vote yes",
        "who says that it has not voted has promised never to";
    ReadWhilePrepared => "any-read-while-prepared",
        "a read is answered from the old value although this replica has voted yes on a new one",
        "a read is answered at a moment at which nothing prepared overlaps with it";
    ReadWaitsOnce => "any-read-waits-once",
        "a read waits for what was prepared when it came, and not for what was prepared meanwhile",
        "a read is answered at a moment at which nothing prepared overlaps with it";
    OwnCopyUnlocked => "any-own-copy-unlocked",
        "a coordinator does not lock its own copy, since its record is its vote",
        "transactions that conflict do not prepare together";
    WaitForOlder => "any-wait-for-older",
        "who finds a lock in its way waits for it, however old its holder is",
        "waits go from older to younger only, so they never close a circle";
    YoungAgain => "any-young-again",
        "a transaction that died is tried again as if it had just begun",
        "who dies keeps its age, so it becomes the oldest in time";
    LockWithoutClaim => "any-lock-without-claim",
        "a lock that is free is given to who asks for it, though an older transaction waits for more",
        "who waits has a claim on all its keys";
    RetryElsewhereIsNew => "any-retry-elsewhere-is-new",
        "a stamp does not travel with the prepare: only the replica that was asked remembers the write",
        "a request is done once, wherever and however often it is sent";
    RefusalForgotten => "any-refusal-forgotten",
        "a replica tells of a failed precondition and then lets an earlier try of the same write happen",
        "what a client was told did not happen never happens";
    StalePrepare => "any-stale-prepare",
        "a prepare that comes after its transaction was over and forgotten is taken for a new one",
        "a prepare of a forgotten transaction is never prepared again";
    PrepareAfterDecision => "any-prepare-after-decision",
        "a prepare that comes after the decision on it is taken for a new one",
        "a repeated prepare is answered from what is remembered";
    EndBeforeAllAcknowledged => "any-end-before-all-acknowledged",
        "the coordinator ends a commit once the first participant has acknowledged it",
        "a decision is kept until every participant has it durably";
    ForgetDecisionsAtRestart => "any-forget-decisions-at-restart",
        "a replica that restarts does not take up its commits that were not acknowledged",
        "the restarted coordinator finishes by its log";
    PresumeCommit => "any-presume-commit",
        "a coordinator that is asked about a transaction it knows nothing of says that it committed",
        "what the coordinator does not know is aborted";
    EpochNotPersisted => "any-epoch-not-persisted",
        "a replica that restarts begins a new epoch without writing it down",
        "a transaction's number is never used again after a restart";
    SessionsNotRecovered => "any-sessions-not-recovered",
        "a restart does not bring back which writes of a session are settled",
        "the table of sessions is durable";
    CheckpointForgetsPromises => "any-checkpoint-forgets-promises",
        "a checkpoint leaves out promises whose records are appended and not yet durable",
        "a checkpoint stands for every record before it";
    CheckpointForgetsDecisions => "any-checkpoint-forgets-decisions",
        "a checkpoint leaves out own commits whose records are appended and not yet durable",
        "a checkpoint stands for every record before it";
}
