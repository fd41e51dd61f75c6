# What the replicas of a Multi-Paxos cluster say to each other. Slots and sessions count from 1.
@0xb1f0c6d1b1a40d04;

using Client = import "client.capnp";

struct Message {
  union {
    preVote @0 :PreVote;
    preVoteAnswer @1 :PreVoteAnswer;
    prepare @2 :Prepare;
    promise @3 :Promise;
    accept @4 :Accept;
    accepted @5 :Vote;
    # The ballot that is promised.
    refused @6 :Ballot;
    heartbeat @7 :Heartbeat;
    heartbeatAck @8 :HeartbeatAck;
    readIndex @9 :ReadName;
    readIndexIs @10 :ReadIndex;
    # The first slot that the sender does not know.
    learn @11 :UInt64;
    learned @12 :Learned;
    # The first slot still there.
    truncated @13 :UInt64;
    fetchSnapshot @14 :FetchSnapshot;
    snapshotPiece @15 :SnapshotPiece;
    # Which.
    snapshotGone @16 :UInt64;
    # The life that asks to be let in.
    join @17 :UInt64;
    # The leader would like the receiver to take over; its ballot.
    takeOver @18 :Ballot;
  }
}

struct Ballot {
  round @0 :UInt64;
  node @1 :UInt32;
}

struct Member {
  node @0 :UInt32;
  life @1 :UInt64;
}

# What is chosen in a slot.
struct Batch {
  # The ballot it was first proposed with.
  origin @0 :Ballot;
  commands @1 :List(Command);
}

struct Command {
  union {
    openSession @0 :Void;
    # The stamp is part of it, since there is one in almost every command; client 0 is none.
    transact :group {
      client @1 :UInt64;
      sequence @2 :UInt64;
      answeredBelow @3 :UInt64;
      transaction @4 :Client.Transaction;
    }
    changeMembers @5 :List(Member);
  }
}

struct PreVote {
  ballot @0 :Ballot;
  # The ballot of the leader that has asked the sender to take over; null if none has.
  insteadOf @1 :Ballot;
}

struct PreVoteAnswer {
  ballot @0 :Ballot;
  life @1 :UInt64;
  granted @2 :Bool;
  # The highest ballot the sender has heard of.
  seen @3 :Ballot;
}

struct Prepare {
  ballot @0 :Ballot;
  from @1 :UInt64;
}

struct Promise {
  ballot @0 :Ballot;
  life @1 :UInt64;
  # This slot and all before it are chosen and known to the sender.
  chosen @2 :UInt64;
  accepted @3 :List(Accepted);
  # Ask again from there; 0 if there is no more.
  more @4 :UInt64;
}

# What an acceptor has accepted in a slot, and with which ballot.
struct Accepted {
  slot @0 :UInt64;
  ballot @1 :Ballot;
  batch @2 :Batch;
}

struct Accept {
  ballot @0 :Ballot;
  slot @1 :UInt64;
  batch @2 :Batch;
  chosen @3 :UInt64;
}

struct Vote {
  ballot @0 :Ballot;
  slot @1 :UInt64;
  life @2 :UInt64;
}

struct Heartbeat {
  ballot @0 :Ballot;
  chosen @1 :UInt64;
  # Counts within the ballot.
  round @2 :UInt64;
}

struct HeartbeatAck {
  ballot @0 :Ballot;
  round @1 :UInt64;
  life @2 :UInt64;
}

# Names a question for the read index: the asker's incarnation, and a number within it.
struct ReadName {
  incarnation @0 :UInt64;
  number @1 :UInt64;
}

struct ReadIndex {
  name @0 :ReadName;
  index @1 :UInt64;
}

struct Learned {
  from @0 :UInt64;
  batches @1 :List(Batch);
  chosen @2 :UInt64;
  leader @3 :Ballot;
}

struct FetchSnapshot {
  # The newest, if `isNewest`.
  snapshot @0 :UInt64;
  isNewest @1 :Bool;
  # Rows from this key on.
  from @2 :Data;
}

struct SnapshotPiece {
  snapshot @0 :UInt64;
  from @1 :Data;
  rows @2 :List(Client.Row);
  # With the last piece: what is not rows.
  isLast @3 :Bool;
  replicated @4 :Replicated;
}

# What follows from the batches up to a slot, besides the rows.
struct Replicated {
  applied @0 :UInt64;
  members @1 :List(MembersFrom);
  nextClient @2 :UInt64;
  # Least recently used first.
  sessions @3 :List(Session);
}

struct MembersFrom {
  slot @0 :UInt64;
  members @1 :List(Member);
}

struct Session {
  client @0 :UInt64;
  answeredBelow @1 :UInt64;
  settled @2 :List(Settled);
}

struct Settled {
  sequence @0 :UInt64;
  union {
    committed @1 :Void;
    # Which precondition did not hold, from 0.
    refused @2 :UInt32;
  }
}
