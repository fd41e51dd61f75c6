# What the nodes of one cluster say to each other.
@0xb1f0c6d1b1a40d02;

using AnyReplica = import "any_replica.capnp";
using CatchUp = import "catch_up.capnp";
using Client = import "client.capnp";
using Paxos = import "paxos.capnp";

# The first words on a link.
struct Hello {
  # Of this file; a node two versions away is refused.
  version @0 :UInt32;
  # 16 bytes, made by the node that founded the cluster; empty from one that has not joined yet.
  cluster @1 :Data;
  node @2 :UInt32;
  incarnation @3 :UInt64;
  # Where this node listens.
  address @4 :Text;
  # Of the whole cluster, from a coordinator and from replicas that do without one.
  members @5 :List(Member);
  # Likewise: the replicas that have belonged to the cluster before. One of these that comes with an
  # empty disk has lost its promises and its rows, and must not serve as if it had not.
  joined @6 :List(UInt32);
  # A node of another protocol is refused.
  protocol @7 :Protocol;
  # 0 for a node that has never lost its disk. One that has comes back in a new life, under a
  # greater number.
  life @8 :UInt64;
  # Of each in `joined`, in the same order, the life it came with last; none stands for zeros.
  lives @9 :List(UInt64);
  # Of Multi-Paxos: how many slots behind a change of members it takes effect. The same everywhere.
  window @10 :UInt64;
}

enum Protocol {
  # Two-phase commit with a coordinator process.
  twoPhase @0;
  # Two-phase commit through any replica.
  anyReplica @1;
  paxos @2;
}

struct Member {
  node @0 :UInt32;
  address @1 :Text;
}

struct Attached {
  union {
    accepted :group {
      hello @0 :Hello;
      inbox @1 :Inbox;
    }
    refused @2 :Text;
    # Nothing is wrong, but the two cannot talk yet, since one of them has not joined the cluster.
    # The introduction says what there is to learn; come again.
    notYet @3 :Hello;
  }
}

# Takes a node's messages. One call carries everything that was ready. Each protocol has a method
# of its own.
interface Inbox {
  deliver @0 (messages :List(TwoPhaseMessage)) -> ();

  # Nothing; that an answer comes says that the link lives.
  ping @1 () -> ();

  deliverPaxos @2 (messages :List(Paxos.Message)) -> ();

  deliverAnyReplica @3 (messages :List(AnyReplica.Message)) -> ();
}

struct TxnId {
  coordinator @0 :UInt32;
  epoch @1 :UInt64;
  number @2 :UInt64;
}

enum Decision {
  commit @0;
  abort @1;
}

# The messages of two-phase commit, between coordinator and participants. What is said of every
# transaction is said of many at once: consecutive prepares, yes votes, commits or acknowledgements
# that differ in what lists can hold go as one.
struct TwoPhaseMessage {
  union {
    prepares @0 :Prepares;
    vote @1 :Vote;
    abort @2 :Abort;
    acknowledgements @3 :Transactions;
    inquire @4 :TxnId;
    inform @5 :Inform;
    read @6 :Read;
    readAnswer @7 :ReadAnswer;
    recover @8 :Recover;
    recovered @9 :Recovered;
    yesVotes @10 :Transactions;
    commits @11 :Commits;
    catchUp @12 :CatchUp.Message;
    view @13 :ViewMessage;
  }
}

# Of views: which replicas a write needs, and until when a replica may serve fresh reads.
struct ViewMessage {
  union {
    announce :group {
      view @0 :UInt64;
      # Without a lease so many others have to be asked.
      others @1 :UInt32;
    }
    renew :group {
      incarnation @2 :UInt64;
      # Nanoseconds by the clock of who asks.
      at @3 :UInt64;
      view @4 :UInt64;
      # The newest commit.
      applied @14 :UInt64;
    }
    grant :group {
      incarnation @5 :UInt64;
      at @6 :UInt64;
      # Nanoseconds.
      lease @7 :UInt64;
    }
    excluded :group {
      # By this view.
      view @8 :UInt64;
      others @15 :UInt32;
    }
    ask :group {
      round @9 :UInt64;
      incarnation @10 :UInt64;
    }
    heard :group {
      round @11 :UInt64;
      incarnation @12 :UInt64;
      view @13 :UInt64;
    }
  }
}

# Of one epoch of one coordinator.
struct Transactions {
  coordinator @0 :UInt32;
  epoch @1 :UInt64;
  numbers @2 :List(UInt64);
}

# To the same participants, in the same way.
struct Prepares {
  # Of the transactions.
  coordinator @0 :UInt32;
  epoch @1 :UInt64;
  participants @2 :List(UInt32);
  finishedBelow @3 :TxnId;
  # The receiver is the only participant and decides.
  onePhase @4 :Bool;
  # Committed once every participant's promise is durable.
  parallel @5 :Bool;
  prepares @6 :List(Prepare);
  # Keys and values of those that say no more than how long these are, one behind the other.
  bytes @7 :Data;
}

struct Prepare {
  number @0 :UInt64;
  # With `onePhase` or `parallel`, of the stamp; client 0 is none.
  client @1 :UInt64;
  sequence @2 :UInt64;
  answeredBelow @3 :UInt64;
  # If one key is put, and nothing is checked: the next so many of the bytes are the key, and those
  # behind them the value. No key is empty.
  keyBytes @4 :UInt32;
  valueBytes @5 :UInt32;
  # Else, what is checked and written.
  transaction @6 :Client.Transaction;
}

# Any other than a yes.
struct Vote {
  txn @0 :TxnId;
  union {
    conflict @1 :Data;
    preconditionFailed :group {
      index @2 :UInt32;
      key @3 :Data;
    }
    refused @4 :Void;
    overloaded @5 :Void;
    failed @6 :Text;
    committed @7 :Void;
    diskFull @8 :Void;
  }
}

struct Commits {
  # Of the transactions.
  coordinator @0 :UInt32;
  epoch @1 :UInt64;
  finishedBelow @2 :TxnId;
  # The coordinator's, when it says so.
  saidIn @3 :UInt64;
  commits @4 :List(Commit);
}

struct Commit {
  number @0 :UInt64;
  # Its place in the serial order, from 1.
  commitNumber @1 :UInt64;
}

struct Abort {
  txn @0 :TxnId;
  finishedBelow @1 :TxnId;
  # The coordinator's.
  epoch @2 :UInt64;
}

struct Inform {
  txn @0 :TxnId;
  union {
    decided @1 :Decision;
    undecided @2 :Void;
  }
  # With `decided`, of a commit, its place in the serial order, from 1; else 0.
  commitNumber @3 :UInt64;
  # Of the coordinator that the sender has it from.
  epoch @4 :UInt64;
}

# A restarted coordinator: promise to prepare nothing of an older epoch, and tell what is prepared.
struct Recover {
  epoch @0 :UInt64;
  # Earlier ones were told.
  first @1 :TxnId;
}

struct Recovered {
  # As in the question.
  epoch @0 :UInt64;
  first @1 :TxnId;
  # The newest commit applied.
  applied @2 :UInt64;
  recalled @3 :List(Recalled);
  # Where to go on, if these were not all.
  next @4 :TxnId;
  hasNext @5 :Bool;
  # It has lost what it had promised.
  isOutside @6 :Bool;
}

struct Recalled {
  txn @0 :TxnId;
  participants @1 :List(UInt32);
  # Client 0 is none.
  stamp @2 :Client.Stamp;
  # Its place in the serial order, from 1; 0 if it was not told.
  commitNumber @3 :UInt64;
}

struct Query {
  union {
    get @0 :Data;
    getMany @1 :List(Data);
    scan @2 :Range;
    page @3 :Page;
  }
}

# A scan whose pages show one point in time.
struct Page {
  range @0 :Range;
  last @1 :Bool;
  of @2 :Client.Held;
}

struct Range {
  start @0 :Data;
  end @1 :Data;
  hasEnd @2 :Bool;
  limit @3 :UInt32;
}

struct Read {
  read @0 :UInt64;
  epoch @1 :UInt64;
  query @2 :Query;
}

struct ReadAnswer {
  read @0 :UInt64;
  epoch @1 :UInt64;
  union {
    value @2 :Data;
    missing @3 :Void;
    values @4 :List(Client.MaybeValue);
    rows :group {
      rows @5 :List(Client.Row);
      more @6 :Bool;
    }
    failed @7 :Text;
    page :group {
      rows @8 :List(Client.Row);
      more @9 :Bool;
      held @10 :Client.Held;
    }
    # The scan's snapshot is not held any more.
    notHeld @11 :Void;
    # It cannot be held, since too many are.
    tooManyHeld @12 :Void;
    # The values asked for have so many bytes together, too many for one message.
    tooLarge @13 :UInt64;
  }
}
