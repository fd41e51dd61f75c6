//! Bugs on purpose, each a known trap, so that what is to catch them can be seen to catch them.

crate::planted_bugs! {
    SkipFoundBatch => "skip-found-batch",
        "a new leader fills a slot with a no-op although phase 1 found a vote there",
        "what phase 1 finds is proposed again, since it may be chosen";
    ProposeOldestFound => "propose-oldest-found",
        "of several votes in a slot a new leader proposes the batch of the lowest ballot again",
        "of several votes the one with the highest ballot counts";
    LeadAlone => "lead-alone",
        "a proposer leads once it has promised to itself",
        "phase 2 begins when a quorum has promised";
    BallotUsedAgain => "ballot-used-again",
        "a proposer asks for promises before its own ballot is durable, and forgets at a restart that it was used",
        "one ballot proposes one batch in a slot";
    GapLeftOpen => "gap-left-open",
        "a new leader proposes nothing in a slot in which phase 1 found nothing, and goes on behind it",
        "gaps are filled with no-ops";
    NewMembersUnasked => "new-members-unasked",
        "a leader proposes in slots of a new set of members without promises of that set",
        "a slot is proposed with the promises of a quorum of its own acceptors";
    MembersAtOnce => "members-at-once",
        "a change of the members counts from the next slot on",
        "a change of the members counts a window later";
    OneVoteChooses => "one-vote-chooses",
        "a batch counts as chosen with the first vote",
        "a quorum chooses";
    CountFormerLife => "count-former-life",
        "the vote of a node's former life, or of one not let in yet, is counted",
        "a vote counts under the life that the set of members names";
    CountOwnVoteEarly => "count-own-vote-early",
        "a leader counts its own vote before its record is durable",
        "nothing that rests on a record leaves before the record is durable";
    PromiseBeforeDurable => "promise-before-durable",
        "a promise is told before its record is durable",
        "nothing that rests on a record leaves before the record is durable";
    VoteBeforeDurable => "vote-before-durable",
        "a vote is told before its record is durable",
        "nothing that rests on a record leaves before the record is durable";
    ForgetPromiseAtRestart => "forget-promise-at-restart",
        "an acceptor that restarts has promised nothing",
        "a promise is kept across restarts";
    ForgetVotesAtRestart => "forget-votes-at-restart",
        "an acceptor that restarts has accepted nothing behind what it had applied",
        "a vote is kept across restarts";
    AcceptBelowPromise => "accept-below-promise",
        "an acceptor accepts with a ballot below the one it has promised",
        "nothing below the promise is accepted";
    PromiseBelowPromise => "promise-below-promise",
        "an acceptor promises a ballot below the one it has promised",
        "nothing below the promise is promised";
    TellPromisedBallot => "tell-promised-ballot",
        "a promise tells of each vote with the ballot that is promised, not the one it was cast with",
        "a promise tells the ballot of each vote";
    CheckpointForgetsVotes => "checkpoint-forgets-votes",
        "a checkpoint leaves out what was accepted in open slots",
        "a checkpoint stands for every record before it";
    CheckpointForgetsPromise => "checkpoint-forgets-promise",
        "a checkpoint leaves out the promise",
        "a checkpoint stands for every record before it";
    LearnAnyVote => "learn-any-vote",
        "a learner takes its own vote for chosen, whatever the ballot it was cast with",
        "a vote is what was chosen only if it was cast with the ballot of the leader who says so";
    ApplyOverGap => "apply-over-gap",
        "a learner applies the next batch it knows although one before it is missing",
        "batches are applied in the order of the slots";
    ApplyWhileInstalling => "apply-while-installing",
        "batches are applied while a snapshot waits to be installed",
        "nothing is applied between the record of a snapshot and its rows";
    SnapshotForgetsSessions => "snapshot-forgets-sessions",
        "a snapshot goes out without the sessions",
        "the table of sessions is part of the replicated state";
    CheckpointForgetsSessions => "paxos-checkpoint-forgets-sessions",
        "a checkpoint keeps which sessions there are, and not what they have settled",
        "a checkpoint stands for every record before it";
    RetryIsNew => "paxos-retry-is-new",
        "a command is carried out without a look at the table of sessions",
        "a stamp happens once";
    RefusalForgotten => "refusal-forgotten",
        "a write that was refused is not remembered in its session",
        "a refusal is final";
    RefusalNotReplayed => "refusal-not-replayed",
        "recovery carries out what the live run refused",
        "recovery comes to what the live run came to";
    AnswerForAnother => "answer-for-another",
        "the outcome of the batch that was chosen in a slot is told to those whose batch was not",
        "a client is told the outcome of its own command";
    DenyProposed => "deny-proposed",
        "a request that is proposed is given up as if it had not happened",
        "a failure that says no never happens later";
    ReadUnconfirmed => "read-unconfirmed",
        "a leader tells the read index without asking whether it still leads",
        "a quorum confirms the leader after a read has come";
    ReadByOlderRound => "read-by-older-round",
        "a heartbeat that was sent before a read came confirms it",
        "a quorum confirms the leader after a read has come";
    ReadBeforeRecovered => "read-before-recovered",
        "a new leader tells the read index before it has applied what phase 1 found",
        "a leader answers nobody before it has applied what it found";
    ReadBeforeApplied => "read-before-applied",
        "a replica answers a read before it has applied up to the read index",
        "a read waits until the index is applied";
    LeaseUnchecked => "lease-unchecked",
        "a leader with leases answers reads without a look at whether its lease is over",
        "reads are answered within a lease, or confirmed by a quorum";
    LeaseNotHonoured => "lease-not-honoured",
        "an acceptor promises another proposer although it has given a lease",
        "a lease forbids to promise anybody else";
    LeaseForgottenAtRestart => "lease-forgotten-at-restart",
        "an acceptor that restarts forgets the lease it may have given",
        "a lease outlives a restart";
}
