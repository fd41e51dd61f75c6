//! Bugs on purpose, each a known trap, so that what is to catch them can be seen to catch them.

crate::planted_bugs! {
    AnswerBeforeDecisionDurable => "answer-before-decision-durable",
        "the client is told of a commit before its record is durable",
        "nothing that rests on a record leaves before the record is durable";
    TellBeforeDecisionDurable => "tell-before-decision-durable",
        "participants are told of a commit before its record is durable",
        "COMMIT is sent only after the decision is forced";
    VoteBeforePreparedDurable => "vote-before-prepared-durable",
        "a yes vote is sent before the prepared record is durable",
        "a vote of yes is sent only after the prepared record is forced";
    AcknowledgeBeforeDurable => "acknowledge-before-durable",
        "a participant acknowledges a commit before its record is durable, so that the coordinator forgets it",
        "a decision is kept until every participant has it durably";
    ForgetVoteAtRestart => "forget-vote-at-restart",
        "a participant that restarts drops what it had prepared and not heard the outcome of",
        "a vote of yes is never forgotten";
    ForgetLocksAtRestart => "forget-locks-at-restart",
        "a participant that restarts does not lock again what it has prepared",
        "locks are taken again for transactions in doubt";
    AbortOnTimeoutAfterYes => "abort-on-timeout-after-yes",
        "a participant in doubt gives the transaction up when nobody answers in time",
        "after a vote of yes only others decide";
    ReadWhilePrepared => "read-while-prepared",
        "a participant answers a read from the old value although it has voted yes on a new one",
        "a read waits for what was prepared when it came";
    ReadWaitsForOne => "read-waits-for-one",
        "a read of several keys waits for one of the prepared transactions that write them, not for all",
        "a read of several keys is of one moment";
    StalePrepare => "stale-prepare",
        "a prepare that comes after its transaction was over and forgotten is taken for a new one",
        "a prepare of a forgotten transaction is never prepared again";
    PrepareAfterDecision => "prepare-after-decision",
        "a prepare that comes after the decision on it is taken for a new one",
        "a repeated prepare is answered from what is remembered";
    EndBeforeAllAcknowledged => "end-before-all-acknowledged",
        "the coordinator ends a commit once the first participant has acknowledged it",
        "a decision is kept until every participant has it durably";
    ForgetDecisionsAtRestart => "forget-decisions-at-restart",
        "a coordinator that restarts does not take up the commits that were not acknowledged",
        "the restarted coordinator finishes by its log";
    CountLateYes => "count-late-yes",
        "the coordinator gives a transaction up in time, and commits it when the missing yes comes after all",
        "what was aborted stays aborted";
    PresumeCommit => "presume-commit",
        "the coordinator answers that a transaction it does not know was committed",
        "what the coordinator does not know is aborted";
    EpochNotPersisted => "epoch-not-persisted",
        "a coordinator that restarts begins a new epoch without writing it down",
        "a transaction's number is never used again after a restart";
    AbortWithoutPromise => "abort-without-promise",
        "a participant that has not voted answers one in doubt with abort, and may still vote yes",
        "who says that it has not voted has promised never to";
    CheckWithoutLock => "check-without-lock",
        "keys that preconditions speak of are looked at and not locked",
        "a precondition holds at the moment at which the transaction happens";
    LockFirstKeyOnly => "lock-first-key-only",
        "of several keys that a transaction writes only the first is locked",
        "transactions that conflict do not prepare together";
    ApplyOutOfOrder => "apply-out-of-order",
        "a participant applies commits in the order in which it hears of them",
        "commits are applied in the order of their numbers everywhere";
    RetryIsNew => "retry-is-new",
        "a retry of a write that is committed is not looked up in the session, and done again",
        "a request is done once, however often it is sent";
    StaleSequenceIsNew => "stale-sequence-is-new",
        "a request from before what its session still remembers is taken for a new one",
        "a request is done once, however often it is sent";
    SessionsNotRecovered => "sessions-not-recovered",
        "a restart does not bring back which writes of a session are committed",
        "the table of sessions is durable";
    CheckpointForgetsSessions => "checkpoint-forgets-sessions",
        "a checkpoint keeps which sessions there are, and not what they have committed",
        "a checkpoint stands for every record before it";
    CheckpointForgetsPromises => "checkpoint-forgets-promises",
        "a participant's checkpoint leaves out promises whose records are appended and not yet durable",
        "a checkpoint stands for every record before it";
    CheckpointForgetsDecisions => "checkpoint-forgets-decisions",
        "the coordinator's checkpoint leaves out commits whose records are appended and not yet durable",
        "a checkpoint stands for every record before it";
    AbortWithoutRecord => "abort-without-record",
        "the coordinator tells of the abort of a parallel transaction and writes nothing down",
        "an abort is durable before anybody is told, once participants were asked";
    CheckpointForgetsAborts => "checkpoint-forgets-aborts",
        "the coordinator's checkpoint leaves out aborts whose participants may yet all be prepared",
        "an abort is remembered until it is over everywhere";
    EndBeforeRecord => "end-before-record",
        "the coordinator ends a parallel commit that all have acknowledged before its own record is durable",
        "promises stand for a commit until its record is durable";
    FinishedBelowBeforeRecovery => "finished-below-before-recovery",
        "a restarted coordinator tells how far everything is over before it knows what is open",
        "what is not known to be over is not over";
    PresumeBeforeRecovery => "presume-before-recovery",
        "a restarted coordinator answers that what it does not know was aborted, before all participants have told it what they have prepared",
        "what is prepared everywhere is committed";
    RecoverFromSome => "recover-from-some",
        "a restarted coordinator decides when the first participant has told what it has prepared",
        "what is prepared everywhere is committed";
    RecoverWithoutPromise => "recover-without-promise",
        "a participant tells a restarted coordinator what it has prepared, and prepares more of the same epoch later",
        "what is not prepared everywhere at the recovery never will be";
    RecoverWithoutStamps => "recover-without-stamps",
        "a restarted coordinator commits what was prepared everywhere, and forgets whose write it was",
        "a request is done once, however often it is sent";
    CheckpointForgetsPledges => "checkpoint-forgets-pledges",
        "a participant's checkpoint keeps that a transaction is committed, and not what a coordinator would ask of it",
        "what stands for the coordinator's record is kept until that is durable";
    TakeOldNumbers => "take-old-numbers",
        "a participant that has promised a new epoch takes a commit's number from the old one",
        "a commit has one number";
    ReadsNotLookedAtAgain => "reads-not-looked-at-again",
        "a read that waits when a restarted coordinator asks goes on waiting for no more than before",
        "what somebody has seen everybody sees who comes later";
    CatchUpOverGap => "catch-up-over-gap",
        "a donor whose memory begins later sends what it has, and the taker does not see the gap",
        "commits are applied in the order of their numbers everywhere";
    LearnTwice => "learn-twice",
        "a commit that comes from another replica is applied although it was applied before",
        "a commit is applied once";
    InstallOlder => "install-older",
        "a snapshot is installed although the replica has come further meanwhile",
        "what a replica holds never goes back";
    SnapshotForgetsOutcomes => "snapshot-forgets-outcomes",
        "a snapshot comes without the commits in it that are not over, so that they are not acknowledged",
        "a decision is kept until every participant has it durably";
    ApplyWhileInstalling => "apply-commits-while-installing",
        "commits are applied while staged rows wait for their record",
        "what was applied is not replaced by older rows";
    ServeOutside => "serve-outside",
        "a replica that has lost its disk takes part before it has caught up",
        "who has forgotten its promises takes part in nothing";
    JoinKeepsOldVotes => "join-keeps-old-votes",
        "the coordinator lets a replica in again that has lost its disk, and still counts its earlier votes",
        "votes of an earlier life are void";
    CommitBeforeViewIsKnown => "commit-before-view-is-known",
        "transactions count as committed without a replica that is left out before all others know that it is",
        "whoever is asked for the view knows those under which something is committed";
    ExcludeUnderLease => "exclude-under-lease",
        "a replica is left out before its lease has run out",
        "who is left out serves no reads";
    LeaseWithoutMargin => "lease-without-margin",
        "a lease is as long as the silence after which a replica is left out, though its clock may be slower",
        "who is left out serves no reads";
    ReadWithoutLease => "read-without-lease",
        "a replica serves fresh reads although its lease has run out",
        "who is left out serves no reads";
    ExcludeBeforeDurable => "exclude-before-durable",
        "the coordinator goes on without a silent replica before the view is durable",
        "nothing that rests on a record leaves before the record is durable";
    RecoverByOldView => "recover-by-old-view",
        "a restarted coordinator aborts what a replica that is left out has not prepared",
        "what all members have prepared is committed";
    AbortToExcluded => "abort-to-excluded",
        "a replica that is left out is told that what it asks about was aborted",
        "nothing is presumed for who is left out";
    PromiseNeverInView => "promise-never-in-view",
        "a participant that has not voted answers one in doubt with abort, although it may come to be left out",
        "only who is needed can stand in the way";
    TrustMissedNumbers => "trust-missed-numbers",
        "a replica that was away when the coordinator started goes on from where it was, although commits may have other numbers now",
        "a commit has one number";
    JoinBeforeDecided => "join-before-decided",
        "a replica is let in again before all that was begun without it is decided",
        "who serves reads has all that was committed without it";
    CheckpointForgetsView => "checkpoint-forgets-view",
        "the coordinator's checkpoint leaves out the view",
        "a checkpoint stands for every record before it";
    RemoveUnderLease => "remove-under-lease",
        "a replica that is to be removed is granted leases until it is",
        "who is left out serves no reads";
    JoinWithoutPromise => "join-without-promise",
        "a replica that was away when the coordinator started is let in, and has promised it nothing",
        "who is behind gets there once links and nodes are well";
    JoinKeepsOthers => "join-keeps-others",
        "a replica that is let in goes on asking as many others as before, although there are more now",
        "whoever is asked for the view knows those under which something is committed";
    ChangeBeforeKnown => "change-before-known",
        "somebody is left out before all members know that there are more replicas to ask",
        "whoever is asked for the view knows those under which something is committed";
    UseNumbersTwice => "use-numbers-twice",
        "a replica is added under a number that another one had",
        "a number is one replica's";
}
