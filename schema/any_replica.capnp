# What the replicas of a two-phase commit cluster without a coordinator process say to each other.
@0xb1f0c6d1b1a40d05;

using Client = import "client.capnp";

struct Message {
  union {
    prepare @0 :Prepare;
    vote @1 :Vote;
    decide @2 :Decide;
    acknowledge @3 :TxnId;
    inquire @4 :TxnId;
    inform @5 :Inform;
  }
}

struct TxnId {
  # The replica that a client asked, which decides.
  coordinator @0 :UInt32;
  epoch @1 :UInt64;
  number @2 :UInt64;
}

# When a transaction began; who is older wins.
struct Age {
  clock @0 :UInt64;
  # The name of its first try.
  first @1 :TxnId;
}

enum Decision {
  commit @0;
  abort @1;
}

struct Prepare {
  txn @0 :TxnId;
  age @1 :Age;
  participants @2 :List(UInt32);
  # Everything below it is over.
  finishedBelow @3 :TxnId;
  union {
    # The client whose session begins.
    openSession @4 :UInt64;
    write @5 :Work;
  }
}

struct Work {
  # Client 0 is none.
  stamp @0 :Client.Stamp;
  writes @1 :List(Client.Write);
  # Keys that preconditions speak of and no write does.
  checked @2 :List(Data);
}

struct Vote {
  txn @0 :TxnId;
  # The sender's Lamport clock.
  clock @1 :UInt64;
  union {
    yes @2 :Void;
    # The contended key.
    conflict @3 :Data;
    inFlight @4 :Void;
    committed @5 :Void;
    # The precondition that did not hold, when this very write was tried before.
    preconditionFailed @6 :UInt32;
    staleSequence @7 :Void;
    sessionExpired @8 :Void;
    refused @9 :Void;
    overloaded @10 :Void;
    diskFull @11 :Void;
    absent @12 :Void;
  }
}

struct Decide {
  txn @0 :TxnId;
  decision @1 :Decision;
  finishedBelow @2 :TxnId;
}

struct Inform {
  txn @0 :TxnId;
  union {
    decided @1 :Decision;
    undecided @2 :Void;
  }
}
